"""Tests a network by linear SVMs on the outputs of a layer, fitted to the training images.

Chatfield, Simonyan, Vedaldi, Zisserman: Return of the Devil in the Details: Delving Deep into
Convolutional Nets. BMVC 2014. arXiv:1405.3531. `protocols.svm` makes the protocol.

Deviations:
  - The features of an image are normalised last, after those of its views are averaged or stacked.
"""

import logging
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_papers.data import mirror
from cnn_papers.errors import UserError
from cnn_papers.evaluation import kept_fits, passes
from cnn_papers.evaluation.protocols import Part, Svm
from cnn_papers.evaluation.results import Outcome
from cnn_papers.evaluation.svm import Linear, fit_one_vs_rest

TOLERANCE = 0.01  # ours: by LinearSVC's 1e-4 few fits end in time, by liblinear's 0.1 APs differ


class Wanted(NamedTuple):
    """The SVMs to fit, of one `Svm.features`.

    Attributes:
      features: as text; of the digest.
      C: the weight of the hinge loss.
    """

    features: str
    C: float

    @property
    def words(self) -> str:
        """The SVMs in words."""
        return f"SVMs with C={self.C:g}"

    def result(self, weights: np.ndarray, bias: np.ndarray) -> Linear:
        """Returns the SVMs as fitted."""
        return Linear(weights, bias)


def test(protocol: Svm, tested: Any, *, name: str) -> Outcome:
    """Returns the SVMs' scores of all images of `tested`, an `evaluate.Member`.

    The score of a class that could not be fitted is -inf.

    Args:
      protocol: from `protocols.svm`.
      tested: keeps the SVMs in its folder; those of other protocols on the same features, which
        differ by C, are fitted with them.
      name: of the protocol in messages.

    Raises:
      UserError: training images that are missing, outputs that are not finite.
    """
    linear = _fitted(protocol, tested)
    began = time.monotonic()
    seconds: dict[Any, float] = {}
    programs = passes.timed(tested.programs, seconds)
    means = _features(protocol, protocol.test, tested, tested.source, programs, name)
    compiling = sum(seconds.values())
    return Outcome(
        scores=linear.scores(means.values),
        labels=means.labels,
        programs=len(seconds),
        seconds=time.monotonic() - began - compiling,
        compiling=compiling,
        enlarged=means.enlarged,
    )


def _fitted(protocol: Svm, tested: Any) -> Linear:
    """Returns the SVMs of a protocol: those that the run keeps, or newly fitted ones."""
    source, network = tested.open_train_source(), tested.network
    wanted = Wanted(protocol.features, protocol.C)
    others = [
        Wanted(other.features, other.C)
        for other in tested.protocols.values()
        if isinstance(other, Svm) and other.features == protocol.features
    ]

    def fit(missing: Sequence[Wanted]) -> kept_fits.Fitted:
        title = f"features of {source.raw.split.name}"
        means = _features(protocol, protocol.train, tested, source, tested.programs, title)
        labels = _signs(means.labels, len(source.raw.split.class_names))
        labels = labels.repeat(len(means.values) // len(labels), 0)
        class_names = source.raw.split.class_names
        return {
            each: fit_one_vs_rest(
                means.values, labels, class_names, C=each.C, tolerance=TOLERANCE, what="images"
            )
            for each in missing
        }

    look = f"{protocol.features} {network.config.data.eval_host}"
    digests = (
        kept_fits.digest_of_network(network, look),
        kept_fits.digest_of_training(source.raw.split),
    )
    return kept_fits.load_or_fit(tested.folder, [wanted], others, *digests, fit)[wanted]


def _signs(labels: np.ndarray, classes: int) -> np.ndarray:
    """Returns the labels of images as 1, 0 or -1 for each class, int8 [n, classes]."""
    if labels.ndim == 2:
        return labels[:, :classes]
    return np.where(labels[:, None] == np.arange(classes), 1, -1).astype(np.int8)


def _features(
    protocol: Svm,
    views: str,
    tested: Any,
    source: passes.Source,
    programs: passes.Programs,
    title: str,
) -> passes.Means:
    """Returns the features of all images; `views` are "separate", "mean" or "stack", see `svm`."""
    network, part = tested.network, protocol.part
    pipeline = source.prepared if part.prepared else source.raw
    kept_apart = 1
    if views != "mean":
        part = _with_mirror_images(part, network.model)
        kept_apart = len(part.views(pipeline.reader.arrays[0]["image"], source.method))
    means = passes.mean_of_views(
        part,
        programs,
        network.variables,
        source,
        title,
        width=_width(network, part, source.prepared.image_shape),
        kept_apart=kept_apart,
    )
    values = means.values
    if not np.isfinite(values).all():
        raise UserError(f"outputs of {network.description} are not finite: its training diverged")
    if views == "stack":
        values = values.reshape(len(means.labels), -1)
    if protocol.normalise:
        values = _normalised(values, pipeline.split.name)
    return means._replace(values=values)


def _with_mirror_images(part: Part, model: Any) -> Part:
    """Returns `part` with mirror images among its views for `model`, each beside its image."""
    if not part.mirrored:
        return part
    mirrored_of = mirror.for_input_of(model)

    def views(image: np.ndarray, method: str) -> list[np.ndarray]:
        return [both for view in part.views(image, method) for both in (view, mirrored_of(view))]

    return part._replace(views=views, mirrored=False)


def _width(network: Any, part: Part, shape: tuple[int, ...]) -> int:
    """Returns the number of features of a view; `shape` is that of prepared images."""
    height, width = part.sizes[0] if part.sizes else shape[:2]
    image = jax.ShapeDtypeStruct((1, height, width, shape[2]), np.uint8)

    def outputs(variables: Any, image: jax.Array) -> jax.Array:
        view = network.normalise(image, jax.random.key(0))
        return part.score(network.model, variables, view)[0]

    return jax.eval_shape(outputs, network.variables, image).shape[1]


def _normalised(values: np.ndarray, split: str) -> np.ndarray:
    """Returns rows of ℓ2 norm 1; a row of zeros stays, and a warning has the number of them."""
    norms = np.linalg.norm(values, axis=1, keepdims=True)
    if zeros := int((norms == 0).sum()):
        logging.getLogger(__name__).warning(
            "%s of the features of %s are all zero and have no norm: they stay zero",
            f"{zeros:,} of {len(values):,}",
            split,
        )
    return values / np.where(norms == 0, 1, norms)
