"""SPP-net's detector: the class of each window of a feature map, or background, by a softmax.

He et al., SPP-net, §4.1. Windows are proposals and the boxes of objects. A step draws some of each
image of its batch by their overlap with objects.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

from cnn_papers import boxes
from cnn_papers.boxes import NONE
from cnn_papers.data.augment import DeviceTransform, augment_batch
from cnn_papers.detection import detections, watching
from cnn_papers.detection.detections import Detections, Outcome
from cnn_papers.detection.suppression import best_by_class
from cnn_papers.errors import UserError
from cnn_papers.training.step import Batch, StepSettings

BACKGROUND = 1  # outputs of the network beside those of the classes; it is the last one
NEEDS = "boxes"
HEADLINE, MEASURES = detections.HEADLINE, detections.MEASURES
SUPPRESSION = {"nms": 0.3, "least": 0.01, "most": 100}  # in training, as `softmax` has by default


class Settings(NamedTuple):
    """The keys of `config.boxes`; the defaults are those of SPP-net §4.1.

    Attributes:
      windows: number of windows of a step, divided evenly over the images of its batch.
      positive_share: the largest share of windows that show an object.
      positive_iou: the least IoU with an object of a window that shows it.
      background_iou: windows whose IoU with each object is below the second number, and with one at
        least the first, are background; all windows of an image without objects are.
      other_sizes: longer sides in pixels that images are also resized to. A window is then taken
        from its image or from one of these, at random.
    """

    windows: int = 128
    positive_share: float = 0.25
    positive_iou: float = 0.5
    background_iou: tuple[float, float] = (0.1, 0.5)
    other_sizes: tuple[int, ...] = ()


class Totals(NamedTuple):
    """Sums over the steps since the last report; errors in percent of the drawn windows."""

    steps: jax.Array
    loss: jax.Array
    window_error: jax.Array
    grad_norm: jax.Array


class Drawn(NamedTuple):
    """Windows that are drawn from the candidates of images.

    Attributes:
      rows: int32 [n, k], of the candidates.
      classes: int32 [n, k], labels; `boxes.NONE` for background.
      counted: bool [n, k]; the others fill up where there are too few.
    """

    rows: jax.Array
    classes: jax.Array
    counted: jax.Array


class Targets(NamedTuple):
    """What the outputs for windows are compared with.

    Attributes:
      classes: as in Drawn.
      weights: float32 [n, k], of mean 1 over the batch; 0 for windows that do not count.
    """

    classes: jax.Array
    weights: jax.Array


# --- training -------------------------------------------------------------------------------------


def prepare(
    model: Any, batch: Batch, settings: StepSettings, key: jax.Array
) -> tuple[dict[str, Any], Targets]:
    """Returns the drawn windows as arguments of the network, and their targets."""
    own = settings.boxes_as(Settings)
    if settings.class_weights:
        raise UserError("config.loss.class_weights weighs images; detect_windows has only windows")
    draw_key, size_key = jax.random.split(key)
    candidates = _candidates(batch)
    drawn = draw(candidates, batch, own, draw_key)
    windows = jnp.take_along_axis(candidates, drawn.rows[..., None], 1)
    counted = drawn.counted.astype(jnp.float32)
    weights = counted / jnp.maximum(counted.mean(), 1 / counted.size)
    arguments = at_sizes(batch["image"], windows, own.other_sizes, size_key)
    return arguments, Targets(drawn.classes, weights)


def draw(candidates: jax.Array, batch: Batch, settings: Settings, key: jax.Array) -> Drawn:
    """Draws as many windows from the candidates [n, p, 4] of each image of a batch.

    Where there are too few positives, background takes their place. A window that overlaps a
    difficult object most, by `positive_iou` or more, is neither.

    Raises:
      UserError: the number of windows does not divide over the images.
    """
    images = len(candidates)
    count = settings.windows // images
    if not count or settings.windows % images:
        raise UserError(
            f"config.boxes.windows={settings.windows} must be a multiple of the batch of {images}"
        )
    positives = round(settings.positive_share * count)
    low, high = settings.background_iou

    def of_image(
        windows: jax.Array,
        true: jax.Array,
        classes: jax.Array,
        difficult: jax.Array,
        key: jax.Array,
    ) -> Drawn:
        overlaps = jnp.where(classes != NONE, boxes.iou(windows[:, None], true[None]), 0)
        nearest, overlap = overlaps.argmax(1), overlaps.max(1)
        has_area = boxes.area(windows) > 0
        is_positive = has_area & (overlap >= settings.positive_iou) & ~difficult[nearest]
        least = jnp.where((classes != NONE).any(), low, 0)
        is_background = has_area & (overlap >= least) & (overlap < high)
        # Random numbers order the windows of a kind; those that are taken first get higher ones.
        order = jax.random.uniform(key, (len(windows),))
        rank = jnp.where(is_positive, order, -1)
        last = jax.lax.top_k(rank, max(1, positives))[0][-1]
        is_taken = is_positive & (rank >= last) & (positives > 0)
        order = jnp.where(is_taken, 2 + order, jnp.where(is_background, 1 + order, order - 1))
        top, rows = jax.lax.top_k(order, count)
        return Drawn(rows, jnp.where(top >= 2, classes[nearest[rows]], NONE), top >= 1)

    keys = jax.random.split(key, images)
    true = (batch["boxes"], batch["classes"], batch["difficult"])
    missing = max(0, count - candidates.shape[1])
    filled = jnp.pad(candidates, [(0, 0), (0, missing), (0, 0)])
    drawn = jax.vmap(of_image)(filled, *true, keys)
    return drawn._replace(rows=jnp.minimum(drawn.rows, candidates.shape[1] - 1))


def at_sizes(
    image: jax.Array, windows: jax.Array, other_sizes: tuple[int, ...], key: jax.Array
) -> dict[str, Any]:
    """Returns the network's arguments for windows [n, k, 4] of images [n, h, w, c].

    Each window is one of its image, or of the image at one of `other_sizes`, at random.
    """
    if not other_sizes:
        return {"windows": windows}
    size, longer = image.shape[1:3], max(image.shape[1:3])
    sizes = [tuple(round(side * length / longer) for length in size) for side in other_sizes]
    resized = tuple(
        jax.image.resize(image, (len(image), *other, image.shape[3]), "linear") for other in sizes
    )
    factors = jnp.array([np.divide(other, size) for other in (size, *sizes)], jnp.float32)
    size_of = jax.random.randint(key, windows.shape[:2], 0, len(sizes) + 1)
    windows = windows * jnp.tile(factors, 2)[size_of]
    return {"windows": windows, "other_sizes": resized, "size_of": size_of}


def loss(
    logits: jax.Array, endpoints: dict[str, jax.Array], targets: Targets, settings: StepSettings
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Returns the cross-entropy of logits [n, k, outputs], and the error of windows from 0 to 1."""
    labels = _labels(targets.classes, logits)
    losses = optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    wrong = (logits.argmax(-1) != labels) | ~jnp.isfinite(logits).all(-1)
    return (targets.weights * losses).mean(), {"window_error": (targets.weights * wrong).mean()}


def scalars(means: dict[str, jax.Array]) -> dict[str, jax.Array]:
    """Returns the error of a step in percent; `means` are what `loss` returns."""
    return {"window_error": 100 * means["window_error"]}


def guessing(classes: int) -> dict[str, float]:
    """Returns the loss of guessing among `classes`, and no precision, by the names of rows."""
    return {"loss": math.log(classes), **{measure.name: 0.0 for measure in MEASURES}}


def _candidates(batch: Batch) -> jax.Array:
    """Returns the proposals and the boxes of objects, [n, p + m, 4]."""
    if "proposals" not in batch:
        raise UserError(
            "detect_windows classifies windows that config.data.proposals names, and it is empty: "
            "set it to 'selective_search()' or to a file of boxes"
        )
    return jnp.concatenate([batch["proposals"], batch["boxes"]], 1)


def _labels(classes: jax.Array, logits: jax.Array) -> jax.Array:
    return jnp.where(classes == NONE, logits.shape[-1] - 1, classes)


# --- evaluation -----------------------------------------------------------------------------------


def make_eval_step(model: Any, normalise: DeviceTransform, settings: StepSettings) -> watching.Step:
    """Returns the function (variables, batch) -> outputs of every image of the batch.

    They are the batch's `mask`, true objects and `proposals` [n, p, 4], the `scores`
    [n, p, outputs] of proposals, and `sums` over images: of the `loss` of drawn windows, and of
    their number `windows`.
    """
    own = settings.boxes_as(Settings)

    def step(variables: Any, batch: Batch) -> dict[str, Any]:
        batch = augment_batch(normalise, batch, jax.random.key(0))
        candidates, proposals = _candidates(batch), batch["proposals"].shape[1]
        logits = model.apply(variables, batch["image"], windows=candidates)[0]
        images = len(candidates)
        per_image = own._replace(windows=images * max(1, own.windows // images))
        drawn = draw(candidates, batch, per_image, jax.random.key(0))
        of_drawn = jnp.take_along_axis(logits, drawn.rows[..., None], 1)
        losses = optax.softmax_cross_entropy_with_integer_labels(
            of_drawn, _labels(drawn.classes, logits)
        )
        counted = drawn.counted & batch["mask"][:, None]
        kept = ("mask", "boxes", "classes", "difficult", "proposals")
        return {
            **{name: batch[name] for name in kept},
            "scores": jax.nn.softmax(logits[:, :proposals]),
            "sums": {"loss": jnp.where(counted, losses, 0).sum(), "windows": counted.sum()},
        }

    return step


def evaluate(
    step: watching.Step,
    variables: Any,
    batches: Iterable[Batch],
    total: int,
    give_up: Callable[[], int] = lambda: False,
) -> dict[str, float] | None:
    """Returns loss and mean average precision as `watching.evaluate` does."""

    def find(outputs: dict[str, Any], row: int, size: tuple[int, int]) -> Detections:
        windows, scores = outputs["proposals"][row], outputs["scores"][row, :, :-BACKGROUND]
        real = boxes.area(windows) > 0
        return best_by_class(windows[real], scores[real], **SUPPRESSION)

    def loss_of(sums: Sequence[dict[str, Any]]) -> float:
        windows = sum(int(part["windows"]) for part in sums)
        return sum(float(part["loss"]) for part in sums) / max(1, windows)

    return watching.evaluate(
        step,
        variables,
        batches,
        total,
        give_up,
        find=find,
        loss=loss_of,
        values=detections.precisions,
    )


# --- the final test -------------------------------------------------------------------------------
# Its modules need OpenCV, which measuring a train step does not.

result_of = detections.result_of


def parse_protocols(text: str) -> dict[str, Any]:
    """Parses `config.eval.protocol`: protocols of `window_protocols`, each by its own text."""
    from cnn_papers.detection import window_protocols
    from cnn_papers.evaluation import support

    return support.parse(text, window_protocols)


def protocols(
    text: str,
    model: Any,
    variables: Any,
    normalise: DeviceTransform,
    shape: tuple[int, ...],
    *,
    mirror: bool = True,
    precise_bn: int = 0,
) -> dict[str, Any]:
    """Returns the protocols of `parse_protocols`; those take no mirror images.

    Raises:
      UserError: a network that has no windows, or no batch statistics to recompute.
    """
    from cnn_papers.evaluation import support

    support.check_precise_bn(precise_bn, variables)
    support.check_windows(model)
    return parse_protocols(text)


def fitted_of_run(protocol: Any, network: Any, folder: Any) -> Any:
    """Returns what `detector` needs of a run that has been tested; see `fitted.of_run`."""
    from cnn_papers.detection import fitted

    return fitted.of_run(protocol, network, folder)


def detector(protocol: Any, network: Any, fitted: Any) -> Any:
    """Returns the detector of a network: (image, proposals) -> Detections."""
    return protocol.detector(network, fitted)


def test(protocol: Any, tested: Any, *, name: str) -> Outcome:
    """Returns what is found in the images of `tested`, an `evaluate.Member`."""
    from cnn_papers.detection import fitted, passes

    detect = detector(protocol, tested.network, fitted.for_test(protocol, tested))
    return passes.run(detect, detect.stages, tested.source, name=name)
