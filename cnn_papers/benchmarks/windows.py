"""Measures how fast SPP-net and R-CNN compute the features of an image's windows, in turns.

Both have the same network, image and windows; what is timed is what a test of detection runs.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import numpy as np

from cnn_papers import zoo
from cnn_papers.benchmarks import workload
from cnn_papers.benchmarks.workload import Workload
from cnn_papers.detection import crops, windows
from cnn_papers.detection.windows import Stages
from cnn_papers.errors import UserError

IMAGE = (375, 500)  # pixels of most images of VOC, for a network whose input is 224 pixels
COUNTS = (500, 2000)  # windows; selective search proposes about 2,000 an image (SPP-net §4.1)
SCALES = ((688,), windows.SCALES)  # Table 10: the versions of one scale and of five
REPEATS = 3  # of SPP-net, which takes seconds; R-CNN's time is a sum over many calls already
# How many times as fast as R-CNN, by the number of scales (Table 10, §4.3).
PAPER = {1: {"conv": 270, "total": 102}, 5: {"conv": 49, "total": 38}}
MEASURED_ON = (
    "its 270, 102 (one scale), 49 and 38 (five) are of ZF-5 in Caffe on a GPU: means over "
    "100 images of VOC with about 2,000 windows each, fc included in 102 and 38 (Table 10)"
)


class _Timed:
    """A stage that adds up the seconds of its calls, each waited for."""

    def __init__(self, stage: Callable[..., Any]):
        self._stage, self.seconds = stage, 0.0

    def __call__(self, *arguments: Any) -> Any:
        began = time.perf_counter()
        result = jax.block_until_ready(self._stage(*arguments))
        self.seconds += time.perf_counter() - began
        return result


def measure(work: Workload) -> dict[str, Any]:
    """Returns the seconds that the features of windows take, as values of JSON.

    `rows` has one for each number of windows and of scales: of "spp" and "rcnn" the seconds of
    "conv", "pooling", "fc" and "total", which also has resizing and cropping; the "ratios" of R-CNN
    to SPP-net; and the "paper"'s. R-CNN's are measured once for each number of windows. Image and
    scales are in proportion to the network's input.

    Raises:
      UserError: a network without a spatial pyramid.
    """
    model: Any = zoo.build_model(work.model_name, **work.model)
    if not getattr(model, "levels", ()):
        raise UserError(
            "--measure=windows takes a network with a spatial pyramid, such as --model=spp"
        )
    network = workload.make_network(work)
    side = work.image_shape[0]
    spp_stages, rcnn_stages = windows.stages(network), crops.stages(network)
    rng = np.random.default_rng(0)
    height, width = (round(length * side / windows.SIDE) for length in IMAGE)
    image = rng.integers(0, 256, (height, width, 3), np.uint8)
    context = crops.usual_context(side)

    def rcnn(stages: Stages, boxes: np.ndarray) -> Any:
        return crops.features(stages, image, boxes, side=side, context=context)

    rows = []
    for count in COUNTS:
        boxes = _random_boxes(count, height, width, rng)
        rcnn(rcnn_stages, boxes[: crops.CROPS])  # compiles
        of_rcnn = _seconds(rcnn, rcnn_stages, boxes, repeats=1)
        for paper_scales in SCALES:
            scales = tuple(round(scale * side / windows.SIDE) for scale in paper_scales)

            def spp(stages: Stages, boxes: np.ndarray, scales: Any = scales) -> Any:
                return windows.features(stages, image, boxes, scales=scales, side=side)

            spp(spp_stages, boxes)  # compiles
            of_spp = _seconds(spp, spp_stages, boxes, repeats=REPEATS)
            ratios = {part: of_rcnn[part] / of_spp[part] for part in of_spp}
            row = {"windows": count, "scales": scales, "spp": of_spp, "rcnn": of_rcnn}
            rows.append({**row, "ratios": ratios, "paper": PAPER[len(scales)]})
    return {"image": (height, width), "side": side, "rows": rows, "measured_on": MEASURED_ON}


def _random_boxes(count: int, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Returns boxes float32 [count, 4] of a tenth to all of each side of the image."""
    sides = np.array([height, width]) * 10 ** -rng.random((count, 2))
    corner = rng.random((count, 2)) * (np.array([height, width]) - sides)
    return np.concatenate([corner, corner + sides], 1).astype(np.float32)


def _seconds(
    features: Callable[[Stages, np.ndarray], Any], stages: Stages, boxes: np.ndarray, repeats: int
) -> dict[str, float]:
    """Returns the seconds of each stage and of all, medians of `repeats` calls."""
    times: dict[str, list[float]] = {"conv": [], "pooling": [], "fc": [], "total": []}
    for _ in range(repeats):
        timed: list[Any] = [
            _Timed(stage) for stage in (stages.convolve, stages.pool, stages.classify)
        ]
        began = time.perf_counter()
        features(Stages(stages.variables, *timed), boxes)
        times["total"].append(time.perf_counter() - began)
        for part, stage in zip(("conv", "pooling", "fc"), timed, strict=True):
            times[part].append(stage.seconds)
    return {part: statistics.median(values) for part, values in times.items()}
