"""The protocols of `localize` and `detect_dense`, by the names that `config.eval.protocol` joins.

Each looks at an image at several scales, in one convolutional pass a scale, and makes detections of
the boxes at all positions (OverFeat §4.3, §5). The functions of this module return a Protocol,
which gives the detector of a network.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_papers import boxes as geometry
from cnn_papers.data.host_ops import METHODS, resize
from cnn_papers.detection import overfeat
from cnn_papers.detection.detections import Detections
from cnn_papers.detection.overfeat import Finder, Maps, Reduce
from cnn_papers.detection.programs import Programs
from cnn_papers.errors import UserError
from cnn_papers.evaluation.protocols import OVERFEAT_SIZES

SCALES = tuple(shorter for shorter, _ in OVERFEAT_SIZES)  # Table 5


class Protocol(NamedTuple):
    """A way to find objects.

    Attributes:
      scales: shorter sides of the image. The longer one is rounded to whole steps of the map,
        which changes the aspect a little: shapes are few then, and so are programs.
      method: by which images are resized, of `host_ops.METHODS`.
      find: from maps of all scales to detections.
    """

    scales: tuple[int, ...]
    method: str
    find: Finder

    def detector(self, network: Any, background: int) -> "Detector":
        """Returns the detector of a `weights.trained.Trained`.

        `background` is the number of outputs after those of the classes.
        """
        model, normalise = network.model, network.normalise

        def look(variables: Any, image: jax.Array) -> Maps:
            ends = model.apply(variables, normalise(image, jax.random.key(0)))[1]
            return overfeat.maps(model, ends, background)

        step = model.geometry().stride
        return Detector(self, step, network.variables, Programs(look, network.mesh))


class Detector(NamedTuple):
    """Finds the objects of an image: call it with the image; it takes no proposals.

    Attributes:
      protocol: its own.
      step: pixels between two positions of the network.
      variables: of the network.
      look: (variables, uint8 image [1, h, w, c]) -> its maps.
    """

    protocol: Protocol
    step: int
    variables: Any
    look: Programs

    @property
    def programs(self) -> int:
        """The number of programs so far, one for each shape of image."""
        return self.look.count

    @property
    def compiling(self) -> float:
        """The seconds that it took to compile them."""
        return self.look.seconds

    def __call__(self, image: np.ndarray, proposals: np.ndarray | None = None) -> Detections:
        """Returns what is found in an image, uint8 [h, w, c]."""
        size: Any = image.shape[:2]
        return self.protocol.find([*self.maps(image)], size)

    def maps(self, image: np.ndarray) -> list[Maps]:
        """Returns the maps of every scale, boxes in pixels of the image itself."""
        found = []
        for scale in self.protocol.scales:
            height, width = size_at(image.shape[:2], scale, self.step)
            resized = resize(image, height, width, self.protocol.method)
            maps = jax.tree.map(np.asarray, self.look(self.variables, resized[None]))
            back = image.shape[0] / height, image.shape[1] / width
            found.append(Maps(maps.scores[0], geometry.scale(maps.boxes[0], *back)))
        return found


def size_at(size: tuple[int, ...], scale: int, step: int) -> tuple[int, int]:
    """Returns (h, w) of an image of `size` (h, w) at the shorter side `scale`.

    The longer side is `scale` plus the nearest multiple of `step`.
    """
    shorter, longer = min(size), max(size)
    long_side = scale + round((scale * longer / shorter - scale) / step) * step
    return (scale, long_side) if size[0] <= size[1] else (long_side, scale)


def merge(
    scales: tuple[int, ...] = SCALES,
    match: float = 1.0,
    weighted: bool = True,
    top: int = 5,
    least: float = 0.5,
    most: int = 100,
    method: str = "bilinear",
) -> Protocol:
    """Boxes are merged until the best match score exceeds `match`; their scores add up (§4.3).

    A merged box is the mean of its boxes by their scores or, if not `weighted`, that of each pair,
    as in the paper. The candidates are the boxes of the `top` classes of each scale whose score is
    `least` or more; of each class, the `most` with the largest scores.
    """
    reduce = overfeat.merged(match, weighted)
    return _protocol(scales, method, reduce, top, least, most)


def suppress(
    scales: tuple[int, ...] = SCALES,
    nms: float = 0.3,
    top: int = 5,
    least: float = 0.5,
    most: int = 100,
    method: str = "bilinear",
) -> Protocol:
    """Of boxes whose IoU exceeds `nms`, the one with the largest score stays."""
    return _protocol(scales, method, overfeat.suppressed(nms), top, least, most)


def single(
    scales: tuple[int, ...] = SCALES,
    top: int = 5,
    least: float = 0.5,
    method: str = "bilinear",
) -> Protocol:
    """Only the box with the largest score of each class stays."""
    return _protocol(scales, method, overfeat.best, top, least, 1)


def _protocol(
    scales: tuple[int, ...], method: str, reduce: Reduce, top: int, least: float, most: int
) -> Protocol:
    """Returns a Protocol; a UserError if its arguments make no sense."""
    if not scales or min(*scales, top, most) < 1 or not 0 <= least <= 1:
        raise UserError(
            f"config.eval.protocol: scales={scales}, top={top} and most={most} must be positive, "
            f"and least={least} from 0 to 1"
        )
    if method not in METHODS:
        raise UserError(
            f"config.eval.protocol: unknown method '{method}'; there are: {', '.join(METHODS)}"
        )
    return Protocol(scales, method, Finder(reduce, top, least, most))
