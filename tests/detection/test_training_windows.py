"""The windows that are fitted to, chosen by hand."""

import numpy as np
import pytest

from cnn_papers.data.split import Objects
from cnn_papers.detection import training_windows

# Two classes: an object of the first, a difficult one of the second, an object of the second.
OBJECTS = Objects(
    boxes=np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10]], np.float32),
    classes=np.array([0, 1, 1], np.int32),
    difficult=np.array([False, True, False]),
    size=(60, 60),
)
PROPOSALS = np.array(
    [
        [0, 0, 10, 3],  # IoU 0.3 with the first object
        [0, 0, 10, 2.9],  # less
        [20, 0, 30, 5],  # half of the difficult one
        [40, 0, 50, 5],  # half of the last one
        [0, 40, 10, 50],  # far from all
        [0, 41, 10, 51],  # IoU 9/11 with the one before
        [30, 40, 40, 50],  # far from all
    ],
    np.float32,
)
WINDOWS = training_windows.with_true_boxes(OBJECTS, PROPOSALS)
LABELS = np.array(
    [
        [1, -1],
        [-1, 1],
        [0, -1],
        [-1, -1],
        [-1, 0],
        [-1, 0],
        [-1, -1],
        [-1, -1],
        [-1, -1],
    ]
)
NO_OBJECTS = Objects(np.zeros((0, 4), np.float32), np.zeros(0, int), np.zeros(0, bool), (60, 60))


def test_windows_are_true_boxes_that_are_not_difficult_and_proposals():
    np.testing.assert_array_equal(WINDOWS[:2], OBJECTS.boxes[[0, 2]])
    np.testing.assert_array_equal(WINDOWS[2:], PROPOSALS)


def test_true_boxes_are_positives_and_windows_apart_from_a_class_its_negatives():
    np.testing.assert_array_equal(training_windows.labels_of(WINDOWS, OBJECTS, 2), LABELS)


def test_every_window_of_an_image_without_objects_is_a_negative():
    windows = training_windows.with_true_boxes(NO_OBJECTS, PROPOSALS)
    labels = training_windows.labels_of(windows, NO_OBJECTS, 2)
    np.testing.assert_array_equal(labels, np.full((7, 2), -1))


@pytest.mark.parametrize("number", [0, 3, 100])
def test_a_first_fit_has_the_true_boxes_and_some_windows(number):
    rng = np.random.default_rng
    drawn = training_windows.drawn(LABELS, WINDOWS, number, rng(0))
    np.testing.assert_array_equal(drawn[:2], LABELS[:2])
    assert (drawn[2:].any(1)).sum() <= number
    assert np.isin(drawn - LABELS, [0, 1]).all()  # no label but its own, or none
    np.testing.assert_array_equal(drawn, training_windows.drawn(LABELS, WINDOWS, number, rng(0)))
    if number == 100:  # all of them, but for one of each two that overlap each other
        left_out = (drawn != LABELS).astype(int)
        np.testing.assert_array_equal(left_out[2] + left_out[3], [0, 1])
        np.testing.assert_array_equal(left_out[6] + left_out[7], [1, 1])
        assert left_out.sum() == 3
    if number == 3:
        draws = [training_windows.drawn(LABELS, WINDOWS, 3, rng(seed)) for seed in range(20)]
        assert (np.sum(draws, 0)[2:] != 0).any(1).all()


def test_hard_negatives_by_hand():
    had = np.zeros_like(LABELS)
    had[8] = LABELS[8]
    scores = np.array(
        [
            [5, -1],  # a positive; -1 is not above the margin
            [-0.9, 9],  # a true box is a negative of the other class
            [9, 0],  # neither of the first class
            [-1.1, -0.5],  # overlaps the one before
            [0, 9],
            [-3, -3],
            [0.1, -0.2],
            [0.2, -0.3],  # overlaps the one before, and is better for the first class only
            [3, 3],  # in the first fit
        ]
    )
    hard = training_windows.hard(LABELS, WINDOWS, scores, had)
    expected = np.zeros_like(LABELS)
    expected[[1, 4, 7], 0] = -1
    expected[[2, 6], 1] = -1
    np.testing.assert_array_equal(hard, expected)


def test_box_regression_has_the_windows_on_objects_that_are_not_difficult():
    rows, matched = training_windows.matched(WINDOWS, OBJECTS)
    np.testing.assert_array_equal(rows, [0, 1, 5])
    np.testing.assert_array_equal(matched.windows, WINDOWS[[0, 1, 5]])
    np.testing.assert_array_equal(matched.objects, OBJECTS.boxes[[0, 2, 2]])
    np.testing.assert_array_equal(matched.classes, [0, 1, 1])


def test_box_regression_has_no_windows_without_objects():
    rows, matched = training_windows.matched(WINDOWS, NO_OBJECTS)
    assert len(rows) == len(matched.windows) == len(matched.objects) == len(matched.classes) == 0
