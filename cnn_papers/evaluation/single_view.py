"""Evaluates one view of every image of a split: means of a task's values."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import jax.numpy as jnp

Batch = dict[str, jax.Array]
Predict = Callable[[Any, jax.Array], jax.Array]


def make_step(
    predict: Predict, of_images: Callable[[jax.Array, Batch], dict[str, jax.Array]]
) -> Callable[[Any, Batch], dict[str, jax.Array]]:
    """Makes the pure function (variables, batch) -> masked sums over the batch, to be jitted.

    Args:
      predict: (variables, uint8 images [n, h, w, c]) -> logits [n, classes].
      of_images: (logits, batch) -> values of each image by name, float32 [n].
    """

    def step(variables: Any, batch: Batch) -> dict[str, jax.Array]:
        logits, mask = predict(variables, batch["image"]), batch["mask"].astype(jnp.float32)
        values = of_images(logits, batch)
        sums = {name: jnp.where(mask > 0, value, 0).sum() for name, value in values.items()}
        return sums | {"count": mask.sum()}

    return step


def evaluate(
    step: Callable[[Any, Batch], dict[str, jax.Array]],
    variables: Any,
    batches: Iterable[Batch],
    total: int,
    give_up: Callable[[], int] = lambda: False,
) -> dict[str, float] | None:
    """Returns the means over all `total` examples of `batches`, by name.

    `give_up` is called before every batch; the result is None if it returns other than 0.
    """
    sums: dict[str, jax.Array] | None = None
    for batch in batches:
        if give_up():
            return None
        part = step(variables, batch)
        sums = part if sums is None else jax.tree.map(jnp.add, sums, part)
    assert sums is not None and int(sums["count"]) == total, (
        f"evaluated {sums and sums['count']} of {total} examples"
    )
    return {name: float(value) / total for name, value in sums.items() if name != "count"}
