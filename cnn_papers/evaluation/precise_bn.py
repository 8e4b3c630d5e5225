"""Recomputes batch-norm statistics over training batches, in place of the moving averages.

ResNet's authors test with plain averages over many batches of training images
(https://github.com/KaimingHe/deep-residual-networks).
"""

from collections.abc import Callable, Iterable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp


def recompute(
    model: Any,
    variables: Any,
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    batches: Iterable[Any],
    seed: int,
) -> dict[str, Any]:
    """Returns `variables` with new `batch_stats`: means over `batches` of each batch's statistics.

    A batch's statistics are the mean and the (biased) variance of what a `nn.BatchNorm` reads.
    """

    @jax.jit
    def add(total: Any, variables: Any, image: jax.Array, key: jax.Array) -> Any:
        """Returns `total` plus the statistics of one batch."""
        augment_key, dropout_key = jax.random.split(key)
        zeros = jax.tree.map(jnp.zeros_like, total)
        with nn.intercept_methods(_store_batch_statistics):
            _, updates = model.apply(
                {**variables, "batch_stats": zeros},
                augment(image, augment_key),
                train=True,
                rngs={"dropout": dropout_key},
                mutable=["batch_stats"],
            )
        return jax.tree.map(jnp.add, total, updates["batch_stats"])

    key, count = jax.random.key(seed), 0
    total = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    for count, batch in enumerate(batches, 1):
        total = add(total, variables, batch["image"], jax.random.fold_in(key, count))
    return {**variables, "batch_stats": jax.tree.map(lambda leaf: leaf / count, total)}


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
