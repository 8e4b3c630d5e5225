"""Fits SVMs and box regression to the windows of a training split, in two passes over its images.

The first pass has the boxes of objects, some windows drawn at random, and those that box regression
needs. The second one looks for hard negatives among all windows.
"""

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn_papers.data import host_ops, prefetch
from cnn_papers.data.progress import reported
from cnn_papers.data.split import DamagedExample, Objects, Split
from cnn_papers.detection import box_regression, training_windows
from cnn_papers.detection.box_regression import Regressor
from cnn_papers.detection.training_windows import Matched
from cnn_papers.errors import UserError
from cnn_papers.evaluation import svm
from cnn_papers.evaluation.svm import Linear

FIRST_NEGATIVES = 10_000  # ours: drawn over all images for the first fit
MEAN_NORM = 20.0  # that features are scaled to: SPP_net's spp_scale_features.m

# (uint8 image [h, w, c], windows float32 [n, 4]) -> outputs of layers by name, float32 [n, …]
Features = Callable[[np.ndarray, np.ndarray], dict[str, np.ndarray]]
Arrays = tuple[np.ndarray, ...]


class Svm(NamedTuple):
    """SVMs to fit, one a class; the defaults are those of SPP_net's spp_train.m.

    Attributes:
      layer: the name of the layer whose outputs they classify.
      C: the weight of the hinge loss.
      positive_weight: the factor of C for positives.
      intercept_scaling: the constant beside the features, whose weight is the bias.
      tolerance: at which the fit stops; liblinear's own for this loss, which that code keeps.
    """

    layer: str
    C: float = 1e-3
    positive_weight: float = 2.0
    intercept_scaling: float = 10.0
    tolerance: float = 0.1

    @property
    def words(self) -> str:
        """The SVMs in words."""
        return f"SVMs on {self.layer}"

    def result(self, weights: np.ndarray, bias: np.ndarray) -> Linear:
        """Returns the SVMs as fitted."""
        return Linear(weights, bias)


class Regression(NamedTuple):
    """Box regression to fit; the penalty is that of SPP_net's spp_train_bbox_regressor.m.

    Attributes:
      layer: the name of the layer whose outputs it takes.
      penalty: λ of the ridge.
    """

    layer: str
    penalty: float = 4000.0

    @property
    def words(self) -> str:
        """The regression in words."""
        return f"box regression on {self.layer}"

    def result(self, weights: np.ndarray, bias: np.ndarray) -> Regressor:
        """Returns the regression as fitted."""
        return Regressor(weights, bias)


Wanted = Svm | Regression


class Training(NamedTuple):
    """The images that are fitted to.

    Attributes:
      objects, proposals: of each image; proposals are float32 [p, 4].
      pixels: makes a pass: uint8 [h, w, c] of each image, None for one that is left out.
    """

    objects: Sequence[Objects]
    proposals: Sequence[np.ndarray]
    pixels: Callable[[], Iterator[np.ndarray | None]]


class First(NamedTuple):
    """The result of the first pass; features have the MEAN_NORM.

    Attributes:
      scale: of each layer, the factor that its features were multiplied by.
      sampled: of each SVM's layer, features [n, d] and labels [n, classes].
      matched: of each regression's layer, features [n, d] and the arrays of a `Matched`.
    """

    scale: dict[str, np.float32]
    sampled: dict[str, Arrays]
    matched: dict[str, Arrays]


def open_training(split: Split, max_skips: int) -> Training:
    """Returns the images of `split`, which has objects and proposals, decoded in reader threads.

    As in training, `max_skips` images that cannot be decoded may be left out.
    """
    assert split.objects is not None and split.proposals is not None

    def read(i: int) -> np.ndarray | str:
        try:
            return host_ops.decode(split.examples[i]["image"])
        except DamagedExample as error:
            return str(error)
        except ValueError as error:
            return f"image {split.examples[i]['id']} of {split.name} {error}"

    def pixels() -> Iterator[np.ndarray | None]:
        skipped = 0
        for image in prefetch.read(len(split.examples), read):
            if isinstance(image, str):
                skipped += 1
                if skipped > max_skips:
                    raise UserError(image)
            yield None if isinstance(image, str) else image

    return Training(split.objects, split.proposals, pixels)


def fit(
    wanted: Sequence[Wanted], training: Training, features: Features, class_names: Sequence[str]
) -> dict[Wanted, Linear | Regressor]:
    """Returns what is `wanted`, fitted to the windows of `training`.

    Up to rounding each is the same whatever else is wanted. Progress and numbers are logged.

    Args:
      features: gives at least the wanted layers.
      class_names: of the labels of the objects.
    """
    svms = [each for each in wanted if isinstance(each, Svm)]
    regressions = [each for each in wanted if isinstance(each, Regression)]
    first = _first_pass(svms, regressions, training, features, len(class_names))
    fitted: dict[Wanted, Linear | Regressor] = {}
    for each in regressions:
        rows, *matched = first.matched[each.layer]
        regressor = box_regression.fit(rows, Matched(*matched), class_names, penalty=each.penalty)
        fitted[each] = _of_raw_features(regressor, first.scale[each.layer])
    first.matched.clear()
    if not svms:
        return fitted
    detectors = {each: _fit_svm(each, first.sampled[each.layer], class_names) for each in svms}
    hard = _second_pass(detectors, training, features, first.scale, len(class_names))
    for each in svms:
        both = zip(first.sampled[each.layer], hard[each], strict=True)
        examples = tuple(np.concatenate(arrays) for arrays in both)
        linear = _fit_svm(each, examples, class_names)
        fitted[each] = _of_raw_features(linear, first.scale[each.layer])
    return fitted


def _first_pass(
    svms: Sequence[Svm],
    regressions: Sequence[Regression],
    training: Training,
    features: Features,
    classes: int,
) -> First:
    """Gathers the examples of a first fit of all `svms`, and those of all `regressions`."""
    count = len(training.objects)
    norms: dict[str, list[np.ndarray]] = {each.layer: [] for each in (*svms, *regressions)}
    sampled: dict[str, list[Arrays]] = {each.layer: [] for each in svms}
    matched: dict[str, list[Arrays]] = {each.layer: [] for each in regressions}
    for i, pixels in enumerate(reported(training.pixels(), count, "windows for a first fit")):
        if pixels is None:
            continue
        windows, _, labels = _sample(training, i, classes)
        drawn = np.flatnonzero(labels.any(1))
        overlapping, matches = training_windows.matched(windows, training.objects[i])
        rows = np.union1d(drawn, overlapping) if regressions else drawn
        if not len(rows):
            continue
        outputs = features(pixels, windows[rows])
        if not any(norms.values()):
            _say_size(training, [outputs[layer] for layer in matched])
        of_drawn, of_overlapping = np.isin(rows, drawn), np.isin(rows, overlapping)
        for layer, parts in norms.items():
            parts.append(np.linalg.norm(_flat(outputs[layer])[of_drawn], axis=1))
        for layer, parts in sampled.items():
            parts.append((_flat(outputs[layer])[of_drawn], labels[drawn]))
        for layer, parts in matched.items():
            parts.append((_flat(outputs[layer])[of_overlapping], *matches))
    if not any(norms.values()):
        raise UserError("no training image has an object or a proposal: nothing can be fitted")
    scale = {
        layer: np.float32(MEAN_NORM / max(np.concatenate(parts).mean(), 1e-12))
        for layer, parts in norms.items()
    }
    return First(scale, _joined(sampled, scale), _joined(matched, scale))


def _say_size(training: Training, outputs: Sequence[np.ndarray]) -> None:
    """Logs the memory for box regression from layers with such `outputs`, where it is much."""
    if not outputs:
        return
    windows = sum(
        len(
            training_windows.matched(training_windows.with_true_boxes(objects, proposals), objects)[
                0
            ]
        )
        for objects, proposals in zip(training.objects, training.proposals, strict=True)
    )
    size = 4 * windows * sum(_flat(output).shape[1] for output in outputs)
    if size >= svm.SAID_FROM:
        logging.getLogger(__name__).info(
            "box regression takes the features of %s windows, %.1f GB", f"{windows:,}", size / 1e9
        )


def _joined(
    parts_by_layer: dict[str, list[Arrays]], scale: dict[str, np.float32]
) -> dict[str, Arrays]:
    """Returns each layer's arrays over all images, the features, which are first, scaled."""
    joined = {}
    for layer, parts in parts_by_layer.items():
        features, *others = map(np.concatenate, zip(*parts, strict=True))
        parts.clear()
        features *= scale[layer]
        joined[layer] = (features, *others)
    return joined


def _second_pass(
    detectors: dict[Svm, Linear],
    training: Training,
    features: Features,
    scale: dict[str, np.float32],
    classes: int,
) -> dict[Svm, Arrays]:
    """Gathers the hard negatives of each SVM among all windows: features and labels."""
    count = len(training.objects)
    hard: dict[Svm, list[Arrays]] = {each: [] for each in detectors}
    for i, pixels in enumerate(reported(training.pixels(), count, "hard negatives")):
        windows, labels, had = _sample(training, i, classes)
        if pixels is None or not len(windows):
            continue
        outputs = features(pixels, windows)
        for each, linear in detectors.items():
            rows = _flat(outputs[each.layer]) * scale[each.layer]
            found = training_windows.hard(labels, windows, linear.scores(rows), had)
            chosen = np.flatnonzero(found.any(1))
            hard[each].append((rows[chosen], found[chosen]))
    joined = {}
    for each, parts in hard.items():
        joined[each] = tuple(map(np.concatenate, zip(*parts, strict=True)))
        logging.getLogger(__name__).info(
            "SVMs on %s: %s windows are hard negatives", each.layer, f"{len(joined[each][0]):,}"
        )
    return joined


def _sample(training: Training, i: int, classes: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the windows of image `i`, their labels, and those labels that the first fit has."""
    objects = training.objects[i]
    windows = training_windows.with_true_boxes(objects, training.proposals[i])
    labels = training_windows.labels_of(windows, objects, classes)
    number = -(-FIRST_NEGATIVES // len(training.objects))
    rng = np.random.default_rng((0, i))
    return windows, labels, training_windows.drawn(labels, windows, number, rng)


def _fit_svm(settings: Svm, examples: Arrays, class_names: Sequence[str]) -> Linear:
    features, labels = examples
    return svm.fit_one_vs_rest(
        features,
        labels,
        class_names,
        C=settings.C,
        positive_weight=settings.positive_weight,
        intercept_scaling=settings.intercept_scaling,
        tolerance=settings.tolerance,
        what=f"windows ({settings.layer})",
    )


def _flat(outputs: np.ndarray) -> np.ndarray:
    return outputs.reshape(len(outputs), -1)


def _of_raw_features(fitted: Any, scale: np.float32) -> Any:
    """Returns a linear function of scaled features as one of the features themselves."""
    return fitted._replace(weights=fitted.weights * scale)
