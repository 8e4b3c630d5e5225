"""What a process says to its user: words for it, and a terminal that may go away before the process
does.
"""

import os
import sys
from collections.abc import Sequence


def say(text: str, end: str = "\n") -> None:
    """A line on stdout. Where that is gone (a closed terminal; Ctrl-C ends `| tee` too) the process
    goes on without.
    """
    try:
        print(text, end=end, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def duration(seconds: float) -> str:
    """In the unit that fits: "42 s", "12 min", "3.4 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def aligned(rows: Sequence[tuple[str, ...]]) -> str:
    """The first column to the left, the others to the right; rules below the header and above the
    last row.
    """
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join(
            [
                row[0].ljust(widths[0]),
                *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True)),
            ]
        )
        for row in rows
    ]
    lines.insert(1, "-" * len(lines[0]))
    lines.insert(-1, lines[1])
    return "\n".join(lines)
