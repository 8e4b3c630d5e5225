"""Detection by OverFeat: a classifier of all windows, with a background class, and a regressor.

Sermanet et al., arXiv:1312.6229, §5. Training is spatially dense, and negatives are chosen in the
step: some of each image, at random or those that look most like an object.
"""

import math
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnn_papers.boxes import NONE
from cnn_papers.data.augment import DeviceTransform
from cnn_papers.detection import dense_runs, dense_targets, detections, overfeat
from cnn_papers.detection.detections import Outcome
from cnn_papers.errors import UserError
from cnn_papers.models.overfeat import score_map
from cnn_papers.training.step import Batch, StepSettings

BACKGROUND = 1  # outputs of the network beside those of the classes; it is the last one
NEEDS = "boxes"
HEADLINE, MEASURES = detections.HEADLINE, detections.MEASURES
CHOICES = ("random", "hardest")


class Settings(NamedTuple):
    """The keys of `config.boxes`. The paper gives none of the numbers.

    The fit of a window is explained in `dense_targets`.

    Attributes:
      positive: a window whose fit to an object is at least this shows it.
      negative: one whose fit to every object is below this is background. Others are ignored.
      negatives: number of background windows that an image has for each positive one, and at least.
      choice: which these are: "random", or the "hardest", those of the largest loss (§5).
      regressed: windows whose fit is at least this train the regressor.
      box_weight: of the regressor's loss; 0 trains it not at all.
      scales: shorter sides in pixels at which evaluations during training look at an image; () is
        that of the prepared images.
    """

    positive: float = 0.5
    negative: float = 0.3
    negatives: int = 3
    choice: str = "hardest"
    regressed: float = 0.3
    box_weight: float = 1.0
    scales: tuple[int, ...] = ()


class Totals(NamedTuple):
    """Sums over the steps since the last report; in percent.

    `positive_error` is the error of windows that show an object, `overlap` the IoU of boxes.
    """

    steps: jax.Array
    loss: jax.Array
    positive_error: jax.Array
    overlap: jax.Array
    grad_norm: jax.Array


class Targets(NamedTuple):
    """What the outputs at each position are compared with.

    Attributes:
      label: int32 [n, p]: the class, the number of classes for background, `boxes.NONE` for windows
        that are ignored.
      noise: float32 [n, p], random numbers that choose negatives.
      regression: of the boxes.
    """

    label: jax.Array
    noise: jax.Array
    regression: dense_targets.Regression


# --- training -------------------------------------------------------------------------------------


def prepare(
    model: Any, batch: Batch, settings: StepSettings, key: jax.Array
) -> tuple[dict[str, Any], Targets]:
    """Returns no other arguments of the network, and the targets of every window."""
    overfeat.check(model)
    own = settings.boxes_as(Settings)
    if own.choice not in CHOICES:
        raise UserError(
            f"config.boxes.choice='{own.choice}' is unknown; there are: {', '.join(CHOICES)}"
        )
    return {}, _targets(model, batch, own, key, train=True)


def loss(
    logits: jax.Array,
    endpoints: dict[str, jax.Array],
    targets: Targets,
    settings: StepSettings,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the loss of classes and boxes; the error of positives and the mean IoU, 0 to 1."""
    own = settings.boxes_as(Settings)
    sums = _sums(endpoints, targets, own)
    return _loss(sums, own.box_weight), {
        "positive_error": sums["wrong"] / jnp.maximum(sums["positives"], 1),
        "overlap": sums["overlaps"] / jnp.maximum(sums["windows"], 1),
    }


def scalars(means: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the values of a step in percent; `means` are what `loss` returns."""
    return {name: 100 * value for name, value in means.items()}


def guessing(classes: int) -> dict[str, float]:
    """Returns the loss of guessing among `classes`, and no precision, by the names of rows."""
    return {"loss": math.log(classes), **{measure.name: 0.0 for measure in MEASURES}}


def _targets(
    model: Any, batch: Batch, settings: Settings, key: jax.Array, *, train: bool
) -> Targets:
    near = dense_targets.nearest(model, batch, train=train)
    label = jnp.where(near.fit >= settings.positive, near.label, NONE)
    label = jnp.where(near.fit < settings.negative, model.num_classes - BACKGROUND, label)
    label = jnp.where(near.difficult, jnp.where(near.fit < settings.negative, label, NONE), label)
    learns = (near.label != NONE) & (near.fit >= settings.regressed)
    regression = dense_targets.Regression(near.window, near.box, near.label, learns)
    return Targets(label, jax.random.uniform(key, label.shape), regression)


def _sums(
    endpoints: dict[str, jax.Array], targets: Targets, settings: Settings
) -> dict[str, jax.Array]:
    """Returns sums over windows: of losses, of errors, and of how many they are of."""
    label = targets.label
    scores = score_map(endpoints).astype(jnp.float32)
    scores = scores.reshape(*label.shape, scores.shape[-1])
    background = scores.shape[-1] - BACKGROUND
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, label.clip(0))
    is_positive = (label != NONE) & (label != background)
    number = settings.negatives * jnp.maximum(is_positive.sum(1), 1)
    order = jax.lax.stop_gradient(losses) if settings.choice == "hardest" else targets.noise
    is_negative = dense_targets.largest(order, label == background, number)
    wrong = is_positive & (scores.argmax(-1) != label)
    return {
        "class_loss": jnp.where(is_positive | is_negative, losses, 0).sum(),
        "counted": (is_positive | is_negative).sum(dtype=jnp.float32),
        "wrong": wrong.sum(dtype=jnp.float32),
        "positives": is_positive.sum(dtype=jnp.float32),
        **dense_targets.box_sums(endpoints["box3"], targets.regression),
    }


def _loss(sums: dict[str, Any], box_weight: float) -> Any:
    of_classes = sums["class_loss"] / jnp.maximum(sums["counted"], 1)
    return of_classes + box_weight * sums["squares"] / jnp.maximum(sums["windows"], 1)


# --- evaluation and the final test ----------------------------------------------------------------

parse_protocols, protocols = dense_runs.parse_protocols, dense_runs.protocols
result_of = detections.result_of


def make_eval_step(
    model: Any, normalise: DeviceTransform, settings: StepSettings
) -> dense_runs.Step:
    """Returns the step of `dense_runs.make_eval_step`."""
    own = settings.boxes_as(Settings)

    def sums(ends: dict[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        targets = _targets(model, batch, own, jax.random.key(0), train=False)
        summed = _sums(ends, targets, own)
        # the loss is taken of the sums over all batches, which know no settings
        return summed | {"squares": own.box_weight * summed["squares"]}

    return dense_runs.make_eval_step(
        model, normalise, background=BACKGROUND, scales=own.scales, sums=sums
    )


def evaluate(
    step: dense_runs.Step,
    variables: Any,
    batches: Iterable[Batch],
    total: int,
    give_up: Callable[[], int] = lambda: False,
) -> dict[str, float] | None:
    """Returns loss and mean average precision as `dense_runs.evaluate` does."""
    return dense_runs.evaluate(
        step,
        variables,
        batches,
        total,
        give_up,
        loss=lambda sums: _loss(sums, 1.0),
        values=detections.precisions,
    )


def detector(protocol: Any, network: Any, fitted: Any) -> Any:
    """Returns the detector of a network: (image, proposals) -> Detections."""
    return protocol.detector(network, BACKGROUND)


def test(protocol: Any, tested: Any, *, name: str) -> Outcome:
    """Returns what is found in the images of `tested`, an `evaluate.Member`."""
    return dense_runs.test(detector(protocol, tested.network, None), tested, name=name)
