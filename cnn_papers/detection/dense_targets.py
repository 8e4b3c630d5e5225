"""What the windows of a map of scores should give, computed from the true boxes in the train step.

A window is the square that a position of OverFeat's map sees. Since windows are squares and objects
are not, a window is compared with the square around an object, which has the object's centre and
its longer side: the IoU of both is large where the window is at the object's place and scale. It is
called the window's fit.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnn_papers import boxes as geometry
from cnn_papers.boxes import NONE, area, intersection, iou
from cnn_papers.training.step import Batch


class Nearest(NamedTuple):
    """The object of each window of n images: the one that it fits best of those it sees enough of.

    Attributes:
      window: float32 [1, p, 4].
      box: float32 [n, p, 4].
      label: int32 [n, p]; `boxes.NONE` where there is no such object.
      difficult: bool [n, p].
      fit: float32 [n, p]; 0 where there is none.
    """

    window: jax.Array
    box: jax.Array
    label: jax.Array
    difficult: jax.Array
    fit: jax.Array


class Regression(NamedTuple):
    """What the regressor should give: `box` [n, p, 4] where `learns` [n, p].

    `window` [1, p, 4] and `label` [n, p] are as in Nearest.
    """

    window: jax.Array
    box: jax.Array
    label: jax.Array
    learns: jax.Array


def nearest(model: Any, batch: Batch, *, train: bool, share: float = 0.0) -> Nearest:
    """Returns the object of each window of a batch whose images are prepared.

    Args:
      model: an OverFeat with a window.
      batch: `image` [n, h, w, c] and the objects on it.
      train: whether the windows are those of the network in training.
      share: the smallest share of an object's area that a window must see.
    """
    positions = model.geometry(train=train)
    windows = positions.windows(*positions.shape(*batch["image"].shape[1:3])).reshape(-1, 4)

    def of_image(
        boxes: jax.Array, classes: jax.Array, difficult: jax.Array
    ) -> tuple[jax.Array, ...]:
        # [p, m]: of every window and object
        areas = jnp.maximum(area(boxes), 1e-6)[None]
        shares = intersection(windows[:, None], boxes[None]) / areas
        fits = iou(windows[:, None], squares(boxes)[None])
        fits = jnp.where((classes != NONE)[None] & (shares >= share), fits, 0)
        row = fits.argmax(1)
        fit = fits.max(1)
        label = jnp.where(fit > 0, classes[row], NONE)
        return boxes[row], label, difficult[row] & (fit > 0), fit

    objects = batch["boxes"], batch["classes"], batch["difficult"]
    return Nearest(windows[None], *jax.vmap(of_image)(*objects))


def squares(box: jax.Array) -> jax.Array:
    """Returns the squares around boxes [..., 4]: of their centres and their longer sides."""
    center = (box[..., :2] + box[..., 2:]) / 2
    half = (box[..., 2:] - box[..., :2]).max(-1, keepdims=True) / 2
    return jnp.concatenate([center - half, center + half], -1)


def box_sums(edges: jax.Array, targets: Regression) -> dict[str, jax.Array]:
    """Returns sums over the windows that the regressor learns from.

    They are `squares`, the squared ℓ2 distances of edges in sides of the window (OverFeat §4.2),
    `overlaps`, the IoU of the boxes that it gives, and `windows`, their number.

    Args:
      edges: the regressor's map, [n, a, b, 4] or, with edges for each class, [n, a, b, classes, 4].
    """
    n, p = targets.label.shape
    edges = edges.astype(jnp.float32).reshape(n, p, -1, 4)
    column = jnp.clip(targets.label, 0, edges.shape[2] - 1)  # the only one, where classes share it
    edges = jnp.take_along_axis(edges, column[..., None, None], 2)[:, :, 0]
    distance = jnp.square(edges - geometry.relative(targets.box, targets.window)).sum(-1)
    overlap = iou(geometry.absolute(edges, targets.window), targets.box)
    return {
        "squares": jnp.where(targets.learns, distance, 0).sum(),
        "overlaps": jnp.where(targets.learns, overlap, 0).sum(),
        "windows": targets.learns.sum(dtype=jnp.float32),
    }


def largest(values: jax.Array, among: jax.Array, number: jax.Array) -> jax.Array:
    """Returns where the largest `values` [n, p] of each row are, `number` [n] of them.

    They are `among` [n, p] those where it is true. Of equal values the first are taken.
    """
    order = jnp.argsort(jnp.where(among, -values, jnp.inf), axis=1)
    rank = jnp.argsort(order, axis=1)
    return among & (rank < number[:, None])
