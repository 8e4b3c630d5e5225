"""Builds a variant of a network and checks its fields and its image size."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax


def build(
    module: Callable[..., nn.Module],
    variants: Mapping[str, Mapping[str, Any]],
    variant: str,
    fields: Mapping[str, Any],
) -> Any:
    """Makes `module` as `variants[variant]` says, with `fields` that are not None on top.

    Raises:
      ValueError: unknown variant (with the list) or a field the module does not have.
    """
    if variant not in variants:
        raise ValueError(f"unknown model.variant '{variant}'; there are: {', '.join(variants)}")
    given = {name: value for name, value in fields.items() if value is not None}
    known = set(inspect.signature(module).parameters) - {"parent", "name"}
    if unknown := sorted(set(given) - known):
        raise ValueError(
            f"unknown model field '{unknown[0]}'; there are: variant, {', '.join(sorted(known))}"
        )
    return module(**{**variants[variant], **given})


def check_choices(model: Any, choices: Mapping[str, Sequence[Any]]) -> None:
    """Raises a ValueError, with the list, where a field of `model` is none of the values `choices`
    has for it.
    """
    for field, values in choices.items():
        if (value := getattr(model, field)) not in values:
            raise ValueError(
                f"unknown model.{field} '{value}'; there are: {', '.join(map(str, values))}"
            )


def refuse_small_images(call: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a network's `__call__` (under `nn.compact`): an image too small for it is a
    ValueError.

    Too small means that an endpoint has no pixels left. The message names the first such layer and
    the smallest square image that works, found by tracing the network at other sizes; all of it
    happens before anything is computed when the call is jitted. `probing` returns what there is
    instead, empty maps included.
    """

    @functools.wraps(call)
    def checked(self: Any, image: jax.Array, *, probing: bool = False, **options: Any) -> Any:
        logits, ends = call(self, image, **options)
        empty = next((name for name, end in ends.items() if 0 in end.shape[1:3]), None)
        if probing or empty is None:
            return logits, ends
        h, w = image.shape[1:3]
        works = functools.partial(_has_pixels_everywhere, self, image, options)
        too_small, enough = min(h, w), max(1, 2 * min(h, w))
        while not works(enough):
            too_small, enough = enough, 2 * enough
        while enough - too_small > 1:
            middle = (too_small + enough) // 2
            too_small, enough = (too_small, middle) if works(middle) else (middle, enough)
        raise ValueError(
            f"an image of {h}×{w} is too small: {empty} has no pixels left; "
            f"the smallest square image this network takes is {enough}×{enough}"
        )

    return checked


def _has_pixels_everywhere(
    model: nn.Module, image: jax.Array, options: Mapping[str, Any], side: int
) -> bool:
    """Whether `model` (bound to its parameters, or being initialised) has no empty endpoint at
    side×side pixels.
    """
    variables = {} if model.is_initializing() else model.variables
    rngs = {name: jax.random.key(0) for name in ("params", "dropout")}

    def endpoints(variables: Any, image: jax.Array) -> dict[str, jax.Array]:
        net = model.clone(parent=None)
        if variables:
            (_, ends), _ = net.apply(
                variables, image, rngs=rngs, mutable=True, probing=True, **options
            )
        else:
            (_, ends), _ = net.init_with_output(rngs, image, probing=True, **options)
        return ends

    probe = jax.ShapeDtypeStruct((1, side, side, image.shape[-1]), image.dtype)
    return not any(
        0 in end.shape[1:3] for end in jax.eval_shape(endpoints, variables, probe).values()
    )
