"""A task of tests: the number of the class is predicted as a quantity; hits count, not errors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers.evaluation import single_view
from cnn_papers.evaluation.class_values import errors_by_class
from cnn_papers.evaluation.results import Result
from cnn_papers.facts import Measure
from cnn_papers.tasks import classify
from cnn_papers.training.step import make_predict_step

BACKGROUND, NEEDS = 0, "label"
HEADLINE = Measure("near", "predicted within one", "%", lower_is_better=False)
MEASURES = (HEADLINE, Measure("distance", "distance"))
MISSED = Measure("mean_missed", "not within one", "%")


class Totals(NamedTuple):
    """Sums over steps; none of them is the headline."""

    steps: jax.Array
    loss: jax.Array
    distance: jax.Array
    grad_norm: jax.Array


def _distances(probabilities: Any, label: Any) -> Any:
    """The distance of each image's label from the number that is expected of it."""
    return abs(probabilities @ np.arange(probabilities.shape[-1], dtype=np.float32) - label)


def prepare(model: Any, batch: Any, settings: Any, key: Any) -> Any:
    return {}, batch["label"]


def loss(outputs: Any, endpoints: Any, targets: Any, settings: Any) -> Any:
    distances = _distances(jax.nn.softmax(outputs), targets)
    return jnp.square(distances).mean(), {"distance": distances.mean()}


def scalars(means: dict[str, jax.Array]) -> dict[str, jax.Array]:
    return means


def guessing(classes: int) -> dict[str, float]:
    return {"near": 100 / classes}


evaluate = single_view.evaluate
test = classify.test
protocols, parse_protocols = classify.protocols, classify.parse_protocols


def make_eval_step(model: Any, normalise: Any, settings: Any) -> Any:
    predict = make_predict_step(model, normalise)

    def of_images(logits: Any, batch: Any) -> dict[str, jax.Array]:
        distances = _distances(jax.nn.softmax(logits), batch["label"])
        return {
            "loss": jnp.square(distances),
            "near": 100.0 * (distances < 1),
            "distance": distances,
        }

    return single_view.make_step(predict, of_images)


def result_of(who: str, protocol: str, outcomes: Sequence[Any], class_names: Any) -> Result:
    (outcome,) = outcomes
    distances = _distances(outcome.scores, outcome.labels)
    return Result(
        who=who,
        protocol=protocol,
        values={"near": 100 * float((distances < 1).mean()), "distance": float(distances.mean())},
        by_class=errors_by_class(
            MISSED, (distances >= 1).astype(np.float32), outcome.labels, class_names
        ),
        images=len(distances),
        programs=outcome.programs,
        seconds=outcome.seconds,
        compiling=outcome.compiling,
    )
