"""Random parameters and statistics for a network, made in NumPy without compiling."""

import math
from typing import Any

import jax
import numpy as np

from cnn_papers import counting


def random_variables(
    model: Any, input_shape: tuple[int, int, int], seed: int = 0
) -> dict[str, Any]:
    """Returns kernels of He et al.'s variance, and other variables as after some training."""
    random = np.random.default_rng(seed)

    def draw(path: tuple[Any, ...], leaf: jax.ShapeDtypeStruct) -> np.ndarray:
        name = [key.key for key in path if hasattr(key, "key")][-1]
        normal = random.normal(size=leaf.shape)
        if name in ("scale", "var"):
            value = np.exp(0.2 * normal)
        elif len(leaf.shape) > 1:
            value = normal * math.sqrt(2 / math.prod(leaf.shape[-4:-1]))
        else:
            value = 0.1 * normal
        return value.astype(leaf.dtype)

    return jax.tree.map_with_path(draw, counting.abstract_variables(model, input_shape))
