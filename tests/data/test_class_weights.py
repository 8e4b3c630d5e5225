"""Weights of classes as numbers: from names, and from the numbers of images."""

import cv2
import numpy as np
import pytest

from cnn_papers.data.class_weights import in_numbers, label_counts
from cnn_papers.data.sources import open_split
from cnn_papers.data.split import DamagedExample, Split
from cnn_papers.errors import UserError

COUNTS = {"cat": 6, "dog": 2, "owl": 4}


@pytest.fixture
def folder(tmp_path):
    """A split whose images cannot be read: counting needs their paths only."""
    for name, count in COUNTS.items():
        (tmp_path / name).mkdir()
        for i in range(count):
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), np.zeros((2, 2, 3), np.uint8))
    split = open_split(f"folder:{tmp_path}", "train")
    for path in tmp_path.glob("*/*.png"):
        path.unlink()
    return split


def test_balanced_weights_are_inverse_to_the_numbers_of_images(folder):
    assert label_counts(folder).tolist() == [6, 2, 4]
    weights = in_numbers(("balanced",), folder, 5)
    assert weights == pytest.approx((12 / (3 * 6), 12 / (3 * 2), 12 / (3 * 4), 1, 1))
    sums = [weight * count for weight, count in zip(weights, COUNTS.values(), strict=False)]
    assert sums == pytest.approx([4, 4, 4])


def test_they_are_scikit_learns(folder):
    compute = pytest.importorskip("sklearn.utils.class_weight").compute_class_weight
    labels = np.repeat([0, 1, 2], list(COUNTS.values()))
    expected = compute("balanced", classes=np.arange(3), y=labels)
    assert in_numbers(("balanced",), folder, 3) == pytest.approx(tuple(expected))


def test_a_class_without_images_weighs_1(folder):
    counts = label_counts(folder._replace(class_names=(*folder.class_names, "yak")))
    assert counts.tolist() == [6, 2, 4, 0]
    weights = in_numbers(
        ("balanced",), folder._replace(class_names=(*folder.class_names, "yak")), 4
    )
    assert weights == pytest.approx((2 / 3, 2, 1, 1))


def test_labels_of_other_data_are_read_and_damaged_examples_left_out(digits_folder):
    digits = open_split("digits", "test", str(digits_folder))
    counts = label_counts(digits)
    labels = [digits.examples[i]["label"] for i in range(len(digits.examples))]
    assert counts.tolist() == np.bincount(labels).tolist() and counts.sum() == 360

    class Damaged(list):
        def __getitem__(self, i):
            if i == 1:
                raise DamagedExample("damaged")
            return {"label": super().__getitem__(i)}

    split = Split("three", Damaged([1, 0, 1]), ("no", "yes"), "")
    assert label_counts(split).tolist() == [0, 2]


def test_named_weights_leave_the_others_at_1(folder):
    assert in_numbers((("owl", 3.0), ("cat", 2)), folder, 4) == (2, 1, 3, 1)
    assert in_numbers((), folder, 4) == ()


@pytest.mark.fault("config: weights of classes that do not exist", "refused, named")
def test_a_name_that_is_no_class_is_refused(folder):
    with pytest.raises(
        UserError, match=r"class_weights: 'dgo' is no class of .*did you mean 'dog'"
    ):
        in_numbers((("dgo", 2.0),), folder, 3)
    with pytest.raises(UserError, match=r"'x' is no class of .*; there are: cat, dog, owl$"):
        in_numbers((("x", 2.0),), folder, 3)


@pytest.mark.parametrize(
    "setting",
    [("owl", 3.0), ("balance",), (("owl", 0.0),), (("owl", -1.0),), (("owl", float("inf")),), (2,)],
)
def test_other_settings_are_refused(folder, setting):
    with pytest.raises(
        UserError, match=r"takes balanced, or \(\(class, weight\), …\) with positive"
    ):
        in_numbers(setting, folder, 3)
