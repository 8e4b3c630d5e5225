"""Slides a network over an image larger than its input: shared work, equal scores."""

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
    """Returns how many times fewer multiply-adds one pass over `image` takes than its windows.

    The windows have the size `shape`. Their number is `windows` or, if that is 0, the number of
    positions in the network's map of scores. Convolutions run once over the image; fully connected
    layers run on every window in either case, and are left out with `features_only`.
    """
    if not windows:
        variables = counting.abstract_variables(model, shape)
        images = jax.ShapeDtypeStruct((1, *image), "float32")

        def last_endpoint(variables: Any, images: Any) -> Any:
            _, endpoints = model.apply(variables, images)
            return [*endpoints.values()][-1]  # here: eval_shape sorts the keys of what it returns

        scores: Any = jax.eval_shape(last_endpoint, variables, images)
        windows = math.prod(scores.shape[1:3])
    classifier = 0 if features_only else _macs(model, shape, classifier=True)
    features, once = (_macs(model, size, classifier=False) for size in (shape, image))
    return windows * (features + classifier) / (once + windows * classifier)


def difference(model: nn.Module, shape: Shape, image: Shape, seed: int) -> float:
    """Returns the difference between fully connected layers slid over `image` and on its windows.

    It is the largest difference of an output, relative to the largest output of the layer, for
    random weights and a random image; windows have the size `shape`. NaN without such layers.
    """
    calls = []  # of fully connected layers: path, input and output

    def note(layer: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext) -> Any:
        output = layer(*args, **kwargs)
        if isinstance(context.module, FullyConnected):
            calls.append((context.module.path, args[0], output))
        return output

    # Not by JAX: compiling an initialisation takes longer than the rest.
    rng = np.random.default_rng(seed)
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
        expected: Any = FullyConnected(slid.shape[-1]).apply({"params": params}, windows)
        difference = jnp.abs(slid.reshape(expected.shape) - expected).max()
        differences.append(float(difference / jnp.abs(expected).max()))
    return max(differences, default=math.nan)


def _draw(rng: np.random.Generator, leaf: Any) -> jax.Array:
    """Returns a random kernel that keeps the scale of its input, or ones."""
    fan_in = math.prod(leaf.shape[:-1])
    values = rng.normal(0, fan_in**-0.5, leaf.shape) if leaf.ndim > 1 else np.ones(leaf.shape)
    return jnp.asarray(values, leaf.dtype)


def _macs(model: nn.Module, shape: Shape, *, classifier: bool) -> int:
    """Returns the multiply-adds of the fully connected layers, or of all others."""
    layers = counting.count(model, shape).layers
    return sum(layer.macs for layer in layers if layer.name.startswith("fc") == classifier)
