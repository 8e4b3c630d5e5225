"""Compiling in a hurry, for tests whose programs do little."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def hasty_compiler() -> Iterator[None]:
    """Programs that are compiled meanwhile take a third of the time to compile, and run slower."""
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", False)
