"""Makes the objects of images from the boxes of a data set; those that cannot be true stay out."""

import logging
from collections.abc import Callable, Sequence

import numpy as np

from cnn_papers.data.split import Objects
from cnn_papers.errors import UserError, listed
from cnn_papers.terminal import counted

NO_OBJECTS = Objects(
    np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, np.bool_), (0, 0)
)


def to_objects(
    edges: np.ndarray,
    labels: Sequence[int],
    difficult: Sequence[bool],
    size: tuple[int, int],
    *,
    first: int,
    describe: Callable[[int], str],
) -> tuple[Objects, list[str]]:
    """Returns the objects of one image, and a description of every box that is left out as bad.

    Args:
      edges: float [k, 4]: ymin, xmin, ymax, xmax in pixels, as the data set counts them.
      labels, difficult: of the k objects.
      size: (height, width) of the upright image.
      first: the number of the first row and column. It is 1 in VOC, which includes the last row
        and column; others count from 0, and the last is excluded.
      describe: names the object at an index in messages.
    """
    reasons = [_why_bad(box, size, first) for box in edges]
    good = [i for i, reason in enumerate(reasons) if not reason]
    objects = Objects(
        boxes=(edges[good] - (first, first, 0, 0)).astype(np.float32),
        classes=np.array([labels[i] for i in good], np.int32),
        difficult=np.array([difficult[i] for i in good], np.bool_),
        size=size,
    )
    bad = [
        f"{describe(i)} {reason} (ymin, xmin, ymax, xmax = "
        f"{', '.join(f'{edge:g}' for edge in edges[i])})"
        for i, reason in enumerate(reasons)
        if reason
    ]
    return objects, bad


def _why_bad(edges: np.ndarray, size: tuple[int, int], first: int) -> str:
    """Returns why no object can have these edges, "" for a good box.

    Equal edges are no box in VOC either, where they would be one row of pixels: they come from a
    click without a drag.
    """
    ymin, xmin, ymax, xmax = edges
    height, width = size
    if not np.isfinite(edges).all():
        return "has an edge that is not finite"
    if ymax == ymin or xmax == xmin:
        return "has no area"
    if ymax < ymin or xmax < xmin:
        return "ends before it begins"
    if ymin < first or xmin < first:
        return f"begins before the image, whose first row and column are {first}"
    if ymax > height or xmax > width:
        return f"ends beyond the image of {width}×{height} pixels"
    return ""


def labels_of_images(objects: Sequence[Objects], classes: int) -> np.ndarray:
    """Returns whether images show each class, as VOC's sets of one class say it; int8 [n, classes].

    It is 1 where an image has an object of the class, 0 where all its objects of the class are
    difficult, so that the class is neither there nor missing, and -1 where it has none.
    """
    labels = np.full((len(objects), classes), -1, np.int8)
    for row, image in zip(labels, objects, strict=True):
        row[image.classes] = 0
        row[image.classes[image.easy()]] = 1
    return labels


def check_bad_boxes(bad: Sequence[str], split: str, most: int) -> None:
    """Logs the bad boxes that are left out of a split.

    Args:
      bad: a description of each.
      split: name of the split.
      most: how many may be left out.

    Raises:
      UserError: there are more.
    """
    if not bad:
        return
    number = counted(len(bad), "bad box", "bad boxes")
    if len(bad) > most:
        raise UserError(
            f"{split} has {number}: {listed(bad, 3, '; ')} (correct the annotations; "
            f"config.data.max_bad_boxes={len(bad)} leaves out so many)"
        )
    logging.getLogger(__name__).warning("%s: left out %s: %s", split, number, listed(bad, 10, "; "))
