"""Freezing: the layers of a network that training leaves as they are (`config.optim.frozen`).

Only the other parameters are differentiated, so a step computes no gradient of frozen parameters
and nothing backward below the lowest layer that is trained. The optimiser has no state for them.
Dropout in frozen layers goes on as in all others.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import flax.traverse_util

from cnn_papers import zoo
from cnn_papers.errors import UserError

Layers = frozenset[str]  # names, such as "inception_3a/1x1"


def layers_of(params: Any) -> list[str]:
    """Returns the names of the layers that have parameters in the tree `params`."""
    paths = flax.traverse_util.flatten_dict(params)
    return list(dict.fromkeys("/".join(path[:-1]) for path in paths))


def frozen_layers(params: Any, pattern: str) -> Layers:
    """Returns the layers of `params` whose whole name matches `pattern`; none if it is empty.

    Raises:
      UserError: no layer matches, or every layer does.
    """
    if not pattern:
        return frozenset()
    layers = layers_of(params)
    frozen = zoo.matching_layers(layers, pattern, key="optim.frozen")
    if len(frozen) == len(layers):
        raise UserError(f"config.optim.frozen='{pattern}' freezes every layer; leave one to train")
    return frozenset(frozen)


def split(tree: Any, frozen: Layers) -> tuple[Any, Any]:
    """Returns the parts of `tree` (parameters or statistics) outside and inside `frozen` layers."""
    if not frozen:
        return tree, {}
    parts: tuple[dict[Any, Any], dict[Any, Any]] = {}, {}
    for path, leaf in flax.traverse_util.flatten_dict(tree).items():
        parts["/".join(path[:-1]) in frozen][path] = leaf
    trained, kept = map(flax.traverse_util.unflatten_dict, parts)
    return trained, kept


def join(trained: Any, kept: Any) -> Any:
    """Returns the tree whose parts are `trained` and `kept`, as `split` returned them."""
    if not kept:
        return trained
    paths = [flax.traverse_util.flatten_dict(part) for part in (trained, kept)]
    return flax.traverse_util.unflatten_dict(paths[0] | paths[1])


def with_moving_averages(layers: Layers) -> AbstractContextManager[None]:
    """Returns a context in which batch normalisation in `layers` works as in evaluation.

    It normalises by its moving averages, which stay as they are.
    """

    def intercept(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        module = context.module
        if (
            isinstance(module, nn.BatchNorm)
            and context.method_name == "__call__"
            and not module.use_running_average
            and "/".join(module.path) in layers
        ):
            return module.clone(parent=module.scope, use_running_average=True)(*args, **kwargs)
        return call(*args, **kwargs)

    return nn.intercept_methods(intercept)
