"""Which test protocols a network can serve, found by tracing it: nothing is compiled or read."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from cnn_papers import opstrings
from cnn_papers.errors import UserError
from cnn_papers.evaluation import protocols
from cnn_papers.evaluation.protocols import Protocol

KEY = "eval.protocol"
NEEDS = {  # what `Part.needs` means, in words
    "slide": "a network that slides over images larger than its input",
    "offsets": "a network that pools last at every offset (model_name overfeat)",
    "windows": "a network with a spatial pyramid (model_name spp with model.levels)",
}


def parse(text: str) -> dict[str, Protocol]:
    """The protocols of `config.eval.protocol`, each under its own text.

    Raises:
      UserError: text that does not parse, an unknown protocol, arguments that make no sense, none
      or one twice.
    """
    parts = opstrings.split(text)
    ops = opstrings.parse(text, protocols, leading=0, key=KEY)
    if not parts or len(set(parts)) < len(parts):
        known = ", ".join(opstrings.functions(protocols))
        raise UserError(
            f"config.{KEY}='{text}' must name one or more different protocols, joined by '|', of: {known}"
        )
    return {part: op() for part, op in zip(parts, ops, strict=True)}


def supported(
    text: str,
    model: Any,
    variables: Any,
    normalise: Any,
    shape: tuple[int, ...],
    *,
    mirror: bool = True,
    precise_bn: int = 0,
) -> dict[str, Protocol]:
    """Parses the protocols of `config.eval` and checks that the network can serve them all.

    Args:
      text: `config.eval.protocol`; `mirror` and `precise_bn` are the keys beside it.
      normalise: makes float images of uint8 ones.
      shape: (h, w, c) that evaluation during training gives `normalise`.

    Raises:
      UserError: a protocol that the network cannot serve, or batch statistics that it does not
      have.
    """
    protocols = parse(text)
    if not mirror:
        protocols = {
            name: tuple(part._replace(mirrored=False) for part in protocol)
            for name, protocol in protocols.items()
        }
    for name, protocol in protocols.items():
        check(name, protocol, model, variables, normalise, shape)
    if precise_bn and not variables.get("batch_stats"):
        raise UserError(
            "config.eval.precise_bn: this network has no batch normalisation; set it to 0"
        )
    return protocols


def check(
    name: str,
    protocol: Protocol,
    model: Any,
    variables: Any,
    normalise: Any,
    shape: tuple[int, ...],
) -> None:
    """Raises UserError, which says what can be done, unless the network can take all views of a
    protocol.

    `normalise` makes float images of uint8 ones, and `shape` (h, w, c) is what evaluation during
    training gives it.
    """
    for part in protocol:
        if not _can(part.needs, model, variables, normalise, shape):
            served = ", ".join(_served(model, variables, normalise, shape))
            raise UserError(
                f"config.{KEY}: {name} needs {NEEDS[part.needs]}; this one can serve: {served}"
            )
        for height, width in part.sizes:
            size = f"{height}×{width}"
            try:
                image = _viewed(normalise, (height, width, shape[-1]))
            except UserError as error:
                native = "×".join(map(str, shape[:2]))
                raise UserError(
                    f"config.{KEY}: {name} has views of {size}, but config.data.eval_device fits images of {native} "
                    f"alone, as a mean image does; subtract_mean and standardize take any size ({error})"
                ) from error
            try:
                jax.eval_shape(
                    lambda v, x, score=part.score: score(model, v, x)[0], variables, image
                )
            except (TypeError, ValueError, FlaxError) as error:
                raise UserError(
                    f"config.{KEY}: {name} has views of {size}: {str(error).splitlines()[0]}"
                ) from error


def _served(model: Any, variables: Any, normalise: Any, shape: tuple[int, ...]) -> list[str]:
    """The names of the protocols that the network can serve, at some sizes at least."""
    defaults = {name: make() for name, make in opstrings.functions(protocols).items()}
    return [
        name
        for name, protocol in defaults.items()
        if all(_can(part.needs, model, variables, normalise, shape) for part in protocol)
    ]


def _can(needs: str, model: Any, variables: Any, normalise: Any, shape: tuple[int, ...]) -> bool:
    """Whether a network has what `Part.needs` asks for."""
    if needs == "slide":
        image = _viewed(normalise, shape)
        larger = jax.ShapeDtypeStruct(
            (1, 2 * image.shape[1], 2 * image.shape[2], image.shape[3]), jnp.float32
        )
        try:
            jax.eval_shape(lambda v, x: model.apply(v, x)[0], variables, larger)
        except (TypeError, ValueError, FlaxError):
            return False
    return (needs != "offsets" or hasattr(model, "fine")) and (
        needs != "windows" or bool(getattr(model, "levels", ()))
    )


def _viewed(normalise: Any, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.eval_shape(normalise, jax.ShapeDtypeStruct((1, *shape), np.uint8), jax.random.key(0))
