"""Detections of images: mAP, what is refused, and the file of a run."""

import numpy as np
import pytest
from support import random_detections
from support.random_detections import CLASSES, as_given

from cnn_papers.data.split import Objects
from cnn_papers.detection import detections
from cnn_papers.detection.detections import Detections, Kept, Outcome
from cnn_papers.errors import UserError
from cnn_papers.evaluation.class_values import table

NAMES = ("cat", "dog", "emu", "owl")


def outcome(seed: int = 20) -> Outcome:
    found, objects = as_given(random_detections.make(seed, ties=False))
    return Outcome(found, objects, programs=2, seconds=3.0, compiling=1.0)


def kept(protocol: str, split: str = "voc[test]", seed: int = 20) -> Kept:
    found, objects = as_given(random_detections.make(seed, ties=False))
    return Kept(protocol, split, 7, NAMES, found, objects)


def assert_same(first: Kept, second: Kept) -> None:
    assert first[:4] == second[:4]
    for mine, other in ((first.detections, second.detections), (first.objects, second.objects)):
        for image, read in zip(mine, other, strict=True):
            assert type(read) is type(image)
            for array, again in zip(image, read, strict=True):
                np.testing.assert_array_equal(array, again, strict=isinstance(array, np.ndarray))


# --- scores ---------------------------------------------------------------------------------------


def test_the_map_is_the_mean_over_classes_with_objects():
    result = detections.result_of("run", "softmax", [outcome()], NAMES)
    assert result.by_class.names == ("cat", "dog", "emu") and result.by_class.absent == ("owl",)
    assert result.by_class.counts == (15, 7, 12)
    assert result.values["map"] == result.by_class.mean == pytest.approx(44.5490688, abs=1e-4)
    assert result.values["map_area"] == pytest.approx(43.9953536, abs=1e-4)
    assert (result.images, result.programs, result.seconds, result.compiling) == (12, 2, 3.0, 1.0)
    lines = table({"softmax": result.by_class})
    assert lines[0].split() == ["AP", "by", "class", "objects", "softmax"]
    assert lines[-1] == "left out of the mean, without an object here: owl"


def test_difficult_objects_are_counted_and_said():
    given = outcome()
    difficult = sum(int(image.difficult.sum()) for image in given.objects)
    (note,) = detections.result_of("run", "softmax", [given], NAMES).notes
    assert difficult > 1
    assert note == f"{difficult} objects are difficult and count neither as found nor as missed"
    given.objects[0].classes[given.objects[0].difficult] = 3
    notes = detections.result_of("run", "softmax", [given], NAMES).notes
    assert notes == (note, "all objects of owl are difficult")
    easy = [image._replace(difficult=np.zeros(len(image.classes), bool)) for image in given.objects]
    assert not detections.result_of("run", "s", [given._replace(objects=easy)], NAMES).notes


def test_images_without_objects_count_as_negatives():
    given = outcome()
    more = Detections(np.full((1, 4), 5, np.float32), np.zeros(1, np.int32), np.full(1, 9, "f4"))
    nothing = given.objects[0]._replace(
        boxes=np.zeros((0, 4), np.float32),
        classes=np.zeros(0, np.int32),
        difficult=np.zeros(0, bool),
    )
    with_negative = given._replace(
        detections=[*given.detections, more], objects=[*given.objects, nothing]
    )
    before, after = (
        detections.result_of("run", "softmax", [one], NAMES) for one in (given, with_negative)
    )
    assert after.by_class.values[0] < before.by_class.values[0]
    assert after.by_class.values[1:] == before.by_class.values[1:]
    assert after.images == before.images + 1


def test_detections_of_a_background_do_not_count():
    given = outcome()
    background = [
        image._replace(classes=np.where(image.classes == 3, 4, image.classes))
        for image in given.detections
    ]
    found = detections.curves(background, given.objects, CLASSES)
    before = detections.curves(given.detections, given.objects, CLASSES)
    assert detections.mean_average_precisions(found) == detections.mean_average_precisions(before)


def test_a_test_without_objects_is_refused_by_the_name_of_the_protocol():
    given = outcome()
    hard = [image._replace(difficult=np.ones(len(image.classes), bool)) for image in given.objects]
    with pytest.raises(UserError, match=r"^softmax: no image of the test has an object that is no"):
        detections.result_of("run", "softmax", [given._replace(objects=hard)], NAMES)
    found = detections.curves(given.detections, hard, CLASSES)
    assert detections.mean_average_precisions(found) == {"map": 0.0, "map_area": 0.0}


@pytest.mark.fault(
    "not finite: a detector gives NaN, or boxes outside the image",
    "the final test names the image and the box, and ends",
)
@pytest.mark.parametrize(
    ("box", "score", "problem"),
    [
        ([0, 0, np.nan, 5], 1, r"a box \[0.0, 0.0, nan, 5.0\] with score 1, which is not finite"),
        ([0, 0, 5, 5], np.inf, r"with score inf, which is not finite"),
        (
            [0, 30, 5, 40],
            1,
            r"a box \[0.0, 30.0, 5.0, 40.0\] that does not intersect its 20×30 pixels",
        ),
        ([-9, 0, 0, 5], 1, "that does not intersect"),
        ([5, 5, 5, 9], 1, "that does not intersect"),  # it has no area
    ],
)
def test_what_no_detector_should_give_is_refused(box, score, problem):
    good = ([-3, -3, 50, 50], 0.5)
    found = Detections(
        np.array([good[0], box], np.float32), np.zeros(2, np.int32), np.array([good[1], score], "f")
    )
    with pytest.raises(UserError, match=rf"^image 7 of x: the network finds .*{problem}"):
        detections.check(found, (20, 30), "image 7 of x")
    detections.check(Detections(*(array[:1] for array in found)), (20, 30), "image 7 of x")


# --- the file -------------------------------------------------------------------------------------


def test_scores_can_be_taken_again_from_the_file(tmp_path):
    path = tmp_path / detections.FILE
    detections.save(path, kept("softmax"))
    (read,) = detections.load(path)
    assert_same(read, kept("softmax"))
    again = outcome()._replace(detections=read.detections, objects=read.objects)
    first, second = (
        detections.result_of("run", "softmax", [one], NAMES) for one in (outcome(), again)
    )
    assert first == second


def test_a_file_holds_several_protocols_and_splits_and_the_newest_of_each(tmp_path):
    path = tmp_path / detections.FILE
    detections.save(path, kept("softmax"))
    detections.save(path, kept("svm('fc7')", seed=1))
    detections.save(path, kept("softmax", split="voc[train]", seed=2))
    detections.save(path, kept("softmax", seed=3))
    read = detections.load(path)
    assert [one[:2] for one in read] == [
        ("svm('fc7')", "voc[test]"),
        ("softmax", "voc[train]"),
        ("softmax", "voc[test]"),
    ]
    for one, seed in zip(read, (1, 2, 3), strict=True):
        assert_same(one, kept(one.protocol, one.split, seed))
    assert [entry.name for entry in tmp_path.iterdir()] == [detections.FILE]


def test_images_without_detections_or_objects_are_kept(tmp_path):
    nothing = np.zeros((0, 4), np.float32), np.zeros(0, np.int32)
    empty = Kept(
        "softmax",
        "x",
        0,
        (),
        [Detections(*nothing, np.zeros(0, np.float32))] * 2,
        [Objects(*nothing, np.zeros(0, bool), (3, 4))] * 2,
    )
    detections.save(tmp_path / "file.npz", empty)
    (read,) = detections.load(tmp_path / "file.npz")
    assert_same(read, empty)


def test_the_file_is_the_same_from_test_to_test(tmp_path):
    for name in ("first", "second"):
        detections.save(tmp_path / name, kept("softmax"))
    assert (tmp_path / "first").read_bytes() == (tmp_path / "second").read_bytes()


@pytest.mark.fault(
    "damage: detections.npz with flipped bits, cut off, or emptied",
    "what reads it refuses it by name; the next test writes it anew, with a warning",
)
@pytest.mark.parametrize("damage", ["flipped", "cut", "empty"])
def test_a_damaged_file_is_refused_and_written_anew(tmp_path, caplog, damage):
    path = tmp_path / detections.FILE
    detections.save(path, kept("softmax"))
    written = bytearray(path.read_bytes())
    written[len(written) // 3] ^= 0xFF
    content = {"flipped": written, "cut": written[: len(written) // 2], "empty": b""}[damage]
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"^the detections in {path} cannot be read \(.*delete"):
        detections.load(path)
    detections.save(path, kept("svm"))
    assert f"the detections in {path} cannot be read" in caplog.text
    assert [one.protocol for one in detections.load(path)] == ["svm"]


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(UserError, match=rf"^the detections in {tmp_path}/none cannot be read"):
        detections.load(tmp_path / "none")
