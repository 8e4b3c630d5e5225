"""Recomputes batch-norm statistics over training batches, in place of the moving averages.

ResNet's authors test with plain averages over many batches of training images
(https://github.com/KaimingHe/deep-residual-networks).
"""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.training import freezing


def recompute(
    model: Any,
    variables: Any,
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    batches: Iterable[Any],
    seed: int,
    *,
    as_in_evaluation: freezing.Layers = frozenset(),
) -> dict[str, Any]:
    """Returns `variables` with new `batch_stats`: means over `batches` of each batch's statistics.

    A batch's statistics are the mean and the (biased) variance of what a `nn.BatchNorm` reads.
    Layers `as_in_evaluation` keep theirs and normalise by them, as they did in training.
    """

    @jax.jit
    def add(total: Any, variables: Any, image: jax.Array, key: jax.Array) -> Any:
        """Returns `total` plus the statistics of one batch."""
        augment_key, dropout_key = jax.random.split(key)
        zeros = jax.tree.map(jnp.zeros_like, total)
        kept = freezing.split(variables["batch_stats"], as_in_evaluation)[1]
        with (
            nn.intercept_methods(_store_batch_statistics),
            freezing.with_moving_averages(as_in_evaluation),
        ):
            _, updates = model.apply(
                {**variables, "batch_stats": freezing.join(zeros, kept)},
                augment(image, augment_key),
                train=True,
                rngs={"dropout": dropout_key},
                mutable=["batch_stats"],
            )
        moved = freezing.split(updates["batch_stats"], as_in_evaluation)[0]
        return jax.tree.map(jnp.add, total, moved)

    key, count = jax.random.key(seed), 0
    moving, kept = freezing.split(variables["batch_stats"], as_in_evaluation)
    total = jax.tree.map(jnp.zeros_like, moving)
    for count, batch in enumerate(batches, 1):
        total = add(total, variables, batch["image"], jax.random.fold_in(key, count))
    means = jax.tree.map(lambda leaf: leaf / count, total)
    return {**variables, "batch_stats": freezing.join(means, kept)}


def _store_batch_statistics(
    call: Any, args: Any, kwargs: Any, context: nn.module.InterceptorContext
) -> Any:
    """Calls a module; a `nn.BatchNorm` then stores its batch's statistics, not moving averages.

    Its moving averages must be zero before: after the call they are (1 - momentum) times the
    batch's statistics.
    """
    output = call(*args, **kwargs)
    module = context.module
    if isinstance(module, nn.BatchNorm) and context.method_name == "__call__":
        for name in ("mean", "var"):
            average = module.get_variable("batch_stats", name)
            module.put_variable("batch_stats", name, average / (1 - module.momentum))
    return output
