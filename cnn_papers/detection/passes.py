"""Passes a detector over the images of a test."""

import time
from collections.abc import Callable
from typing import Any

import numpy as np

from cnn_papers.data import prefetch
from cnn_papers.data.progress import reported
from cnn_papers.detection import detections
from cnn_papers.detection.detections import Detections, Outcome

# (uint8 image [h, w, 3], its proposals float32 [p, 4] or None) -> what is found in it
Detect = Callable[[np.ndarray, np.ndarray | None], Detections]


def run(detect: Detect, counter: Any, source: Any, *, name: str) -> Outcome:
    """Returns what `detect` finds in all images of a split.

    Args:
      detect: takes images of their original size.
      counter: has the numbers of `programs` and of seconds `compiling` of `detect` so far.
      source: an `evaluation.passes.Source`.
      name: of the protocol, for the display of progress.

    Raises:
      UserError: an image that cannot be read, or a detection that makes no sense; it is named.
    """
    pipeline, began, before = source.raw, time.monotonic(), counter.compiling
    split = pipeline.split

    def read(i: int) -> np.ndarray:
        return pipeline.reader.example(i, seed=(0, 0))["image"]

    found: list[Detections] = []
    images = prefetch.read(len(pipeline), read)
    for i, image in enumerate(reported(images, len(pipeline), name)):
        found.append(detect(image, split.proposals and split.proposals[i]))
        where = f"image {split.examples[i]['id']} of {split.name}"
        detections.check(found[-1], image.shape[:2], where)
    compiling = counter.compiling - before
    return Outcome(
        found,
        split.objects,
        programs=counter.programs,
        seconds=time.monotonic() - began - compiling,
        compiling=compiling,
    )
