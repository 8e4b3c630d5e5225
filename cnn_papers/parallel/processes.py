"""Collective operations between the processes of a multi-host run: broadcast, barrier, all-gather.

All processes make these calls in the same order. Each of them is a barrier, which waits until every
process has made it, except `largest`. In a run of one process they are plain calls. Process 0
decides and writes; an error of one process is raised on all, so that none waits for it.
"""

import functools
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cnn_papers.errors import UserError

MESSAGE = 8000  # bytes that a process can send to the others at once
# Prefixes of JAX's errors when another process is lost.
LOST = ("ABORTED", "CANCELLED", "DEADLINE_EXCEEDED", "INTERNAL", "UNAVAILABLE")
T = TypeVar("T")


def is_first() -> bool:
    """Tells whether this is process 0, the one that writes."""
    return jax.process_index() == 0


def is_loss(error: BaseException | None) -> bool:
    """Tells whether `error`, or one of its causes, is JAX's or Gloo's for a lost process."""
    while error is not None and jax.process_count() > 1:
        text = str(error)
        if isinstance(error, jax.errors.JaxRuntimeError) and (
            text.startswith(LOST) or "Gloo" in text
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def broadcast(make: Callable[[], T]) -> T:
    """Calls `make` on process 0 only, and returns its value on all processes.

    The value must be JSON of fewer than MESSAGE bytes. A UserError of `make` is raised on all.
    """
    if jax.process_count() == 1:
        return make()
    message = ""
    if is_first():
        try:
            message = json.dumps({"value": make()})
        except UserError as error:
            message = json.dumps({"error": str(error)[: MESSAGE // 8]})
    received: dict[str, Any] = json.loads(_exchange(message)[0])
    if "error" in received:
        raise UserError(received["error"])
    return received["value"]


def raise_on_all(do: Callable[[], None]) -> None:
    """Calls `do` on every process; a UserError on any of them is raised on all."""
    if jax.process_count() == 1:
        return do()
    message = ""
    try:
        do()
    except UserError as error:
        message = str(error)[: MESSAGE // 8]
    if errors := [text for text in _exchange(message) if text]:
        raise UserError(errors[0])


def on_same(text: str, what: str) -> None:
    """Raises UserError unless `text` (a digest, for example) is the same on every process."""
    if len(set(_exchange(text))) > 1:
        raise UserError(f"the processes of this run were started with different {what}")


def arrays_from_first(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """Returns the arrays of process 0 on all processes; those of the others are not read."""
    if jax.process_count() == 1:
        return arrays
    shapes = broadcast(lambda: [(array.shape, array.dtype.str) for array in arrays])
    mine = arrays if is_first() else [np.zeros(shape, dtype) for shape, dtype in shapes]
    return [np.asarray(array) for array in multihost_utils.broadcast_one_to_all(mine)]


def largest(number: int) -> jax.Array:
    """Starts to compute the largest `number` of any process, and does not wait for it.

    Reading the value waits until every process has made the call.
    """
    return _maximum()(_on_own_devices(number))


def put(tree: Any, sharding: Any) -> Any:
    """Puts arrays that every process holds in full on the devices of all processes.

    `sharding` is one sharding or a tree of them. If every process has one device, `jax.device_put`
    returns arrays that cannot be used (jax 0.10.2), so that it serves runs of one process only.
    """
    if jax.process_count() == 1:
        return jax.device_put(tree, sharding, may_alias=False)

    def place(leaf: Any, at: Any) -> jax.Array:
        if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
            return jax.device_put(leaf, at, may_alias=False)
        whole = np.asarray(leaf)
        return jax.make_array_from_callback(whole.shape, at, lambda index: whole[index])

    return jax.tree.map(place, tree, jax.tree.broadcast(sharding, tree))


def gathered(array: Any) -> np.ndarray:
    """Returns the full array, also if parts of it are on other hosts."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return multihost_utils.process_allgather(array, tiled=True)
    return np.asarray(array)


@functools.cache
def _all_devices() -> Mesh:
    return Mesh(np.array(jax.devices()), ("all",))


@functools.cache
def _maximum() -> Any:
    return jax.jit(
        lambda numbers: numbers.max(), out_shardings=NamedSharding(_all_devices(), PartitionSpec())
    )


@functools.lru_cache(maxsize=4)
def _on_own_devices(number: int) -> jax.Array:
    """Returns an array over all devices that holds each process's `number` on its own devices.

    It is cached, because `number` is 0 in almost every step.
    """
    sharding = NamedSharding(_all_devices(), PartitionSpec("all"))
    return jax.make_array_from_callback(
        (jax.device_count(),), sharding, lambda _: np.full(1, number, np.int32)
    )


def _exchange(text: str) -> list[str]:
    """Returns the texts of all processes, by their index."""
    if jax.process_count() == 1:
        return [text]
    data = text.encode()
    assert len(data) <= MESSAGE, f"a message of {len(data)} bytes"
    buffer = np.zeros(MESSAGE, np.uint8)
    buffer[: len(data)] = list(data)
    rows = np.asarray(multihost_utils.process_allgather(buffer))
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows]
