"""Reads the rows of metrics.jsonl and timing.jsonl, and removes those after a checkpoint."""

import json
import math
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from cnn_papers.errors import UserError
from cnn_papers.facts import Measure

METRICS, TIMING = "metrics.jsonl", "timing.jsonl"

Row = dict[str, Any]


def read_rows(path: pathlib.Path) -> list[Row]:
    """Returns the rows of a .jsonl file, without a last line that a crash cut off.

    Raises:
      UserError: another line is damaged.
    """
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    try:
        return [json.loads(line) for line in lines[:-1] if line]
    except ValueError as error:
        raise UserError(
            f"{path} is damaged ({error}); restore it, or start in another workdir"
        ) from error


def evaluations(rows: Sequence[Row], headline: Measure) -> list[Row]:
    """Returns the rows of evaluations during training, those with a value of `headline`."""
    return [row for row in rows if f"val/{headline.name}" in row]


def best_evaluation(rows: Sequence[Row], headline: Measure) -> Row | None:
    """Returns the row of the first best evaluation by `headline`; None if there is none.

    One whose loss is not finite, which its row then lacks, counts only if all are so.
    """
    evaluated = evaluations(rows, headline)
    finite = [row for row in evaluated if "val/loss" in row]
    name = f"val/{headline.name}"
    return min(finite or evaluated, key=lambda row: headline.cost(row[name]), default=None)


def is_best(values: Row, rows: Sequence[Row], headline: Measure) -> bool:
    """Tells whether the loss in `values`, an evaluation, is finite and its headline the best.

    `rows` are those of the earlier evaluations.
    """
    earlier = best_evaluation([row for row in rows if "val/loss" in row], headline)
    bound = math.inf if earlier is None else headline.cost(earlier[f"val/{headline.name}"])
    return math.isfinite(values["loss"]) and headline.cost(values[headline.name]) < bound


def cut_back(path: pathlib.Path, last_step: int, pending: bool) -> None:
    """Removes the rows of a .jsonl file after `last_step`; if `pending`, its evaluation as well."""
    rows = [row for row in read_rows(path) if row["step"] <= last_step]
    if pending:
        rows = [
            row
            for row in rows
            if row["step"] < last_step or not any(name.startswith("val/") for name in row)
        ]
    part = path.with_suffix(".tmp")
    try:
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written to: {error.strerror}") from error
