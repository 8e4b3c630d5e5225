"""Work done ahead of its need: examples read in threads, batches on their way to the devices."""

import collections
import itertools
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import cv2

from cnn_papers.errors import UserError

BATCHES = 2  # on their way to the devices
T = TypeVar("T")


def read(count: int, make: Callable[[int], Any]) -> Iterator[Any]:
    """`make(0)` … `make(count - 1)` in order, made ahead by Grain's reader threads, which end with
    the iterator.
    """
    import grain

    def attempt(k: int) -> Any:
        try:
            return make(int(k))
        except UserError as error:  # handed on as it is: Grain would add lines of its own
            return error

    cv2.setNumThreads(0)  # the reader threads already use every core
    threads = 2 * (os.cpu_count() or 1)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=2 * threads)
    for made in grain.MapDataset.range(count).map(attempt).to_iter_dataset(options):
        if isinstance(made, UserError):
            raise made
        yield made


def started(items: Iterable[T]) -> Iterator[T]:
    """The `items`, BATCHES of them begun before they are asked for, so that transfers overlap with
    steps.
    """
    items, waiting = iter(items), collections.deque[T]()
    while True:
        waiting.extend(itertools.islice(items, BATCHES + 1 - len(waiting)))
        if not waiting:
            return
        yield waiting.popleft()
