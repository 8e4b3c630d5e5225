"""Classification: one class for each image, by cross-entropy; its headline is the top-1 error."""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import optax

from cnn_papers.data.augment import DeviceTransform
from cnn_papers.evaluation import results, single_view
from cnn_papers.facts import Measure
from cnn_papers.training import losses
from cnn_papers.training.step import Batch, StepSettings, make_predict_step

BACKGROUND = 0  # outputs of the network beside those of the classes
NEEDS = "label"  # what an example must have: one label, or the boxes of its objects
HEADLINE = Measure("top1_error", "top-1 error", "%")
MEASURES = (HEADLINE, Measure("top5_error", "top-5 error", "%"))


class Totals(NamedTuple):
    """Sums over the steps since the last report; errors in percent."""

    steps: jax.Array
    loss: jax.Array
    top1_error: jax.Array
    grad_norm: jax.Array


# --- training -------------------------------------------------------------------------------------


def prepare(
    model: Any, batch: Batch, settings: StepSettings, key: jax.Array
) -> tuple[dict[str, jax.Array], tuple[jax.Array, jax.Array | None]]:
    """Returns no other arguments; and labels, int32 [n], and weights of images, see `losses`."""
    label = batch["label"]
    return {}, (label, losses.weights_of_images(settings.class_weights, label))


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


def make_eval_step(
    model: Any, normalise: DeviceTransform, settings: StepSettings
) -> Callable[[Any, Batch], dict[str, jax.Array]]:
    """Returns the step of `single_view` that sums losses and errors in percent."""
    return single_view.make_step(make_predict_step(model, normalise), _of_images)


def _of_images(logits: jax.Array, batch: Batch) -> dict[str, jax.Array]:
    label = batch["label"]
    return {
        "loss": optax.softmax_cross_entropy_with_integer_labels(logits, label),
        "top1_error": 100 * losses.errors(logits, label, 1),
        "top5_error": 100 * losses.errors(logits, label, 5),
    }


# The modules of the final test need OpenCV, which measuring a train step does not.


def parse_protocols(text: str) -> dict[str, Any]:
    """Parses `config.eval.protocol` as `support.parse` does."""
    from cnn_papers.evaluation import support

    return support.parse(text)


def protocols(text: str, *network: Any, **settings: Any) -> dict[str, Any]:
    """Returns the protocols of `support.supported`, whose arguments it takes."""
    from cnn_papers.evaluation import support

    return support.supported(text, *network, **settings)


def test(protocol: Any, tested: Any, *, name: str) -> results.Outcome:
    """Computes class probabilities of the images of `tested`, an `evaluate.Member`."""
    from cnn_papers.evaluation import passes

    return passes.run(protocol, tested.programs, tested.network.variables, tested.source, name=name)
