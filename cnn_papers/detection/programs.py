"""Compiles a function once for each shape of its arguments, and counts programs and seconds."""

import time
from collections.abc import Callable
from typing import Any

import jax
from jax.sharding import Mesh

from cnn_papers.parallel import mesh as meshes


class Programs:
    """A function of arrays as compiled programs, one for each shape; all devices do the same.

    Args:
      function: pure; takes trees of arrays and returns one.
      mesh: of the devices.

    Attributes:
      count: number of programs so far.
      seconds: that it took to compile them.
    """

    def __init__(self, function: Callable[..., Any], mesh: Mesh):
        replicated = meshes.replicated(mesh)
        self._jitted = jax.jit(function, in_shardings=replicated, out_shardings=replicated)
        self._compiled: dict[Any, Any] = {}
        self.seconds = 0.0

    @property
    def count(self) -> int:
        """The number of programs so far."""
        return len(self._compiled)

    def __call__(self, *arguments: Any) -> Any:
        """Calls the program for the shapes of `arguments`."""
        shapes = tuple(leaf.shape for leaf in jax.tree.leaves(arguments))
        if shapes not in self._compiled:
            began = time.monotonic()
            self._compiled[shapes] = self._jitted.lower(*arguments).compile()
            self.seconds += time.monotonic() - began
        return self._compiled[shapes](*arguments)
