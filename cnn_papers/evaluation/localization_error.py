"""ILSVRC's localization error: the objects of an image that its first guesses find.

A guess is a class and a box. An image is right if one of its first k guesses finds an object of it:
has its class, and overlaps its box with an IoU of at least OVERLAP. ILSVRC allows 5 guesses.

Source: Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, IJCV 2015, the task
of single-object localization; OverFeat §4. There an image has objects of one class, its label; here
any object of the image will do.
"""

import numpy as np

from cnn_papers import boxes as geometry
from cnn_papers.data.split import Objects

OVERLAP = 0.5
GUESSES = 5


def found_objects(
    boxes: np.ndarray, classes: np.ndarray, objects: Objects, guesses: int = GUESSES
) -> np.ndarray:
    """Returns which objects of an image are found by one of its first guesses, bool [k].

    Args:
      boxes: [g, 4], of the guesses, the best first; in pixels as the objects' are.
      classes: int [g], of the guesses.
      objects: of the image. Difficult ones count as others do: ILSVRC has no such mark.
      guesses: number of guesses that count.
    """
    # In float64, since an overlap of exactly one half counts.
    guessed_boxes = np.asarray(boxes[:guesses], np.float64)
    true_boxes = np.asarray(objects.boxes, np.float64)
    overlaps = geometry.iou(guessed_boxes[:, None], true_boxes[None])
    same_class = classes[:guesses, None] == objects.classes[None]
    return ((overlaps >= OVERLAP) & same_class).any(0)
