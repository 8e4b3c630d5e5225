"""Maxout: maxima over pieces against NumPy, dropout, limits of norms, ReLU twins."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting
from cnn_papers.models import maxout


def build(variant, **fields):
    """Returns a network's compiled `apply`, random variables and two images."""
    model = maxout.Model(variant, **fields)
    random = np.random.default_rng(0)
    shape = maxout.FACTS[variant].input
    shapes = counting.abstract_variables(model, shape)
    variables = jax.tree.map(
        lambda leaf: random.normal(scale=0.2, size=leaf.shape).astype(np.float32), shapes
    )
    apply = jax.jit(model.apply, static_argnames="train")
    return apply, variables, random.normal(size=(2, *shape)).astype(np.float32)


def test_a_dense_unit_is_the_maximum_over_its_pieces():
    apply, variables, image = build("mnist_fc", width=0.05)
    variables["params"]["h0"]["bias"] -= 8
    _, ends = apply(variables, image)
    kernel, bias = (
        np.asarray(variables["params"]["h0"][name], np.float64) for name in ("kernel", "bias")
    )
    for unit in range(12):
        pieces = [
            (image[..., 0] * kernel[:, :, 0, i]).sum((1, 2)) + bias[i]
            for i in range(5 * unit, 5 * unit + 5)
        ]
        np.testing.assert_allclose(
            ends["h0"][:, 0, 0, unit], np.max(pieces, 0), rtol=1e-4, atol=1e-4
        )
    assert ends["h0"].min() < 0 < ends["h0"].max()  # not rectified


def test_a_convolutional_layer_is_the_maximum_over_pieces_then_over_windows():
    apply, variables, image = build("mnist_conv", width=0.0625)
    _, ends = apply(variables, image)
    kernel, bias = (
        np.asarray(variables["params"]["h0"][name], np.float64) for name in ("kernel", "bias")
    )
    assert kernel.shape == (8, 8, 1, 6) and bias.shape == (21, 21, 6)  # a bias for every position
    windows = np.lib.stride_tricks.sliding_window_view(image[..., 0], (8, 8), (1, 2))
    pieces = np.einsum("nyxij,ijf->nyxf", windows, kernel[:, :, 0]) + bias
    units = pieces.reshape(2, 21, 21, 3, 2).max(-1)
    for i, j in ((0, 0), (4, 7), (9, 9)):  # 21 → 10: the last window hangs over the edge
        window = units[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4]
        np.testing.assert_allclose(ends["h0"][:, i, j], window.max((1, 2)), rtol=1e-4)


def test_dropout_sits_before_the_weights_and_never_on_the_pieces():
    apply, variables, image = build("mnist_fc", width=0.05, dropout=1.0, input_dropout=0.0)
    _, evaluated = apply(variables, image)
    logits, ends = apply(variables, image, train=True, rngs={"dropout": jax.random.key(0)})
    np.testing.assert_array_equal(ends["h0"], evaluated["h0"])
    params = variables["params"]
    np.testing.assert_allclose(
        ends["h1"][0, 0, 0], params["h1"]["bias"].reshape(12, 5).max(-1), rtol=1e-6
    )
    np.testing.assert_allclose(logits[1], params["y"]["bias"], rtol=1e-6)


def test_hidden_dropout_keeps_the_expectation_and_the_input_is_left_unscaled():
    apply, variables, _ = build("mnist_fc", width=0.05, dropout=0.0)
    params = variables["params"] | {
        "h0": {"kernel": np.full((28, 28, 1, 60), 1 / 784), "bias": np.zeros(60)}
    }
    image, key = np.ones((2, 28, 28, 1), np.float32), {"dropout": jax.random.key(0)}
    _, ends = apply({"params": params}, image, train=True, rngs=key)
    np.testing.assert_allclose(ends["h0"], 0.8, atol=0.05)  # a fifth of the input is dropped
    apply, _, _ = build("mnist_fc", width=0.05, dropout=0.5, rescale_input=True)
    params["h1"] = {"kernel": np.full((1, 1, 12, 60), 1 / 12), "bias": np.zeros(60)}
    _, ends = apply({"params": params}, np.ones((500, 28, 28, 1), np.float32), train=True, rngs=key)
    np.testing.assert_allclose(ends["h0"].mean(), 1, atol=0.01)
    np.testing.assert_allclose(ends["h1"].mean(), 1, atol=0.05)


def test_tied_biases_give_the_smaller_of_the_published_counts():
    assert counting.count(maxout.Model("mnist_conv", tied_bias=True), (28, 28, 1)).params == 418_714
    assert counting.count(maxout.Model("mnist_conv"), (28, 28, 1)).params == 471_994


@pytest.mark.parametrize("variant", maxout.VARIANTS)
def test_every_layer_has_a_limit_of_its_norm(variant):
    params = counting.abstract_variables(maxout.Model(variant), maxout.FACTS[variant].input)[
        "params"
    ]
    assert maxout.MAX_NORM[variant].keys() == params.keys()
    if "conv" in variant or "mnist" not in variant:
        assert maxout.MAX_NORM[variant]["h0"] == 0.9
    assert all(0.9 <= norm <= 1.9365 for norm in maxout.MAX_NORM[variant].values())


@pytest.mark.parametrize("variant", ["mnist_fc", "mnist_conv", "cifar10", "cifar100", "svhn"])
def test_relu_twin_has_as_many_weights_in_every_hidden_layer(variant):
    shape = maxout.FACTS[variant].input
    one, twin = (
        counting.abstract_variables(maxout.Model(v), shape)["params"]
        for v in (variant, f"{variant}_relu")
    )
    for name in one.keys() - {"y"}:
        assert one[name]["kernel"].size == twin[name]["kernel"].size, name
    sizes = maxout.FACTS[variant], maxout.FACTS[f"{variant}_relu"]
    assert abs(sizes[1].params / sizes[0].params - 1) < 0.006
    assert abs(sizes[1].macs / sizes[0].macs - 1) < 0.0003


def test_relu_twin_rectifies_and_tanh_twin_squashes():
    apply, variables, image = build("mnist_fc_relu", width=0.05)
    _, ends = apply(variables, image)
    assert ends["h0"].min() == 0 and ends["h0"].shape == (2, 1, 1, 60)
    squashed, _, _ = build("mnist_fc_relu", width=0.05, hidden="tanh")
    np.testing.assert_allclose(
        squashed(variables, image)[1]["h0"].clip(0), np.tanh(ends["h0"]), rtol=1e-5
    )


def test_weights_start_tiny_and_uniform():
    image = jnp.zeros((1, 28, 28, 1))
    params = jax.jit(maxout.Model("mnist_conv", tied_bias=True, width=0.25).init)(
        jax.random.key(0, impl="rbg"), image
    )["params"]
    for name, layer in params.items():
        np.testing.assert_allclose(layer["kernel"].std(), 0.005 / 3**0.5, rtol=0.1, err_msg=name)
        assert jnp.abs(layer["kernel"]).max() <= 0.005 and not layer["bias"].any()


def test_unknown_values_and_small_images_are_refused():
    with pytest.raises(
        ValueError,
        match=r"unknown model\.variant 'mnist'; there are: mnist_fc, mnist_conv, cifar10",
    ):
        maxout.Model("mnist")
    with pytest.raises(
        ValueError, match=r"unknown model\.hidden 'elu'; there are: maxout, maxout_zero, relu, tanh"
    ):
        maxout.Model(hidden="elu")
    init = maxout.Model("mnist_conv").init
    jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 16, 16, 1)))
    with pytest.raises(ValueError, match="an image of 15×15 is too small: h1 has no pixels left"):
        jax.eval_shape(init, jax.random.key(0), jnp.zeros((1, 15, 15, 1)))
