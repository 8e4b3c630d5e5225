"""Targets of dense training against loops: the nearest object, sums of the regressor, negatives."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers.boxes import NONE
from cnn_papers.detection import dense_targets
from cnn_papers.models import overfeat

MODEL = overfeat.Model("fast", conv1_stride=1, window=36, boxes="shared", fine=True)
SIZE = (50, 58)  # 5×7 positions, 4 pixels apart; 3×4 of them, 8 apart, in training


def scene(rng: np.random.Generator, images: int = 3, objects: int = 4) -> dict[str, Any]:
    """A batch of random boxes, some difficult, some missing, one image without any."""
    corners = rng.uniform(0, 40, (images, objects, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(4, 40, (images, objects, 2))], -1)
    boxes = np.clip(boxes, 0, [*SIZE, *SIZE]).astype(np.float32)
    classes = rng.integers(0, 5, (images, objects)).astype(np.int32)
    classes[0, -1] = NONE
    classes[-1] = NONE
    boxes[classes == NONE] = 0
    return {
        "image": np.zeros((images, *SIZE, 3), np.float32),
        "boxes": boxes,
        "classes": classes,
        "difficult": rng.random((images, objects)) < 0.3,
    }


def overlap(a, b):
    sides = [max(0, min(a[i + 2], b[i + 2]) - max(a[i], b[i])) for i in (0, 1)]
    return sides[0] * sides[1]


def area(a):
    return (a[2] - a[0]) * (a[3] - a[1])


def looped(window, boxes, classes, share):
    """The fit and the number of the object that a window fits best, one object at a time."""
    best, row = 0.0, 0
    for i, (box, label) in enumerate(zip(boxes.astype(float), classes, strict=True)):
        if label == NONE or overlap(window, box) / area(box) < share:
            continue
        half = max(box[2] - box[0], box[3] - box[1]) / 2
        y, x = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        square = [y - half, x - half, y + half, x + half]
        both = overlap(window, square)
        fit = both / (area(window) + area(square) - both)
        if fit > best:
            best, row = fit, i
    return best, row


@pytest.mark.parametrize("share", [0.0, 0.5])
@pytest.mark.parametrize(
    ("train", "rows", "columns", "stride"), [(False, 5, 7, 4), (True, 3, 4, 8)]
)
def test_the_nearest_object_of_each_window(train, rows, columns, stride, share):
    batch = scene(np.random.default_rng(1))
    nearest = functools.partial(dense_targets.nearest, MODEL, train=train, share=share)
    near = jax.tree.map(np.asarray, jax.jit(nearest)(batch))
    assert near.label.shape == (3, rows * columns)
    found = 0
    for image in range(3):
        for p in range(rows * columns):
            y, x = stride * (p // columns), stride * (p % columns)
            window = [y, x, y + 34, x + 34]
            assert near.window[0, p].tolist() == window
            objects = [batch[name][image] for name in ("boxes", "classes", "difficult")]
            fit, row = looped(window, objects[0], objects[1], share)
            assert near.fit[image, p] == pytest.approx(fit, abs=1e-6)
            assert near.label[image, p] == (objects[1][row] if fit else NONE)
            assert near.difficult[image, p] == (objects[2][row] and fit > 0)
            if fit:
                found += 1
                np.testing.assert_array_equal(near.box[image, p], objects[0][row])
    assert 10 < found < 3 * rows * columns


def test_squares_keep_centre_and_longer_side():
    squares = dense_targets.squares(jnp.array([[0.0, 10.0, 20.0, 14.0], [3.0, 4.0, 5.0, 6.0]]))
    assert squares.tolist() == [[0.0, 2.0, 20.0, 22.0], [3.0, 4.0, 5.0, 6.0]]


def regression(per_class: bool) -> tuple[Any, dense_targets.Regression]:
    """Edges at 1×2 positions of one image, of which the second window learns its class 1."""
    windows = jnp.array([[[0, 0, 10, 10], [0, 10, 10, 20]]], jnp.float32)
    boxes = jnp.array([[[1, 1, 9, 9], [0, 15, 10, 20]]], jnp.float32)
    label = jnp.array([[NONE, 1]])
    edges = np.full((1, 1, 2, 3, 4), 100, np.float32)
    edges[0, 0, 1, 1] = [0, 0.5, 0.8, 1.2]  # the box is [0, 15, 8, 22]; it should be [0, ½, 1, 1]
    targets = dense_targets.Regression(windows, boxes, label, jnp.array([[False, True]]))
    return (edges if per_class else edges[..., 1, :]), targets


@pytest.mark.parametrize("per_class", [False, True])
def test_sums_of_the_regressor_by_hand(per_class):
    sums = jax.jit(dense_targets.box_sums)(*regression(per_class))
    assert float(sums["squares"]) == pytest.approx(0.2**2 + 0.2**2)
    assert float(sums["overlaps"]) == pytest.approx(40 / (50 + 56 - 40))
    assert float(sums["windows"]) == 1


def test_only_windows_that_learn_have_a_gradient():
    edges, targets = regression(per_class=True)
    squares = jax.jit(lambda edges: dense_targets.box_sums(edges, targets)["squares"])
    slope = jax.grad(squares)(edges)
    assert np.argwhere(np.asarray(slope)).tolist() == [[0, 0, 1, 1, 2], [0, 0, 1, 1, 3]]


def test_the_largest_of_each_row():
    rng = np.random.default_rng(0)
    values = rng.permutation(40).reshape(4, 10).astype(np.float32)
    among = rng.random((4, 10)) < 0.6
    number = np.array([0, 2, 3, 99])
    chosen = np.asarray(dense_targets.largest(*map(jnp.asarray, (values, among, number))))
    for row in range(4):
        allowed = np.flatnonzero(among[row])
        wanted = allowed[np.argsort(-values[row, allowed])][: number[row]]
        assert np.flatnonzero(chosen[row]).tolist() == sorted(wanted)
    among = jnp.array([[False, True, True, False, True]])
    ties = dense_targets.largest(jnp.ones((1, 5)), among, jnp.array([2]))
    assert np.asarray(ties).tolist() == [[False, True, True, False, False]]
