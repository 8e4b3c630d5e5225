"""Features of windows by stages: against crops, over scales, the number of programs, detections."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.random_variables import random_variables

from cnn_papers.data import host_ops
from cnn_papers.detection import window_protocols, windows
from cnn_papers.errors import UserError
from cnn_papers.models import spp
from cnn_papers.parallel import mesh as meshes

FIELDS = {"width": 0.05, "levels": (3, 2, 1), "weight_init": "he", "lrn": False}


@pytest.fixture(scope="module")
def network():
    model = spp.Model("zf5", num_classes=6, **FIELDS)
    return types.SimpleNamespace(
        model=model,
        variables=random_variables(model, (96, 96, 3)),
        mesh=meshes.make_mesh(),
        normalise=lambda image, key: image.astype(jnp.float32) / 64 - 2,
    )


def textured(height, width, seed=0):
    """An image with structure at many sizes, as photographs have."""
    rng = np.random.default_rng(seed)
    image = np.zeros((height, width, 3), np.float32)
    for cells in (4, 8, 16, 32):
        coarse = rng.normal(0, 128 / cells**0.5, (cells, cells, 3)).astype(np.float32)
        image += host_ops.resize(coarse, height, width, "bicubic")
    return np.clip(image + 128, 0, 255).astype(np.uint8)


def random_windows(rng, count, height, width):
    corners = rng.uniform(0, 1, (count, 2, 2)) * [height, width]
    return np.concatenate([corners.min(1), corners.max(1)], -1).astype(np.float32)


def test_features_are_those_of_the_network_called_with_windows(network):
    """All layers and scores, at a scale whose longer side is padded to whole steps."""
    image = textured(120, 150)
    found = random_windows(np.random.default_rng(0), 40, 120, 150)
    features = windows.features(windows.stages(network), image, found, scales=(180,))
    resized = host_ops.resize_short(image, 180)
    assert resized.shape == (180, 225, 3)
    padded = host_ops.fit(resized, 180, 256)
    assert (padded[:, :225] == resized).all()
    scaled = found[None] * np.float32(1.5)
    logits, ends = apply(network)(network.variables, padded[None], scaled)
    assert {name: rows.shape for name, rows in features.items()} == {
        "spp": (40, 14 * 13),
        "fc6": (40, 205),
        "fc7": (40, 205),
        "scores": (40, 6),
    }
    for name in ("spp", "fc6", "fc7"):
        np.testing.assert_allclose(features[name], ends[name][:, 0, 0], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features["scores"], jax.nn.softmax(logits[0]), rtol=1e-4, atol=1e-6)


def test_features_of_an_interior_window_are_those_of_its_crop(network):
    """The pyramid over a window of the map agrees with that over the map of the crop (§4.1)."""
    image, (height, width) = textured(400, 480), (176, 208)
    corners = np.array([[64, 64], [64, 208], [160, 64], [160, 208]])
    crops = np.stack([image[y : y + height, x : x + width] for y, x in corners])
    found = np.concatenate([corners, corners + [height, width]], -1).astype(np.float32)
    of_map = windows.pooled_windows(windows.stages(network), image, found, scales=(400,))
    _, ends = apply(network)(network.variables, crops)
    of_crops = np.asarray(ends["spp"])[:, 0, 0]
    assert min(map(cosine, of_map, of_crops)) > 0.9
    # without what all windows have in common, each is still nearest to its own crop
    of_map, of_crops = of_map - of_map.mean(0), of_crops - of_crops.mean(0)
    table = [[cosine(a, b) for b in of_crops] for a in of_map]
    assert np.argmax(table, 1).tolist() == [*range(4)]


def apply(network):
    def logits_and_ends(variables, image, windows=None):
        image = network.normalise(image, None)
        return network.model.apply(variables, image, windows=windows)

    return jax.jit(logits_and_ends)


def cosine(a, b):
    return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))


def test_a_window_is_taken_from_the_scale_nearest_to_the_side():
    """§4.1: the scale at which its area is nearest 224²; here of an image of 500×375."""
    found = np.array([[0, 0, 375, 500], [10, 10, 60, 80], [0, 0, 150, 150], [0, 0, 1, 300]])
    chosen = windows.nearest_scales(found.astype(np.float32), (375, 500), windows.SCALES, 224)
    by_hand = []
    for y1, x1, y2, x2 in found:
        areas = [(y2 - y1) * (x2 - x1) * (scale / 375) ** 2 for scale in windows.SCALES]
        by_hand.append(int(np.argmin([abs(area - 224**2) for area in areas])))
    assert chosen.tolist() == by_hand == [0, 4, 1, 4]


def test_each_window_has_the_features_of_its_scale(network):
    """In the order of the windows; a scale that is nearest for none is not computed."""
    image, rng = textured(100, 140), np.random.default_rng(2)
    found = random_windows(rng, 50, 100, 140)
    scales, side = (100, 160, 240, 4000), 100
    chosen = windows.nearest_scales(found, image.shape[:2], scales[:3], side)
    assert {*chosen} == {0, 1, 2}
    found[:, 2:] += 1  # far from the last scale's windows, which are of 2 pixels
    chosen = windows.nearest_scales(found, image.shape[:2], scales, side)
    big = chosen < 3
    stages = windows.stages(network)
    together = windows.features(stages, image, found[big], scales=scales, side=side)
    for scale in range(3):
        rows = chosen[big] == scale
        each = windows.features(stages, image, found[big][rows], scales=(scales[scale],), side=side)
        for name, values in each.items():
            np.testing.assert_allclose(together[name][rows], values, rtol=1e-4, atol=1e-5)


def test_no_windows_have_no_features(network):
    nothing = np.zeros((0, 4), np.float32)
    features = windows.features(windows.stages(network), textured(96, 96), nothing, scales=(96,))
    assert {name: rows.shape for name, rows in features.items()} == {
        "spp": (0, 14 * 13),
        "fc6": (0, 205),
        "fc7": (0, 205),
        "scores": (0, 6),
    }


def test_programs_are_few(network):
    """One a scale and shape; numbers of windows are powers of two, sides are whole steps."""
    stages, rng = windows.stages(network), np.random.default_rng(3)
    assert stages.programs == 0 and stages.compiling == 0

    def look(height, width, count):
        found = random_windows(rng, count, height, width)
        windows.features(stages, textured(height, width), found, scales=(96,))

    for height, width, count in ((96, 120, 20), (96, 128, 32), (96, 115, 5), (192, 240, 1)):
        look(height, width, count)
    assert (stages.convolve.count, stages.pool.count, stages.classify.count) == (1, 1, 1)
    look(96, 120, 33)
    assert (stages.convolve.count, stages.pool.count, stages.classify.count) == (1, 2, 2)
    look(120, 96, 33)
    assert (stages.convolve.count, stages.pool.count, stages.classify.count) == (2, 3, 2)
    assert stages.programs == 7 and stages.compiling > 0
    look(96, 128, windows.MOST + 40)
    assert (stages.pool.count, stages.classify.count) == (4, 3)  # 1,024; 512 and 64


def test_softmax_finds_the_best_window_of_each_class(network):
    """Those that overlap a better one of their class are gone; the background is no class."""
    image = textured(96, 96)
    found = random_windows(np.random.default_rng(4), 60, 96, 96)
    protocol = window_protocols.softmax(scales=(96,), nms=0.3, least=0.0, most=1000)
    detect = protocol.detector(network, None)
    detections = detect(image, found)
    scores = windows.features(windows.stages(network), image, found, scales=(96,))["scores"]
    assert {*detections.classes} == set(range(5))
    assert (np.diff(detections.scores) <= 0).all()
    for label in range(5):
        of_class = detections.classes == label
        best = scores[:, label].argmax()
        np.testing.assert_allclose(detections.scores[of_class][0], scores[best, label], rtol=1e-5)
        np.testing.assert_array_equal(detections.boxes[of_class][0], found[best])


def test_a_detector_needs_proposals(network):
    detect = window_protocols.softmax(scales=(96,)).detector(network, None)
    with pytest.raises(UserError, match=r"config\.data\.proposals.*is empty"):
        detect(textured(96, 96), None)


def test_a_network_without_a_pyramid_has_no_windows():
    network = types.SimpleNamespace(model=spp.Model("zf5-no-spp"), normalise=None)
    with pytest.raises(UserError, match="windows of a feature map need a network with a spatial"):
        windows.stages(network)
