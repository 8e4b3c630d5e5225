"""Random objects and detections in VOC's own coordinates, and what the metrics take for them."""

from typing import NamedTuple

import numpy as np

from cnn_papers.data.split import Objects
from cnn_papers.detection.detections import Detections

IMAGES, CLASSES = 12, 4


class Image(NamedTuple):
    """One image; boxes are VOC's: xmin, ymin, xmax, ymax, from 1 on, the far edges inclusive."""

    true_boxes: np.ndarray
    true_classes: np.ndarray
    difficult: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    scores: np.ndarray


def make(seed: int, *, ties: bool) -> list[Image]:
    """Returns images of 0 to 6 objects, of which the last class has none; without them all boxes.

    Scores are of eight values with `ties`, else all different. Boxes of detections lie near those
    of objects.
    """
    rng = np.random.default_rng(seed)
    images = []
    for i in range(IMAGES):
        number = int(rng.integers(0, 7))
        corners, sides = rng.integers(1, 60, (number, 2)), rng.integers(8, 40, (number, 2))
        true_boxes = np.concatenate([corners, corners + sides], 1)
        true_classes = rng.integers(0, CLASSES - 1, number)
        detections = 4 * number + 3
        near = rng.integers(0, number, detections) if number else None
        start = rng.integers(1, 60, (detections, 2))
        boxes = np.concatenate([start, start + 20], 1) if near is None else true_boxes[near]
        boxes = boxes + rng.integers(-6, 7, (detections, 4))
        boxes[:, :2] = np.minimum(boxes[:, :2], boxes[:, 2:] - 1)
        classes = rng.integers(0, CLASSES, detections)
        if near is not None:
            classes = np.where(rng.random(detections) < 0.2, classes, true_classes[near])
        different = (rng.permutation(detections) * IMAGES + i) / 1024  # exact in float32
        scores = rng.integers(0, 8, detections) / 8 if ties else different
        images.append(
            Image(true_boxes, true_classes, rng.random(number) < 0.25, boxes, classes, scores)
        )
    return images


def ours(voc: np.ndarray) -> np.ndarray:
    """Returns VOC's boxes in our convention."""
    xmin, ymin, xmax, ymax = voc.astype(np.float32).T
    return np.stack([ymin - 1, xmin - 1, ymax, xmax], -1)


def as_given(images: list[Image]) -> tuple[list[Detections], list[Objects]]:
    """Returns the detections of each image, the best first, and its objects."""
    detections, objects = [], []
    for image in images:
        order = np.argsort(-image.scores, kind="stable")
        detections.append(
            Detections(
                ours(image.boxes)[order],
                image.classes[order].astype(np.int32),
                image.scores[order].astype(np.float32),
            )
        )
        true_classes = image.true_classes.astype(np.int32)
        objects.append(Objects(ours(image.true_boxes), true_classes, image.difficult, (110, 110)))
    return detections, objects
