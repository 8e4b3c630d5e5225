"""Class probabilities of one view, from the network's output.

Each function takes a model, its variables and float images [n, h, w, c] of one shape. It returns
float32 [n, classes], a sum of class probabilities, and the number of terms of the sum.
"""

from typing import Any

import jax
import jax.numpy as jnp

from cnn_papers.evaluation import views

Scored = tuple[jax.Array, int]


def softmax(model: Any, variables: Any, image: jax.Array) -> Scored:
    """Returns the softmax of the logits.

    For a view larger than the network's input, the logits are averages of a map of scores.
    """
    return jax.nn.softmax(model.apply(variables, image)[0]), 1


def spatial_max(model: Any, variables: Any, image: jax.Array, *, fine: bool) -> Scored:
    """Returns the largest softmax output of each class at any position (OverFeat §3.3).

    They add up to more than one. With `fine` the last pooling is applied at every offset.
    """
    logits, ends = model.clone(fine=fine).apply(variables, image)
    scores = list(ends.values())[-1]  # the last layer's map [n, a, b, classes]; logits are its mean
    assert scores.shape[-1] == logits.shape[-1] and scores.ndim == 4
    return jax.nn.softmax(scores.astype(jnp.float32)).max((1, 2)), 1


def windows(model: Any, variables: Any, image: jax.Array, *, size: int) -> Scored:
    """Returns the softmax of nine windows of size×size, or three, of one feature map.

    The windows are those of SPP-net (§3.1.5).
    """
    boxes = jnp.asarray(views.nine_windows(image.shape[1], image.shape[2], size), jnp.float32)
    boxes = jnp.broadcast_to(boxes[None], (len(image), *boxes.shape))
    logits = model.apply(variables, image, windows=boxes)[0]
    return jax.nn.softmax(logits).sum(1), boxes.shape[1]
