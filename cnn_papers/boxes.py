"""Boxes on images: one convention, and what is computed with boxes.

A box is `[y1, x1, y2, x2]`: float, in pixels, y downwards, the far edges exclusive. A box over a
whole image of h×w pixels is `[0, 0, h, w]`, and its area the number of its pixels.

Functions take NumPy or JAX arrays [..., 4] and return the same kind.
"""

from typing import Any, NamedTuple

Array = Any  # np.ndarray or jax.Array
NONE = -1  # the class of a row that only fills up an array


class Boxed(NamedTuple):
    """An image with the boxes on it; operations that move its pixels move its boxes.

    Attributes:
      pixels: [h, w, c].
      boxes: float32 [k, 4].
    """

    pixels: Any
    boxes: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of the pixels."""
        return self.pixels.shape


def area(box: Array) -> Array:
    """Returns the area of boxes [..., 4] in pixels, 0 where an edge is before its opposite."""
    xp = box.__array_namespace__()
    sides = xp.maximum(box[..., 2:] - box[..., :2], 0)
    return sides[..., 0] * sides[..., 1]


def intersection(a: Array, b: Array) -> Array:
    """Returns the area of the overlap of boxes [..., 4], whose leading axes broadcast."""
    xp = a.__array_namespace__()
    low = xp.maximum(a[..., :2], b[..., :2])
    high = xp.minimum(a[..., 2:], b[..., 2:])
    return area(xp.concatenate([low, high], -1))


def iou(a: Array, b: Array) -> Array:
    """Returns intersection over union of boxes [..., 4], whose leading axes broadcast.

    `iou(a[:, None], b[None])` is the matrix of all pairs. It is 0 where both have no area.
    """
    xp = a.__array_namespace__()
    both = intersection(a, b)
    union = area(a) + area(b) - both
    return xp.where(union > 0, both / xp.where(union > 0, union, 1), 0)


# --- moves ----------------------------------------------------------------------------------------


def shift(box: Array, down: Any, right: Any) -> Array:
    """Returns boxes [..., 4] moved by `down` and `right` pixels, numbers or arrays of [...]."""
    xp = box.__array_namespace__()
    y1, x1, y2, x2 = (box[..., edge] for edge in range(4))
    return xp.stack([y1 + down, x1 + right, y2 + down, x2 + right], -1)


def scale(box: Array, vertical: Any, horizontal: Any) -> Array:
    """Returns boxes [..., 4] of an image that is resized by these factors."""
    xp = box.__array_namespace__()
    y1, x1, y2, x2 = (box[..., edge] for edge in range(4))
    return xp.stack([y1 * vertical, x1 * horizontal, y2 * vertical, x2 * horizontal], -1)


def mirror(box: Array, width: Any) -> Array:
    """Returns boxes [..., 4] of an image of `width` pixels that is mirrored left to right."""
    xp = box.__array_namespace__()
    y1, x1, y2, x2 = (box[..., edge] for edge in range(4))
    return xp.stack([y1, width - x2, y2, width - x1], -1)


def clip(box: Array, height: Any, width: Any) -> Array:
    """Returns the parts of boxes [..., 4] that are on an image of height×width pixels.

    A box that is off the image is left no area.
    """
    xp = box.__array_namespace__()
    y1, x1, y2, x2 = (box[..., edge] for edge in range(4))
    rows = (xp.clip(y, 0, height) for y in (y1, y2))
    columns = (xp.clip(x, 0, width) for x in (x1, x2))
    (top, bottom), (left, right) = rows, columns
    return xp.stack([top, left, bottom, right], -1)


def without_empty(box: Array) -> Array:
    """Returns boxes [..., 4], zeros in place of those that have no area."""
    xp = box.__array_namespace__()
    return xp.where(area(box)[..., None] > 0, box, xp.zeros_like(box))
