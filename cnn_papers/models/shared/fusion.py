"""Keeps XLA from fusing an operation into others that would repeat it, on one CPU."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental.xla_metadata import set_xla_metadata

_ON_ONE_CPU = contextvars.ContextVar("_ON_ONE_CPU", default=False)


@contextlib.contextmanager
def on_one_cpu() -> Iterator[None]:
    """Makes `is_on_one_cpu` true; it is for tracing a step that runs on one CPU."""
    token = _ON_ONE_CPU.set(True)
    try:
        yield
    finally:
        _ON_ONE_CPU.reset(token)


def is_on_one_cpu() -> bool:
    """Tells whether what is traced now runs on one CPU, where `apart` may pay."""
    return _ON_ONE_CPU.get()


def apart(function: Callable[..., Any], *arguments: jax.Array) -> Any:
    """Returns `function(*arguments)`, computed from arrays in memory to arrays in memory.

    XLA on CPU computes a cheap value anew wherever a loop reads it. A loop that reads it at several
    places, as the gradient of a pooling does, repeats all that came before it at each of them. It
    ignores `jax.lax.optimization_barrier`, but a call that it may not inline stays one.
    """
    return set_xla_metadata(jax.jit(function)(*arguments), inlineable="false")
