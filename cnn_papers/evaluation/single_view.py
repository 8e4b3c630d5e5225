"""Evaluates one view of every image of a split: loss, top-1 and top-5 error."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_papers.training.losses import errors

Batch = dict[str, jax.Array]


def make_step(
    predict: Callable[[Any, jax.Array], jax.Array],
) -> Callable[[Any, Batch], dict[str, jax.Array]]:
    """Makes the pure function (variables, batch) -> masked sums over the batch, to be jitted.

    `predict` takes variables and uint8 images [n, h, w, c]; it returns logits [n, classes].
    """

    def step(variables: Any, batch: Batch) -> dict[str, jax.Array]:
        logits, mask = predict(variables, batch["image"]), batch["mask"].astype(jnp.float32)
        values = {
            "loss": optax.softmax_cross_entropy_with_integer_labels(logits, batch["label"]),
            "top1_error": 100 * errors(logits, batch["label"], 1),
            "top5_error": 100 * errors(logits, batch["label"], 5),
        }
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
    """Returns means over all `total` examples of `batches`: loss, and errors in percent.

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


def is_best(values: dict[str, float], rows: Sequence[Mapping[str, Any]]) -> bool:
    """Tells whether an evaluation is finite and its error below all earlier ones.

    `rows` are those of metrics.jsonl.
    """
    earlier = [row["val/top1_error"] for row in rows if "val/loss" in row]  # the finite ones
    return bool(np.isfinite(values["loss"]) and values["top1_error"] < min(earlier, default=np.inf))
