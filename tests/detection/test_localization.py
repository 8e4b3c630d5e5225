"""Errors of a localizer over images, and by class."""

import numpy as np
import pytest

from cnn_papers.data.split import Objects
from cnn_papers.detection import localization
from cnn_papers.detection.detections import Detections, Outcome
from cnn_papers.errors import UserError
from cnn_papers.evaluation.class_values import table

NAMES = ("cat", "dog", "emu")
HERE, FAR = [0, 0, 10, 10], [50, 50, 60, 60]


def objects(*classes: int) -> Objects:
    """Objects of one image, all at HERE."""
    boxes = np.array([HERE] * len(classes), np.float32).reshape(-1, 4)
    return Objects(boxes, np.array(classes, np.int32), np.zeros(len(classes), bool), (99, 99))


def guesses(*given: tuple[int, list[int]]) -> Detections:
    boxes = np.array([box for _, box in given], np.float32).reshape(-1, 4)
    classes = np.array([label for label, _ in given], np.int32)
    return Detections(boxes, classes, np.linspace(1, 0, len(given), dtype=np.float32))


IMAGES = [
    (guesses((0, HERE), (1, FAR)), objects(0)),  # right with one guess
    (guesses((1, HERE), (0, FAR), (0, HERE)), objects(0)),  # right with the third
    (guesses(*[(0, FAR)] * 5, (1, HERE)), objects(1)),  # the sixth is too late
    (guesses((1, HERE)), objects(0, 1)),  # one of two classes is found
    (guesses(), objects(1)),
    (guesses((0, HERE)), objects()),  # nothing is to be found
]


def outcome(images: list[tuple[Detections, Objects]]) -> Outcome:
    found, true = zip(*images, strict=True)
    return Outcome(found, true, programs=1, seconds=2.0, compiling=0.5)


def test_the_errors_are_of_images_with_an_object():
    result = localization.result_of("run", "overfeat", [outcome(IMAGES)], NAMES)
    assert result.values == {"localization_error": 40.0, "localization_error_1": 60.0}
    assert result.values == localization.errors(*zip(*IMAGES, strict=True))
    assert result.notes == ("1 image has no object and is left out",)
    assert (result.images, result.programs, result.images_per_second) == (6, 1, 3.0)
    assert not localization.result_of("run", "overfeat", [outcome(IMAGES[:5])], NAMES).notes


def test_the_error_of_a_class_is_of_the_images_where_no_guess_finds_an_object_of_it():
    by_class = localization.result_of("run", "overfeat", [outcome(IMAGES)], NAMES).by_class
    assert (by_class.names, by_class.counts) == (("cat", "dog"), (3, 3))
    assert by_class.values == pytest.approx((100 / 3, 200 / 3))
    lines = table({"overfeat": by_class})
    assert lines[0].startswith("localization error by class   images")
    assert lines[-1] == "left out of the mean, without an image here: emu"


def test_a_test_without_objects_is_refused_by_the_name_of_the_protocol():
    with pytest.raises(UserError, match=r"^overfeat: no image of the test has an object, so there"):
        localization.result_of("run", "overfeat", [outcome(IMAGES[5:])], NAMES)
    assert localization.errors(*zip(*IMAGES[5:], strict=True)) == {
        "localization_error": 100.0,
        "localization_error_1": 100.0,
    }
