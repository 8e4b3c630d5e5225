"""Classification of images that may show several classes; its headline is VOC's mAP.

Of each class an image is positive (1), negative (-1) or neither (0, where all its objects of the
class are difficult); what is neither counts nowhere. The two losses are those by which Return of
the Devil in the Details (Chatfield et al., BMVC 2014) fine-tunes its networks to VOC: CLS, one
class against the rest, and with `config.loss.ranking` RNK, pairs of images.

Deviations:
  - The losses are hinges, after the paper's words. It is assumed that the hinge of a class is
    averaged over its images or pairs in the batch, those of all classes are added, and no class is
    weighed. With `config.optim.accumulate` pairs are of images of one part.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers.data.augment import DeviceTransform
from cnn_papers.errors import UserError, listed
from cnn_papers.evaluation import average_precision
from cnn_papers.evaluation.results import Outcome, Result
from cnn_papers.training import losses
from cnn_papers.training.step import Batch, StepSettings, make_predict_step

BACKGROUND = 0
NEEDS = "labels"
HEADLINE, MEASURES = average_precision.HEADLINE, average_precision.MEASURES


class Totals(NamedTuple):
    """Sums over the steps since the last report.

    Attributes:
      without_terms: the share of steps, in percent, whose batch gives the loss nothing: no label,
        or by `ranking` no pair of a positive and a negative image.
    """

    steps: jax.Array
    loss: jax.Array
    without_terms: jax.Array
    grad_norm: jax.Array


# --- training -------------------------------------------------------------------------------------


def prepare(
    model: Any, batch: Batch, settings: StepSettings, key: jax.Array
) -> tuple[dict[str, jax.Array], jax.Array]:
    """Returns no other arguments; and the labels, int8 [n, classes]."""
    return {}, batch["labels"]


def loss(
    logits: jax.Array,
    endpoints: dict[str, jax.Array],
    labels: jax.Array,
    settings: StepSettings,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss of logits [n, classes] and auxiliary heads, and whether it has no terms."""
    terms = terms_of(settings)
    value = losses.with_auxiliary_heads(
        lambda scores: losses.mean_hinge(*terms(scores, labels), settings.class_weights),
        logits,
        endpoints,
        settings.aux_weight,
    )
    return value, {"without_terms": (terms(logits, labels)[1].sum() == 0).astype(jnp.float32)}


def terms_of(settings: StepSettings) -> Callable[[Any, Any], tuple[jax.Array, jax.Array]]:
    """Returns the function of scores and labels that sums the hinges of each class."""
    return losses.hinge_of_pairs if settings.ranking else losses.hinge_of_images


def scalars(means: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns in percent whether a step had no terms; `means` are what `loss` returns."""
    return {"without_terms": 100 * means["without_terms"]}


def guessing(classes: int) -> dict[str, float]:
    """Returns the loss of equal scores of 0, and no precision, by the names of their rows."""
    return {"loss": float(classes), **{measure.name: 0.0 for measure in MEASURES}}


# --- evaluation -----------------------------------------------------------------------------------


def make_eval_step(
    model: Any, normalise: DeviceTransform, settings: StepSettings
) -> Callable[[Any, Batch], dict[str, jax.Array]]:
    """Returns the function (variables, batch) -> scores of a batch.

    They are `scores` float32 and `labels` int8 [n, classes], the batch's `mask` [n], and of each
    class the `sums` of hinges and their `counts` [classes].
    """
    predict, terms = make_predict_step(model, normalise), terms_of(settings)

    def step(variables: Any, batch: Batch) -> dict[str, jax.Array]:
        scores = predict(variables, batch["image"])
        labels = jnp.where(batch["mask"][:, None], batch["labels"], 0)
        sums, counts = terms(scores, labels)
        return {
            "scores": scores,
            "labels": labels,
            "mask": batch["mask"],
            "sums": sums,
            "counts": counts,
        }

    return step


def evaluate(
    step: Callable[[Any, Batch], dict[str, jax.Array]],
    variables: Any,
    batches: Iterable[Batch],
    total: int,
    give_up: Callable[[], int] = lambda: False,
) -> dict[str, float] | None:
    """Returns the measures and the loss over all `total` images of `batches`, by name.

    The loss by `ranking` is of the pairs within a batch. `give_up` is called before every batch;
    the result is None if it returns other than 0.
    """
    scores: list[np.ndarray] = []
    labels: list[np.ndarray] = []
    sums, counts = np.float32(0), np.int32(0)
    for batch in batches:
        if give_up():
            return None
        outputs = {name: np.asarray(value) for name, value in step(variables, batch).items()}
        real = outputs["mask"]
        scores.append(outputs["scores"][real])
        labels.append(outputs["labels"][real])
        sums, counts = sums + outputs["sums"], counts + outputs["counts"]
    all_scores, all_labels = np.concatenate(scores), np.concatenate(labels)
    assert len(all_scores) == total, f"evaluated {len(all_scores)} of {total} images"
    curves = average_precision.of_classes(all_scores, all_labels)
    mean_loss = float(losses.mean_hinge(jnp.asarray(sums), jnp.asarray(counts)))
    return {"loss": mean_loss, **average_precision.mean_average_precisions(curves)}


# --- the final test -------------------------------------------------------------------------------
# Its modules need OpenCV, which measuring a train step does not.


def parse_protocols(text: str) -> dict[str, Any]:
    """Parses `config.eval.protocol` as `support.parse` does; parts give scores, no softmax."""
    from cnn_papers.evaluation import support

    return {name: _linear(protocol) for name, protocol in support.parse(text).items()}


def protocols(text: str, *network: Any, **settings: Any) -> dict[str, Any]:
    """Returns the protocols of `support.supported`, whose arguments it takes, with scores."""
    from cnn_papers.evaluation import support

    supported = support.supported(text, *network, **settings)
    return {name: _linear(protocol) for name, protocol in supported.items()}


def _linear(protocol: Any) -> Any:
    from cnn_papers.evaluation import scores
    from cnn_papers.evaluation.protocols import Svm

    if isinstance(protocol, Svm):
        return protocol
    return tuple(part._replace(score=scores.without_softmax(part.score)) for part in protocol)


def test(protocol: Any, tested: Any, *, name: str) -> Outcome:
    """Computes the scores of the images of `tested`, an `evaluate.Member`."""
    from cnn_papers.evaluation import layer_svms, passes
    from cnn_papers.evaluation.protocols import Svm

    if isinstance(protocol, Svm):
        return layer_svms.test(protocol, tested, name=name)
    variables = tested.network.variables
    return passes.run(
        protocol, tested.programs, variables, tested.source, name=name, sum_to_one=False
    )


def reordered(outcome: Outcome, order: np.ndarray) -> Outcome:
    """Returns the outcome with its classes in another order, an array of their numbers."""
    return outcome._replace(scores=outcome.scores[:, order], labels=outcome.labels[:, order])


def result_of(
    who: str, protocol: str, outcomes: Sequence[Outcome], class_names: Sequence[str]
) -> Result:
    """Returns the mAP of the mean of the outcomes' scores, and the average precision of each class.

    A class that could not be fitted, whose scores are all -inf, is left out.

    Args:
      who, protocol: as in Result.
      outcomes: one for each network, of the same images.
      class_names: in the order of the labels.

    Raises:
      UserError: the outcomes are of different images, or no image has a class.
    """
    labels = outcomes[0].labels[:, : len(class_names)]
    if any(not np.array_equal(other.labels, outcomes[0].labels) for other in outcomes):
        raise UserError(
            "these runs are evaluated on different data: "
            "set --config.data.name and --config.data.eval_split"
        )
    scores = np.mean([outcome.scores for outcome in outcomes], 0)[:, : len(class_names)]
    is_fitted = ~np.isneginf(scores).all(0)
    curves = average_precision.of_classes(scores, np.where(is_fitted, labels, -1))
    unfitted = [name for name, fitted in zip(class_names, is_fitted, strict=True) if not fitted]
    if not any(curves):
        fitted_to = f" but {listed(unfitted)}, which no SVM could be fitted to" if unfitted else ""
        raise UserError(
            f"{protocol}: no image of the test shows a class{fitted_to}, so there is no average "
            "precision; test another split with --config.data.eval_split"
        )
    return Result(
        who=who,
        protocol=protocol,
        values=average_precision.mean_average_precisions(curves),
        by_class=average_precision.by_class(curves, "image", class_names),
        images=len(labels),
        programs=sum(outcome.programs for outcome in outcomes),
        seconds=sum(outcome.seconds for outcome in outcomes),
        compiling=sum(outcome.compiling for outcome in outcomes),
        notes=_notes(labels, unfitted),
    )


def _notes(labels: np.ndarray, unfitted: Sequence[str]) -> tuple[str, ...]:
    """Returns the lines that say which labels and classes do not count."""
    notes, difficult = [], int((labels == 0).sum())
    if difficult:
        several = "label is" if difficult == 1 else "labels are"
        notes.append(
            f"{difficult:,} {several} of difficult objects only, neither positive nor negative"
        )
    if unfitted:
        notes.append(f"no SVM could be fitted to {listed(unfitted)}: left out of the mean")
    return tuple(notes)
