"""Fits R-CNN's regression from the features of a window to the box of the object in it.

Girshick, Donahue, Darrell, Malik: Rich Feature Hierarchies for Accurate Object Detection and
Semantic Segmentation. CVPR 2014. arXiv:1311.2524, Appendix C.
"""

import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from cnn_papers import boxes
from cnn_papers.data.progress import reported
from cnn_papers.detection.training_windows import Matched

ROWS = 4096  # that are float64 at once


class Regressor(NamedTuple):
    """A linear function of features for each class, which moves a window to its object.

    Attributes:
      weights: float32 [classes, d, 4]; zeros for a class that could not be fitted.
      bias: float32 [classes, 4].
    """

    weights: np.ndarray
    bias: np.ndarray

    def moved(self, features: np.ndarray, windows: np.ndarray, classes: np.ndarray) -> np.ndarray:
        """Returns the boxes float32 [n, 4] of windows [n, 4], each moved as one of its class.

        Args:
          features: float32 [n, d].
          classes: int [n].
        """
        code = np.zeros((len(windows), 4), np.float32)
        for i in np.unique(classes):
            rows = classes == i
            code[rows] = features[rows] @ self.weights[i] + self.bias[i]
        return boxes.decode(code, windows)


def fit(
    features: np.ndarray, matched: Matched, class_names: Sequence[str], *, penalty: float
) -> Regressor:
    """Returns the ridge regression, for each class, of R-CNN's code of objects from windows.

    The features have a constant 1 beside them, whose weight is penalised as the others are, and
    the codes are taken from their mean, as in the released code. A class without windows is named
    in a log line; its boxes are the windows themselves.

    Args:
      features: float32 [n, d], of the windows.
      matched: the windows and their objects.
      class_names: one a class.
      penalty: λ, the weight of ‖w‖² beside the sum of squared differences.
    """
    codes = boxes.encode(matched.objects, matched.windows)
    weights = np.zeros((len(class_names), features.shape[1], 4), np.float32)
    bias = np.zeros((len(class_names), 4), np.float32)
    for i in reported(range(len(class_names)), len(class_names), "box regression", unit="classes"):
        rows = np.flatnonzero(matched.classes == i)
        if not len(rows):
            logging.getLogger(__name__).warning(
                "no window overlaps a %s enough: its boxes are not regressed", class_names[i]
            )
            continue
        weights[i], bias[i] = ridge(features[rows], codes[rows], penalty)
    return Regressor(weights, bias)


def ridge(
    features: np.ndarray, targets: np.ndarray, penalty: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns the weights [d, k] and the bias [k] of `fit`, of features [n, d], targets [n, k].

    They are in float64. It solves for d + 1 weights or, where there are fewer examples, for the n
    coefficients of these.
    """
    import scipy.linalg  # slow to import

    count, width = features.shape
    mean = targets.mean(0, dtype=np.float64)
    centred = targets.astype(np.float64) - mean
    if count <= width:
        inputs = _with_constant(features)
        kernel = inputs @ inputs.T
        kernel.flat[:: count + 1] += penalty
        solution = inputs.T @ scipy.linalg.solve(kernel, centred, assume_a="pos")
    else:
        gram, products = np.zeros((width + 1, width + 1)), np.zeros((width + 1, targets.shape[1]))
        for start in range(0, count, ROWS):
            inputs = _with_constant(features[start : start + ROWS])
            gram += inputs.T @ inputs
            products += inputs.T @ centred[start : start + ROWS]
        gram.flat[:: width + 2] += penalty
        solution = scipy.linalg.solve(gram, products, assume_a="pos", overwrite_a=True)
    return solution[:-1], solution[-1] + mean


def _with_constant(features: np.ndarray) -> np.ndarray:
    """Returns features [n, d] as float64 [n, d + 1], the last value 1."""
    inputs = np.ones((len(features), features.shape[1] + 1))
    inputs[:, :-1] = features
    return inputs
