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
    """The analyses of `text`; a UserError for one that does not exist or arguments that do not fit."""
    return opstrings.parse(text, analyses, leading=4, key="eval.analyses")


def check(
    text: str,
    model: nn.Module,
    variables: Any,
    normalise: DeviceTransform,
    image_shape: tuple[int, ...],
) -> None:
    """Traces the analyses of `text` on uint8 images of `image_shape` (h, w, c); `variables` may be
    shapes.

    Raises:
      UserError: a network that has not what an analysis looks for.
    """
    of = jax.ShapeDtypeStruct
    batch = {
        "image": of((2, *image_shape), np.uint8),
        "label": of((2,), np.int32),
        "mask": of((2,), np.bool_),
    }
    jax.eval_shape(functools.partial(_figures, text, model, normalise), variables, batch)


def compute(
    text: str,
    model: nn.Module,
    variables: Any,
    batch: dict[str, jax.Array],
    normalise: DeviceTransform,
) -> dict[str, float]:
    """The figures of `text` by name, such as `dead_units` and `dead_units/h0`; empty for an empty
    text.

    `batch` is one of `Pipeline.eval_batches`, whose images `normalise` makes ready for the network.
    Compiled once for each text, model and `normalise`.
    """
    return {
        name: float(value)
        for name, value in _figures(text, model, normalise, variables, batch).items()
    }


@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _figures(
    text: str,
    model: nn.Module,
    normalise: DeviceTransform,
    variables: Any,
    batch: dict[str, jax.Array],
) -> analyses.Figures:
    # What fills up a batch repeats its first image, so that no figure comes of what no data set
    # holds.
    real = batch["mask"]
    image = jnp.where(real[:, None, None, None], batch["image"], batch["image"][:1])
    label = jnp.where(real, batch["label"], batch["label"][:1])
    image = normalise(image, jax.random.key(0))
    figures: analyses.Figures = {}
    for op in parse(text):
        figures |= op(model, variables, image, label)
    return figures
