"""Finds objects on images with a trained network, and draws them."""

import os
import pathlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import cv2
import numpy as np

from cnn_papers import files, tasks
from cnn_papers.data import drawing, host_ops, proposals
from cnn_papers.detection import detections
from cnn_papers.detection.detections import Detections
from cnn_papers.errors import UserError
from cnn_papers.weights import predictor
from cnn_papers.weights.trained import Trained

AT_ONCE = 16  # images that are read together
KEPT = (".jpg", ".jpeg", ".png")  # suffixes that a picture keeps; others become PNG


class Detector(NamedTuple):
    """A trained network that finds objects.

    Attributes:
      class_names: in the order of the labels.
      protocol: its text, the first of the run's `eval.protocol`.
      prepare: encoded bytes -> uint8 RGB [h, w, 3] and proposals, float32 [p, 4] or None; raises
        ValueError for bytes that are no image.
      detect: finds objects with the two, the best first.
    """

    class_names: tuple[str, ...]
    protocol: str
    prepare: Callable[[bytes], tuple[np.ndarray, np.ndarray | None]]
    detect: Callable[[np.ndarray, np.ndarray | None], Detections]


class Found(NamedTuple):
    """An image, uint8 RGB [h, w, 3], with the Detections on it."""

    image: np.ndarray
    detections: Detections


def finds_objects(network: Trained) -> bool:
    """Tells whether the task of a network is about boxes."""
    return tasks.task_module(network.config.task).NEEDS == "boxes"


def make_detector(network: Trained, folder: pathlib.Path | None) -> Detector:
    """Returns the detector of a network, by the first protocol of its final test.

    Args:
      network: one that `finds_objects`.
      folder: of its run, where the final test has kept what the protocol fits; None of a file.

    Raises:
      UserError: the network cannot serve the protocol, or what it fits is not there.
    """
    task, settings = tasks.task_module(network.config.task), network.config.eval
    protocols = task.protocols(
        settings.protocol,
        network.model,
        network.variables,
        network.normalise,
        network.image_shape,
        mirror=settings.get("mirror", True),
        precise_bn=0,
    )
    name, protocol = next(iter(protocols.items()))

    proposer_text = network.config.data.get("proposals", "")  # a run may be older than the key
    propose = proposals.parse(proposer_text) if proposer_text else None

    def prepare(encoded: bytes) -> tuple[np.ndarray, np.ndarray | None]:
        image = host_ops.decode(encoded)
        return image, propose(image) if propose else None

    fitted = None
    if hasattr(task, "fitted_of_run"):
        fitted = task.fitted_of_run(protocol, network, folder)
    detect = task.detector(protocol, network, fitted)
    return Detector(network.output_names, name, prepare, detect)


def find_objects(
    detector: Detector, paths: Sequence[pathlib.Path]
) -> Iterator[tuple[pathlib.Path, Found | str]]:
    """Yields each image file in order with what is found on it, or a description of its error.

    Raises:
      UserError: what is found is not finite or not on the image.
    """
    with ThreadPoolExecutor() as pool:
        for start in range(0, len(paths), AT_ONCE):
            chunk = paths[start : start + AT_ONCE]
            read = pool.map(lambda path: predictor.read_file(detector.prepare, path), chunk)
            for path, result in zip(chunk, read, strict=True):
                if isinstance(result, str):
                    yield path, result
                else:
                    yield path, find_on(detector, result, str(path))


def find_on(detector: Detector, prepared: tuple[np.ndarray, np.ndarray | None], name: str) -> Found:
    """Returns what is found on a prepared image; `name` is its, for errors.

    Raises:
      UserError: what is found is not finite or not on the image.
    """
    found = Found(prepared[0], detector.detect(*prepared))
    detections.check(found.detections, found.image.shape[:2], name)
    return found


def best_of(found: Detections, top: int, min_score: float) -> Detections:
    """Returns the `top` best of Detections with at least `min_score`."""
    count = min(top, int((found.scores >= min_score).sum()))  # the best come first
    return Detections(*(values[:count] for values in found))


# --- pictures -------------------------------------------------------------------------------------


def picture_paths(
    paths: Sequence[pathlib.Path], folder: pathlib.Path
) -> dict[pathlib.Path, pathlib.Path]:
    """Returns where the picture of each image goes: `photo.boxes.jpg` of `photo.jpg`.

    Names below the folder that all images share are kept, so that two have two pictures.

    Raises:
      UserError: the picture of an image is another of the images.
    """
    parents = {path: os.path.abspath(path.parent) for path in paths}
    common = os.path.commonpath(parents.values())
    targets = {}
    for path, parent in parents.items():
        suffix = path.suffix if path.suffix.lower() in KEPT else f"{path.suffix}.png"
        name = f"{path.stem}.boxes{suffix}"
        targets[path] = folder / os.path.relpath(parent, common) / name
    images = {path.resolve(): path for path in paths}
    for path, target in targets.items():
        if target.resolve() in images:
            raise UserError(
                f"the picture of {path} would replace the image {images[target.resolve()]}: "
                "give another folder with --out"
            )
    return targets


def write_picture(path: pathlib.Path, found: Found, class_names: Sequence[str]) -> None:
    """Writes an image with the boxes on it, each with its class and score, to a file.

    Raises:
      UserError: the file cannot be written.
    """
    boxes, classes, scores = found.detections
    picture = drawing.draw_boxes(
        found.image,
        boxes,
        [f"{class_names[i]} {score:.2f}" for i, score in zip(classes, scores, strict=True)],
        [drawing.colour_of(int(i)) for i in classes],
        zoom=drawing.legible_zoom(found.image),
    )
    kind = ".png" if path.suffix.lower() == ".png" else ".jpg"
    with files.atomic_write(path) as part:
        part.write_bytes(cv2.imencode(kind, picture[..., ::-1])[1].tobytes())
