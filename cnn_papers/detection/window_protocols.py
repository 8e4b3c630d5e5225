"""The protocols of `detect_windows`, by the names that `config.eval.protocol` joins with `|`.

Each finds objects among the proposals of an image (SPP-net §4). Functions of this module return a
Protocol, which gives the detector of a network.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cnn_papers.data.host_ops import METHODS
from cnn_papers.detection import windows
from cnn_papers.detection.detections import Detections
from cnn_papers.detection.suppression import best_by_class
from cnn_papers.errors import UserError


class Detector(NamedTuple):
    """Finds the objects of an image: call it with the image and its proposals.

    Attributes:
      find: (uint8 image [h, w, 3], float32 proposals [p, 4] in its pixels) -> Detections.
      stages: of its network, which count programs and the seconds of compiling.
    """

    find: Callable[[np.ndarray, np.ndarray], Detections]
    stages: windows.Stages

    def __call__(self, image: np.ndarray, proposals: np.ndarray | None) -> Detections:
        """Returns what is found in an image; a UserError without proposals."""
        if proposals is None:
            raise UserError(
                "this detector looks at windows that config.data.proposals names, and it is empty: "
                "set it to 'selective_search' or to a file of boxes"
            )
        return self.find(image, proposals)


class Protocol(NamedTuple):
    """Returns the detector of a network.

    Attributes:
      detector: (`weights.trained.Trained`, what is fitted) -> Detector.
    """

    detector: Callable[[Any, Any], Detector]


def softmax(
    scales: tuple[int, ...] = windows.SCALES,
    side: int = windows.SIDE,
    nms: float = 0.3,
    least: float = 0.01,
    most: int = 100,
    method: str = "area",
) -> Protocol:
    """The softmax of the fine-tuned network is the score of each window.

    Each window is taken from the one of `scales`, shorter sides of the image, at which it is
    nearest side×side pixels (§4.1). `nms` is §4.1's; scores below `least` and all but the `most`
    best of a class and image are dropped.
    """
    _check(scales, side, nms, most, method)
    look = functools.partial(windows.features, scales=scales, side=side, method=method)

    def detector(network: Any, fitted: Any) -> Detector:
        stages = windows.stages(network)

        def find(image: np.ndarray, proposals: np.ndarray) -> Detections:
            scores = look(stages, image, proposals)["scores"]
            return best_by_class(proposals, scores[:, :-1], nms=nms, least=least, most=most)

        return Detector(find, stages)

    return Protocol(detector)


def _check(scales: tuple[int, ...], side: int, nms: float, most: int, method: str) -> None:
    """Raises UserError unless the arguments of a protocol make sense."""
    if not scales or min(*scales, side, most) < 1 or not 0 <= nms <= 1:
        raise UserError(
            f"config.eval.protocol: scales={scales}, side={side} and most={most} must be positive, "
            f"and nms={nms} from 0 to 1"
        )
    if method not in METHODS:
        raise UserError(
            f"config.eval.protocol: unknown method '{method}'; there are: {', '.join(METHODS)}"
        )
