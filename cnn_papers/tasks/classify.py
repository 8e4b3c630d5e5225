"""Classification: one class for each image, by cross-entropy; its headline is the top-1 error."""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_papers.data.augment import DeviceTransform
from cnn_papers.errors import UserError
from cnn_papers.evaluation import single_view
from cnn_papers.evaluation.class_values import errors_by_class
from cnn_papers.evaluation.results import Outcome, Result
from cnn_papers.facts import Measure
from cnn_papers.training import losses
from cnn_papers.training.step import Batch, StepSettings, make_predict_step

BACKGROUND = 0  # outputs of the network beside those of the classes
NEEDS = "label"
HEADLINE = Measure("top1_error", "top-1 error", "%")
MEASURES = (HEADLINE, Measure("top5_error", "top-5 error", "%"))
BY_CLASS = HEADLINE._replace(name="mean_class_error")  # the balanced error


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


# --- the final test -------------------------------------------------------------------------------
# Its modules need OpenCV, which measuring a train step does not.


def parse_protocols(text: str) -> dict[str, Any]:
    """Parses `config.eval.protocol` as `support.parse` does."""
    from cnn_papers.evaluation import support

    return support.parse(text)


def protocols(text: str, *network: Any, **settings: Any) -> dict[str, Any]:
    """Returns the protocols of `support.supported`, whose arguments it takes."""
    from cnn_papers.evaluation import support

    return support.supported(text, *network, **settings)


def test(protocol: Any, tested: Any, *, name: str) -> Outcome:
    """Computes class probabilities of the images of `tested`, an `evaluate.Member`, or scores."""
    from cnn_papers.evaluation import layer_svms, passes
    from cnn_papers.evaluation.protocols import Svm

    if isinstance(protocol, Svm):
        outcome = layer_svms.test(protocol, tested, name=name)
        # A class that could not be fitted is the last one; a score that is not finite is an error.
        return outcome._replace(scores=np.maximum(outcome.scores, np.finfo(np.float32).min))
    return passes.run(protocol, tested.programs, tested.network.variables, tested.source, name=name)


def reordered(outcome: Outcome, order: np.ndarray) -> Outcome:
    """Returns the outcome with its classes in another order, an array of their numbers."""
    return outcome._replace(
        scores=outcome.scores[:, order],
        labels=np.argsort(order).astype(np.int32)[outcome.labels],
    )


def result_of(
    who: str, protocol: str, outcomes: Sequence[Outcome], class_names: Sequence[str]
) -> Result:
    """Counts the errors of the mean of the outcomes' class probabilities or scores.

    Args:
      who, protocol: as in Result.
      outcomes: one for each network, of the same images.
      class_names: in the order of the labels.

    Raises:
      UserError: the outcomes are of different images.
    """
    label = outcomes[0].labels
    if any(not np.array_equal(outcome.labels, label) for outcome in outcomes):
        raise UserError(
            "these runs are evaluated on different data: "
            "set --config.data.name and --config.data.eval_split"
        )
    probabilities = jnp.asarray(np.mean([outcome.scores for outcome in outcomes], 0))

    def wrong(k: int) -> jax.Array:
        return losses.errors(probabilities, jnp.asarray(label), k)

    def percent(wrong: jax.Array) -> float:
        return 100 * float(wrong.sum()) / len(label)

    return Result(
        who=who,
        protocol=protocol,
        values={"top1_error": percent(wrong(1)), "top5_error": percent(wrong(5))},
        by_class=errors_by_class(BY_CLASS, np.asarray(wrong(1)), label, class_names),
        images=len(label),
        programs=sum(outcome.programs for outcome in outcomes),
        seconds=sum(outcome.seconds for outcome in outcomes),
        compiling=sum(outcome.compiling for outcome in outcomes),
    )
