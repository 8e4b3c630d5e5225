"""Prints to a terminal that may close or lack characters; formats numbers, durations and tables."""

import codecs
import io
import os
import select
import sys
from collections.abc import Sequence

STRICT = ("strict", "surrogateescape")  # with these, printing raises an error


def say(text: str, end: str = "\n") -> None:
    """Prints to stdout; discards this and later output if stdout is closed.

    It is after the terminal closes, or Ctrl-C ends the `tee` behind a pipe.
    """
    try:
        print(text, end=end, flush=True)
    except OSError:
        discard_output()


def is_output_gone() -> bool:
    """Returns whether nobody reads stdout any more, as after `| head -1`."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)  # tells of errors only
    return bool(poll.poll(0))


def discard_output() -> None:
    """Discards this and later output to stdout."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def take_any_text() -> None:
    """Lets stdout and stderr take every text, also where they are closed or not UTF-8.

    Names of files need not be UTF-8; they are printed as their bytes where that is possible. Other
    characters that a stream lacks are printed as escapes, such as \\xd7.
    """
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        stream = getattr(sys, name)
        if stream is None:  # closed: the next file that is opened would become this stream
            setattr(sys, name, open(os.devnull, mode, errors="replace"))  # noqa: SIM115
        elif isinstance(stream, io.TextIOWrapper) and stream.errors in STRICT and mode == "w":
            is_utf8 = codecs.lookup(stream.encoding).name == "utf-8"
            stream.reconfigure(errors="surrogateescape" if is_utf8 else "backslashreplace")


def duration(seconds: float) -> str:
    """Returns a duration in a suitable unit: "42 s", "12 min", "3.4 h"."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def counted(number: int, noun: str, plural: str = "") -> str:
    """Returns a number with its noun, such as "1 box"; a `plural` of "" is the noun and s."""
    return f"{number:,} {noun if number == 1 else plural or f'{noun}s'}"


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
