"""Classification: one class for each image, by cross-entropy; its headline is the top-1 error."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from cnn_papers.evaluation import results, single_view
from cnn_papers.facts import Measure
from cnn_papers.training import losses
from cnn_papers.training.step import Batch, StepSettings

HEADLINE = Measure("top1_error", "top-1 error", "%")
MEASURES = (HEADLINE, Measure("top5_error", "top-5 error", "%"))


class Totals(NamedTuple):
    """Sums over the steps since the last report; errors in percent."""

    steps: jax.Array
    loss: jax.Array
    top1_error: jax.Array
    grad_norm: jax.Array


# --- training -------------------------------------------------------------------------------------


def targets(batch: Batch, settings: StepSettings) -> tuple[jax.Array, jax.Array | None]:
    """Returns the labels of a batch, int32 [n], and the weights of its images, see `losses`."""
    label = batch["label"]
    return label, losses.weights_of_images(settings.class_weights, label)


def loss(
    logits: jax.Array,
    endpoints: dict[str, jax.Array],
    targets: tuple[jax.Array, jax.Array | None],
    settings: StepSettings,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss of logits [n, classes] and auxiliary heads, and the error from 0 to 1."""
    label, image_weights = targets
    value = losses.classification(
        logits, endpoints, label, image_weights, aux_weight=settings.aux_weight
    )
    return value, {"top1_error": losses.errors(logits, label, 1).mean()}


def scalars(means: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the error of a step in percent; `means` are what `loss` returns."""
    return {"top1_error": 100 * means["top1_error"]}


def guessing(classes: int) -> dict[str, float]:
    """Returns the loss and the errors of guessing among `classes`, by the names of their rows."""
    errors = {f"top{k}_error": max(0.0, 100 - 100 * k / classes) for k in (1, 5)}
    return {"loss": math.log(classes), **errors}


# --- evaluation -----------------------------------------------------------------------------------

evaluate = single_view.evaluate
result_of = results.result_of


def make_eval_step(predict: single_view.Predict) -> Callable[[Any, Batch], dict[str, jax.Array]]:
    """Returns the step of `single_view` that sums losses and errors in percent."""
    return single_view.make_step(predict, _of_images)


def _of_images(logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    label = batch["label"]
    return {
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, label),
        "top1_error": 100 * losses.errors(logits, label, 1),
        "top5_error": 100 * losses.errors(logits, label, 5),
    }
