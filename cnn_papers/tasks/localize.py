"""Localization: OverFeat's regressor on the features of a classifier, by ILSVRC's error.

Sermanet et al., arXiv:1312.6229, §4. The convolutions and the classifier are those of a run that
`config.init_from` names, and `config.optim.frozen` keeps them. All windows that see enough of an
object take part in a step; scales are drawn by the operations of `config.data`.
"""

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnn_papers.boxes import NONE
from cnn_papers.data.augment import DeviceTransform
from cnn_papers.detection import dense_runs, dense_targets, localization, overfeat
from cnn_papers.detection.detections import Outcome
from cnn_papers.training.step import Batch, StepSettings

BACKGROUND = 0  # outputs of the network beside those of the classes
NEEDS = "boxes"
HEADLINE, MEASURES = localization.HEADLINE, localization.MEASURES


class Settings(NamedTuple):
    """The keys of `config.boxes`.

    Attributes:
      share: windows take part that see at least this share of an object's area (§4.2).
      smallest: and in which the object's longer side is at least this share of the window's.
      scales: shorter sides in pixels at which evaluations during training look at an image; () is
        that of the prepared images.
    """

    share: float = 0.5
    smallest: float = 0.0
    scales: tuple[int, ...] = ()


class Totals(NamedTuple):
    """Sums over the steps since the last report; `overlap` is an IoU in percent."""

    steps: jax.Array
    loss: jax.Array
    overlap: jax.Array
    grad_norm: jax.Array


# --- training -------------------------------------------------------------------------------------


def prepare(
    model: Any, batch: Batch, settings: StepSettings, key: jax.Array
) -> tuple[dict[str, Any], dense_targets.Regression]:
    """Returns no other arguments of the network, and the boxes that its regressor should give."""
    overfeat.check(model)
    return {}, _targets(model, batch, settings.boxes_as(Settings), train=True)


def loss(
    logits: jax.Array,
    endpoints: dict[str, jax.Array],
    targets: dense_targets.Regression,
    settings: StepSettings,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the mean squared ℓ2 distance of edges over windows, and the mean IoU of boxes."""
    sums = dense_targets.box_sums(endpoints["box3"], targets)
    return _loss(sums), {"overlap": sums["overlaps"] / jnp.maximum(sums["windows"], 1)}


def scalars(means: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the IoU of a step in percent; `means` are what `loss` returns."""
    return {"overlap": 100 * means["overlap"]}


def guessing(classes: int) -> dict[str, float]:
    """Returns the errors of a localizer that finds nothing, by the names of their rows."""
    return {measure.name: 100.0 for measure in MEASURES}


def _targets(
    model: Any, batch: Batch, settings: Settings, *, train: bool
) -> dense_targets.Regression:
    near = dense_targets.nearest(model, batch, train=train, share=settings.share)
    longer_side = (near.box[..., 2:] - near.box[..., :2]).max(-1)
    is_large = longer_side >= settings.smallest * model.geometry().side
    learns = (near.label != NONE) & is_large
    return dense_targets.Regression(near.window, near.box, near.label, learns)


def _loss(sums: dict[str, Any]) -> Any:
    return sums["squares"] / jnp.maximum(sums["windows"], 1)


# --- evaluation and the final test ----------------------------------------------------------------

parse_protocols, protocols = dense_runs.parse_protocols, dense_runs.protocols
result_of = localization.result_of


def make_eval_step(
    model: Any, normalise: DeviceTransform, settings: StepSettings
) -> dense_runs.Step:
    """Returns the step of `dense_runs.make_eval_step`."""
    own = settings.boxes_as(Settings)

    def sums(ends: dict[str, jax.Array], batch: Batch) -> dict[str, jax.Array]:
        return dense_targets.box_sums(ends["box3"], _targets(model, batch, own, train=False))

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
    """Returns loss and errors as `dense_runs.evaluate` does."""
    return dense_runs.evaluate(
        step,
        variables,
        batches,
        total,
        give_up,
        loss=_loss,
        values=localization.errors,
    )


def detector(protocol: Any, network: Any, fitted: Any) -> Any:
    """Returns the detector of a network: (image, proposals) -> Detections."""
    return protocol.detector(network, BACKGROUND)


def test(protocol: Any, tested: Any, *, name: str) -> Outcome:
    """Returns the guesses for the images of `tested`, an `evaluate.Member`."""
    return dense_runs.test(detector(protocol, tested.network, None), tested, name=name)
