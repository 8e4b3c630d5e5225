"""Boxes against loops over pixels and pairs."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import boxes


def random_boxes(count, *, seed=0, side=40.0, whole=False):
    """Returns float32 boxes [count, 4] of up to half of `side`, some of which lie off 0 … side."""
    rng = np.random.default_rng((seed, count))
    corner, sides = rng.uniform(-8, side, (count, 2)), rng.uniform(1, side / 2, (count, 2))
    box = np.concatenate([corner, corner + sides], 1)
    return (np.rint(box) if whole else box).astype(np.float32)


def pixels_of(box, side=80, origin=20):
    """Returns a mask of the pixels that a box of whole numbers covers."""
    y1, x1, y2, x2 = (int(edge) + origin for edge in box)
    mask = np.zeros((side, side), bool)
    mask[y1:y2, x1:x2] = True
    return mask


# --- areas and moves ------------------------------------------------------------------------------


@pytest.mark.parametrize("library", [np, jnp])
def test_area_intersection_and_iou_count_pixels(library):
    a, b = random_boxes(12, whole=True), random_boxes(9, seed=1, whole=True)
    expected_iou, expected_both = np.zeros((12, 9)), np.zeros((12, 9))
    for i, one in enumerate(map(pixels_of, a)):
        assert boxes.area(a)[i] == one.sum()
        for j, other in enumerate(map(pixels_of, b)):
            expected_both[i, j] = (one & other).sum()
            union = (one | other).sum()
            expected_iou[i, j] = expected_both[i, j] / union if union else 0
    rows, columns = library.asarray(a)[:, None], library.asarray(b)[None]
    np.testing.assert_array_equal(boxes.intersection(rows, columns), expected_both)
    np.testing.assert_allclose(boxes.iou(rows, columns), expected_iou, rtol=1e-6)
    assert isinstance(boxes.iou(rows, columns), type(rows))


def test_boxes_that_are_turned_inside_out_have_no_area():
    inside_out = np.array([[5, 5, 2, 9], [5, 5, 9, 2], [3, 3, 3, 8], [0, 0, 0, 0]], np.float32)
    assert boxes.area(inside_out).tolist() == [0, 0, 0, 0]
    assert boxes.iou(inside_out, inside_out).tolist() == [0, 0, 0, 0]
    np.testing.assert_array_equal(boxes.without_empty(inside_out), np.zeros((4, 4)))


@pytest.mark.parametrize("library", [np, jnp])
def test_moves_are_those_of_the_pixels(library):
    height, width = 30, 24
    for box in random_boxes(40, whole=True):
        moved = library.asarray(box)
        shown = pixels_of(box)[20 : 20 + height, 20 : 20 + width]
        clipped = np.asarray(boxes.clip(moved, height, width))
        assert boxes.area(clipped) == shown.sum()
        if not shown.any():
            assert not boxes.without_empty(clipped).any()
            continue
        np.testing.assert_array_equal(boxes.without_empty(clipped), clipped)
        np.testing.assert_array_equal(pixels_of(clipped), pixels_of(box) & pixels_of(clipped))
        mirrored = np.asarray(boxes.mirror(library.asarray(clipped), width))
        np.testing.assert_array_equal(
            pixels_of(mirrored)[20 : 20 + height, 20 : 20 + width], shown[:, ::-1]
        )
        shifted = np.asarray(boxes.shift(moved, 3, -5))
        np.testing.assert_array_equal(
            pixels_of(shifted, origin=25), np.roll(pixels_of(box, origin=25), (3, -5), (0, 1))
        )
        scaled = np.asarray(boxes.scale(library.asarray(clipped), 2, 3))
        np.testing.assert_array_equal(
            pixels_of(scaled, side=200, origin=0)[: 2 * height, : 3 * width],
            shown.repeat(2, 0).repeat(3, 1),
        )
        assert all(array.dtype == np.float32 for array in (clipped, mirrored, shifted, scaled))


# --- coding ---------------------------------------------------------------------------------------


def test_r_cnns_code_is_its_formula():
    box, window = random_boxes(30), random_boxes(30, seed=1)
    for one, other, code in zip(box, window, boxes.encode(box, window), strict=True):
        (y1, x1, y2, x2), (wy1, wx1, wy2, wx2) = one.tolist(), other.tolist()
        expected = (
            ((x1 + x2) / 2 - (wx1 + wx2) / 2) / (wx2 - wx1),
            ((y1 + y2) / 2 - (wy1 + wy2) / 2) / (wy2 - wy1),
            math.log((x2 - x1) / (wx2 - wx1)),
            math.log((y2 - y1) / (wy2 - wy1)),
        )
        np.testing.assert_allclose(code, expected, rtol=2e-4, atol=1e-5)


@pytest.mark.parametrize("library", [np, jnp])
@pytest.mark.parametrize("pair", [(boxes.encode, boxes.decode), (boxes.relative, boxes.absolute)])
def test_decoding_undoes_coding_for_all_pairs(library, pair):
    encode, decode = pair
    box, window = library.asarray(random_boxes(7)), library.asarray(random_boxes(5, seed=1))
    code = encode(box[:, None], window[None])
    assert code.shape == (7, 5, 4) and code.dtype == np.float32
    back = decode(code, window[None])
    np.testing.assert_allclose(back, np.broadcast_to(box[:, None], (7, 5, 4)), atol=2e-4)


def test_a_window_is_the_unit_of_edges_and_has_the_code_zero():
    window = random_boxes(5)
    np.testing.assert_allclose(boxes.relative(window, window), [[0, 0, 1, 1]] * 5, atol=1e-6)
    np.testing.assert_allclose(boxes.encode(window, window), np.zeros((5, 4)), atol=1e-6)
    edges = boxes.relative(np.float32([10, 20, 16, 40]), np.float32([8, 10, 28, 50]))
    np.testing.assert_allclose(edges, [0.1, 0.25, 0.4, 0.75])


# --- non-maximum suppression ----------------------------------------------------------------------


def suppressed(box, score, threshold):
    """Non-maximum suppression, one box and one pair at a time."""
    kept = []
    for row in sorted(range(len(box)), key=lambda row: (-score[row], row)):
        if all(boxes.iou(box[row], box[other]) <= threshold for other in kept):
            kept.append(row)
    return kept


@pytest.mark.parametrize("count", [0, 1, 2, 40])
@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.0])
def test_nms_is_the_loop_also_on_the_device(count, threshold):
    box = random_boxes(count, side=20)
    score = np.random.default_rng(2).integers(0, 6, count) / np.float32(6)  # many are equal
    kept = suppressed(box, score, threshold)
    assert boxes.nms(box, score, threshold).tolist() == kept
    if not count:
        return
    for most in (3, count + 2):
        rows, is_kept = jax.jit(boxes.nms_padded, static_argnums=3)(box, score, threshold, most)
        assert rows.shape == is_kept.shape == (most,) and rows.dtype == np.int32
        assert rows[is_kept].tolist() == kept[:most]
        assert is_kept.tolist() == [i < len(kept) for i in range(most)]


def test_rows_without_a_score_take_no_part_and_images_of_a_batch_are_apart():
    box = np.stack([random_boxes(20, seed=seed, side=20) for seed in range(3)])
    score = np.random.default_rng(0).uniform(0, 1, (3, 20)).astype(np.float32)
    score[0, ::2] = score[2] = -np.inf
    rows, is_kept = jax.vmap(lambda b, s: boxes.nms_padded(b, s, 0.3, 20))(box, score)
    takes_part = np.flatnonzero(score[0] > -np.inf)
    expected = takes_part[suppressed(box[0][takes_part], score[0][takes_part], 0.3)]
    assert rows[0][is_kept[0]].tolist() == expected.tolist()
    assert rows[1][is_kept[1]].tolist() == suppressed(box[1], score[1], 0.3)
    assert not is_kept[2].any()


def test_classes_do_not_suppress_each_other():
    box = random_boxes(60, side=20)
    rng = np.random.default_rng(0)
    label, score = rng.integers(0, 3, 60), rng.uniform(0, 1, 60)
    kept = boxes.nms_by_class(box, label, score, 0.3)
    expected = [
        of_class[row]
        for of_class in (np.flatnonzero(label == one) for one in range(3))
        for row in suppressed(box[of_class], score[of_class], 0.3)
    ]
    assert kept.tolist() == sorted(expected, key=lambda row: -score[row])
    assert boxes.nms_by_class(box[:0], label[:0], score[:0], 0.3).shape == (0,)


# --- OverFeat's merge -----------------------------------------------------------------------------


def merged(box, score, threshold, weighted):
    """The merge, over all pairs at every step; returns boxes and scores, best first."""
    items = [(one.astype(np.float64), float(s)) for one, s in zip(box, score, strict=True)]
    while len(items) > 1:
        pairs = [(i, j) for i in range(len(items)) for j in range(i + 1, len(items))]
        matches = [float(boxes.match_scores(items[i][0], items[j][0])) for i, j in pairs]
        if min(matches) > threshold:
            break
        i, j = pairs[int(np.argmin(matches))]
        (a, a_score), (b, b_score) = items[i], items[j]
        share = a_score / (a_score + b_score) if weighted else 0.5
        items[i] = (share * a + (1 - share) * b, a_score + b_score)
        del items[j]
    items.sort(key=lambda item: -item[1])
    return [one for one, _ in items], [s for _, s in items]


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("threshold", [0.3, 0.8, 2.0, 100.0])
@pytest.mark.parametrize("count", [1, 2, 5, 25])
def test_the_merge_is_the_loop_over_pairs(count, threshold, weighted):
    box = random_boxes(count, side=30)
    score = np.random.default_rng(1).uniform(0.1, 1, count)
    expected_boxes, expected_scores = merged(box, score, threshold, weighted)
    ours = boxes.merge(box, score, threshold, weighted=weighted)
    np.testing.assert_allclose(ours.boxes, expected_boxes, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(ours.scores, expected_scores, rtol=1e-5)
    assert len(ours.steps) == count - len(ours.boxes)
    assert all(step.match_score <= threshold for step in ours.steps)


def test_all_of_one_object_become_the_mean_by_their_scores():
    box, score = random_boxes(9), np.linspace(0.1, 0.9, 9)
    ours = boxes.merge(box, score, 1000, weighted=True)
    np.testing.assert_allclose(ours.boxes, [np.average(box, 0, score)], rtol=1e-5)
    np.testing.assert_allclose(ours.scores, [score.sum()], rtol=1e-6)


def test_two_objects_stay_apart_and_the_one_with_more_boxes_wins():
    box = np.float32([[0, 0, 10, 10], [40, 40, 60, 60], [2, 0, 12, 10], [40, 42, 60, 62]])
    ours = boxes.merge(box, np.array([0.6, 0.5, 0.2, 0.4]), 0.6, weighted=False)
    np.testing.assert_array_equal(ours.boxes, [[40, 41, 60, 61], [1, 0, 11, 10]])
    np.testing.assert_allclose(ours.scores, [0.9, 0.8], rtol=1e-6)
    first, second = ours.steps
    assert (first.kept, first.gone) == (1, 3) and (second.kept, second.gone) == (0, 2)
    # Centres 2 apart in sides of 20, 18 of 20 columns shared; then 2 of 10, 8 of 10 rows.
    np.testing.assert_allclose(first.match_score, 2 / 20 + 1 - 18 / 22, rtol=1e-6)
    np.testing.assert_allclose(second.match_score, 2 / 10 + 1 - 8 / 12, rtol=1e-6)
    np.testing.assert_array_equal(first.box, ours.boxes[0])


def test_nothing_merges_to_nothing():
    ours = boxes.merge(np.zeros((0, 4)), np.zeros(0), 1.0, weighted=True)
    assert ours.boxes.shape == (0, 4) and ours.scores.shape == (0,) and ours.steps == []
