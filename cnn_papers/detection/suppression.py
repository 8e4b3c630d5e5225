"""Turns scores of windows into detections: per class, without those that overlap a better one."""

import numpy as np

from cnn_papers import boxes as geometry
from cnn_papers.detection.detections import Detections


def best_by_class(
    boxes: np.ndarray, scores: np.ndarray, *, nms: float, least: float, most: int
) -> Detections:
    """Returns the detections of one image; takes what `best_rows` takes."""
    rows, classes = best_rows(boxes, scores, nms=nms, least=least, most=most)
    kept = scores[rows, classes]
    return Detections(boxes[rows].astype(np.float32), classes, kept.astype(np.float32))


def best_rows(
    boxes: np.ndarray, scores: np.ndarray, *, nms: float, least: float, most: int
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the rows of the boxes that are detections of a class, and the classes, best first.

    Args:
      boxes: float [k, 4], of one image.
      scores: float [k, classes], without the background.
      nms: a box whose IoU with a better one of its class is larger is dropped.
      least: scores below it are dropped.
      most: the largest number of detections of a class.
    """
    kept_rows, kept_classes = [np.zeros(0, int)], [np.zeros(0, np.int32)]
    for label in range(scores.shape[1]):
        rows = np.flatnonzero(scores[:, label] >= least)
        kept = rows[geometry.nms(boxes[rows], scores[rows, label], nms)[:most]]
        kept_rows.append(kept)
        kept_classes.append(np.full(len(kept), label, np.int32))
    rows, classes = np.concatenate(kept_rows), np.concatenate(kept_classes)
    order = np.argsort(-scores[rows, classes], kind="stable")
    return rows[order], classes[order]
