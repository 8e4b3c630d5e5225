"""The table of average precisions of a run that finds objects, by class and protocol."""

import pathlib
from collections.abc import Sequence
from typing import Any

from cnn_papers.detection import detections
from cnn_papers.errors import UserError
from cnn_papers.reporting import detection_figures
from cnn_papers.reporting.results import AveragePrecisions
from cnn_papers.tasks import task_module


def of_run(path: pathlib.Path, config: Any) -> AveragePrecisions | None:
    """Returns the average precisions of the run at `path`; None if it was not tested by them."""
    if task_module(config.task).HEADLINE != detections.HEADLINE:
        return None
    try:
        kept = detection_figures.tested(path)
    except UserError:  # a figure says so
        return None
    if not kept:
        return None
    curves = detection_figures.curves_of(kept)
    objects = [curve.positives if curve else 0 for curve in next(iter(curves.values()))]
    values: dict[str, Sequence[float | None]] = {
        protocol: [100 * curve.by_11_points if curve else None for curve in of_classes]
        for protocol, of_classes in curves.items()
    }
    return AveragePrecisions(kept[0].split, kept[0].class_names, objects, values)


def table(found: AveragePrecisions) -> list[tuple[str, ...]]:
    """Returns the table of average precisions: the header, a row for each class, their means."""
    by_class = zip(found.classes, found.objects, *found.values.values(), strict=True)
    rows = [
        (name, f"{objects:,}", *("–" if value is None else f"{value:.1f}" for value in values))
        for name, objects, *values in by_class
    ]
    means = [
        sum(known) / len(known)
        for values in found.values.values()
        if (known := [value for value in values if value is not None])
    ]
    mean = ("mean", f"{sum(found.objects):,}", *(f"{value:.1f}" for value in means))
    return [("class", "objects", *found.values), *rows, mean]


def caption(found: AveragePrecisions) -> str:
    """Returns the caption of the table of average precisions."""
    without = sum(objects == 0 for objects in found.objects)
    text = f"Average precision by class on {found.split}, in %, by VOC 2007’s 11 points."
    if not without:
        return text
    classes = "1 class has" if without == 1 else f"{without} classes have"
    return f"{text} {classes} no objects and no part in the mean."
