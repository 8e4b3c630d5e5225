"""The figure of how OverFeat merges the boxes on one image (§4.3, Figure 7)."""

import inspect
import pathlib
from typing import Any

import numpy as np

from cnn_papers.data import drawing, host_ops
from cnn_papers.detection import overfeat_protocols
from cnn_papers.detection.detections import Detections, Kept
from cnn_papers.errors import UserError
from cnn_papers.opstrings import Op, parse
from cnn_papers.reporting import detection_figures
from cnn_papers.reporting.results import Figure, Photo
from cnn_papers.tasks import task_module
from cnn_papers.weights import trained

PARTS = (-1.0, 0.25, 0.5, 1.0)  # of the last match score: no box matches another at -1
NAMED = 6  # boxes at most, for each to have a tag of its class and score


def of_run(title: str, path: pathlib.Path, config: Any) -> list[Figure]:
    """Returns the merging by the first protocol `merge` of the final test; none without one."""
    try:
        tested = detection_figures.tested(path)
        kept = next((one for one in tested if one.protocol.startswith("merge")), None)
        if kept is None:
            return []
        split = detection_figures.open_images(kept, config)
        best = [float(found.scores.max(initial=0)) for found in kept.detections]
        index = int(np.argmax(best))
        image = host_ops.decode(split.examples[index]["image"])
        panels = _panels(path, kept, image)
    except UserError as error:
        return [Figure(f"{title}: merging", f"Not drawn: {error}.", [])]
    name = detection_figures.image_name(split, index)
    text = (
        f"By {kept.protocol} on image {name} of {kept.split}, which has the highest score. Boxes "
        "are merged pair by pair, the best match first, and their scores add up. Colours are "
        "classes."
    )
    return [Figure(f"{title}: merging", text, panels)]


def _panels(path: pathlib.Path, kept: Kept, image: np.ndarray) -> list[Photo]:
    """Returns the boxes on an image before merging and up to several match scores."""
    network = trained.from_run(path)
    if network.step != kept.step:
        raise UserError(
            f"the final test was of step {kept.step}, and the network is of step {network.step}"
        )
    task = task_module(network.config.task)
    (op,) = parse(kept.protocol, overfeat_protocols, leading=0, key="eval.protocol")
    maps = task.detector(op(), network, None).maps(image)
    last = _arguments(op)["match"]
    panels = []
    for part in PARTS:
        step = op.function(**_arguments(op) | {"match": part * last if part > 0 else part})
        found = step.find(maps, image.shape[:2])
        count = f"{len(found.classes)} box" + ("" if len(found.classes) == 1 else "es")
        how = f"merged to a match score of {part * last:g}" if part > 0 else "before merging"
        title = f"{how}: {count}"
        panels.append(detection_figures.photo(title, _drawn(image, found, network), title))
    return panels


def _arguments(op: Op) -> dict[str, Any]:
    """Returns all arguments of a protocol by name, those left to their defaults too."""
    bound = inspect.signature(op.function).bind(*op.args, **op.kwargs)
    bound.apply_defaults()
    return bound.arguments


def _drawn(image: np.ndarray, found: Detections, network: trained.Trained) -> np.ndarray:
    """Returns the image with boxes in the colours of their classes."""
    image, factor = detection_figures.at_page_size(image)
    labels = [
        f"{network.output_names[label]} {score:.2f}"
        for label, score in zip(found.classes, found.scores, strict=True)
    ]
    if len(labels) > NAMED:
        labels = [""] * len(labels)
    colours = [drawing.colour_of(int(label)) for label in found.classes]
    return drawing.draw_boxes(image, found.boxes * factor, labels, colours)
