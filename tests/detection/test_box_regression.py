"""Ridge regression against its closed form, and the boxes that it moves."""

import numpy as np
import pytest

from cnn_papers import boxes
from cnn_papers.detection import box_regression
from cnn_papers.detection.training_windows import Matched


@pytest.mark.parametrize(("n", "d"), [(60, 7), (7, 60), (8, 7), (7, 7)])
def test_ridge_is_the_closed_form(n, d, monkeypatch):
    monkeypatch.setattr(box_regression, "ROWS", 16)  # several parts, the last one smaller
    rng = np.random.default_rng(0)
    features = rng.normal(size=(n, d)).astype(np.float32)
    targets = rng.normal(3.0, size=(n, 4)).astype(np.float32)
    weights, bias = box_regression.ridge(features, targets, 2.5)
    inputs = np.hstack([features, np.ones((n, 1))])
    mean = targets.astype(np.float64).mean(0)
    expected = np.linalg.solve(inputs.T @ inputs + 2.5 * np.eye(d + 1), inputs.T @ (targets - mean))
    np.testing.assert_allclose(weights, expected[:-1], rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(bias, expected[-1] + mean, rtol=1e-9)


def _windows_and_objects(n, rng):
    corner = rng.uniform(0, 50, (n, 2))
    windows = np.concatenate([corner, corner + rng.uniform(10, 40, (n, 2))], 1)
    codes = rng.uniform(-0.3, 0.3, (n, 4))
    return windows.astype(np.float32), codes.astype(np.float32)


def test_each_class_moves_its_windows_to_their_objects():
    rng = np.random.default_rng(0)
    windows, codes = _windows_and_objects(200, rng)
    classes = np.arange(200) % 2
    # The code is a linear function of the features, another one for each class.
    features = np.where(classes[:, None] == 0, codes, codes[:, ::-1] / 2)
    objects = boxes.decode(codes, windows)
    fitted = box_regression.fit(
        features, Matched(windows, objects, classes), ("a", "b"), penalty=1e-6
    )
    moved = fitted.moved(features, windows, classes)
    assert moved.dtype == np.float32
    np.testing.assert_allclose(moved, objects, atol=1e-2)
    assert abs(fitted.moved(features, windows, 1 - classes) - objects).max() > 5


def test_a_strong_penalty_leaves_the_mean_move():
    rng = np.random.default_rng(0)
    windows, codes = _windows_and_objects(50, rng)
    features = rng.normal(size=(50, 3)).astype(np.float32)
    objects, classes = boxes.decode(codes, windows), np.zeros(50, int)
    fitted = box_regression.fit(features, Matched(windows, objects, classes), ("a",), penalty=1e12)
    expected = boxes.decode(np.tile(codes.mean(0), (50, 1)), windows)
    np.testing.assert_allclose(fitted.moved(features, windows, classes), expected, atol=1e-3)


def test_a_class_without_windows_is_named_and_keeps_its_windows(caplog):
    rng = np.random.default_rng(0)
    windows, codes = _windows_and_objects(20, rng)
    features, classes = np.ones((20, 3), np.float32), np.zeros(20, int)
    objects = boxes.decode(codes, windows)
    fitted = box_regression.fit(
        features, Matched(windows, objects, classes), ("a", "b"), penalty=1.0
    )
    assert caplog.messages == ["no window overlaps a b enough: its boxes are not regressed"]
    moved = fitted.moved(features, windows, np.ones(20, int))
    np.testing.assert_allclose(moved, windows, rtol=1e-6, atol=1e-5)


def test_nothing_found_is_nothing_moved():
    fitted = box_regression.Regressor(np.zeros((2, 3, 4), np.float32), np.zeros((2, 4), np.float32))
    nothing = np.zeros((0, 4), np.float32)
    moved = fitted.moved(np.zeros((0, 3), np.float32), nothing, np.zeros(0, int))
    assert moved.shape == (0, 4)
