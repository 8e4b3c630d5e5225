"""Average precision as PASCAL VOC computes it, of detections and of scores of images.

Of one class everything is ranked by score, and precision follows recall down the ranks. Average
precision is the mean of the best precision at 11 levels of recall (VOC 2007), or the area below it
(from VOC 2010 on). What VOC calls difficult counts neither as a hit nor as a miss.

Source: Everingham et al., The PASCAL VOC Challenge, IJCV 2010, §4, and the functions VOCevaldet,
VOCevalcls and VOCap of its development kit.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnn_papers import boxes as geometry
from cnn_papers.evaluation import class_values
from cnn_papers.facts import Measure

HEADLINE = Measure("map", "mAP", "%", lower_is_better=False)  # VOC 2007's, by 11 points
AREA = Measure("map_area", "mAP by area", "%", lower_is_better=False)  # VOC 2010's and later
MEASURES = (HEADLINE, AREA)
BY_CLASS = HEADLINE._replace(words="AP")
OVERLAP = 0.5  # a detection's least IoU with the object that it finds
# As the kit computes them in floating point: 3 of 10 objects do not reach the fourth level.
LEVELS = np.arange(11) * 0.1
HIT, MISS, NEITHER = 1, 0, -1


class Curve(NamedTuple):
    """Precision and recall of one class, after each rank from the best score on.

    Attributes:
      recall, precision: float64 [ranks], from 0 to 1. A rank that counts neither as a hit nor as a
        miss has no entry.
      positives: number of objects (or images) to be found.
    """

    recall: np.ndarray
    precision: np.ndarray
    positives: int

    @property
    def by_11_points(self) -> float:
        """VOC 2007's average precision, from 0 to 1: at recalls of 0, 0.1, …, 1."""
        at_levels = [self.precision[self.recall >= level].max(initial=0) for level in LEVELS]
        return float(np.mean(at_levels))

    @property
    def area(self) -> float:
        """The average precision of VOC 2010 and later, from 0 to 1.

        It is the area below the best precision at the same or a higher recall.
        """
        best_from_here = np.maximum.accumulate(self.precision[::-1])[::-1]
        return float(np.diff(self.recall, prepend=0) @ best_from_here)


def curve(ranked: np.ndarray, positives: int) -> Curve:
    """Returns the curve of a class from its ranks, the best first.

    Args:
      ranked: HIT, MISS or NEITHER, [ranks].
      positives: number of objects (or images) to be found.

    Raises:
      ValueError: there is nothing to be found.
    """
    if positives < 1:
        raise ValueError("a class without positives has no average precision")
    hits = ranked[ranked != NEITHER] == HIT
    found = np.cumsum(hits)
    return Curve(found / positives, found / np.arange(1, len(hits) + 1), positives)


def of_labels(scores: np.ndarray, labels: np.ndarray) -> Curve:
    """Returns the curve of one class in classification, as VOCevalcls does.

    Args:
      scores: [n], a number for each image; higher where the class is more likely. Of equal scores
        the first image ranks first.
      labels: [n], 1 where the image has the class, -1 where it does not, 0 where it is left out
        (VOC: where all its objects of the class are difficult).
    """
    order = np.argsort(-np.asarray(scores, np.float64), kind="stable")
    outcomes = np.select([labels > 0, labels < 0], [HIT, MISS], NEITHER)
    return curve(outcomes[order], int((labels > 0).sum()))


def of_classes(scores: np.ndarray, labels: np.ndarray) -> list[Curve | None]:
    """Returns the curve of every class in classification; None where no image has the class.

    A class with a score that is not a number, of a network that has diverged, has no hits.

    Args:
      scores, labels: as for `of_labels`, [n, classes].
    """

    def of_class(score: np.ndarray, label: np.ndarray) -> Curve | None:
        positives = int((label > 0).sum())
        if not positives:
            return None
        if np.isnan(score).any():
            return curve(np.full(len(label), MISS), positives)
        return of_labels(score, label)

    return [of_class(score, label) for score, label in zip(scores.T, labels.T, strict=True)]


def mean_average_precisions(curves: Sequence[Curve | None]) -> dict[str, float]:
    """Returns the values of MEASURES in percent, by name: means over the classes with a curve.

    They are 0 where no class has any.
    """
    known = [curve for curve in curves if curve is not None]
    if not known:
        return {HEADLINE.name: 0.0, AREA.name: 0.0}
    by_points = [100 * curve.by_11_points for curve in known]
    by_area = [100 * curve.area for curve in known]
    return {HEADLINE.name: float(np.mean(by_points)), AREA.name: float(np.mean(by_area))}


def by_class(
    curves: Sequence[Curve | None], counted: str, class_names: Sequence[str]
) -> class_values.ClassValues:
    """Returns the average precision of each class, by 11 points in percent.

    `counted` names what there is of a class, such as "object". Classes without a curve are absent.
    """
    return class_values.of_classes(
        BY_CLASS,
        counted,
        class_names,
        [curve.positives if curve else 0 for curve in curves],
        [100 * curve.by_11_points if curve else 0.0 for curve in curves],
    )


class Found(NamedTuple):
    """All detections of one class, image after image, and within an image as the detector has them.

    Attributes:
      images: int [d], the number of the image of each.
      boxes: [d, 4], see `boxes`.
      scores: [d].
    """

    images: np.ndarray
    boxes: np.ndarray
    scores: np.ndarray


class Truth(NamedTuple):
    """All objects of one class.

    Attributes:
      images: int [t], the number of the image of each.
      boxes: [t, 4], see `boxes`.
      difficult: bool [t].
    """

    images: np.ndarray
    boxes: np.ndarray
    difficult: np.ndarray

    @property
    def positives(self) -> int:
        """The number of objects that are to be found: those that are not difficult."""
        return int((~self.difficult).sum())


def of_detections(found: Found, truth: Truth) -> Curve:
    """Returns the curve of one class in detection, as VOCevaldet does.

    Detections rank by score, those of equal scores in their order. A detection belongs to the
    object of its image that it overlaps most, the first of several. It is a hit if the two have an
    IoU of at least OVERLAP and no better rank has hit the object. It counts neither as a hit nor as
    a miss if that object is difficult, and else is a miss.

    The kit's boxes are of integers whose far edges are inclusive, with sides of
    `xmax - xmin + 1`. A box of `boxes` is `[ymin - 1, xmin - 1, ymax, xmax]` of the kit's, so that
    its sides are the same, and its IoU is the kit's.
    """
    order = np.argsort(-np.asarray(found.scores, np.float64), kind="stable")
    owner = _most_overlapped(found, truth)[order]
    ranked = np.full(len(owner), MISS)
    overlapping = np.flatnonzero(owner >= 0)
    _, first = np.unique(owner[overlapping], return_index=True)
    ranked[overlapping[first]] = HIT
    ranked[overlapping[truth.difficult[owner[overlapping]]]] = NEITHER
    return curve(ranked, truth.positives)


def _most_overlapped(found: Found, truth: Truth) -> np.ndarray:
    """Returns the object that each detection belongs to, int [d]; -1 for none."""
    owner = np.full(len(found.images), -1)
    # In float64, since an overlap of exactly one half counts.
    found_boxes = np.asarray(found.boxes, np.float64)
    true_boxes = np.asarray(truth.boxes, np.float64)
    for image in np.intersect1d(found.images, truth.images):
        detected, objects = _of_image(found.images, image), _of_image(truth.images, image)
        overlaps = geometry.iou(found_boxes[detected, None], true_boxes[None, objects])
        best = overlaps.argmax(1)
        owner[detected] = np.where(overlaps.max(1) >= OVERLAP, objects.start + best, -1)
    return owner


def _of_image(images: np.ndarray, image: int) -> slice:
    """Returns where sorted numbers of images are `image`."""
    start, stop = np.searchsorted(images, [image, image + 1])
    return slice(int(start), int(stop))
