"""Turns scores of windows into detections: per class, without those that overlap a better one."""

import numpy as np

from cnn_papers import boxes as geometry
from cnn_papers.detection.detections import Detections


def best_by_class(
    boxes: np.ndarray, scores: np.ndarray, *, nms: float, least: float, most: int
) -> Detections:
    """Returns the detections of one image, the best first.

    Args:
      boxes: float [k, 4], or [k, classes, 4] where each class has boxes of its own.
      scores: float [k, classes], without the background.
      nms: a box whose IoU with a better one of its class is larger is dropped.
      least: scores below it are dropped.
      most: the largest number of detections of a class.
    """
    kept_boxes, kept_classes, kept_scores = [], [], []
    for label in range(scores.shape[1]):
        rows = np.flatnonzero(scores[:, label] >= least)
        of_class = (boxes if boxes.ndim == 2 else boxes[:, label])[rows]
        kept = rows[geometry.nms(of_class, scores[rows, label], nms)[:most]]
        kept_boxes.append(boxes[kept] if boxes.ndim == 2 else boxes[kept, label])
        kept_classes.append(np.full(len(kept), label, np.int32))
        kept_scores.append(scores[kept, label])
    all_scores = np.concatenate(kept_scores, dtype=np.float32)
    order = np.argsort(-all_scores, kind="stable")
    return Detections(
        np.concatenate(kept_boxes, dtype=np.float32)[order],
        np.concatenate(kept_classes)[order],
        all_scores[order],
    )
