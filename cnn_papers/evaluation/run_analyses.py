"""Runs the analyses that `config.eval.analyses` names, on one batch of the evaluation split."""

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers import opstrings
from cnn_papers.data.augment import DeviceTransform
from cnn_papers.evaluation import analyses


def parse(text: str) -> tuple[opstrings.Op, ...]:
    """Parses `config.eval.analyses`; UserError for an unknown name or arguments that do not fit."""
    return opstrings.parse(text, analyses, leading=4, key="eval.analyses")


def check(
    text: str,
    model: nn.Module,
    variables: Any,
    normalise: DeviceTransform,
    image_shape: tuple[int, ...],
) -> None:
    """Traces the analyses of `text` on uint8 images of `image_shape` (h, w, c).

    `variables` may be shapes.

    Raises:
      UserError: a network without the layers that an analysis needs.
    """
    batch = {
        "image": jax.ShapeDtypeStruct((2, *image_shape), np.uint8),
        "label": jax.ShapeDtypeStruct((2,), np.int32),
        "mask": jax.ShapeDtypeStruct((2,), np.bool_),
    }
    jax.eval_shape(functools.partial(_values, text, model, normalise), variables, batch)


def compute(
    text: str,
    model: nn.Module,
    variables: Any,
    batch: dict[str, jax.Array],
    normalise: DeviceTransform,
) -> dict[str, float]:
    """Returns the values of the analyses by name, such as `dead_units` and `dead_units/h0`.

    `batch` is one of `Pipeline.eval_batches`, whose images `normalise` makes ready for the network.
    The program is compiled once for each text, model and `normalise`.
    """
    return {
        name: float(value)
        for name, value in _values(text, model, normalise, variables, batch).items()
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _values(
    text: str,
    model: nn.Module,
    normalise: DeviceTransform,
    variables: Any,
    batch: dict[str, jax.Array],
) -> analyses.Values:
    # The images that fill up a batch are replaced by its first image.
    is_example = batch["mask"]
    image = jnp.where(is_example[:, None, None, None], batch["image"], batch["image"][:1])
    label = jnp.where(is_example, batch["label"], batch["label"][:1])
    image = normalise(image, jax.random.key(0))
    values: analyses.Values = {}
    for op in parse(text):
        values |= op(model, variables, image, label)
    return values
