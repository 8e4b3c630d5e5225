"""Shows the progress of a long pass over data: a line on a terminal, lines of the log elsewhere."""

import contextlib
import logging
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from cnn_papers.terminal import duration

LOG_SECONDS = 10.0  # between lines of the log
TERMINAL_SECONDS = 1.0  # between changes of the line on a terminal
T = TypeVar("T")


def reported(
    items: Iterable[T],
    total: int,
    what: str,
    *,
    unit: str = "images",
    size: Callable[[T], int] = lambda item: 1,
) -> Iterator[T]:
    """Yields the `items`, and shows progress.

    Where stderr is a terminal, one line of it changes, and is cleared at the end. Elsewhere a line
    is logged every LOG_SECONDS.

    Args:
      items: any; their number need not be `total`.
      total: what the sizes of all items add up to.
      what: the pass, in words.
      unit: what is counted.
      size: how many of them an item is.
    """
    on_terminal = sys.stderr.isatty()
    say = _rewrite if on_terminal else logging.getLogger(__name__).info
    every = TERMINAL_SECONDS if on_terminal else LOG_SECONDS
    began = said = time.monotonic()
    done = 0
    if on_terminal:  # the first item may take long, while programs are compiled
        say(f"{what}: 0 of {total:,} {unit}")
    try:
        for item in items:
            yield item
            done += size(item)
            now = time.monotonic()
            if now - said >= every and done < total:
                said = now
                say(_text(what, done, total, unit, now - began))
    finally:
        if on_terminal:
            say("")


def _text(what: str, done: int, total: int, unit: str, seconds: float) -> str:
    """Returns how many are done and in a second, and an estimate of the time left."""
    rate = done / max(seconds, 1e-9)
    left = duration((total - done) / rate)
    shown = f"{rate:,.0f}" if rate >= 10 else f"{rate:.2g}"
    return f"{what}: {done:,} of {total:,} {unit}, {shown} {unit}/s, about {left} left"


def _rewrite(text: str) -> None:
    """Writes `text` over the last line of the terminal; "" clears it.

    The line is filled, so that what others print begins on the next one.
    """
    width = shutil.get_terminal_size().columns
    with contextlib.suppress(OSError):  # the terminal may close
        sys.stderr.write(f"\r{text[:width]:<{width}}" + ("" if text else "\r"))
        sys.stderr.flush()
