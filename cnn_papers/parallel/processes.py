"""What the processes of one run agree on. Every process calls these in the same order; a process
alone, as plain calls.

Process 0 decides and writes; a mistake found by one process is raised by all, so that none waits
for it.
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

MESSAGE = 8000  # bytes that a process can tell the others at once
GONE = (
    "ABORTED",
    "CANCELLED",
    "DEADLINE_EXCEEDED",
    "INTERNAL",
    "UNAVAILABLE",
)  # how such errors begin
T = TypeVar("T")


def is_first() -> bool:
    """Whether this process is the one that writes."""
    return jax.process_index() == 0


def is_loss(error: BaseException | None) -> bool:
    """Whether `error`, or what it came from, is that another process is gone, as JAX and gloo put
    it.
    """
    while error is not None and jax.process_count() > 1:
        text = str(error)
        if isinstance(error, jax.errors.JaxRuntimeError) and (
            text.startswith(GONE) or "Gloo" in text
        ):
            return True
        error = error.__cause__ or error.__context__
    return False


def broadcast(make: Callable[[], T]) -> T:
    """What `make` gives on process 0, which alone calls it: something that JSON can hold, in under
    MESSAGE bytes.
    """
    if jax.process_count() == 1:
        return make()
    message = ""
    if is_first():
        try:
            message = json.dumps({"made": make()})
        except UserError as error:
            message = json.dumps({"error": str(error)[: MESSAGE // 8]})
    told: dict[str, Any] = json.loads(_exchange(message)[0])
    if "error" in told:
        raise UserError(told["error"])
    return told["made"]


def raise_on_all(do: Callable[[], None]) -> None:
    """Calls `do` on every process; a UserError of any of them is raised on all."""
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
    """Raises a UserError unless every process gives the same `text` (a digest, say)."""
    if len(set(_exchange(text))) > 1:
        raise UserError(f"the processes of this run were started with different {what}")


def arrays_from_first(arrays: list[np.ndarray]) -> list[np.ndarray]:
    """The arrays that process 0 has; the others need not give any."""
    if jax.process_count() == 1:
        return arrays
    shapes = broadcast(lambda: [(array.shape, array.dtype.str) for array in arrays])
    mine = arrays if is_first() else [np.zeros(shape, dtype) for shape, dtype in shapes]
    return [np.asarray(array) for array in multihost_utils.broadcast_one_to_all(mine)]


def largest(number: int) -> jax.Array:
    """The largest `number` of any process, on its way: reading it waits for them, starting it does
    not.
    """
    return _maximum()(_one_each(number))


def put(tree: Any, sharding: Any) -> Any:
    """Arrays that every process has whole, as arrays with a sharding, or a tree of shardings, over
    all devices.

    `jax.device_put` makes unusable ones (jax 0.10.2) where every process has one device.
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
    """The whole of an array that may lie in parts on several hosts."""
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
def _one_each(number: int) -> jax.Array:
    """`number` on each of this process's devices, theirs on those of the others; kept, since it is
    0 in every step.
    """
    sharding = NamedSharding(_all_devices(), PartitionSpec("all"))
    return jax.make_array_from_callback(
        (jax.device_count(),), sharding, lambda _: np.full(1, number, np.int32)
    )


def _exchange(text: str) -> list[str]:
    """The texts of all processes."""
    if jax.process_count() == 1:
        return [text]
    data = text.encode()
    assert len(data) <= MESSAGE, f"a message of {len(data)} bytes"
    buffer = np.zeros(MESSAGE, np.uint8)
    buffer[: len(data)] = list(data)
    rows = np.asarray(multihost_utils.process_allgather(buffer))
    return [bytes(row).rstrip(b"\0").decode(errors="replace") for row in rows]
