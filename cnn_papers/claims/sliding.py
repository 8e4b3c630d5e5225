"""What a network does with an image larger than its input: work that windows share, scores that
stay the same.
"""

import functools
import math
import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers import counting
from cnn_papers.models.shared.layers import FullyConnected

Shape = tuple[int, ...]  # (h, w, c)


def saving(
    model: nn.Module, shape: Shape, image: Shape, windows: int = 0, *, features_only: bool = False
) -> float:
    """How many times fewer multiply-adds one pass over `image` takes than one for each window of
    it.

    The windows have the size `shape`, and are as many as `windows` or, if that is 0, as the
    positions of the network's map of scores. Convolutions run once over the image; fully connected
    layers run on every window in either case, and are left out with `features_only`.
    """
    if not windows:
        seen = (
            counting.abstract_variables(model, shape),
            jax.ShapeDtypeStruct((1, *image), "float32"),
        )
        scores: Any = jax.eval_shape(lambda *seen: [*model.apply(*seen)[1].values()][-1], *seen)
        windows = math.prod(scores.shape[1:3])
    classifier = 0 if features_only else _macs(model, shape, classifier=True)
    features, once = (_macs(model, size, classifier=False) for size in (shape, image))
    return windows * (features + classifier) / (once + windows * classifier)


def difference(model: nn.Module, shape: Shape, image: Shape, seed: int) -> float:
    """How far fully connected layers slid over the maps of `image` are from the same on each window
    of `shape` alone.

    The largest difference, against the largest output of the layer; random weights and image. NaN
    without such layers.
    """
    calls = []  # of fully connected layers: the layer's path, what it read, what it gave

    def note(layer: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        given = layer(*args, **kwargs)
        if isinstance(context.module, FullyConnected):
            calls.append((context.module.path, args[0], given))
        return given

    rng = np.random.default_rng(
        seed
    )  # not JAX: compiling an initialisation takes longer than the rest
    variables = jax.tree.map(
        functools.partial(_draw, rng), counting.abstract_variables(model, shape)
    )
    with nn.intercept_methods(note):
        model.apply(variables, jnp.asarray(rng.normal(size=(1, *image)), jnp.float32))
    differences = []
    for path, x, slid in calls:
        params = functools.reduce(operator.getitem, path, variables["params"])
        (h, w), (rows, columns) = params["kernel"].shape[:2], slid.shape[1:3]
        windows = jnp.concatenate(
            [x[:, i : i + h, j : j + w] for i in range(rows) for j in range(columns)]
        )
        alone: Any = FullyConnected(slid.shape[-1]).apply({"params": params}, windows)
        differences.append(
            float(jnp.abs(slid.reshape(alone.shape) - alone).max() / jnp.abs(alone).max())
        )
    return max(differences, default=math.nan)


def _draw(rng: np.random.Generator, leaf: Any) -> jax.Array:
    """A kernel that keeps the size of what it reads, or ones."""
    fan_in = math.prod(leaf.shape[:-1])
    return jnp.asarray(
        rng.normal(0, fan_in**-0.5, leaf.shape) if leaf.ndim > 1 else np.ones(leaf.shape),
        leaf.dtype,
    )


def _macs(model: nn.Module, shape: Shape, *, classifier: bool) -> int:
    """Multiply-adds of the fully connected layers, or of all others."""
    layers = counting.count(model, shape).layers
    return sum(layer.macs for layer in layers if layer.name.startswith("fc") == classifier)
