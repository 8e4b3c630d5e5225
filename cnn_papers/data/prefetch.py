"""Prefetching: reads examples in threads, and starts transfers of batches to the devices."""

import collections
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import cv2

from cnn_papers.errors import UserError

BATCHES = 2  # that are on their way to the devices
T = TypeVar("T")


def read(count: int, make: Callable[[int], Any]) -> Iterator[Any]:
    """Yields `make(0)` … `make(count - 1)` in order, computed ahead by Grain's reader threads.

    The threads end with the iterator. A UserError of `make` is raised in its place in the order.
    """
    import grain
    from threadpoolctl import threadpool_limits

    def attempt(k: int) -> Any:
        try:
            return make(int(k))
        except UserError as error:  # returned, because Grain would add lines to one that is raised
            return error

    # The reader threads already use every core; those of BLAS would only wait for each other.
    cv2.setNumThreads(0)
    threads = 2 * (os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    with threadpool_limits(1, user_api="blas"):
        for result in grain.MapDataset.range(count).map(attempt).to_iter_dataset(options):
            if isinstance(result, UserError):
                raise result
            yield result


def started(items: Iterable[T]) -> Iterator[T]:
    """Yields the `items`, BATCHES of them ahead, so that transfers overlap with steps."""
    items, under_way = iter(items), collections.deque[T]()
    while True:
        under_way.extend(itertools.islice(items, BATCHES + 1 - len(under_way)))
        if not under_way:
            return
        yield under_way.popleft()
