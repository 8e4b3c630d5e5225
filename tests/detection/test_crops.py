"""R-CNN's crops: where their pixels are from, and what the network computes of them."""

import jax
import numpy as np
import pytest
from support.coloured_squares import network

from cnn_papers.data.host_ops import resize
from cnn_papers.detection import crops

IMAGE = np.random.default_rng(0).integers(0, 256, (60, 80, 3)).astype(np.uint8)


def _crop(box, side=32, context=4, image=IMAGE):
    return crops.crop(image, np.array(box, np.float32), side=side, context=context, method="area")


@pytest.mark.parametrize("box", [(10, 20, 34, 44), (10, 20, 22, 68)])
def test_a_crop_is_the_window_with_its_surroundings_warped(box):
    height, width = box[2] - box[0], box[3] - box[1]
    # 24 of 32 pixels are the window's: its surroundings are a sixth of its sides
    top, left = box[0] - height // 6, box[1] - width // 6
    part = IMAGE[top : box[2] + height // 6, left : box[3] + width // 6]
    pixels, inside = _crop(box)
    np.testing.assert_array_equal(pixels, resize(part, 32, 32))
    np.testing.assert_array_equal(inside, [0, 0, 32, 32])


def test_without_context_a_crop_is_the_window():
    np.testing.assert_array_equal(
        _crop((8, 16, 40, 48), context=0).pixels, IMAGE[8:40, 16:48].copy()
    )


def test_what_lies_beyond_the_image_has_the_mean_colour_of_the_rest():
    image = np.full((60, 80, 3), (10, 20, 30), np.uint8)
    pixels, inside = _crop((0, 56, 24, 80), image=image)  # 4 of 32 pixels beyond top and right
    np.testing.assert_array_equal(inside, [4, 0, 32, 28])
    np.testing.assert_array_equal(pixels, np.broadcast_to(image[:1, :1], (32, 32, 3)))
    pixels, inside = _crop((0, 56, 24, 80))
    np.testing.assert_array_equal(pixels[4:, :28], IMAGE[:28, 52:])
    mean = np.round(IMAGE[:28, 52:].mean((0, 1)))
    np.testing.assert_array_equal(pixels[:4], np.broadcast_to(mean, (4, 32, 3)))
    np.testing.assert_array_equal(pixels[:, 28:], np.broadcast_to(mean, (32, 4, 3)))


@pytest.mark.parametrize(
    "box", [(0, 0, 60, 80), (59.5, 79.5, 60, 80), (0, 0, 0, 0), (70, 90, 75, 95), (5, 5, 5.2, 60)]
)
def test_every_window_has_a_crop_with_pixels_of_the_image(box):
    pixels, inside = _crop(box)
    assert pixels.shape == (32, 32, 3)
    assert (inside[:2] < inside[2:]).all()
    assert (inside >= 0).all()
    assert (inside <= 32).all()


@pytest.fixture(scope="module")
def net():
    return network()


def test_features_are_those_of_the_network_on_the_crop(net, monkeypatch):
    monkeypatch.setattr(crops, "CROPS", 4)
    boxes = np.array([(8, 16, 40, 48), (20, 30, 50, 70), (10, 12, 44, 52)] * 2, np.float32)
    stages = crops.stages(net)
    features = crops.features(stages, IMAGE, boxes, side=32, context=2)
    pixels = np.stack([_crop(box, context=2).pixels for box in boxes])
    images = net.normalise(pixels, jax.random.key(0))
    logits, ends = jax.jit(net.model.apply)(net.variables, images)
    for layer in ("spp", "fc6", "fc7"):
        expected = np.asarray(ends[layer])[:, 0, 0]
        np.testing.assert_allclose(features[layer], expected, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features["scores"], jax.nn.softmax(logits), rtol=1e-4, atol=1e-6)
    assert stages.convolve.count == 1  # two calls, the second one filled up


def test_pixels_beyond_the_image_are_zero_after_normalisation(net):
    box = np.array([[0, 56, 24, 80]], np.float32)
    features = crops.features(crops.stages(net), IMAGE, box, side=32, context=4)
    image = np.array(net.normalise(_crop(box[0]).pixels[None], jax.random.key(0)))
    image[:, :4] = image[:, :, 28:] = 0
    expected = jax.jit(net.model.apply)(net.variables, image)[1]["fc7"][:, 0, 0]
    np.testing.assert_allclose(features["fc7"], expected, rtol=1e-4, atol=1e-5)


def test_no_windows_have_no_features(net):
    boxes = np.zeros((0, 4), np.float32)
    features = crops.features(crops.stages(net), IMAGE, boxes, side=32, context=2)
    assert {name: len(rows) for name, rows in features.items()} == dict.fromkeys(
        ("spp", "fc6", "fc7", "scores"), 0
    )
