"""OverFeat finds objects: scores and boxes at all positions, candidates, and their reduction.

Sermanet et al., arXiv:1312.6229, §4.3: (a) the classes that score highest at any position of a
scale, (b) the boxes that the regressor gives for them at all positions, (c) of all scales together,
(d) merged pair by pair.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers import boxes as geometry
from cnn_papers.detection.detections import Detections
from cnn_papers.errors import UserError
from cnn_papers.models.overfeat import score_map

# (boxes [k, 4], scores [k]) of one class on one image, the best first -> fewer of both
Reduce = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]


class Maps(NamedTuple):
    """Scores and boxes at the p positions of an image at one scale.

    Attributes:
      scores: float32 [..., p, classes], softmax outputs, without that of a background.
      boxes: float32 [..., p, 4] if the classes share the regressor, or [..., p, classes, 4].
    """

    scores: Any
    boxes: Any


class Finder(NamedTuple):
    """The way from maps to detections.

    Attributes:
      reduce: makes fewer boxes of the candidates of a class.
      top: number of classes of each scale, those with the largest scores at any position (§4.3 a).
      least: the smallest score of a candidate.
      most: the most candidates of a class and image, those of the largest scores.
    """

    reduce: Reduce
    top: int
    least: float
    most: int

    def __call__(self, scales: Sequence[Maps], size: tuple[int, int]) -> Detections:
        """Returns what is found in an image of `size` (h, w), the best first.

        Boxes of `scales` are in its pixels. Those that are found are cut off at its edges. Boxes
        outside the image are left out: a regressor may miss it by a pixel where a window overhangs
        it. If all are outside, or some are not finite, they stay as they are, since such a network
        has diverged and is to be noticed.
        """
        found = self.candidates(scales)
        if not all(np.isfinite(array).all() for array in found):
            return found
        parts = []
        for label in np.unique(found.classes):
            rows = np.flatnonzero(found.classes == label)[: self.most]
            boxes, scores = self.reduce(found.boxes[rows], found.scores[rows])
            parts.append(Detections(boxes, np.full(len(boxes), label, np.int32), scores))
        if parts:
            found = _best_first(Detections(*map(np.concatenate, zip(*parts, strict=True))))
        clipped = geometry.clip(found.boxes, *size).astype(np.float32)
        inside = geometry.area(clipped) > 0
        if not inside.any():
            return found
        clipped_found = found._replace(boxes=clipped)
        return Detections(*(array[inside] for array in clipped_found))

    def candidates(self, scales: Sequence[Maps]) -> Detections:
        """Returns the candidates of all scales of an image, the best first.

        Boxes without an area are none: a regressor may give one where it sees little of an object.
        """
        parts = []
        for scores, boxes in scales:
            classes = np.argsort(-scores.max(0), kind="stable")[: self.top]
            # a score that is not a number is a candidate too, so that it is noticed
            position, column = np.nonzero(~(scores[:, classes] < self.least))
            label = classes[column].astype(np.int32)
            of_class = boxes[position] if boxes.ndim == 2 else boxes[position, label]
            parts.append(Detections(of_class, label, scores[position, label]))
        found = Detections(*map(np.concatenate, zip(*parts, strict=True)))
        is_empty = (found.boxes[:, 2:] <= found.boxes[:, :2]).any(1)  # NaN is not
        return _best_first(Detections(*(array[~is_empty] for array in found)))


def merged(threshold: float, weighted: bool) -> Reduce:
    """Returns the reduction that merges boxes as `boxes.merge` does (§4.3 d)."""
    return lambda boxes, scores: geometry.merge(boxes, scores, threshold, weighted=weighted)[:2]


def suppressed(threshold: float) -> Reduce:
    """Returns the reduction by `boxes.nms`."""

    def reduce(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        kept = geometry.nms(boxes, scores, threshold)
        return boxes[kept], scores[kept]

    return reduce


def best(boxes: np.ndarray, scores: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Reduces the boxes of a class to the one with the largest score."""
    return boxes[:1], scores[:1]


def maps(model: Any, ends: dict[str, jax.Array], background: int) -> Maps:
    """Returns what the network gave at each position, boxes in pixels of its images.

    Args:
      model: an OverFeat that `check` lets pass.
      ends: its endpoints for images [n, h, w, c].
      background: number of outputs after those of the classes; they share in the softmax.
    """
    logits, edges = score_map(ends), ends["box3"]
    n, rows, columns, outputs = logits.shape
    classes = outputs - background
    windows = model.geometry().windows(rows, columns).reshape(1, -1, 4)
    scores = jax.nn.softmax(logits.astype(jnp.float32))[..., :classes]
    edges = edges.astype(jnp.float32).reshape(n, rows * columns, *edges.shape[3:])
    if model.boxes == "per_class":
        windows, edges = windows[:, :, None], edges[:, :, :classes]
    return Maps(scores.reshape(n, rows * columns, -1), geometry.absolute(edges, windows))


def check(model: Any) -> None:
    """Raises UserError unless the network is one that finds boxes."""
    if not getattr(model, "boxes", None) or not model.window:
        raise UserError(
            "this task needs an OverFeat with a regressor and a window: set config.model_name to "
            "overfeat, config.model.boxes to 'shared' or 'per_class', and config.model.window to "
            "the side of the image that one position sees"
        )


def _best_first(found: Detections) -> Detections:
    order = np.argsort(-found.scores, kind="stable")
    return Detections(*(array[order] for array in found))
