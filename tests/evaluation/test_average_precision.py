"""VOC's average precision against a plain transcription of the rule and an independent package."""

import numpy as np
import pytest
from support import random_detections
from support.random_detections import CLASSES, Image, as_given

from cnn_papers.detection import detections
from cnn_papers.evaluation.average_precision import HIT, MISS, NEITHER, curve, of_labels


def as_the_kit(images: list[Image], label: int) -> tuple[float, float] | None:
    """Average precision of one class by 11 points and by area, box by box in VOC's coordinates.

    None if no object of the class is to be found.
    """
    lines = [
        (score, number, [*map(int, box)])
        for number, image in enumerate(images)
        for score, _, box in sorted(
            (
                (score, at, box)
                for at, (score, box) in enumerate(zip(image.scores, image.boxes, strict=True))
                if image.classes[at] == label
            ),
            key=lambda line: (-line[0], line[1]),
        )
    ]
    wanted = sum(
        1
        for image in images
        for at, true in enumerate(image.true_classes)
        if true == label and not image.difficult[at]
    )
    if not wanted:
        return None
    taken: set[tuple[int, int]] = set()
    right, wrong, recall, precision = 0, 0, [], []
    for _, number, box in sorted(lines, key=lambda line: -line[0]):  # Python sorts stably
        image, most, which = images[number], -np.inf, -1
        for at, true in enumerate(image.true_boxes.tolist()):
            if image.true_classes[at] != label:
                continue
            wide = min(box[2], true[2]) - max(box[0], true[0]) + 1
            high = min(box[3], true[3]) - max(box[1], true[1]) + 1
            if wide > 0 and high > 0:
                both = wide * high
                areas = [(b[2] - b[0] + 1) * (b[3] - b[1] + 1) for b in (box, true)]
                if both / (sum(areas) - both) > most:
                    most, which = both / (sum(areas) - both), at
        if most >= 0.5 and image.difficult[which]:
            pass
        elif most >= 0.5 and (number, which) not in taken:
            taken.add((number, which))
            right += 1
        else:
            wrong += 1
        recall.append(right / wanted)
        precision.append(right / (right + wrong) if right + wrong else 0.0)
    points = [
        max((p for r, p in zip(recall, precision, strict=True) if r >= level), default=0.0)
        for level in np.arange(0, 1.1, 0.1)
    ]
    area, before = 0.0, 0.0
    for at, now in enumerate(recall):
        area += (now - before) * max(precision[at:])
        before = now
    return sum(points) / 11, area


@pytest.mark.parametrize("ties", [False, True])
def test_random_detections_have_the_precision_of_a_transcription_of_the_kit(ties):
    compared, without = 0, 0
    for seed in range(40):
        images = random_detections.make(seed, ties=ties)
        for label, found in enumerate(detections.curves(*as_given(images), CLASSES)):
            expected = as_the_kit(images, label)
            if found is None or expected is None:
                assert found is expected
                without += 1
                continue
            assert (found.by_11_points, found.area) == pytest.approx(expected, rel=1e-12, abs=1e-12)
            compared += 1
    assert compared >= 100 and without >= 40


def test_a_seeded_case_has_the_values_of_an_independent_package():
    """Of mmdet 3.3.0, `eval_map(..., iou_thr=0.5, use_legacy_coordinate=True, eval_mode=...)`.

    It was given VOC's coordinates, and the difficult objects as `bboxes_ignore`.
    """
    given = as_given(random_detections.make(20, ties=False))
    found = detections.curves(*given, CLASSES)
    with_objects = [curve for curve in found if curve]
    assert found[3] is None and [curve.positives for curve in with_objects] == [15, 7, 12]
    assert [curve.by_11_points for curve in with_objects] == pytest.approx(
        [0.4498544931411743, 0.5905811190605164, 0.2960365116596222], abs=1e-6
    )
    assert [curve.area for curve in with_objects] == pytest.approx(
        [0.44774138927459717, 0.5830756425857544, 0.2890435457229614], abs=1e-6
    )
    assert detections.mean_average_precisions(found) == pytest.approx(
        {"map": 44.549068808555603, "map_area": 43.99535357952118}, abs=1e-4
    )


# --- the rule, case by case -----------------------------------------------------------------------

OBJECT = [1, 1, 10, 10]  # VOC's xmin, ymin, xmax, ymax: 10×10 pixels
HALF = [1, 1, 10, 5]  # an IoU of exactly one half with it
LESS = [1, 1, 10, 4]


def an_image(
    boxes: list[list[int]], true_boxes: list[list[int]], difficult: tuple[int, ...] = ()
) -> Image:
    """Returns an image of one class, its detections the best first."""
    return Image(
        np.array(true_boxes, int).reshape(-1, 4),
        np.zeros(len(true_boxes), int),
        np.isin(np.arange(len(true_boxes)), difficult),
        np.array(boxes, int).reshape(-1, 4),
        np.zeros(len(boxes), int),
        -np.arange(len(boxes), dtype=np.float64),
    )


def precisions(*images: Image) -> list[float]:
    """Returns the precision after each rank that counts."""
    (found,) = detections.curves(*as_given([*images]), 1)
    assert found is not None
    return found.precision.tolist()


def test_an_overlap_of_one_half_is_enough():
    assert precisions(an_image([HALF], [OBJECT])) == [1.0]
    assert precisions(an_image([LESS], [OBJECT])) == [0.0]


def test_the_second_detection_of_an_object_is_a_miss():
    assert precisions(an_image([HALF, OBJECT], [OBJECT])) == [1.0, 0.5]


def test_a_detection_belongs_to_the_object_that_it_overlaps_most():
    """Also where that object is taken and another would do, or is difficult."""
    beside = [1, 1, 10, 12]
    assert precisions(an_image([OBJECT, OBJECT], [OBJECT, beside])) == [1.0, 0.5]
    assert precisions(an_image([OBJECT, beside], [OBJECT, beside])) == [1.0, 1.0]
    assert precisions(an_image([OBJECT, beside], [OBJECT, beside], difficult=(0,))) == [1.0]


def test_of_equal_overlaps_the_first_object_counts():
    left, right = [1, 1, 10, 10], [11, 1, 20, 10]
    both = [1, 1, 20, 10]  # one half of it is each
    assert precisions(an_image([both, left], [left, right])) == [1.0, 0.5]
    assert precisions(an_image([both, right], [left, right])) == [1.0, 1.0]


def test_every_detection_of_a_difficult_object_is_left_out():
    far = [50, 50, 60, 60]
    image = an_image([OBJECT, OBJECT, HALF], [OBJECT, far], difficult=(0,))
    assert precisions(image) == []


def test_images_are_apart():
    assert precisions(an_image([], [OBJECT]), an_image([OBJECT], [])) == [0.0]
    assert precisions(an_image([OBJECT], [OBJECT]), an_image([OBJECT], [OBJECT])) == [1.0, 1.0]


@pytest.mark.parametrize(("height", "precision"), [(4.99, 0.0), (5.01, 1.0)])
def test_boxes_of_a_detector_need_not_be_whole_pixels(height, precision):
    (given,), objects = as_given([an_image([OBJECT], [OBJECT])])
    np.testing.assert_array_equal(objects[0].boxes, [[0, 0, 10, 10]])
    box = np.array([[0, 0, height, 10]], np.float32)
    (found,) = detections.curves([given._replace(boxes=box)], objects, 1)
    assert found and found.precision.tolist() == [precision]


# --- curves ---------------------------------------------------------------------------------------


def test_a_curve_by_hand():
    """Hit, miss, hit, neither, miss, hit; of four objects the last is not found."""
    found = curve(np.array([HIT, MISS, HIT, NEITHER, MISS, HIT]), 4)
    assert found.recall.tolist() == [0.25, 0.25, 0.5, 0.5, 0.75]
    assert found.precision == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4, 3 / 5])
    assert found.area == pytest.approx((1 + 2 / 3 + 3 / 5) / 4)
    assert found.by_11_points == pytest.approx((3 * 1 + 3 * 2 / 3 + 2 * 3 / 5) / 11)


def test_nothing_found_is_a_precision_of_zero():
    found = curve(np.array([], int), 3)
    assert (found.area, found.by_11_points) == (0.0, 0.0)


def test_all_found_first_is_a_precision_of_one():
    found = curve(np.array([HIT, HIT, MISS]), 2)
    assert (found.area, found.by_11_points) == (1.0, 1.0)


def test_a_class_without_objects_has_no_curve():
    with pytest.raises(ValueError, match="without positives"):
        curve(np.array([MISS]), 0)


def test_levels_of_recall_are_the_kits_in_floating_point():
    """3 * 0.1 is a little above 3 / 10, so that three of ten objects reach only three levels."""
    assert curve(np.array([HIT] * 3), 10).by_11_points == pytest.approx(3 / 11)
    assert curve(np.array([HIT] * 2), 10).by_11_points == pytest.approx(3 / 11)
    assert curve(np.array([HIT] * 4), 10).by_11_points == pytest.approx(5 / 11)


# --- classification -------------------------------------------------------------------------------


def test_labels_of_zero_are_left_out_of_classification():
    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5])
    labels = np.array([1, 0, -1, 1, -1])
    found = of_labels(scores, labels)
    assert (found.recall.tolist(), found.positives) == ([0.5, 0.5, 1.0, 1.0], 2)
    assert found.precision == pytest.approx([1, 1 / 2, 2 / 3, 2 / 4])
    assert found.area == pytest.approx(0.5 + 0.5 * 2 / 3)
    assert found.by_11_points == pytest.approx((6 + 5 * 2 / 3) / 11)


def test_of_equal_scores_the_first_image_ranks_first():
    assert of_labels(np.zeros(2), np.array([1, -1])).area == 1.0
    assert of_labels(np.zeros(2), np.array([-1, 1])).area == 0.5


def test_classification_is_scikit_learns_average_precision_without_interpolation():
    """Where the best precision at a higher recall is no better, the two areas are one."""
    from sklearn.metrics import average_precision_score

    scores = np.array([0.9, 0.8, 0.7, 0.6, 0.5, 0.4])
    labels = np.array([1, 1, -1, -1, 1, -1])
    expected = average_precision_score(labels > 0, scores)
    assert of_labels(scores, labels).area == pytest.approx(expected)
