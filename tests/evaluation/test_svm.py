"""Linear SVMs against scikit-learn's, which they are fitted by."""

import logging

import numpy as np
import pytest
from sklearn.svm import LinearSVC

from cnn_papers.evaluation import svm

NAMES = ("cat", "dog")


def _data(n, d, seed=0):
    rng = np.random.default_rng(seed)
    features = rng.normal(size=(n, d)).astype(np.float32)
    labels = np.where(features[:, :2] + rng.normal(size=(n, 2)) > 1, 1, -1).astype(np.int8)
    return features, labels


@pytest.mark.parametrize(
    ("n", "d", "loss", "dual"),
    [
        (200, 20, "hinge", True),
        (20, 200, "hinge", True),
        (200, 20, "squared_hinge", False),
        (20, 200, "squared_hinge", True),
    ],
)
def test_each_class_is_a_linear_svc_against_the_rest(n, d, loss, dual):
    features, labels = _data(n, d)
    fitted = svm.fit_one_vs_rest(
        features, labels, NAMES, C=0.01, loss=loss, positive_weight=2.0, intercept_scaling=10.0
    )
    for i in range(2):
        expected = LinearSVC(
            C=0.01,
            loss=loss,
            dual=dual,
            intercept_scaling=10,
            class_weight={1: 2.0, -1: 1.0},
            random_state=0,
        ).fit(features.astype(np.float64), labels[:, i])
        np.testing.assert_allclose(fitted.weights[:, i], expected.coef_[0], rtol=1e-6, atol=1e-7)
        np.testing.assert_allclose(
            fitted.scores(features)[:, i],
            expected.decision_function(features),
            rtol=1e-5,
            atol=1e-5,
        )


@pytest.mark.parametrize("loss", ["hinge", "squared_hinge"])
def test_many_features_of_few_examples_are_fitted_by_their_inner_products(loss, monkeypatch):
    features, labels = _data(40, 2000)
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    features[7], labels[3, 0] = features[6], 0  # no inverse; an example left out
    settings = {"C": 1.0, "loss": loss, "positive_weight": 2.0}
    expected = svm.fit_one_vs_rest(features, labels, NAMES, **settings)
    sizes = []
    fit = svm._fit
    monkeypatch.setattr(svm, "_fit", lambda *given: sizes.append(given[0].shape) or fit(*given))
    monkeypatch.setattr(svm, "LARGE", features.size)
    reduced = svm.fit_one_vs_rest(features, labels, NAMES, **settings)
    assert sizes == [(39, 40), (40, 40)]
    assert reduced.weights.shape == (2000, 2) and reduced.weights.dtype == np.float32
    np.testing.assert_allclose(reduced.weights, expected.weights, atol=2e-4)
    np.testing.assert_allclose(reduced.bias, expected.bias, atol=2e-3)
    others = _data(30, 2000, seed=1)[0]
    np.testing.assert_allclose(reduced.scores(others), expected.scores(others), atol=5e-3)
    monkeypatch.setattr(svm, "LARGE", features.size + 1)
    svm.fit_one_vs_rest(features, labels, NAMES, **settings)
    assert sizes[-1] == (40, 2000)


def test_examples_of_label_zero_are_left_out():
    features, labels = _data(100, 5)
    labels[::3, 0] = 0
    fitted = svm.fit_one_vs_rest(features, labels, NAMES, C=0.01)
    kept = labels[:, 0] != 0
    alone = svm.fit_one_vs_rest(features[kept], labels[kept][:, :1], NAMES[:1], C=0.01)
    np.testing.assert_array_equal(fitted.weights[:, :1], alone.weights)
    np.testing.assert_array_equal(fitted.bias[:1], alone.bias)


@pytest.mark.parametrize(("label", "kind"), [(-1, "positive"), (1, "negative")])
def test_a_class_without_positives_or_negatives_is_named_and_never_scores(label, kind, caplog):
    features, labels = _data(50, 5)
    labels[:, 1] = label
    fitted = svm.fit_one_vs_rest(features, labels, NAMES, C=0.01, what="windows")
    assert caplog.messages == [f"dog has no {kind} windows: it gets no SVM"]
    scores = fitted.scores(features)
    assert np.isfinite(scores[:, 0]).all()
    assert (scores[:, 1] == -np.inf).all()


def test_a_large_fit_says_its_memory_first(monkeypatch, caplog):
    features, labels = _data(100, 5)
    labels[:40, 0] = 0
    caplog.set_level(logging.INFO)
    svm.fit_one_vs_rest(features, labels, NAMES, C=0.01)
    assert not caplog.messages
    monkeypatch.setattr(svm, "SAID_FROM", 24 * 100 * 5)  # of dog, which leaves none out
    svm.fit_one_vs_rest(features, labels, NAMES, C=0.01)
    assert caplog.messages == [
        "an SVM over 100 examples of 5 values takes up to 0.0 GB beside the 0.0 GB of all"
    ]


def test_a_fit_that_did_not_converge_is_named(monkeypatch, caplog):
    monkeypatch.setattr(svm, "MOST_ITERATIONS", 1)
    svm.fit_one_vs_rest(*_data(200, 5), NAMES, C=100.0)
    assert caplog.messages == [
        "the SVMs of cat, dog over examples stopped at 1 iterations, before they converged"
    ]
