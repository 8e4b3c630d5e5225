"""The embedded data: exactly scikit-learn's digits, and scenes whose boxes fit what was pasted."""

import collections
import pathlib
import shutil

import cv2
import numpy as np
import pytest
from sklearn.datasets import load_digits

from cnn_papers.data import digits
from cnn_papers.data.sources import open_split
from cnn_papers.data.split import DamagedExample
from cnn_papers.data.tfds import find_builder


@pytest.fixture(scope="module")
def data_dir(
    tmp_path_factory: pytest.TempPathFactory,
    digits_folder: pathlib.Path,
    scenes_folder: pathlib.Path,
) -> pathlib.Path:
    """A folder with both configurations."""
    folder = tmp_path_factory.mktemp("both")
    for source in (digits_folder, scenes_folder):
        shutil.copytree(source, folder, dirs_exist_ok=True)
    return folder


def _examples(name: str, split: str, data_dir: pathlib.Path) -> list[dict]:
    source = find_builder(name, str(data_dir)).as_data_source(split)
    return source.__getitems__(list(range(len(source))))


def _theirs() -> tuple[np.ndarray, np.ndarray]:
    """scikit-learn's images, uint8 [1797, 8, 8, 1] with its 0…16 as 0…255, and labels."""
    pixels, labels = load_digits(return_X_y=True)
    return np.round(np.asarray(pixels) * 255 / 16).astype(np.uint8).reshape(
        -1, 8, 8, 1
    ), np.asarray(labels)


def test_plain_is_the_default_and_written_as_array_record(data_dir):
    builder = find_builder("digits", str(data_dir))
    assert builder.info.full_name == "digits/plain/1.0.0"
    assert builder.info.file_format.value == "array_record"
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 1437,
        "test": 360,
    }
    assert builder.info.features["image"].shape == (8, 8, 1)
    assert builder.info.features["label"].names == list("0123456789")


def test_plain_examples_are_scikit_learns_in_its_order(data_dir):
    images, labels = _theirs()
    for split, part in (("train", slice(0, 1437)), ("test", slice(1437, 1797))):
        ours = _examples("digits", split, data_dir)
        np.testing.assert_array_equal(np.stack([e["image"] for e in ours]), images[part])
        assert [e["label"] for e in ours] == labels[part].tolist()
        histogram = collections.Counter(int(e["label"]) for e in ours)
        assert [histogram[c] for c in range(10)] == np.bincount(labels[part], minlength=10).tolist()


def test_pixels_use_all_of_uint8(data_dir):
    images = np.stack([e["image"] for e in _examples("digits", "train", data_dir)])
    assert np.unique(images).tolist() == [round(v * 255 / 16) for v in range(17)]


def test_a_second_build_is_the_same(data_dir, tmp_path):
    find_builder("digits", str(tmp_path)).download_and_prepare()
    first, second = (_examples("digits", "test", folder) for folder in (data_dir, tmp_path))
    assert len(first) == 360
    for a, b in zip(first, second, strict=True):
        assert a["label"] == b["label"]
        np.testing.assert_array_equal(a["image"], b["image"])


def test_scenes_are_of_one_to_three_digits_and_labelled_by_the_largest(data_dir):
    builder = find_builder("digits/scenes", str(data_dir))
    assert {name: split.num_examples for name, split in builder.info.splits.items()} == {
        "train": 6000,
        "test": 400,
    }
    for split, least in (("train", 1100), ("test", 80)):
        examples = _examples("digits/scenes", split, data_dir)
        counts = collections.Counter(len(e["objects"]["label"]) for e in examples)
        assert set(counts) == {1, 2, 3} and min(counts.values()) >= least
        assert {int(e["label"]) for e in examples} == set(range(10))
        for e in examples:
            assert e["image"].shape == (64, 64, 3) and e["image"].dtype == np.uint8
            boxes = np.array(e["objects"]["bbox"])
            areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
            assert e["label"] == e["objects"]["label"][int(areas.argmax())]


def test_scenes_that_came_later_follow_the_first_2000_and_are_others_than_the_tests(data_dir):
    assert [*digits._SCENES["train"]] == [*range(2000), *range(2400, 6400)]
    images, labels = _theirs()
    rng = np.random.default_rng((digits._SCENE_SEED, 2400))
    again = digits._make_scene(rng, images[:1437], labels[:1437])
    (stored,) = _examples("digits/scenes", "train[2000:2001]", data_dir)
    pixels = cv2.imdecode(np.frombuffer(again["image"], np.uint8), cv2.IMREAD_COLOR_RGB)
    np.testing.assert_array_equal(stored["image"], pixels)


def test_objects_of_a_split_are_the_boxes_that_tfds_reads(data_dir):
    split = open_split("digits/scenes", "test[:40]", str(data_dir))
    assert split.objects is not None
    theirs = _examples("digits/scenes", "test[:40]", data_dir)
    for ours, example, decoded in zip(split.objects, split.examples[:], theirs, strict=True):
        assert ours.boxes.tolist() == (np.array(decoded["objects"]["bbox"]) * 64).tolist()
        assert ours.classes.tolist() == list(decoded["objects"]["label"])
        assert ours.size == (64, 64) and not ours.difficult.any()
        assert example["label"] == decoded["label"]


@pytest.mark.fault(
    "damage: records of the training set", "left out within `data.max_skips`, each named"
)
def test_objects_of_damaged_records_are_none_and_reading_these_names_them(data_dir, tmp_path):
    shutil.copytree(data_dir / "digits", tmp_path / "digits")
    whole = open_split("digits/scenes", "test", str(tmp_path))
    (file,) = (tmp_path / "digits/scenes/1.1.0").glob("*-test.array_record*")
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 255
    file.write_bytes(content)
    damaged = open_split("digits/scenes", "test", str(tmp_path))
    assert whole.objects is not None and damaged.objects is not None
    lost = [i for i, objects in enumerate(damaged.objects) if not len(objects.classes)]
    assert 1 <= len(lost) < 400 and all(len(objects.classes) for objects in whole.objects)
    with pytest.raises(DamagedExample, match=rf"cannot read example {lost[0]} of digits/scenes"):
        damaged.examples[lost[0]]


def test_boxes_are_tight_around_the_pasted_digits_and_do_not_overlap(data_dir):
    for scene, example in enumerate(_examples("digits/scenes", "train[:300]", data_dir)):
        ground = np.rint(digits._ground(np.random.default_rng((digits._SCENE_SEED, scene))))
        changed = (example["image"] != ground).any(-1)
        covered = np.zeros((64, 64), int)
        for box in example["objects"]["bbox"]:
            top, left, bottom, right = (np.asarray(box) * 64).tolist()
            assert all(edge == int(edge) for edge in (top, left, bottom, right))
            inside = changed[int(top) : int(bottom), int(left) : int(right)]
            assert (
                inside[0].any() and inside[-1].any() and inside[:, 0].any() and inside[:, -1].any()
            ), scene
            assert max(inside.shape) <= 40 and min(inside.shape) >= 2
            covered[int(top) : int(bottom), int(left) : int(right)] += 1
        assert covered.max() == 1, scene
        assert not changed[covered == 0].any(), scene


def test_scenes_of_a_split_show_only_its_digits_and_come_out_the_same_again(data_dir):
    images, labels = _theirs()
    for split, part, first in (("train", slice(0, 1437), 0), ("test", slice(1437, 1797), 2000)):
        for scene, stored in enumerate(
            _examples("digits/scenes", split + "[:20]", data_dir), first
        ):
            rng = np.random.default_rng((digits._SCENE_SEED, scene))
            again = digits._make_scene(rng, images[part], labels[part])
            pixels = cv2.imdecode(np.frombuffer(again["image"], np.uint8), cv2.IMREAD_COLOR)
            assert pixels is not None
            np.testing.assert_array_equal(stored["image"], pixels[..., ::-1])
            assert stored["label"] == again["label"]
            assert [int(label) for label in stored["objects"]["label"]] == [
                o["label"] for o in again["objects"]
            ]


def test_scenes_are_in_colour_and_all_different(data_dir):
    images = np.stack([e["image"] for e in _examples("digits/scenes", "train[:100]", data_dir)])
    assert len({image.tobytes() for image in images}) == 100
    spread = images.astype(int).max(-1) - images.astype(int).min(-1)
    assert spread.mean() > 40
