"""Figures of a run that finds objects, from the detections that its final test has kept."""

import base64
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import cv2
import numpy as np

from cnn_papers import boxes as geometry
from cnn_papers.data import drawing, host_ops
from cnn_papers.data.split import Objects, Split
from cnn_papers.detection import detections
from cnn_papers.detection.detections import Detections, Kept
from cnn_papers.errors import UserError
from cnn_papers.evaluation.average_precision import OVERLAP, Curve
from cnn_papers.reporting.results import Figure, Line, Lines, Panel, Photo
from cnn_papers.runs import splits
from cnn_papers.tasks import task_module

EACH = 2  # images shown of the first, the best and the worst
WIDE = 360  # pixels of the longer side of an image on the page
QUALITY = 88  # of its JPEG
STEPS = 40  # of a curve, at most
LIMITS = (0.0, 102.0)  # of its axes
FOUND, WRONG = (0, 114, 178), (213, 94, 0)  # the colours of verdicts on the page
TRUE = drawing.WHITE


def tested(path: pathlib.Path) -> list[Kept]:
    """Returns what the final test of the run at `path` has kept of the split tested last.

    Raises:
      UserError: the file is damaged.
    """
    file = path / detections.FILE
    kept = detections.load(file) if file.is_file() else []
    return [one for one in kept if one.split == kept[-1].split]


def of_run(title: str, path: pathlib.Path, config: Any) -> list[Figure]:
    """Returns found beside true boxes on images of a run, and its precision over recall."""
    try:
        kept = tested(path)
    except UserError as error:
        return [Figure(f"{title}: boxes", f"Not drawn: {error}.", [])]
    if not kept:
        return []
    figures = [_found_and_true(f"{title}: found and true boxes", kept[0], config)]
    if task_module(config.task).HEADLINE == detections.HEADLINE:
        figures.append(_precision_over_recall(title, kept))
    return figures


def curves_of(kept: Sequence[Kept]) -> dict[str, list[Curve | None]]:
    """Returns the curve of every class by protocol."""
    return {
        one.protocol: detections.curves(one.detections, one.objects, len(one.class_names))
        for one in kept
    }


# --- precision over recall ------------------------------------------------------------------------


def _precision_over_recall(title: str, kept: Sequence[Kept]) -> Figure:
    """Returns a panel for each class that has objects, with a line for each protocol."""
    curves = curves_of(kept)
    panels: list[Panel] = []
    for label, name in enumerate(kept[0].class_names):
        of_class = {protocol: curves[protocol][label] for protocol in curves}
        if any(of_class.values()):
            lines = [_line(short, of_class[text]) for text, short in short_names(of_class).items()]
            panels.append(Lines(name, "recall (%)", "precision (%)", lines, limits=LIMITS))
    text = (
        f"On {kept[0].split}; at each recall the best precision there or beyond it, the area below "
        "which is the average precision of VOC 2010."
    )
    return Figure(f"{title}: precision over recall", text, panels)


def short_names(protocols: Mapping[str, Any]) -> dict[str, str]:
    """Returns protocols without their arguments where that tells them apart."""
    names = [text.partition("(")[0] for text in protocols]
    return {
        text: name if names.count(name) == 1 else text
        for text, name in zip(protocols, names, strict=True)
    }


def _line(name: str, curve: Curve | None) -> Line:
    """Returns the steps of a curve in percent; the origin where nothing is found."""
    if curve is None or not curve.recall.any():
        return Line(name, *[[0.0]] * 4)
    hits = np.flatnonzero(np.diff(curve.recall, prepend=0) > 0)
    recall, precision = curve.recall[hits], curve.precision[hits]
    best_from_here = np.maximum.accumulate(precision[::-1])[::-1]
    lasts = np.flatnonzero(np.append(np.diff(best_from_here) < 0, True))
    lasts = lasts[np.unique(np.linspace(0, len(lasts) - 1, STEPS).round().astype(int))]
    starts = np.concatenate([[0.0], recall[lasts][:-1]])
    x = (100 * np.stack([starts, recall[lasts]], 1)).ravel().tolist()
    y = (100 * best_from_here[lasts]).repeat(2).tolist()
    return Line(name, x, y, y, y)


# --- found beside true ----------------------------------------------------------------------------


def _found_and_true(title: str, kept: Kept, config: Any) -> Figure:
    """Returns images with as many of the best detections as they have objects."""
    try:
        split = open_images(kept, config)
    except UserError as error:
        return Figure(title, f"Not drawn: {error}.", [])
    best = [
        Detections(*(values[: len(objects.classes)] for values in found))
        for found, objects in zip(kept.detections, kept.objects, strict=True)
    ]
    hits = [matches(*pair) for pair in zip(best, kept.objects, strict=True)]
    panels = []
    for why, index in chosen(best, hits):
        objects, found, (right, known) = kept.objects[index], best[index], hits[index]
        image = host_ops.decode(split.examples[index]["image"])
        words = f"{why}: {image_name(split, index)}, {known.sum()} of {len(known)} found"
        names = kept.class_names
        alt = "; ".join(
            [
                *(
                    f"{names[label]} {'found' if hit else 'wrong'}, {score:.2f}"
                    for label, score, hit in zip(found.classes, found.scores, right, strict=True)
                ),
                *(
                    f"{names[label]} missed"
                    for label, hit in zip(objects.classes, known, strict=True)
                    if not hit
                ),
            ]
        )
        panels.append(photo(words, _marked(image, found, right, objects, known, names), alt))
    text = (
        f"By {kept.protocol} on {kept.split}, of each image as many of the best boxes as it has "
        f"objects. White: the true boxes, with their class where they are missed. Blue: found, "
        f"with an IoU of at least {OVERLAP:g}. Orange: wrong. Images with objects: the first, "
        "the best and the worst by the share that is found."
    )
    return Figure(title, text, panels)


def open_images(kept: Kept, config: Any) -> Split:
    """Opens the images of detections; UserError if they are not there, or others."""
    split = splits.open_one_to_test(config, config.data.eval_split)
    if split.name != kept.split or len(split.examples) != len(kept.objects):
        raise UserError(
            f"the final test was of {len(kept.objects):,} images of {kept.split}, and "
            f"{split.name} has {len(split.examples):,}"
        )
    return split


def image_name(split: Split, index: int) -> str:
    """Returns the name of an image, which in some splits begins with that of the split."""
    return split.examples[index]["id"].removeprefix(f"{split.name}:")


def matches(found: Detections, objects: Objects) -> tuple[np.ndarray, np.ndarray]:
    """Returns which detections of an image are right, bool [d], and which objects found, bool [k].

    As in VOC, the best detection of an object is right, and others of it are wrong.
    """
    overlaps = geometry.iou(
        np.asarray(found.boxes, np.float64)[:, None], np.asarray(objects.boxes, np.float64)[None]
    )
    overlaps = np.where(found.classes[:, None] == objects.classes[None], overlaps, 0)
    right, known = np.zeros(len(found.classes), bool), np.zeros(len(objects.classes), bool)
    for i, row in enumerate(overlaps):
        if len(row) and row.max() >= OVERLAP and not known[row.argmax()]:
            right[i] = known[row.argmax()] = True
    return right, known


def chosen(
    best: Sequence[Detections], hits: Sequence[tuple[np.ndarray, np.ndarray]]
) -> list[tuple[str, int]]:
    """Returns the images to show, with the reason: the first, the best, the worst with objects.

    Of images with an equal share of objects found, the best has more objects, and the worst a
    more certain mistake.
    """
    known = {i: of_image for i, (_, of_image) in enumerate(hits) if len(of_image)}

    def mistake(i: int) -> float:
        wrong = best[i].scores[~hits[i][0]]
        return float(wrong.max(initial=-np.inf))

    orders = {
        "first": [*known],
        "best": sorted(known, key=lambda i: (-known[i].mean(), -len(known[i]), i)),
        "worst": sorted(known, key=lambda i: (known[i].mean(), -mistake(i), i)),
    }
    shown: dict[int, str] = {}
    for why, order in orders.items():
        new = [i for i in order if i not in shown][:EACH]
        shown |= dict.fromkeys(new, why)
    return [(why, i) for i, why in shown.items()]


def _marked(
    image: np.ndarray,
    found: Detections,
    right: np.ndarray,
    objects: Objects,
    known: np.ndarray,
    names: Sequence[str],
) -> np.ndarray:
    """Returns an image at the size of the page with detections over the true boxes."""
    image, factor = at_page_size(image)
    labels = [
        *(f"{names[i]} {score:.2f}" for i, score in zip(found.classes, found.scores, strict=True)),
        *("" if hit else names[i] for i, hit in zip(objects.classes, known, strict=True)),
    ]
    colours = [*(FOUND if hit else WRONG for hit in right), *[TRUE] * len(known)]
    boxes = np.concatenate([found.boxes, objects.boxes]) * factor
    return drawing.draw_boxes(image, boxes, labels, colours)


# --- pixels ---------------------------------------------------------------------------------------


def at_page_size(image: np.ndarray) -> tuple[np.ndarray, float]:
    """Returns an image with its longer side about WIDE, and the factor; small ones in squares."""
    longer = max(image.shape[:2])
    if longer < WIDE:
        factor = WIDE // longer
        return image.repeat(factor, 0).repeat(factor, 1), float(factor)
    height, width = (round(side * WIDE / longer) for side in image.shape[:2])
    return host_ops.resize(image, max(1, height), max(1, width)), WIDE / longer


def photo(title: str, image: np.ndarray, alt: str) -> Photo:
    """Returns a panel of an image, uint8 RGB [h, w, 3]; colours keep every pixel."""
    settings = [cv2.IMWRITE_JPEG_QUALITY, QUALITY]
    settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    file = cv2.imencode(".jpg", image[..., ::-1], settings)[1].tobytes()
    return Photo(title, base64.b64encode(file).decode(), image.shape[1], alt)
