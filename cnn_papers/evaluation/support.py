"""Checks by tracing which test protocols a network can serve; nothing is compiled or read."""

from collections.abc import Callable
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax.errors import FlaxError

from cnn_papers import opstrings
from cnn_papers.errors import UserError
from cnn_papers.evaluation import protocols
from cnn_papers.evaluation.protocols import Part, Protocol, Svm

KEY = "eval.protocol"
NEEDS = {  # `Part.needs` in words
    "slide": "a network that slides over images larger than its input",
    "offsets": "a network that pools last at every offset (model_name overfeat)",
    "windows": "a network with a spatial pyramid (model_name spp with model.levels)",
}


def parse(text: str, module: ModuleType = protocols) -> dict[str, Any]:
    """Returns the protocols of `config.eval.protocol`, each by its own text.

    `module` has the functions that return them.

    Raises:
      UserError: text that does not parse, an unknown protocol, arguments that make no sense, no
        protocol, or one that is named twice.
    """
    parts = opstrings.split(text)
    ops = opstrings.parse(text, module, leading=0, key=KEY)
    if not parts or len(set(parts)) < len(parts):
        names = ", ".join(opstrings.functions(module))
        raise UserError(
            f"config.{KEY}='{text}' must name one or more different protocols, "
            f"joined by '|', of: {names}"
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
    describe: Callable[[np.ndarray], np.ndarray] | None = None,
) -> dict[str, Protocol | Svm]:
    """Returns the protocols of `config.eval`, checked to be ones that the network can serve.

    Args:
      text: `config.eval.protocol`; `mirror` and `precise_bn` are the keys beside it.
      variables: of the network, or their shapes.
      normalise: device operations of evaluation.
      shape: (h, w, c) of the images that evaluation during training gives to `normalise`.
      describe: takes each view of an image, uint8 [h, w, c], to what the network takes in its
        place, such as its descriptors.

    Raises:
      UserError: a protocol that the network cannot serve, or batch statistics that it does not
        have.
    """
    protocols = parse(text)
    if not mirror:
        protocols = {name: _without_mirrors(protocol) for name, protocol in protocols.items()}
    if describe:
        protocols = {
            name: _described(name, protocol, describe) for name, protocol in protocols.items()
        }
    for name, protocol in protocols.items():
        check(name, protocol, model, variables, normalise, shape)
    check_precise_bn(precise_bn, variables)
    return protocols


def check_precise_bn(batches: int, variables: Any) -> None:
    """Raises UserError if `config.eval.precise_bn` asks for batch statistics that are not there."""
    if batches and not variables.get("batch_stats"):
        raise UserError(
            "config.eval.precise_bn: this network has no batch normalisation; set it to 0"
        )


def check_windows(model: Any) -> None:
    """Raises UserError unless the network can pool the windows of a feature map."""
    if not _has_windows(model):
        raise UserError(f"windows of a feature map need {NEEDS['windows']}")


def check(
    name: str,
    protocol: Protocol | Svm,
    model: Any,
    variables: Any,
    normalise: Any,
    shape: tuple[int, ...],
) -> None:
    """Raises UserError unless the network can take all views of a protocol.

    The arguments are those of `supported`.
    """
    for part in _parts(protocol):
        if not _can(part.needs, model, variables, normalise, shape):
            served = ", ".join(_served(model, variables, normalise, shape))
            raise UserError(
                f"config.{KEY}: {name} needs {NEEDS[part.needs]}; this one can serve: {served}"
            )
        own_size = (shape[:2],) if isinstance(protocol, Svm) else ()  # to find the layer
        for height, width in part.sizes or own_size:
            size = f"{height}×{width}"
            try:
                image = _viewed(normalise, (height, width, shape[-1]))
            except UserError as error:
                native = "×".join(map(str, shape[:2]))
                raise UserError(
                    f"config.{KEY}: {name} has views of {size}, but config.data.eval_device fits "
                    f"only images of {native}, as a mean image does; subtract_mean, standardize "
                    f"and subtract_mean_image(warp=True) take any size ({error})"
                ) from error
            try:
                jax.eval_shape(
                    lambda v, x, score=part.score: score(model, v, x)[0], variables, image
                )
            except (TypeError, ValueError, FlaxError) as error:
                raise UserError(
                    f"config.{KEY}: {name} has views of {size}: {str(error).splitlines()[0]}"
                ) from error


def _parts(protocol: Protocol | Svm) -> tuple[Part, ...]:
    return (protocol.part,) if isinstance(protocol, Svm) else protocol


def _without_mirrors(protocol: Protocol | Svm) -> Protocol | Svm:
    if isinstance(protocol, Svm):
        features = f"{protocol.features} without mirror images"
        return protocol._replace(features=features, part=protocol.part._replace(mirrored=False))
    return tuple(part._replace(mirrored=False) for part in protocol)


def _described(
    name: str, protocol: Protocol | Svm, describe: Callable[[np.ndarray], np.ndarray]
) -> Protocol | Svm:
    """Returns a protocol with `describe` after its views; prepared ones are described already."""
    if isinstance(protocol, Svm):
        return protocol._replace(part=_described_part(name, protocol.part, describe))
    return tuple(_described_part(name, part, describe) for part in protocol)


def _described_part(name: str, part: Part, describe: Callable[[np.ndarray], np.ndarray]) -> Part:
    if part.prepared:
        return part

    def views(image: np.ndarray, method: str) -> list[np.ndarray]:
        return [describe(view) for view in part.views(image, method)]

    try:
        shapes = [describe(np.zeros((*size, 3), np.uint8)).shape for size in part.sizes]
    except ValueError as error:
        raise UserError(f"config.{KEY}: {name}: {error}") from error
    return part._replace(views=views, sizes=tuple((shape[0], shape[1]) for shape in shapes))


def _served(model: Any, variables: Any, normalise: Any, shape: tuple[int, ...]) -> list[str]:
    """Returns the names of the protocols that the network can serve, at some sizes at least."""
    defaults = {name: make() for name, make in opstrings.functions(protocols).items()}
    return [
        name
        for name, protocol in defaults.items()
        if all(_can(part.needs, model, variables, normalise, shape) for part in _parts(protocol))
    ]


def _can(needs: str, model: Any, variables: Any, normalise: Any, shape: tuple[int, ...]) -> bool:
    """Tells whether a network has what `Part.needs` asks for."""
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
        needs != "windows" or _has_windows(model)
    )


def _has_windows(model: Any) -> bool:
    return bool(getattr(model, "levels", ()))


def _viewed(normalise: Any, shape: tuple[int, ...]) -> jax.ShapeDtypeStruct:
    return jax.eval_shape(normalise, jax.ShapeDtypeStruct((1, *shape), np.uint8), jax.random.key(0))
