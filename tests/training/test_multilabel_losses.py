"""The two losses of images with several labels, against loops over images and pairs."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers.tasks import multilabel
from cnn_papers.training import losses
from cnn_papers.training.step import StepSettings

CLS, RNK = StepSettings(), StepSettings(ranking=True)
IMAGES, CLASSES = 9, 4


def batch(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Scores and labels; the last class has no positive image, the one before no negative one."""
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(IMAGES, CLASSES)).astype(np.float32)
    labels = rng.integers(-1, 2, (IMAGES, CLASSES)).astype(np.int8)
    labels[:, -1] = np.minimum(labels[:, -1], 0)
    labels[:, -2] = np.maximum(labels[:, -2], 0)
    assert (labels == 0).any(0).all()
    return scores, labels


def by_loops(scores: np.ndarray, labels: np.ndarray, settings: StepSettings) -> float:
    total = 0.0
    for c in range(scores.shape[1]):
        weight = settings.class_weights[c] if settings.class_weights else 1.0
        hinges = []
        for i, label in enumerate(labels[:, c]):
            if settings.ranking:
                hinges += [
                    max(0.0, 1 - (scores[i, c] - scores[j, c]))
                    for j, other in enumerate(labels[:, c])
                    if label == 1 and other == -1
                ]
            elif label:
                hinges.append(max(0.0, 1 - label * scores[i, c]))
        total += weight * sum(hinges) / len(hinges) if hinges else 0.0
    return total


def loss_of(scores, labels, settings, endpoints=None):
    return multilabel.loss(jnp.asarray(scores), endpoints or {}, jnp.asarray(labels), settings)


both = pytest.mark.parametrize("settings", [CLS, RNK], ids=["CLS", "RNK"])


@both
@pytest.mark.parametrize("weights", [(), (1.0, 2.0, 0.5, 3.0)])
def test_a_loss_is_that_of_a_loop(settings, weights):
    settings = settings._replace(class_weights=weights)
    scores, labels = batch()
    value, means = loss_of(scores, labels, settings)
    assert float(value) == pytest.approx(by_loops(scores, labels, settings), rel=1e-6)
    assert float(means["without_terms"]) == 0


@both
def test_auxiliary_heads_have_the_same_loss(settings):
    scores, labels = batch()
    other = batch(1)[0]
    settings = settings._replace(aux_weight=0.3)
    value, _ = loss_of(scores, labels, settings, {"aux_1": jnp.asarray(other), "fc": 0})
    expected = by_loops(scores, labels, settings) + 0.3 * by_loops(other, labels, settings)
    assert float(value) == pytest.approx(expected, rel=1e-6)


@both
def test_a_gradient_is_that_of_finite_differences(settings):
    scores, labels = batch()
    step = 1e-4
    # No hinge has its corner within a step.
    margins = [labels * scores, scores[:, None] - scores[None]]
    assert min(abs(1 - margin).min() for margin in margins) > 2 * step
    gradient = jax.grad(lambda x: loss_of(x, labels, settings)[0])(jnp.asarray(scores))
    for index in np.ndindex(scores.shape):
        up, down = scores.astype(np.float64), scores.astype(np.float64)
        up[index] += step
        down[index] -= step
        change = by_loops(up, labels, settings) - by_loops(down, labels, settings)
        assert float(gradient[index]) == pytest.approx(change / (2 * step), abs=1e-5)


@both
def test_labels_of_zero_never_contribute(settings):
    scores, labels = batch()
    changed = np.where(labels == 0, 1e30, scores)
    value, gradient = jax.value_and_grad(lambda x: loss_of(x, labels, settings)[0])(changed)
    assert value == loss_of(scores, labels, settings)[0]
    assert (np.asarray(gradient)[labels == 0] == 0).all()


@pytest.mark.fault(
    "not finite: a batch that gives a ranking loss no pair of images",
    "counted, without a gradient; a class without pairs counts nowhere",
)
@pytest.mark.parametrize("label", [-1, 0, 1])
def test_a_batch_without_any_pair_has_no_gradient(label):
    scores = batch()[0]
    labels = np.full(scores.shape, label, np.int8)
    (value, means), gradient = jax.value_and_grad(
        functools.partial(loss_of, labels=labels, settings=RNK), has_aux=True
    )(scores)
    assert float(value) == 0 and float(multilabel.scalars(means)["without_terms"]) == 100
    assert (np.asarray(gradient) == 0).all()
    value, means = loss_of(scores, labels, CLS)
    assert float(means["without_terms"]) == (label == 0)
    assert float(value) == pytest.approx(by_loops(scores, labels, CLS), rel=1e-6)


def test_a_classification_is_weighed_as_before():
    """The loss of one label is written with the same heads; see the tests of the step."""
    logits, label = jnp.asarray(batch()[0]), jnp.arange(IMAGES) % CLASSES
    value = losses.classification(logits, {"aux_1": 2 * logits}, label, aux_weight=0.5)
    expected = losses.cross_entropy(logits, label) + 0.5 * losses.cross_entropy(2 * logits, label)
    assert float(value) == float(expected)


def test_guessing_is_scores_of_zero():
    scores, labels = np.zeros((IMAGES, CLASSES), np.float32), batch()[1]
    labels[0], labels[1] = 1, -1
    for settings in (CLS, RNK):
        assert float(loss_of(scores, labels, settings)[0]) == CLASSES
    assert multilabel.guessing(CLASSES) == {"loss": 4.0, "map": 0.0, "map_area": 0.0}
