"""Chooses the windows that SVMs and box regression are fitted to, by their overlap with objects.

He et al., SPP-net, §4.1, and Girshick et al., R-CNN, §2.3 and Appendices B and C.

A difficult object is no positive, but windows on it are no negatives of its class.
"""

from typing import NamedTuple

import numpy as np

from cnn_papers import boxes
from cnn_papers.data.split import Objects

NEGATIVE_IOU = 0.3  # below it, with every object of the class: SPP-net §4.1
HARD_SCORE = -1.0  # above it a negative is within the margin: R-CNN, Appendix B
APART_IOU = 0.7  # a negative that overlaps another one more is dropped: SPP-net §4.1
REGRESSED_IOU = 0.5  # SPP_net's spp_train_bbox_regressor.m; R-CNN, Appendix C, has 0.6


class Matched(NamedTuple):
    """Windows with the objects that they overlap most.

    Attributes:
      windows, objects: float32 [n, 4].
      classes: int32 [n], of the objects.
    """

    windows: np.ndarray
    objects: np.ndarray
    classes: np.ndarray


def with_true_boxes(objects: Objects, proposals: np.ndarray) -> np.ndarray:
    """Returns the windows of an image, float32 [n, 4]: boxes of its objects, then proposals.

    Difficult objects are left out.
    """
    return np.concatenate([objects.boxes[~objects.difficult], proposals]).astype(np.float32)


def labels_of(windows: np.ndarray, objects: Objects, classes: int) -> np.ndarray:
    """Returns labels int8 [n, classes] of the windows that `with_true_boxes` returns.

    The box of an object is 1 for its class. Every window is -1 for a class of whose objects it
    overlaps each by less than NEGATIVE_IOU; the others are 0.
    """
    overlaps = boxes.iou(windows[:, None], objects.boxes[None].astype(np.float32))
    most = np.zeros((len(windows), classes), np.float32)
    for overlap, label in zip(overlaps.T, objects.classes, strict=True):
        most[:, label] = np.maximum(most[:, label], overlap)
    labels = np.where(most < NEGATIVE_IOU, -1, 0).astype(np.int8)
    true = objects.classes[~objects.difficult]
    labels[np.arange(len(true)), true] = 1
    return labels


def drawn(
    labels: np.ndarray, windows: np.ndarray, number: int, rng: np.random.Generator
) -> np.ndarray:
    """Returns the labels [n, classes] of a first fit: the positives and some negatives, 0 for rest.

    The negatives are the boxes of objects, for other classes, and `number` of the other windows
    drawn at random.
    """
    true = (labels > 0).any(1)
    chosen = rng.permutation(np.flatnonzero(~true))[:number]
    order = np.concatenate([np.flatnonzero(true), chosen])
    ranks = np.full(len(windows), -np.inf)
    ranks[order] = -np.arange(len(order))
    negatives = (labels < 0) & np.isfinite(ranks)[:, None]
    apart = _apart(windows, np.broadcast_to(ranks[:, None], labels.shape), negatives)
    return np.where(labels > 0, labels, -apart.astype(np.int8))


def hard(
    labels: np.ndarray, windows: np.ndarray, scores: np.ndarray, had: np.ndarray
) -> np.ndarray:
    """Returns the labels [n, classes] of the hard negatives, -1, and 0 for all others.

    They are the negatives that an SVM scores above HARD_SCORE, best first, without those that the
    first fit has had.

    Args:
      scores: float [n, classes].
      had: the labels of the first fit, which `drawn` returned.
    """
    negatives = (labels < 0) & (scores > HARD_SCORE) & (had == 0)
    return -_apart(windows, scores, negatives).astype(np.int8)


def _apart(windows: np.ndarray, scores: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """Returns `chosen`, bool [n, classes], without windows too close to a better one of a class."""
    kept = np.zeros_like(chosen)
    for i in np.flatnonzero(chosen.any(0)):
        rows = np.flatnonzero(chosen[:, i])
        kept[rows[boxes.nms(windows[rows], scores[rows, i], APART_IOU)], i] = True
    return kept


def matched(windows: np.ndarray, objects: Objects) -> tuple[np.ndarray, Matched]:
    """Returns which windows box regression is fitted to, int [m], and what they are matched with.

    They are those that overlap an object, not a difficult one, by REGRESSED_IOU or more.
    """
    easy = ~objects.difficult
    targets, classes = objects.boxes[easy].astype(np.float32), objects.classes[easy]
    if not len(targets):
        nothing = np.zeros((0, 4), np.float32)
        return np.zeros(0, int), Matched(nothing, nothing, np.zeros(0, np.int32))
    overlaps = boxes.iou(windows[:, None], targets[None])
    best = overlaps.argmax(1)
    rows = np.flatnonzero(overlaps.max(1) >= REGRESSED_IOU)
    return rows, Matched(windows[rows], targets[best[rows]], classes[best[rows]])
