"""Fast compilation, for tests whose programs do little."""

import contextlib
from collections.abc import Iterator

import jax


@contextlib.contextmanager
def hasty_compiler() -> Iterator[None]:
    """Makes programs compile three times as fast, and run slower, while the block runs."""
    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    try:
        yield
    finally:
        jax.config.update("jax_disable_most_optimizations", before)
