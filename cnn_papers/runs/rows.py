"""Reads the rows of metrics.jsonl and timing.jsonl, and removes those after a checkpoint."""

import json
import os
import pathlib
from typing import Any

from cnn_papers.errors import UserError

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


def cut_back(path: pathlib.Path, last_step: int, pending: bool) -> None:
    """Removes the rows of a .jsonl file after `last_step`; if `pending`, its evaluation as well."""
    rows = [row for row in read_rows(path) if row["step"] <= last_step]
    if pending:
        rows = [row for row in rows if row["step"] < last_step or "val/top1_error" not in row]
    part = path.with_suffix(".tmp")
    try:
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written to: {error.strerror}") from error
