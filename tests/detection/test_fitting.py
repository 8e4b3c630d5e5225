"""The two passes: what is fitted equals a fit by hand, to the windows that it should have."""

import dataclasses
import logging
from typing import Any

import numpy as np
import pytest
from support.coloured_squares import COLOURS, split

from cnn_papers.data import host_ops
from cnn_papers.data.split import DamagedExample
from cnn_papers.detection import box_regression, fitting, training_windows
from cnn_papers.detection.fitting import Regression, Svm
from cnn_papers.errors import UserError
from cnn_papers.evaluation import svm

SPLIT: Any = split(12)


@dataclasses.dataclass
class Means:
    """Features in place of a network's: means and edges of windows; counts its windows."""

    windows: int = 0

    def __call__(self, image, windows):
        self.windows += len(windows)
        colours = []
        for top, left, bottom, right in windows.astype(int):
            colours.append(image[top : bottom + 1, left : right + 1].mean((0, 1)))
        colour = np.array(colours, np.float32).reshape(-1, 3) / 255
        return {"colour": colour, "place": np.hstack([colour, windows / 64])[:, None]}


def _fit(wanted, of=SPLIT):
    training = fitting.open_training(of, max_skips=0)
    return fitting.fit(wanted, training, Means(), COLOURS)


def _examples(features, number):
    """Returns features, labels and windows of all images, and the labels of a first fit."""
    rows = []
    for i, (example, objects, proposals) in enumerate(
        zip(SPLIT.examples, SPLIT.objects, SPLIT.proposals, strict=True)
    ):
        windows = training_windows.with_true_boxes(objects, proposals)
        labels = training_windows.labels_of(windows, objects, 3)
        rng = np.random.default_rng((0, i))
        first = training_windows.drawn(labels, windows, number, rng)
        image = host_ops.decode(example["image"])
        rows.append((Means()(image, windows)[features], labels, windows, first))
    return rows


def test_svms_are_fitted_again_with_the_hard_negatives_of_the_first_fit(monkeypatch, caplog):
    monkeypatch.setattr(fitting, "FIRST_NEGATIVES", 24)  # two an image
    caplog.set_level(logging.INFO)
    settings = Svm("colour", C=0.1, positive_weight=3.0, intercept_scaling=2.0, tolerance=0.01)
    fitted = _fit([settings])[settings]

    rows = _examples("colour", 2)
    first = [(x[used], labels[used]) for x, _, _, labels in rows for used in [labels.any(1)]]
    features, labels = map(np.concatenate, zip(*first, strict=True))
    scale = 20 / np.linalg.norm(features, axis=1).mean()
    arguments: Any = settings._asdict()
    del arguments["layer"]
    linear = svm.fit_one_vs_rest(features * scale, labels, COLOURS, **arguments)
    hard = [
        (x * scale, training_windows.hard(labels, windows, linear.scores(x * scale), had))
        for x, labels, windows, had in rows
    ]
    hard = [(x[found.any(1)], found[found.any(1)]) for x, found in hard]
    hard_features, hard_labels = map(np.concatenate, zip(*hard, strict=True))
    assert len(hard_features) > 5
    assert f"SVMs on colour: {len(hard_features)} windows are hard negatives" in caplog.messages
    again = svm.fit_one_vs_rest(
        np.concatenate([features * scale, hard_features]),
        np.concatenate([labels, hard_labels]),
        COLOURS,
        **arguments,
    )
    np.testing.assert_allclose(fitted.weights, again.weights * scale, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(fitted.bias, again.bias, rtol=1e-4)
    assert abs(again.bias - linear.bias).max() > 0.01


def test_box_regression_is_of_all_windows_on_objects_with_features_of_norm_20():
    settings = Regression("place", penalty=10.0)
    fitted = _fit([settings])[settings]
    used = []
    norms = []
    number = -(-fitting.FIRST_NEGATIVES // len(SPLIT.examples))
    for (x, _, windows, first), objects in zip(
        _examples("place", number), SPLIT.objects, strict=True
    ):
        rows, matched = training_windows.matched(windows, objects)
        used.append((x[rows, 0], *matched))
        norms.extend(np.linalg.norm(x[first.any(1), 0], axis=1))
    scale = 20 / np.mean(norms)
    features, *matched = map(np.concatenate, zip(*used, strict=True))
    expected = box_regression.fit(
        features * scale, training_windows.Matched(*matched), COLOURS, penalty=10.0
    )
    np.testing.assert_allclose(fitted.weights, expected.weights * scale, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(fitted.bias, expected.bias, rtol=1e-3, atol=1e-4)


def test_each_is_the_same_whatever_else_is_wanted():
    wanted = [Svm("colour"), Svm("colour", C=1.0), Svm("place"), Regression("place")]
    together = _fit(wanted)
    assert list(together) == [wanted[3], *wanted[:3]]
    for settings in wanted:
        alone = _fit([settings])[settings]
        np.testing.assert_array_equal(together[settings].weights, alone.weights)
        np.testing.assert_array_equal(together[settings].bias, alone.bias)


def test_passes_compute_only_the_windows_that_they_need(monkeypatch):
    monkeypatch.setattr(fitting, "FIRST_NEGATIVES", 12)  # one an image
    training = fitting.open_training(SPLIT, max_skips=0)
    true = sum(len(objects.boxes) for objects in SPLIT.objects)
    proposals = sum(len(rows) for rows in SPLIT.proposals)
    features = Means()
    fitting.fit([Svm("colour")], training, features, COLOURS)
    first_pass = features.windows - (true + proposals)  # the second one has all windows
    assert true <= first_pass <= true + 12


def test_box_regression_says_its_memory_where_it_is_much(monkeypatch, caplog):
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(svm, "SAID_FROM", 1)
    _fit([Regression("place")])
    matched = sum(
        len(training_windows.matched(training_windows.with_true_boxes(o, p), o)[0])
        for o, p in zip(SPLIT.objects, SPLIT.proposals, strict=True)
    )
    assert f"box regression takes the features of {matched} windows, 0.0 GB" in caplog.messages


def _damaged(kind):
    def __getitem__(self, i):
        if i == 3 and kind == "damaged":
            raise DamagedExample("example 3 of squares is damaged")
        example = SPLIT.examples[i]
        return {**example, "image": b"no image"} if i == 3 else example

    examples = type("Examples", (), {"__len__": lambda self: 12, "__getitem__": __getitem__})()
    return SPLIT._replace(examples=examples)


@pytest.mark.parametrize("kind", ["damaged", "no image"])
def test_an_image_that_cannot_be_read_is_named_or_left_out_as_in_training(kind):
    damaged = _damaged(kind)
    with pytest.raises(UserError) as error:
        _fit([Svm("colour")], damaged)
    words = {"damaged": "example 3 of squares is damaged", "no image": "image image3 of squares"}
    assert words[kind] in str(error.value)
    training = fitting.open_training(damaged, max_skips=1)
    fitted = fitting.fit([Svm("colour")], training, Means(), COLOURS)
    assert np.isfinite(fitted[Svm("colour")].bias).all()


def test_images_without_any_window_are_refused():
    nothing = np.zeros((0, 4), np.float32)
    objects = SPLIT.objects[0]
    assert not len(objects.boxes)
    empty = SPLIT._replace(objects=[objects] * 12, proposals=[nothing] * 12)
    with pytest.raises(UserError, match="no training image has an object or a proposal"):
        _fit([Svm("colour")], empty)
