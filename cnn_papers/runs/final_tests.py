"""Keeps final tests in the folder of the run that was tested: rows of results, and detections.

A folder that cannot be written to loses no test: the table is printed all the same, with a warning.
"""

import json
import logging
import pathlib
from collections.abc import Sequence
from typing import Any

from cnn_papers.data.split import Split
from cnn_papers.detection import detections
from cnn_papers.evaluation.results import Result
from cnn_papers.runs.rows import METRICS, TIMING, read_rows


def keep_result(
    folder: pathlib.Path,
    result: Result,
    *,
    step: int,
    split: Split,
    settings: Any,
    ensemble: Sequence[str] = (),
) -> None:
    """Adds a result to metrics.jsonl and timing.jsonl of the run in `folder`.

    Args:
      folder: of the run.
      result: of the test.
      step: of the network.
      split: that was tested.
      settings: `config.eval` of the network; a run may be older than a key.
      ensemble: the names of all members whose mean the result is.
    """
    identity = {"step": step, "test/protocol": result.protocol, "test/split": split.name}
    for key in ("mirror", "precise_bn"):
        if key in settings:
            identity[f"test/{key}"] = settings[key]
    if ensemble:
        identity["test/ensemble"] = list(ensemble)
    metrics = {
        **identity,
        **{f"test/{name}": value for name, value in result.values.items()},
        "test/images": result.images,
        f"test/{result.by_class.measure.name}": result.by_class.mean,
        "test/classes": len(result.by_class.names),
    }
    timing = {
        **identity,
        "test/images_per_second": round(result.images_per_second, 1),
        "programs": result.programs,
        "seconds_compiling": round(result.compiling, 2),
    }
    try:
        if metrics not in read_rows(folder / METRICS):  # tested before, it stays as it is
            _append(folder / METRICS, metrics)
        _append(folder / TIMING, timing)
    except OSError as error:
        _warn("result is", folder, error)


def keep_detections(
    folder: pathlib.Path, outcome: detections.Outcome, *, protocol: str, step: int, split: Split
) -> None:
    """Writes what was found in the images of `split` to detections.npz of the run in `folder`."""
    kept = detections.Kept(
        protocol, split.name, step, split.class_names, outcome.detections, outcome.objects
    )
    try:
        detections.save(folder / detections.FILE, kept)
    except OSError as error:
        _warn("detections are", folder, error)


def _append(path: pathlib.Path, row: dict[str, Any]) -> None:
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")


def _warn(what: str, folder: pathlib.Path, error: OSError) -> None:
    logging.getLogger(__name__).warning("the %s not kept in %s: %s", what, folder, error.strerror)
