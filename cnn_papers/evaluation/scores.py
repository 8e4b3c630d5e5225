"""What a network makes of one view: class probabilities, summed over the looks it takes at it.

Each function takes a model, its variables and float images [n, h, w, c] of one shape; it gives
float32 [n, classes] and how many looks went into each row's sum.
"""

from typing import Any

import jax
import jax.numpy as jnp

from cnn_papers.evaluation import views

Scored = tuple[jax.Array, int]


def softmax(model: Any, variables: Any, image: jax.Array) -> Scored:
    """The softmax of the logits; of a view larger than the network's input they are averages of a
    map of scores.
    """
    return jax.nn.softmax(model.apply(variables, image)[0]), 1


def spatial_max(model: Any, variables: Any, image: jax.Array, *, fine: bool) -> Scored:
    """For each class the greatest softmax output at any position of the map (OverFeat §3.3), which
    add up to over one.

    With `fine` the last pooling is applied at every offset.
    """
    logits, ends = model.clone(fine=fine).apply(variables, image)
    scores = list(ends.values())[
        -1
    ]  # the last layer's map [n, a, b, classes], whose mean the logits are
    assert scores.shape[-1] == logits.shape[-1] and scores.ndim == 4
    return jax.nn.softmax(scores.astype(jnp.float32)).max((1, 2)), 1


def windows(model: Any, variables: Any, image: jax.Array, *, size: int) -> Scored:
    """The softmax of nine windows of size×size of the one feature map, or three (SPP-net §3.1.5)."""
    boxes = jnp.asarray(views.nine_windows(image.shape[1], image.shape[2], size), jnp.float32)
    boxes = jnp.broadcast_to(boxes[None], (len(image), *boxes.shape))
    logits = model.apply(variables, image, windows=boxes)[0]
    return jax.nn.softmax(logits).sum(1), boxes.shape[1]
