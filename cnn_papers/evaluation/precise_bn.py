"""Batch-norm statistics recomputed over training batches, instead of the moving averages of
training.

ResNet's release tests with plain averages over many batches of training images
(KaimingHe/deep-residual-networks).
"""

import itertools
from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

FAR = 2.0**100  # a statistic so large that what a batch adds to it is lost in rounding


def recompute(
    model: Any,
    variables: Any,
    augment: Callable[[jax.Array, jax.Array], jax.Array],
    batches: Iterable[Any],
    seed: int,
) -> dict[str, Any]:
    """`variables` with `batch_stats` that are means over `batches` of each batch's own mean and
    (biased) variance.

    Networks do not give a batch's statistics, only the moving average m·old + (1 - m)·batch. With
    old zero it is (1 - m)·batch, and with old enormous it is m·old to the last bit, which gives
    each layer's m.
    """

    def moved(variables: Any, old: Any, image: jax.Array, key: jax.Array) -> Any:
        """The moving averages after one batch, from `old` on."""
        augment_key, dropout_key = jax.random.split(key)
        _, updates = model.apply(
            {**variables, "batch_stats": old},
            augment(image, augment_key),
            train=True,
            rngs={"dropout": dropout_key},
            mutable=["batch_stats"],
        )
        return updates["batch_stats"]

    @jax.jit
    def add(total: Any, variables: Any, image: jax.Array, key: jax.Array) -> Any:
        new = moved(variables, jax.tree.map(jnp.zeros_like, total), image, key)
        return jax.tree.map(jnp.add, total, new)

    batches, key, count = iter(batches), jax.random.key(seed), 0
    first = next(batches)
    enormous = jax.tree.map(lambda leaf: jnp.full_like(leaf, FAR), variables["batch_stats"])
    momentum = jax.tree.map(
        lambda leaf: leaf / FAR, jax.jit(moved)(variables, enormous, first["image"], key)
    )
    total = jax.tree.map(jnp.zeros_like, variables["batch_stats"])
    for count, batch in enumerate(itertools.chain([first], batches), 1):
        total = add(total, variables, batch["image"], jax.random.fold_in(key, count))
    means = jax.tree.map(lambda leaf, m: leaf / (1 - m) / count, total, momentum)
    return {**variables, "batch_stats": means}
