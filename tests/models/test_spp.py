"""Spatial pyramid pooling: bins, windows of a feature map, and SPP-net."""

import math
from fractions import Fraction

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting
from cnn_papers.models import spp
from cnn_papers.models.shared import pooling

window_features = jax.jit(pooling.window_features, static_argnames=("levels", "stride", "offset"))
pyramid_pool = jax.jit(pooling.pyramid_pool, static_argnames="levels")


def bin_edges(size, m):
    """Returns the paper's bins in exact fractions: floor to the left, ceiling to the right."""
    return [
        (math.floor(Fraction(i * size, m)), math.ceil(Fraction((i + 1) * size, m)))
        for i in range(m)
    ]


def loop(feature_map, window, levels, stride, offset):
    """Returns one window's features, cell by cell from Appendix A."""
    spans = []
    for low, high, size in (
        (window[0], window[2], feature_map.shape[0]),
        (window[1], window[3], feature_map.shape[1]),
    ):
        low, high = (
            Fraction(float(low)) - Fraction(offset),
            Fraction(float(high)) - Fraction(offset),
        )
        first, last = math.floor(low / stride) + 1, math.ceil(high / stride) - 1
        if first > last:
            first = last = (first + last) // 2
        spans.append((min(max(first, 0), size - 1), min(max(last, 0), size - 1)))
    (top, bottom), (left, right) = spans
    inside = feature_map[top : bottom + 1, left : right + 1]
    return np.concatenate(
        [
            inside[y0:y1, x0:x1].max((0, 1))
            for m in levels
            for y0, y1 in bin_edges(inside.shape[0], m)
            for x0, x1 in bin_edges(inside.shape[1], m)
        ]
    )


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (13, 10)])
def test_every_cell_is_in_a_bin_and_the_length_is_fixed(size):
    levels, (h, w) = (6, 4, 3, 2, 1), size
    one_hot = jnp.eye(h * w).reshape(1, h, w, h * w)  # a channel for each cell
    pooled = pyramid_pool(one_hot, levels).reshape(66, h * w)
    np.testing.assert_array_equal(pooled.max(0), np.ones(h * w))
    cells = [
        (y1 - y0) * (x1 - x0)
        for m in levels
        for y0, y1 in bin_edges(h, m)
        for x0, x1 in bin_edges(w, m)
    ]
    np.testing.assert_array_equal(pooled.sum(1), cells)


def test_bins_cover_windows_of_every_size():
    """Bins start and end with the window, leave no gaps, and none is empty, down to one cell."""
    sizes = np.arange(1, 200)
    i, m = np.array([(i, m) for m in range(1, 9) for i in range(m)]).T
    edges = pooling._bins(jnp.full(199, 7), jnp.asarray(7 + sizes), i, m)
    first, stop = (np.asarray(edge) - 7 for edge in edges)
    assert (first < stop).all()
    for level in range(1, 9):
        first_of, stop_of = first[:, m == level], stop[:, m == level]
        assert (first_of[:, 0] == 0).all() and (stop_of[:, -1] == sizes).all()
        assert (first_of[:, 1:] <= stop_of[:, :-1]).all()
        expected = [bin_edges(size, level) for size in sizes.tolist()]
        np.testing.assert_array_equal(np.stack([first_of, stop_of], -1), expected)


@pytest.mark.parametrize(
    ("size", "levels"),
    [
        ((13, 13), (6, 3, 2, 1)),
        ((18, 18), (6, 3, 2, 1)),
        ((13, 13), (4, 3, 2, 1)),
        ((18, 12), (6,)),
    ],
)
def test_bins_are_the_papers_sliding_windows_where_those_fit(size, levels):
    """§2.3: windows of ⌈a/n⌉ at stride ⌊a/n⌋, on the maps the paper has at 224 pixels."""
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, *size, 3)), jnp.float32)
    sliding = []
    for m in levels:
        window, stride = zip(*((-(-side // m), side // m) for side in size), strict=True)
        maxima = nn.max_pool(x, window, stride)
        assert maxima.shape == (2, m, m, 3)
        sliding.append(maxima.reshape(2, 1, 1, -1))
    pooled = pyramid_pool(x, levels)
    np.testing.assert_array_equal(pooled, jnp.concatenate(sliding, -1))


def test_sliding_windows_do_not_fit_the_map_of_180_pixels():
    """Windows of 2 cells at stride 1 on 10 cells are 9, not 6 (Deviations)."""
    x = jax.ShapeDtypeStruct((1, 10, 10, 1), jnp.float32)
    assert jax.eval_shape(lambda x: nn.max_pool(x, (2, 2), (1, 1)), x).shape == (1, 9, 9, 1)
    assert jax.eval_shape(lambda x: pooling.pyramid_pool(x, (6,)), x).shape == (1, 1, 1, 36)


@pytest.mark.parametrize(
    ("levels", "size", "stride", "offset"),
    [
        ((6, 3, 2, 1), (21, 30), 16, 15.0),
        ((4, 3, 2, 1), (33, 17), 12, 8.0),
        ((3, 2, 1), (5, 40), 14, 0.0),  # 1 / 14 rounds up in float32: floor(x / 14) goes wrong
    ],
)
def test_window_features_equal_a_loop(levels, size, stride, offset):
    rng = np.random.default_rng(0)
    feature_map = rng.normal(size=(*size, 2)).astype(np.float32)
    limits = np.array(size) * stride
    # some windows extend beyond the map, some hold no cell, half lie exactly on centres of cells
    corners = rng.uniform(-40, 40 + limits, (200, 2, 2))
    corners[::2] = np.round(corners[::2] / stride) * stride + offset
    corners[-4:] = corners[-4:, :1] + rng.uniform(0, 3, (4, 2, 2))
    windows = np.concatenate([corners.min(1), corners.max(1)], -1).astype(np.float32)
    features = window_features(feature_map, windows, levels=levels, stride=stride, offset=offset)
    expected = np.stack([loop(feature_map, window, levels, stride, offset) for window in windows])
    assert features.shape == (200, sum(m * m for m in levels) * 2)
    np.testing.assert_array_equal(features, expected)


def test_window_projection_in_numbers():
    """Appendix A at S = 16: ⌊x/S⌋ + 1 to ⌈x/S⌉ - 1, one cell if that is empty, within the map."""
    feature_map = jnp.arange(10.0)[None, :, None]
    spans = {
        (0, 48): 2,
        (1, 49): 3,
        (15, 33): 2,
        (16, 33): 2,
        (17, 31): 1,
        (-50, 500): 9,
        (400, 500): 9,
        (-9, -1): 0,
    }
    windows = jnp.array([[-1, left, 17, right] for left, right in spans])
    features = window_features(feature_map, windows, levels=(1,), stride=16)
    np.testing.assert_array_equal(features[:, 0], list(spans.values()))


def test_the_whole_map_as_a_window_is_the_pyramid():
    """In value and in gradient."""
    levels = (4, 3, 1)
    x = jnp.asarray(np.random.default_rng(0).normal(size=(11, 19, 4)), jnp.float32)
    whole = jnp.array([[-1, -1, 12 * 10 + 1, 12 * 18 + 1]])
    weights = jnp.arange(1.0, 1 + sum(m * m for m in levels) * 4)

    @jax.jit
    def features_and_gradients(x):
        by_window, window_pullback = jax.vjp(
            lambda x: pooling.window_features(x, whole, levels, stride=12)[0], x
        )
        by_pyramid, pyramid_pullback = jax.vjp(
            lambda x: pooling.pyramid_pool(x[None], levels)[0, 0, 0], x
        )
        return (by_window, by_pyramid), (window_pullback(weights)[0], pyramid_pullback(weights)[0])

    features, gradients = features_and_gradients(x)
    np.testing.assert_array_equal(*features)
    np.testing.assert_allclose(*gradients, rtol=1e-6)


def random_parameters(model, side, rng):
    params = counting.abstract_variables(model, (side, side, 3))["params"]

    def draw(shape):
        return jnp.asarray(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape), jnp.float32)

    return {"params": jax.tree.map(lambda leaf: draw(leaf.shape), params)}


@pytest.mark.parametrize("net", ["zf5", "convnet5", "overfeat5"])
def test_geometry_is_that_of_the_receptive_fields(net):
    """A bright column of pixels reaches the cells whose fields, centred at offset + S·i, see it."""
    model = spp.Model(net, width=0.02, num_classes=2, lrn=False)
    params = counting.abstract_variables(model, (64, 64, 3))["params"]
    variables = {
        "params": jax.tree.map(
            lambda leaf: np.full(leaf.shape, 1 / math.prod(leaf.shape[:-1]), np.float32), params
        )
    }
    width, (stride, offset) = 256, model.geometry()
    images = (1 + 1e4 * jnp.eye(width))[:, None, :, None] * jnp.ones((1, 64, 1, 3))
    conv5 = jax.jit(lambda v, x: model.apply(v, x)[1]["conv5"])
    dark = conv5(variables, jnp.ones((1, 64, width, 3)))
    sees = np.asarray((conv5(variables, images) > 1.0001 * dark).any((1, 3)))
    inner = np.flatnonzero(sees.sum(0) == sees.sum(0).max())  # fields that no border cuts
    fields = [np.flatnonzero(sees[:, i])[[0, -1]] for i in inner]
    assert len(inner) >= 4 and stride == (12 if "overfeat" in net else 16)
    np.testing.assert_array_equal(
        [(low + high) / 2 for low, high in fields], offset + stride * inner
    )


@pytest.mark.parametrize("net", ["zf5", "overfeat5"])
def test_the_whole_image_as_a_window_is_the_classifier(net):
    model = spp.Model(net, width=0.02, num_classes=4, levels=(3, 2, 1))
    rng = np.random.default_rng(0)
    variables = random_parameters(model, 96, rng)
    image = jnp.asarray(rng.normal(size=(2, 96, 128, 3)), jnp.float32)
    windows = jnp.array([[[0, 0, 96, 128], [20, 10, 90, 90], [0, 40, 7, 50]]] * 2)
    whole, _ = jax.jit(model.apply)(variables, image)
    logits, ends = jax.jit(lambda v, x, w: model.apply(v, x, windows=w))(variables, image, windows)
    assert logits.shape == (2, 3, 4) and ends["spp"].shape[:3] == (6, 1, 1)
    np.testing.assert_allclose(logits[:, 0], whole, rtol=1e-5, atol=1e-6)
    assert np.abs(logits[:, 0] - logits[:, 1]).max() > 1e-3


def test_native_image_projects_to_the_whole_map():
    """A window of 224×224 pixels covers the 13×13 (ZF-5, Convnet*-5) or 18×18 cells (Overfeat)."""
    for net in spp.TABLE:
        stride, offset = spp.Model(net).geometry()
        size = spp.FACTS[net].shapes["conv5"][0]
        edges = jnp.array([0.0]) - offset, jnp.array([224.0]) - offset
        first, stop = pooling._cells(*edges, stride, size)
        assert (int(first[0]), int(stop[0])) == (0, size)


def test_thirty_bins_have_fewer_parameters_than_no_pyramid():
    """§3.1.2: several levels are better than one, but not because of more parameters."""
    thirty, none, fifty = (
        spp.FACTS[variant].params for variant in ("zf5-30bins", "zf5-no-spp", "zf5")
    )
    assert thirty < none < fifty
    for variant, params in {"zf5-30bins": thirty, "zf5-no-spp": none}.items():
        variables = counting.abstract_variables(spp.Model(variant), (224, 224, 3))
        assert counting.parameter_count(variables["params"]) == params


@pytest.mark.parametrize(
    ("net", "cells"), [("zf5", 10), ("convnet5", 10), ("overfeat5", 14), ("overfeat7", 14)]
)
def test_one_set_of_parameters_serves_224_and_180_pixels(net, cells):
    model = spp.Model(net)
    native, smaller = (counting.abstract_variables(model, (side, side, 3)) for side in (224, 180))
    assert jax.tree.map(lambda leaf: leaf.shape, native) == jax.tree.map(
        lambda leaf: leaf.shape, smaller
    )
    image = jax.ShapeDtypeStruct((1, 180, 180, 3), jnp.float32)
    ends = jax.eval_shape(lambda v, x: model.apply(v, x)[1], native, image)
    assert ends["conv5"].shape[1:3] == (cells, cells) and ends["fc8"].shape == (1, 1, 1, 1000)


def test_bad_input_is_refused():
    with pytest.raises(
        ValueError,
        match=r"unknown model\.net 'vgg'; there are: zf5, convnet5, overfeat5, overfeat7",
    ):
        spp.Model("zf5", net="vgg")
    with pytest.raises(
        ValueError, match=r"model\.levels are bins per side and at least 1, not \(3, 0\)"
    ):
        spp.Model("zf5", levels=(3, 0))
    model = spp.Model("zf5", width=0.05)
    with pytest.raises(
        ValueError, match="an image of 16×16 is too small: pool2 has no pixels left"
    ):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    variables = counting.abstract_variables(model, (224, 224, 3))
    windows = jnp.zeros((2, 3, 4))
    with pytest.raises(
        ValueError, match="an image of 16×16 is too small: its feature map has no pixels"
    ):
        jax.eval_shape(
            lambda v: model.apply(v, jnp.zeros((2, 16, 16, 3)), windows=windows), variables
        )
    plain = spp.Model("zf5-no-spp", width=0.05)
    variables = counting.abstract_variables(plain, (224, 224, 3))
    with pytest.raises(ValueError, match="features of windows need a pyramid"):
        jax.eval_shape(
            lambda v: plain.apply(v, jnp.zeros((2, 224, 224, 3)), windows=windows), variables
        )
