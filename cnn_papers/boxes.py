"""Boxes on images: one convention, and what is computed with boxes.

A box is `[y1, x1, y2, x2]`: float, in pixels, y downwards, the far edges exclusive. A box over a
whole image of h×w pixels is `[0, 0, h, w]`, and its area the number of its pixels.

Functions take NumPy or JAX arrays [..., 4] and return the same kind.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

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


# --- coding ---------------------------------------------------------------------------------------


def encode(box: Array, window: Array) -> Array:
    """Returns `box` [..., 4] as R-CNN's regression sees it from `window`: (tx, ty, tw, th).

    tx and ty are the ways between the centres, in widths and heights of the window; tw and th are
    the logarithms of the ratios of width and height (R-CNN, Appendix C). Both need an area.
    """
    xp = box.__array_namespace__()
    y, x, height, width = _centre_and_sides(box)
    wy, wx, wheight, wwidth = _centre_and_sides(window)
    ways = (x - wx) / wwidth, (y - wy) / wheight
    return xp.stack([*ways, xp.log(width / wwidth), xp.log(height / wheight)], -1)


def decode(code: Array, window: Array) -> Array:
    """Returns the boxes [..., 4] whose `encode` from `window` is `code` (tx, ty, tw, th)."""
    xp = code.__array_namespace__()
    wy, wx, wheight, wwidth = _centre_and_sides(window)
    tx, ty, tw, th = (code[..., i] for i in range(4))
    y, x = wy + ty * wheight, wx + tx * wwidth
    down, right = xp.exp(th) * wheight / 2, xp.exp(tw) * wwidth / 2
    return xp.stack([y - down, x - right, y + down, x + right], -1)


def relative(box: Array, window: Array) -> Array:
    """Returns the edges of `box` [..., 4] within `window`, which is itself [0, 0, 1, 1]."""
    xp = box.__array_namespace__()
    corner, sides = window[..., :2], window[..., 2:] - window[..., :2]
    return (box - xp.concatenate([corner, corner], -1)) / xp.concatenate([sides, sides], -1)


def absolute(edges: Array, window: Array) -> Array:
    """Returns the boxes [..., 4] whose `relative` edges within `window` are `edges`."""
    xp = edges.__array_namespace__()
    corner, sides = window[..., :2], window[..., 2:] - window[..., :2]
    return edges * xp.concatenate([sides, sides], -1) + xp.concatenate([corner, corner], -1)


def _centre_and_sides(box: Array) -> tuple[Array, Array, Array, Array]:
    y1, x1, y2, x2 = (box[..., edge] for edge in range(4))
    return (y1 + y2) / 2, (x1 + x2) / 2, y2 - y1, x2 - x1


# --- fewer boxes ----------------------------------------------------------------------------------


def nms(box: np.ndarray, score: np.ndarray, threshold: float) -> np.ndarray:
    """Returns the rows that non-maximum suppression keeps, int [k], best first.

    Greedy: the best box that is left is kept, and those whose IoU with it exceeds `threshold` go.
    Of equal scores the first row is the better one.

    Args:
      box: [n, 4].
      score: [n].
      threshold: of the IoU.
    """
    left = np.argsort(-score, kind="stable")
    kept = []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        left = left[iou(box[best], box[left]) <= threshold]
    return np.array(kept, int)


def nms_by_class(
    box: np.ndarray, label: np.ndarray, score: np.ndarray, threshold: float
) -> np.ndarray:
    """Returns the rows that `nms` keeps of each class by itself, best first; `label` is int [n]."""
    rows = [np.flatnonzero(label == one) for one in np.unique(label)]
    kept = [of_class[nms(box[of_class], score[of_class], threshold)] for of_class in rows]
    together = np.sort(np.concatenate([np.zeros(0, int), *kept]))
    return together[np.argsort(-score[together], kind="stable")]


def nms_padded(
    box: jax.Array, score: jax.Array, threshold: float, count: int
) -> tuple[jax.Array, jax.Array]:
    """Returns the first `count` rows of `nms`, int32 [count], and which of them there are.

    The second value is bool [count]; the rows that fill up are any. A row whose score is -inf takes
    no part. It is JAX, for one image; vmap it over a batch.
    """

    def keep_best(left: jax.Array, _: None) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
        best = jnp.argmax(left)
        is_kept = left[best] > -jnp.inf
        is_gone = (iou(box[best][None], box) > threshold).at[best].set(True)
        return jnp.where(is_gone, -jnp.inf, left), (best.astype(jnp.int32), is_kept)

    _, (rows, is_kept) = jax.lax.scan(keep_best, score.astype(jnp.float32), length=count)
    return rows, is_kept


class Merge(NamedTuple):
    """One step of `merge`: row `gone` is merged into row `kept`, which is `box` from then on."""

    kept: int
    gone: int
    match_score: float
    box: np.ndarray
    score: float


class Merged(NamedTuple):
    """The boxes that `merge` leaves, float32 [k, 4] and [k], best first, and its steps in order."""

    boxes: np.ndarray
    scores: np.ndarray
    steps: list[Merge]


def match_scores(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Returns how badly boxes [..., 4] match: 0 where they are equal.

    It is the distance of the centres, in sides of a square of their mean area, plus 1 - IoU.
    OverFeat §4.3 adds the distance and the intersection, without a formula or a unit.
    """
    y, x, _, _ = _centre_and_sides(a)
    other_y, other_x, _, _ = _centre_and_sides(b)
    side = np.sqrt(np.maximum((area(a) + area(b)) / 2, 1e-12))
    return np.hypot(y - other_y, x - other_x) / side + 1 - iou(a, b)


def merge(box: np.ndarray, score: np.ndarray, threshold: float, *, weighted: bool) -> Merged:
    """Merges the boxes of one class on one image, as OverFeat does (§4.3).

    Again and again, the two boxes whose `match_scores` is the least become one, until it exceeds
    `threshold`. Their scores add up.

    Args:
      box: [n, 4]; time grows with n².
      score: [n], positive.
      threshold: of the match score.
      weighted: whether the new box is the mean of the two by their scores, so that it is in the end
        that of all its boxes; otherwise it is the mean of the two, as in the paper.
    """
    box, score = np.array(box, np.float64).reshape(-1, 4), np.array(score, np.float64)
    is_left = np.ones(len(box), bool)
    # Of each box, how well the best other one matches it, and which that is.
    least, partner = np.full(len(box), np.inf), np.zeros(len(box), int)

    def find_partners(rows: np.ndarray, others: np.ndarray) -> np.ndarray:
        match = match_scores(box[rows][:, None], box[others])
        match[rows[:, None] == others] = np.inf
        best = match.argmin(1)
        least[rows], partner[rows] = match[np.arange(len(rows)), best], others[best]
        return match

    everything = np.arange(len(box))
    for part in np.array_split(everything, 1 + len(box) ** 2 // 2**18):  # bounds the memory
        if len(part):
            find_partners(part, everything)
    steps = []
    while is_left.sum() > 1:
        kept = int(least.argmin())
        gone, match_score = int(partner[kept]), float(least[kept])
        if match_score > threshold:
            break
        share = score[kept] / (score[kept] + score[gone]) if weighted else 0.5
        box[kept] = share * box[kept] + (1 - share) * box[gone]
        score[kept] += score[gone]
        steps.append(Merge(kept, gone, match_score, box[kept].copy(), float(score[kept])))
        is_left[gone], least[gone] = False, np.inf
        # The new box, and those that it or the lost one matched best, look for a partner anew. Of
        # all others the partner stays, unless the new box is better.
        is_lost = is_left & ((partner == kept) | (partner == gone))
        is_lost[kept] = False
        others = np.flatnonzero(is_left)
        to_kept = find_partners(np.concatenate([[kept], np.flatnonzero(is_lost)]), others)[0]
        is_better = (to_kept < least[others]) & ~is_lost[others] & (others != kept)
        least[others[is_better]], partner[others[is_better]] = to_kept[is_better], kept
    rows = np.flatnonzero(is_left)
    rows = rows[np.argsort(-score[rows], kind="stable")]
    return Merged(box[rows].astype(np.float32), score[rows].astype(np.float32), steps)
