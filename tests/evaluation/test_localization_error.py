"""ILSVRC's rule of localization: class and overlap of the first guesses."""

import numpy as np
import pytest

from cnn_papers.data.split import Objects
from cnn_papers.evaluation.localization_error import found_objects

OBJECTS = Objects(
    np.array([[0, 0, 10, 10], [20, 20, 40, 40], [20, 50, 40, 70]], np.float32),
    np.array([1, 2, 2], np.int32),
    np.zeros(3, bool),
    (100, 100),
)
FAR = [80.0, 80, 90, 90]


def found(guesses: list[tuple[int, list[float]]], number: int = 5) -> list[bool]:
    boxes = np.array([box for _, box in guesses], np.float32).reshape(-1, 4)
    classes = np.array([label for label, _ in guesses], np.int32)
    return found_objects(boxes, classes, OBJECTS, number).tolist()


@pytest.mark.parametrize(
    ("guess", "expected"),
    [
        ((1, [0, 0, 10, 10]), [True, False, False]),
        ((1, [0, 0, 5, 10]), [True, False, False]),  # an IoU of exactly one half
        ((1, [0, 0, 4.9, 10]), [False, False, False]),
        ((0, [0, 0, 10, 10]), [False, False, False]),  # another class
        ((1, [20, 20, 40, 40]), [False, False, False]),  # the class of another object
        ((2, [20, 50, 40, 70]), [False, False, True]),  # any object of the class
    ],
)
def test_a_guess_finds_an_object_of_its_class_that_it_overlaps(guess, expected):
    assert found([guess]) == expected


def test_only_the_first_guesses_count():
    guesses = [(1, FAR)] * 4 + [(1, [0.0, 0, 10, 10]), (2, [20.0, 20, 40, 40])]
    assert found(guesses) == [True, False, False]
    assert found(guesses, 4) == [False, False, False]
    assert found(guesses, 6) == [True, True, False]


def test_no_guess_finds_nothing():
    assert found([]) == [False, False, False]


def test_an_image_without_objects_has_none_to_be_found():
    empty = Objects(np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0, bool), (9, 9))
    result = found_objects(np.array([FAR], np.float32), np.array([1]), empty)
    assert result.shape == (0,)
