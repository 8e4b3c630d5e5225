"""Class probabilities of one view, from the network's output; or scores, or outputs of a layer.

Each function takes a model, its variables and float images [n, h, w, c] of one shape. It returns
float32 [n, classes], a sum of class probabilities, and the number of terms of the sum.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from cnn_papers.errors import UserError
from cnn_papers.evaluation import views

Scored = tuple[jax.Array, int]


def softmax(model: Any, variables: Any, image: jax.Array) -> Scored:
    """Returns the softmax of the logits.

    For a view larger than the network's input, the logits are averages of a map of scores.
    """
    return jax.nn.softmax(model.apply(variables, image)[0]), 1


def linear(model: Any, variables: Any, image: jax.Array) -> Scored:
    """Returns the logits, for classes of which an image may have several."""
    return model.apply(variables, image)[0], 1


def without_softmax(score: Callable[..., Scored]) -> Callable[..., Scored]:
    """Returns the function that scores by logits where `score`, of this file, has probabilities."""
    return linear if score is softmax else functools.partial(score, squash=_itself)


def _itself(logits: jax.Array) -> jax.Array:
    return logits


def spatial_max(
    model: Any, variables: Any, image: jax.Array, *, fine: bool, squash: Any = jax.nn.softmax
) -> Scored:
    """Returns the largest softmax output of each class at any position (OverFeat §3.3).

    They add up to more than one. With `fine` the last pooling is applied at every offset.
    """
    logits, ends = model.clone(fine=fine).apply(variables, image)
    scores = list(ends.values())[-1]  # the last layer's map [n, a, b, classes]; logits are its mean
    assert scores.shape[-1] == logits.shape[-1] and scores.ndim == 4
    return squash(scores.astype(jnp.float32)).max((1, 2)), 1


def windows(
    model: Any, variables: Any, image: jax.Array, *, size: int, squash: Any = jax.nn.softmax
) -> Scored:
    """Returns the softmax of nine windows of size×size, or three, of one feature map.

    The windows are those of SPP-net (§3.1.5).
    """
    boxes = jnp.asarray(views.nine_windows(image.shape[1], image.shape[2], size), jnp.float32)
    boxes = jnp.broadcast_to(boxes[None], (len(image), *boxes.shape))
    logits = model.apply(variables, image, windows=boxes)[0]
    return squash(logits).sum(1), boxes.shape[1]


def of_layer(endpoints: dict[str, jax.Array], layer: str) -> jax.Array:
    """Returns the outputs of the layer of that name as float32; UserError if there is none."""
    if layer not in endpoints:
        raise UserError(f"the network has no layer '{layer}'; there are: {', '.join(endpoints)}")
    return endpoints[layer].astype(jnp.float32)


def layer_outputs(
    model: Any, variables: Any, image: jax.Array, *, layer: str, pool: str = ""
) -> Scored:
    """Returns the outputs of a layer, float32 [n, d].

    Args:
      layer: its name.
      pool: "mean" or "max" over the positions of a map; "" keeps the outputs of all positions.

    Raises:
      UserError: the network has no such layer, or it gives no map to pool.
    """
    outputs = of_layer(model.apply(variables, image)[1], layer)
    if pool and outputs.ndim != 4:
        raise UserError(f"layer '{layer}' gives no map: pool='{pool}' has no positions")
    if pool:
        outputs = outputs.mean((1, 2)) if pool == "mean" else outputs.max((1, 2))
    return outputs.reshape(len(outputs), -1), 1
