"""Values by class: counts, the mean in which classes count alike, and the table."""

from collections.abc import Sequence

import numpy as np
import pytest

from cnn_papers.evaluation.class_values import ClassValues, errors_by_class, of_classes, table
from cnn_papers.facts import Measure

NAMES = ("cat", "dog", "emu", "owl")
LABEL = np.array([0, 0, 0, 0, 0, 0, 1, 1, 3, 3, 3, 3], np.int32)
WRONG = np.array([0, 0, 0, 0, 0, 1, 1, 1, 0, 1, 0, 0], np.float32)

ERROR = Measure("mean_class_error", "top-1 error", "%")
PRECISION = Measure("map", "AP", "%", lower_is_better=False)


def by_class(wrong: np.ndarray, label: np.ndarray, names: Sequence[str]) -> ClassValues:
    return errors_by_class(ERROR, wrong, label, names)


def test_a_rare_class_counts_as_much_as_a_frequent_one():
    result = by_class(WRONG, LABEL, NAMES)
    assert (result.names, result.counts) == (("cat", "dog", "owl"), (6, 2, 4))
    assert result.values == pytest.approx((100 / 6, 100, 25))
    assert result.mean == pytest.approx((100 / 6 + 100 + 25) / 3)
    assert 100 * WRONG.mean() == pytest.approx(100 / 3)  # the error of all images hides the dogs


def test_a_class_without_images_has_no_part_in_the_mean_and_is_named():
    result = by_class(WRONG, LABEL, NAMES)
    assert result.absent == ("emu",)
    assert table({"single_view": result})[-1] == "left out of the mean, without an image here: emu"
    full = by_class(np.zeros(2), np.array([0, 1]), NAMES[:2])
    assert not full.absent and "left out" not in "".join(table({"single_view": full}))


def test_the_table_has_a_column_for_each_test():
    tests = {
        "single_view": by_class(WRONG, LABEL, NAMES),
        "ten_crop(224, 256)": by_class(1 - WRONG, LABEL, NAMES),
    }
    assert table(tests)[:-1] == [
        "top-1 error by class   images  single_view  ten_crop(224, 256)",
        "cat                         6       16.67%              83.33%",
        "dog                         2      100.00%               0.00%",
        "owl                         4       25.00%              75.00%",
        "mean of 3 classes          12       47.22%              52.78%",
    ]


def test_of_many_classes_the_worst_are_shown():
    """The first test says which; of equal errors the first classes."""
    names = [f"class {i}" for i in range(21)]
    label = np.repeat(np.arange(21), 4)
    wrong = np.zeros(84)
    wrong[[4 * 20, 4 * 20 + 1, 4 * 7]] = 1
    lines = table({"single_view": by_class(wrong, label, names)})
    assert [line.split("  ")[0] for line in lines] == [
        "the 10 largest of 21",
        "class 20",
        "class 7",
        *(f"class {i}" for i in range(7)),
        "class 8",
        "mean of 21 classes",
    ]
    few = by_class(wrong[:80], label[:80], names[:20])
    assert len(table({"single_view": few})) == 22  # all 20, a heading, the mean


def test_many_absent_classes_are_counted():
    names = [f"class {i}" for i in range(14)]
    result = by_class(np.zeros(1), np.zeros(1, np.int32), names)
    assert table({"single_view": result})[-1].endswith("class 9, class 10 and 3 more")


def test_values_of_objects_are_called_by_their_measure():
    result = of_classes(PRECISION, "object", NAMES, [3, 0, 12, 1], [50.0, 0.0, 12.5, 100.0])
    assert table({"softmax": result}) == [
        "AP by class        objects      softmax",
        "cat                      3       50.00%",
        "emu                     12       12.50%",
        "owl                      1      100.00%",
        "mean of 3 classes       16       54.17%",
        "left out of the mean, without an object here: dog",
    ]


def test_the_worst_of_many_precisions_are_the_smallest():
    names = [f"class {i}" for i in range(21)]
    values = [90.0, *range(60, 80)]
    lines = table({"softmax": of_classes(PRECISION, "object", names, [1] * 21, values)})
    assert [line.split("  ")[0] for line in lines[:3]] == [
        "the 10 smallest of 21",
        "class 1",
        "class 2",
    ]
    assert "class 0" not in "".join(lines)


def test_a_class_that_a_later_test_leaves_out_has_a_gap():
    measure = Measure("error", "error", "%")
    first = of_classes(measure, "image", ("a", "b"), (2, 3), (10.0, 20.0))
    second = of_classes(measure, "image", ("a", "b"), (0, 3), (0.0, 40.0))
    lines = [line.split() for line in table({"one": first, "two": second})]
    assert lines[1:3] == [["a", "2", "10.00%", "-"], ["b", "3", "20.00%", "40.00%"]]
