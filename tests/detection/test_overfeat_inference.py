"""OverFeat's inference: candidates, their reduction, boxes in the image's own pixels."""

import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers.boxes import merge, nms
from cnn_papers.detection import detections, overfeat, overfeat_protocols
from cnn_papers.detection.overfeat import Finder, Maps
from cnn_papers.errors import UserError
from cnn_papers.models import overfeat as networks
from cnn_papers.parallel import mesh as meshes


def box(y, x, side):
    return [y, x, y + side, x + side]


MAPS = Maps(
    np.array([[0.9, 0.1, 0.0], [0.6, 0.3, 0.1], [0.2, 0.7, 0.1], [0.8, 0.2, 0.0]], np.float32),
    np.array([box(0, 0, 10), box(2, 0, 10), box(20, 20, 10), box(30, 0, 10)], np.float32),
)


def finder(reduce=overfeat.best, top=3, least=0.5, most=100) -> Finder:
    return Finder(reduce, top, least, most)


@pytest.mark.parametrize(
    ("options", "found"),
    [
        ({}, [(0, 0.9), (0, 0.8), (1, 0.7), (0, 0.6)]),
        ({"top": 1}, [(0, 0.9), (0, 0.8), (0, 0.6)]),
        ({"least": 0.75}, [(0, 0.9), (0, 0.8)]),
        ({"least": 0.95}, []),
    ],
)
def test_candidates_are_of_the_best_classes_and_scores(options, found):
    chosen = finder(**options).candidates([MAPS])
    assert chosen.classes.tolist() == [label for label, _ in found]
    np.testing.assert_allclose(chosen.scores, [score for _, score in found])


def test_candidates_of_a_regressor_for_each_class():
    boxes = np.arange(4 * 3 * 4, dtype=np.float32).reshape(4, 3, 4)
    chosen = finder().candidates([MAPS._replace(boxes=boxes)])
    assert chosen.boxes.tolist() == [
        boxes[i, j].tolist() for i, j in ((0, 0), (3, 0), (2, 1), (1, 0))
    ]


def test_a_box_without_an_area_is_no_candidate():
    boxes = MAPS.boxes.copy()
    boxes[0, 2], boxes[1, 3] = boxes[0, 0], boxes[1, 1] - 1
    chosen = finder().candidates([MAPS._replace(boxes=boxes)])
    assert chosen.boxes.tolist() == [boxes[3].tolist(), boxes[2].tolist()]


def test_the_classes_are_chosen_at_each_scale():
    """The second scale's best class joins that of the first."""
    other = Maps(MAPS.scores[:, ::-1], MAPS.boxes)
    chosen = finder(top=1).candidates([MAPS, other])
    assert sorted(set(chosen.classes.tolist())) == [0, 2]


def test_reductions_are_those_of_boxes():
    rng = np.random.default_rng(0)
    corners = rng.uniform(0, 30, (40, 2))
    boxes = np.concatenate([corners, corners + rng.uniform(5, 20, (40, 2))], 1).astype(np.float32)
    scores = np.sort(rng.random(40).astype(np.float32))[::-1]
    for weighted in (False, True):
        expected = merge(boxes, scores, 0.9, weighted=weighted)
        found = overfeat.merged(0.9, weighted)(boxes, scores)
        np.testing.assert_array_equal(found[0], expected.boxes)
        np.testing.assert_array_equal(found[1], expected.scores)
    kept = nms(boxes, scores, 0.3)
    np.testing.assert_array_equal(overfeat.suppressed(0.3)(boxes, scores)[0], boxes[kept])
    assert overfeat.best(boxes, scores)[0].tolist() == boxes[:1].tolist()


def test_confidences_of_merged_boxes_add_up():
    found = finder(overfeat.merged(0.6, weighted=True))([MAPS], (64, 64))
    assert found.classes.tolist() == [0, 0, 1]
    np.testing.assert_allclose(found.scores, [1.5, 0.8, 0.7], rtol=1e-6)
    np.testing.assert_allclose(found.boxes[0], box(0.8, 0, 10), rtol=1e-6)


def test_only_the_best_candidates_of_a_class_are_reduced():
    found = finder(overfeat.merged(0.0, weighted=True), most=2)([MAPS], (64, 64))
    np.testing.assert_allclose(found.scores, [0.9, 0.8, 0.7])


def test_boxes_are_cut_off_at_the_image():
    found = finder(overfeat.suppressed(0.0))([MAPS], (25, 36))
    assert found.boxes.tolist() == [box(0, 0, 10), [20, 20, 25, 30]]  # the other is outside
    assert found.scores.tolist() == pytest.approx([0.9, 0.7])
    detections.check(found, (25, 36), "cat.png")


def test_a_network_all_of_whose_boxes_are_outside_is_noticed():
    found = finder(overfeat.suppressed(0.0))([MAPS._replace(boxes=MAPS.boxes + 70)], (64, 64))
    with pytest.raises(
        UserError, match=r"cat\.png: .* \[70\.0, 70\.0, 80\.0, 80\.0\] that does not"
    ):
        detections.check(found, (64, 64), "cat.png")


def test_nothing_is_found_below_the_least_score():
    found = finder(least=0.99)([MAPS], (64, 64))
    assert found.boxes.shape == (0, 4) and found.classes.shape == found.scores.shape == (0,)


@pytest.mark.fault("not finite: a network that gives NaN as a box or a score", "the image is named")
@pytest.mark.parametrize("broken", ["scores", "boxes"])
def test_what_is_not_finite_is_not_dropped(broken):
    values = {name: array.copy() for name, array in MAPS._asdict().items()}
    values[broken][0] = np.nan
    found = finder(overfeat.merged(1.0, weighted=True))([Maps(**values)], (64, 64))
    with pytest.raises(UserError, match=r"cat\.png: .*not finite; it has diverged"):
        detections.check(found, (64, 64), "cat.png")


# --- a network over an image ----------------------------------------------------------------------


def network(**fields: Any) -> Any:
    """A tiny network of random weights, as a `weights.trained.Trained` for a detector."""
    fields = {"width": 0.02, "conv1_stride": 1, "window": 36, "boxes": "shared"} | fields
    model = networks.Model("fast", num_classes=4, fine=True, weight_init="he", **fields)
    variables = jax.jit(model.init)(jax.random.key(0), jnp.zeros((1, 36, 36, 3)))
    return types.SimpleNamespace(
        model=model,
        variables=variables,
        normalise=lambda image, key: image.astype(jnp.float32) / 255,
        mesh=meshes.make_mesh(1),
    )


@pytest.mark.parametrize(
    ("size", "scale", "expected"),
    [
        ((64, 64), 50, (50, 50)),
        ((100, 200), 50, (50, 98)),
        ((200, 101), 50, (98, 50)),
        ((375, 500), 245, (245, 325)),
    ],
)
def test_longer_sides_are_rounded_to_whole_steps(size, scale, expected):
    step = 8 if scale == 50 else 16
    height, width = overfeat_protocols.size_at(size, scale, step)
    assert (height, width) == expected
    assert min(height, width) == scale and (max(height, width) - scale) % step == 0


@pytest.mark.parametrize("boxes", networks.BOXES)
def test_maps_are_the_networks_in_pixels_of_the_image(boxes):
    tested = network(boxes=boxes)
    protocol = overfeat_protocols.merge(scales=(44, 60), least=0.0)
    detect = protocol.detector(tested, 1)
    image = np.random.default_rng(0).integers(0, 256, (88, 120, 3), np.uint8)
    first, second = detect.maps(image)
    # 44×60 pixels have 3×7 positions, 60×80 have 7×12
    assert first.scores.shape == (21, 3) and second.scores.shape == (84, 3)
    resized = overfeat_protocols.resize(image, 44, 60, "bilinear")[None]
    _, ends = jax.jit(tested.model.apply)(tested.variables, resized.astype(np.float32) / 255)
    scores = jax.nn.softmax(ends["fc8"][0, 2, 5])[:3]  # the last output is the background
    np.testing.assert_allclose(first.scores[2 * 7 + 5], scores, rtol=1e-5)
    edges = np.asarray(ends["box3"][0, 2, 5])  # of the window at (8, 20), of 34×34 pixels
    expected = (edges * 34 + np.array([8, 20, 8, 20])) * 2
    expected = expected if boxes == "shared" else expected[:3]
    np.testing.assert_allclose(first.boxes[2 * 7 + 5], expected, rtol=1e-4, atol=1e-3)


def test_a_shape_and_scale_is_compiled_once():
    detect = overfeat_protocols.single(scales=(36, 44)).detector(network(), 1)
    image = np.zeros((50, 72, 3), np.uint8)
    for picture in (image, image, image[:, :71], image.transpose(1, 0, 2)):
        detect(picture, None)
    assert detect.programs == 4  # two scales, upright and across; 71 columns are taken for 72
    assert detect.compiling > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("merge(scales=())", r"scales=\(\)"),
        ("merge(top=0)", "top=0"),
        ("suppress(least=2.0)", r"least=2\.0 from 0 to 1"),
        ("single(method='best')", "unknown method 'best'; there are: area"),
    ],
)
def test_bad_arguments_of_protocols_are_refused(text, message):
    from cnn_papers.tasks import localize

    with pytest.raises(UserError, match=rf"config\.eval\.protocol: .*{message}"):
        localize.parse_protocols(text)


def test_a_network_without_boxes_or_window_is_refused():
    for fields in ({"boxes": None}, {"window": 0}):
        model = networks.Model("fast", **fields)
        with pytest.raises(UserError, match=r"an OverFeat with a regressor and a window: set"):
            overfeat.check(model)
