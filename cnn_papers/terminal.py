"""Prints to a terminal that may close, and formats durations and tables."""

import os
import sys
from collections.abc import Sequence


def say(text: str, end: str = "\n") -> None:
    """Prints to stdout; discards this and later output if stdout is closed.

    It is after the terminal closes, or Ctrl-C ends the `tee` behind a pipe.
    """
    try:
        print(text, end=end, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def duration(seconds: float) -> str:
    """Returns a duration in a suitable unit: "42 s", "12 min", "3.4 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """Returns rows as aligned text, the first column to the left and the others to the right.

    Rules separate the first row, a header, and the last one, a total.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = []
    for first, *others in rows:
        cells = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        lines.append("  ".join([first.ljust(widths[0]), *cells]))
    lines.insert(1, "-" * len(lines[0]))
    lines.insert(-1, lines[1])
    return "\n".join(lines)
