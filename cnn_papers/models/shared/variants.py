"""Builds a variant of a network and checks its fields and its image's size."""

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
    """Returns `module` with the fields of `variants[variant]`.

    `fields` that are not None replace the variant's.

    Raises:
      ValueError: an unknown variant (with the list), or a field that the module does not have.
    """
    if variant not in variants:
        raise ValueError(f"unknown model.variant '{variant}'; there are: {', '.join(variants)}")
    given = {
        name: tuple(value) if isinstance(value, list) else value  # a network can be hashed
        for name, value in fields.items()
        if value is not None
    }
    names = set(inspect.signature(module).parameters) - {"parent", "name"}
    if unknown := sorted(set(given) - names):
        raise ValueError(
            f"unknown model field '{unknown[0]}'; there are: variant, {', '.join(sorted(names))}"
        )
    return module(**{**variants[variant], **given})


def check_choices(model: Any, choices: Mapping[str, Sequence[Any]]) -> None:
    """Raises a ValueError if a field of `model` has none of the values that `choices` lists."""
    for field, values in choices.items():
        if (value := getattr(model, field)) not in values:
            raise ValueError(
                f"unknown model.{field} '{value}'; there are: {', '.join(map(str, values))}"
            )


def refuse_small_images(call: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a network's `__call__` so that an image too small for it raises a ValueError.

    An image is too small if an endpoint has no pixels left; the message names the first such
    layer. The layers themselves let an empty map pass, so that the check stands in one place and
    needs no formula of sizes. It reads shapes only: under `jax.jit` it comes before any
    computation. Goes under `nn.compact`.
    """

    @functools.wraps(call)
    def checked(self: Any, image: jax.Array, **options: Any) -> Any:
        logits, ends = call(self, image, **options)
        for name, end in ends.items():
            if 0 in end.shape[1:3]:
                height, width = image.shape[1:3]
                raise ValueError(
                    f"an image of {height}×{width} is too small: {name} has no pixels left"
                )
        return logits, ends

    return checked
