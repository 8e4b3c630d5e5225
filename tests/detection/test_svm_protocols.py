"""The protocols of SVMs and of R-CNN: what they want, what they find, what they refuse."""

from typing import Any

import numpy as np
import pytest
from support.coloured_squares import HEIGHT, WIDTH, network, split

from cnn_papers import boxes
from cnn_papers.data import host_ops
from cnn_papers.detection import crops, window_protocols, windows
from cnn_papers.detection.box_regression import Regressor
from cnn_papers.detection.fitting import Regression, Svm
from cnn_papers.detection.window_protocols import rcnn, softmax, svm
from cnn_papers.errors import UserError
from cnn_papers.evaluation import support
from cnn_papers.evaluation.svm import Linear

ARGUMENTS: Any = {"scales": (48,), "side": 24}
CROPS: Any = {"side": 24, "context": 2}
SPLIT: Any = split(3)
IMAGE, PROPOSALS = host_ops.decode(SPLIT.examples[2]["image"]), SPLIT.proposals[2]


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("svm('spp')", (Svm("spp"),)),
        ("svm(layer='fc6', C=0.5)", (Svm("fc6", C=0.5),)),
        ("svm('fc7', boxes=True, penalty=10)", (Svm("fc7"), Regression("spp", 10))),
        ("rcnn()", (Svm("fc7"),)),
        ("rcnn('spp', boxes=True)", (Svm("spp"), Regression("spp"))),
        ("rcnn('softmax')", ()),
        ("rcnn('softmax', boxes=True)", (Regression("spp"),)),
        ("softmax", ()),
        ("softmax(boxes=True, penalty=10)", (Regression("spp", 10),)),
    ],
)
def test_what_a_protocol_wants(text, wanted):
    (protocol,) = support.parse(text, window_protocols).values()
    assert protocol.wanted == wanted


def test_protocols_share_fits_only_where_they_look_alike():
    looks = {
        rcnn("fc6").look.text,
        rcnn("fc6", side=112).look.text,
        rcnn("fc6", context=8).look.text,
        rcnn("fc6", method="bilinear").look.text,
        svm("fc6").look.text,
        svm("fc6", scales=(688,)).look.text,
        svm("fc6", side=112).look.text,
    }
    assert len(looks) == 7
    assert rcnn(side=48).look.text == rcnn(side=48, context=3).look.text  # 16 of 227 pixels
    assert svm("spp", boxes=True, nms=0.5, least=0.0, most=1).look.text == svm().look.text


def _random_fits(net, layer, look):
    """Returns SVMs and box regression with random weights, and the outputs for PROPOSALS."""
    outputs = look.features(look.stages(net), IMAGE, PROPOSALS)
    rng = np.random.default_rng(0)
    width, pooled = outputs[layer].shape[1], outputs["spp"].shape[1]
    linear = Linear(rng.normal(size=(width, 3)).astype(np.float32), np.zeros(3, np.float32))
    weights = 0.01 * rng.normal(size=(3, pooled, 4)).astype(np.float32)
    return linear, Regressor(weights, np.zeros((3, 4), np.float32)), outputs


@pytest.mark.parametrize(
    "make", [lambda **k: svm(**k, **ARGUMENTS), lambda **k: rcnn(**k, **CROPS)]
)
def test_svms_score_windows_which_are_regressed_after_suppression(make, net):
    protocol = make(layer="fc6", boxes=True, nms=0.3, least=0.0, most=2)
    linear, regressor, outputs = _random_fits(net, "fc6", protocol.look)
    fitted = dict(zip(protocol.wanted, (linear, regressor), strict=True))
    found = protocol.detector(net, fitted)(IMAGE, PROPOSALS)
    scores = outputs["fc6"] @ linear.weights + linear.bias
    expected = []
    for label in range(3):
        of_class = np.flatnonzero(scores[:, label] >= 0)
        kept = of_class[boxes.nms(PROPOSALS[of_class], scores[of_class, label], 0.3)][:2]
        for row in kept:
            code = outputs["spp"][row] @ regressor.weights[label]
            box = boxes.clip(boxes.decode(code, PROPOSALS[row]), HEIGHT, WIDTH)
            expected.append((scores[row, label], label, box))
    expected.sort(key=lambda one: -one[0])
    assert len(expected) > 3
    np.testing.assert_allclose(found.scores, [one[0] for one in expected], rtol=1e-4)
    np.testing.assert_array_equal(found.classes, [one[1] for one in expected])
    np.testing.assert_allclose(found.boxes, [one[2] for one in expected], rtol=1e-3, atol=1e-3)
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.classes.dtype == np.int32


@pytest.mark.parametrize(
    "make", [lambda **k: softmax(**k, **ARGUMENTS), lambda **k: rcnn("softmax", **k, **CROPS)]
)
def test_what_a_softmax_finds_is_moved_too(make, net):
    protocol, plain = (make(boxes=moves, least=0.0, most=3) for moves in (True, False))
    _, regressor, outputs = _random_fits(net, "spp", protocol.look)
    found = protocol.detector(net, {Regression("spp"): regressor})(IMAGE, PROPOSALS)
    windows_found = plain.detector(net, {})(IMAGE, PROPOSALS)
    np.testing.assert_array_equal(found.scores, windows_found.scores)
    np.testing.assert_array_equal(found.classes, windows_found.classes)
    rows = [np.flatnonzero((box == PROPOSALS).all(1))[0] for box in windows_found.boxes]
    moved = regressor.moved(outputs["spp"][rows], windows_found.boxes, found.classes)
    assert np.abs(moved - windows_found.boxes).max() > 0.1
    np.testing.assert_allclose(found.boxes, boxes.clip(moved, HEIGHT, WIDTH), rtol=1e-3, atol=1e-3)


def test_rcnn_by_softmax_fits_nothing(net):
    protocol = rcnn("softmax", least=0.0, most=3, **CROPS)
    found = protocol.detector(net, {})(IMAGE, PROPOSALS)
    scores = crops.features(crops.stages(net), IMAGE, PROPOSALS, **CROPS)["scores"]
    assert scores.shape == (len(PROPOSALS), 4)
    np.testing.assert_allclose(found.scores[0], scores[:, :3].max(), rtol=1e-5)


def test_a_class_that_has_no_svm_is_never_found(net):
    protocol = svm("spp", least=-1e9, **ARGUMENTS)
    linear, _, _ = _random_fits(net, "spp", protocol.look)
    linear.bias[1] = -np.inf
    found = protocol.detector(net, {Svm("spp"): linear})(IMAGE, PROPOSALS)
    assert set(found.classes.tolist()) == {0, 2}


@pytest.mark.parametrize("make", [svm, rcnn])
def test_an_image_without_proposals_has_nothing_found(make, net):
    protocol = make("spp", boxes=True, **(ARGUMENTS if make is svm else CROPS))
    linear, regressor, _ = _random_fits(net, "spp", protocol.look)
    fitted = dict(zip(protocol.wanted, (linear, regressor), strict=True))
    found = protocol.detector(net, fitted)(IMAGE, np.zeros((0, 4), np.float32))
    assert [len(values) for values in found] == [0, 0, 0]
    assert found.boxes.shape == (0, 4)


def test_features_of_a_window_are_those_of_its_crop(net):
    """A window that is interior, at its own scale and without context: claim B25."""
    image = np.random.default_rng(0).integers(0, 256, (96, 96, 3)).astype(np.uint8)
    image = host_ops.resize(host_ops.resize(image, 12, 12), 96, 96, method="bicubic")
    box = np.array([[20, 24, 68, 72]], np.float32)
    of_map = windows.features(windows.stages(net), image, box, scales=(96,), side=48)
    of_crop = crops.features(crops.stages(net), image, box, side=48, context=0)
    one, other = of_map["spp"][0], of_crop["spp"][0]
    assert one @ other / np.linalg.norm(one) / np.linalg.norm(other) > 0.9


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("svm('conv5')", "SVMs take one of the layers spp, fc6, fc7, not 'conv5'"),
        ("rcnn('fc8')", "SVMs take one of the layers spp, fc6, fc7, not 'fc8'"),
        ("svm(C=0)", "C=0 must be positive"),
        ("svm(penalty=-1)", "penalty=-1 must be positive"),
        ("softmax(penalty=0)", "penalty=0 must be positive"),
        ("svm(scales=())", "scales must be positive, not 0"),
        ("svm(side=0)", "side must be positive, not 0"),
        ("svm(nms=2)", "nms=2 must be from 0 to 1"),
        ("svm(most=0)", "most must be positive, not 0"),
        ("rcnn(side=0)", "side must be positive, not 0"),
        ("rcnn(context=112)", "context=112 must be from 0 to less than half of side=224"),
        ("rcnn(context=-1)", "context=-1 must be from 0"),
        ("rcnn(method='lanczos')", "unknown method 'lanczos'; there are: area, bilinear"),
        ("softmax(method='x')", "unknown method 'x'"),
        ("svm(layers='fc7')", "does not fit svm"),
    ],
)
def test_arguments_that_make_no_sense(text, message):
    with pytest.raises(UserError) as error:
        support.parse(text, window_protocols)
    assert str(error.value).startswith("config.eval.protocol: ")
    assert message in str(error.value)
