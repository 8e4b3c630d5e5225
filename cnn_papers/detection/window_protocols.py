"""The protocols of `detect_windows`, by the names that `config.eval.protocol` joins with `|`.

Each finds objects among the proposals of an image (SPP-net §4). Functions of this module return a
Protocol, which gives the detector of a network.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from cnn_papers.boxes import clip
from cnn_papers.data.host_ops import METHODS
from cnn_papers.detection import crops, windows
from cnn_papers.detection.detections import Detections
from cnn_papers.detection.fitting import Regression, Svm, Wanted
from cnn_papers.detection.suppression import best_rows
from cnn_papers.errors import UserError

LAYERS = ("spp", "fc6", "fc7")  # that SVMs may take; "spp" is the paper's pool5


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
                "set it to 'selective_search()' or to a file of boxes"
            )
        return self.find(image, proposals)


class Look(NamedTuple):
    """How the features of windows are computed.

    Attributes:
      stages: `weights.trained.Trained` -> its Stages.
      features: (stages, uint8 image [h, w, 3], float32 windows [k, 4]) -> outputs of layers.
      text: names it with all its arguments.
    """

    stages: Callable[[Any], windows.Stages]
    features: Callable[[windows.Stages, np.ndarray, np.ndarray], dict[str, np.ndarray]]
    text: str


class Suppression(NamedTuple):
    """The arguments of `suppression.best_rows`."""

    nms: float
    least: float
    most: int


class Protocol(NamedTuple):
    """Returns the detector of a network.

    Attributes:
      detector: (`weights.trained.Trained`, Fitted) -> Detector.
      look: of its features.
      wanted: what must be fitted to these.
    """

    detector: Callable[[Any, Any], Detector]
    look: Look
    wanted: tuple[Wanted, ...] = ()


def softmax(
    boxes: bool = False,
    penalty: float = 4000.0,
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
    best of a class and image are dropped. With `boxes` what is found is moved by a ridge regression
    on "spp" with `penalty` (§4.1, R-CNN's Appendix C), fitted to the windows of the training split.
    """
    look, suppression = _maps(scales, side, method), _suppression(nms, least, most)
    return _finding(look, suppression, None, _regression(boxes, penalty))


def svm(
    layer: str = "fc7",
    boxes: bool = False,
    C: float = 1e-3,
    penalty: float = 4000.0,
    scales: tuple[int, ...] = windows.SCALES,
    side: int = windows.SIDE,
    nms: float = 0.3,
    least: float = -1.5,
    most: int = 100,
    method: str = "area",
) -> Protocol:
    """Linear SVMs on "spp", "fc6" or "fc7" score each window (§4.1).

    They are fitted to the windows of the training split, with `C`; see `fitting`. `least` is that
    of the released code (spp_test.m); the other arguments are those of `softmax`.
    """
    look, suppression = _maps(scales, side, method), _suppression(nms, least, most)
    return _finding(look, suppression, _svms(layer, C), _regression(boxes, penalty))


def rcnn(
    layer: str = "fc7",
    boxes: bool = False,
    C: float = 1e-3,
    penalty: float = 4000.0,
    side: int = crops.SIDE,
    context: int | None = None,
    nms: float = 0.3,
    least: float = -1.5,
    most: int = 100,
    method: str = "area",
) -> Protocol:
    """R-CNN: the same network runs on each window, cropped and warped to side×side pixels.

    `context` of these are the window's surroundings, along each edge; None is R-CNN's share of the
    side. The other arguments are those of `svm`; the layer "softmax" takes the network's own
    scores, for which no SVMs are fitted.
    """
    _check(side=side)
    context = crops.usual_context(side) if context is None else context
    if not 0 <= 2 * context < side:
        raise UserError(
            f"config.eval.protocol: context={context} must be from 0 to less than half of "
            f"side={side}"
        )
    arguments = {"side": side, "context": context, "method": _method(method)}
    look = Look(crops.stages, functools.partial(crops.features, **arguments), f"crops {arguments}")
    suppression = _suppression(nms, least, most)
    svms = None if layer == "softmax" else _svms(layer, C)
    return _finding(look, suppression, svms, _regression(boxes, penalty))


def _maps(scales: tuple[int, ...], side: int, method: str) -> Look:
    """Returns the features of windows of one feature map at each scale."""
    _check(side=side, scales=min(scales, default=0))
    arguments = {"scales": scales, "side": side, "method": _method(method)}
    features = functools.partial(windows.features, **arguments)
    return Look(windows.stages, features, f"windows {arguments}")


def _finding(
    look: Look, suppression: Suppression, svms: Svm | None, regression: Regression | None
) -> Protocol:
    """Returns the protocol whose scores are those of `svms`, without these of the softmax."""

    def detector(network: Any, fitted: Any) -> Detector:
        stages = look.stages(network)

        def find(image: np.ndarray, proposals: np.ndarray) -> Detections:
            outputs = look.features(stages, image, proposals)
            scores = fitted[svms].scores(outputs[svms.layer]) if svms else outputs["scores"][:, :-1]
            rows, classes = best_rows(proposals, scores, **suppression._asdict())
            found = proposals[rows]
            if regression:  # after the suppression, as in the released code
                found = fitted[regression].moved(outputs["spp"][rows], found, classes)
                found = clip(found, *image.shape[:2])
            return Detections(found.astype(np.float32), classes, scores[rows, classes])

        return Detector(find, stages)

    return Protocol(detector, look, tuple(each for each in (svms, regression) if each))


def _svms(layer: str, C: float) -> Svm:
    if layer not in LAYERS:
        raise UserError(
            f"config.eval.protocol: SVMs take one of the layers {', '.join(LAYERS)}, not '{layer}'"
        )
    if C <= 0:
        raise UserError(f"config.eval.protocol: C={C} must be positive")
    return Svm(layer, float(C))


def _regression(boxes: bool, penalty: float) -> Regression | None:
    if penalty <= 0:
        raise UserError(f"config.eval.protocol: penalty={penalty} must be positive")
    return Regression("spp", float(penalty)) if boxes else None


def _suppression(nms: float, least: float, most: int) -> Suppression:
    _check(most=most)
    if not 0 <= nms <= 1:
        raise UserError(f"config.eval.protocol: nms={nms} must be from 0 to 1")
    return Suppression(nms, least, most)


def _method(method: str) -> str:
    if method not in METHODS:
        raise UserError(
            f"config.eval.protocol: unknown method '{method}'; there are: {', '.join(METHODS)}"
        )
    return method


def _check(**values: int) -> None:
    """Raises UserError unless all arguments of a protocol, by their names, are positive."""
    for name, value in values.items():
        if value < 1:
            raise UserError(f"config.eval.protocol: {name} must be positive, not {value}")
