"""Computes features and scores of the windows of an image from one feature map at each scale.

He et al., SPP-net, §4.1. The image is convolved once at each scale, and each window is taken from
the scale at which it is nearest 224×224 pixels.

Shapes are few, so that programs are: the longer side of a scaled image is padded to whole steps, as
`fit` does, and windows are padded to a power of two.
"""

from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_papers.boxes import Boxed
from cnn_papers.data.host_ops import fit, resize_short
from cnn_papers.detection.programs import Programs
from cnn_papers.evaluation import support

SCALES = (480, 576, 688, 864, 1200)  # §4.1; the released code has 874 (Script_spp_voc.m)
SIDE = 224  # §4.1: of the networks' input
STEP = 32  # ours: pixels
FEWEST, MOST = 32, 512  # ours: windows of the smallest and the largest program


class Stages(NamedTuple):
    """The three stages of a network over windows; each compiles a program for each shape.

    Attributes:
      variables: of the network.
      convolve: (variables, uint8 image [1, h, w, 3]) -> feature map [1, a, b, c].
      pool: (feature map, float32 windows [1, k, 4] in pixels of the image) -> [1, k, bins·c].
      classify: (variables, pooled [k, bins·c]) -> "fc6" and "fc7" [k, units], "scores" [k, outputs]
        by a softmax.
    """

    variables: Any
    convolve: Programs
    pool: Programs
    classify: Programs

    @property
    def programs(self) -> int:
        """The number of programs so far."""
        return self.convolve.count + self.pool.count + self.classify.count

    @property
    def compiling(self) -> float:
        """The seconds that it took to compile them."""
        return self.convolve.seconds + self.pool.seconds + self.classify.seconds


def stages(network: Any) -> Stages:
    """Returns the stages of a `weights.trained.Trained`.

    Raises:
      UserError: the network has no spatial pyramid.
    """
    model, normalise = network.model, network.normalise
    support.check_windows(model)

    def convolve(variables: Any, image: jax.Array) -> jax.Array:
        return model.apply(variables, normalise(image, jax.random.key(0)), method="convolve")[0]

    def pool(feature_map: jax.Array, windows: jax.Array) -> jax.Array:
        return model.apply({}, feature_map, windows, method="pool")

    def classify(variables: Any, pooled: jax.Array) -> dict[str, jax.Array]:
        scores, ends = model.apply(variables, pooled[:, None, None], method="classify")
        ends = {name: ends[name][:, 0, 0] for name in ("fc6", "fc7")}
        return {**ends, "scores": jax.nn.softmax(scores[:, 0, 0].astype(np.float32))}

    programs = (Programs(stage, network.mesh) for stage in (convolve, pool, classify))
    return Stages(network.variables, *programs)


def features(
    stages: Stages,
    image: np.ndarray,
    windows: np.ndarray,
    *,
    scales: tuple[int, ...] = SCALES,
    side: int = SIDE,
    method: str = "area",
) -> dict[str, np.ndarray]:
    """Returns what the network computes of the windows of an image, by the names of its layers.

    Args:
      stages: from `stages`.
      image: uint8 [h, w, 3].
      windows: float32 [k, 4], boxes in pixels of the image, see `boxes`.
      scales: shorter sides that the image is resized to.
      side: of the square that a window should be nearest to in area.
      method: of the resize, one of `host_ops.METHODS`.

    Returns:
      float32 "spp" [k, bins·c], "fc6" and "fc7" [k, units], "scores" [k, outputs]: a softmax, whose
      last output is the background. All are empty without windows.
    """
    pooled = pooled_windows(stages, image, windows, scales=scales, side=side, method=method)
    return {"spp": pooled, **classified(stages, pooled)}


def pooled_windows(
    stages: Stages,
    image: np.ndarray,
    windows: np.ndarray,
    *,
    scales: tuple[int, ...] = SCALES,
    side: int = SIDE,
    method: str = "area",
) -> np.ndarray:
    """Returns the pyramids over windows, float32 [k, bins·c]; takes what `features` takes.

    A scale that is nearest for no window is not computed.
    """
    nearest = nearest_scales(windows, image.shape[:2], scales, side)
    # without windows one is pooled, whose features tell how many there are
    used = np.unique(nearest).tolist() or [0]
    parts, rows = [], []
    for scale in used:
        rows.append(np.flatnonzero(nearest == scale))
        scaled = resize_short(Boxed(image, windows[rows[-1]]), scales[scale], method)
        boxes = scaled.boxes.astype(np.float32)
        feature_map = stages.convolve(stages.variables, _in_whole_steps(scaled.pixels)[None])
        padded = _padded(boxes, _power_of_two(len(boxes)))
        parts.append(np.asarray(stages.pool(feature_map, padded[None])[0])[: len(boxes)])
    pooled = np.concatenate(parts)
    pooled[np.concatenate(rows)] = pooled.copy()
    return pooled


def classified(stages: Stages, pooled: np.ndarray) -> dict[str, np.ndarray]:
    """Returns "fc6", "fc7" and "scores" of pooled windows [k, bins·c], as `features` does."""
    parts = []
    for start in range(0, max(1, len(pooled)), MOST):
        part = pooled[start : start + MOST]
        outputs = stages.classify(stages.variables, _padded(part, _power_of_two(len(part))))
        parts.append({name: np.asarray(rows)[: len(part)] for name, rows in outputs.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


def nearest_scales(
    windows: np.ndarray, size: tuple[int, ...], scales: tuple[int, ...], side: int
) -> np.ndarray:
    """Returns for each window [k, 4] which of `scales` brings its area nearest side², int [k].

    `size` (h, w) is the image's, whose shorter side a scale is.
    """
    areas = (windows[:, 2] - windows[:, 0]) * (windows[:, 3] - windows[:, 1])
    factors = np.array(scales) / min(size)
    return np.abs(areas[:, None] * factors[None] ** 2 - side**2).argmin(1)


def _in_whole_steps(image: np.ndarray) -> np.ndarray:
    """Pads the longer side of an image at its far end to whole steps, with its mean colour."""
    short = min(image.shape[:2])
    sides = [length if length == short else length + -length % STEP for length in image.shape[:2]]
    return fit(image, *sides)


def _power_of_two(rows: int) -> int:
    return max(FEWEST, 1 << (rows - 1).bit_length()) if rows else FEWEST


def _padded(rows: np.ndarray, number: int) -> np.ndarray:
    """Returns `rows` [k, …] with rows of zeros after them, [number, …]."""
    return np.concatenate([rows, np.zeros((number - len(rows), *rows.shape[1:]), rows.dtype)])
