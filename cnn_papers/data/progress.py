"""Logs the progress of a long pass over data."""

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from cnn_papers.terminal import duration

EVERY_SECONDS = 10.0
T = TypeVar("T")


def reported(
    items: Iterable[T], total: int, what: str, *, size: Callable[[T], int] = lambda item: 1
) -> Iterator[T]:
    """Yields the `items`, and logs progress every EVERY_SECONDS.

    A line has `what`, how many of `total` are done, and an estimate of the time left. `size(item)`
    is how many an item counts for.
    """
    began = logged = time.monotonic()
    done = 0
    for item in items:
        yield item
        done += size(item)
        now = time.monotonic()
        if now - logged >= EVERY_SECONDS and done < total:
            left = (now - began) * (total - done) / done
            logged = now
            logging.getLogger(__name__).info(
                "%s: %s of %s, about %s left", what, f"{done:,}", f"{total:,}", duration(left)
            )
