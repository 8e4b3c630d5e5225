"""The evaluation of a detector during training: what is found in prepared images, and the loss."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np

from cnn_papers.data.split import Objects
from cnn_papers.detection.detections import Detections
from cnn_papers.training.step import Batch

# (variables, batch) -> the batch's `mask` and objects, what `find` takes, and `sums` for the loss
Step = Callable[[Any, Batch], dict[str, Any]]


def evaluate(
    step: Step,
    variables: Any,
    batches: Iterable[Batch],
    total: int,
    give_up: Callable[[], int],
    *,
    find: Callable[[dict[str, Any], int, tuple[int, int]], Detections],
    loss: Callable[[Sequence[dict[str, Any]]], Any],
    values: Callable[[list[Detections], list[Objects]], dict[str, float]],
) -> dict[str, float] | None:
    """Returns the loss and the values of all `total` images of `batches`, by name.

    `give_up` is called before every batch; the result is None if it returns other than 0.

    Args:
      find: (outputs of a step, row of an image, its size) -> what is found in it. Boxes are in
        pixels of the prepared images.
      loss: from the sums of each batch.
      values: (what is found, true objects) -> measures.
    """
    found: list[Detections] = []
    objects: list[Objects] = []
    sums: list[dict[str, Any]] = []
    for batch in batches:
        if give_up():
            return None
        _, height, width, _ = batch["image"].shape
        outputs = jax.tree.map(np.asarray, step(variables, batch))
        sums.append(outputs["sums"])
        for i in np.flatnonzero(outputs["mask"]).tolist():
            found.append(find(outputs, i, (height, width)))
            objects.append(Objects.of_row(outputs, i, (height, width)))
    assert len(found) == total, f"evaluated {len(found)} of {total} images"
    return {"loss": float(loss(sums)), **values(found, objects)}
