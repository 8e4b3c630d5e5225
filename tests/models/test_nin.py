"""Network in Network: layers of the authors' files, heads, plain twin, dropout, last ReLU."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting
from cnn_papers.models import nin


def build(variant="cifar10", **fields):
    """Returns a small network's compiled `apply`, random variables and two images."""
    model = nin.Model(variant, width=0.125, **fields)
    random = np.random.default_rng(0)
    shapes = counting.abstract_variables(model, (16, 16, 3))
    variables = jax.tree.map(
        lambda leaf: random.normal(scale=0.1, size=leaf.shape).astype(np.float32), shapes
    )
    apply = jax.jit(model.apply, static_argnames="train")
    return apply, variables, random.normal(size=(2, 16, 16, 3)).astype(np.float32)


@pytest.mark.parametrize(
    "variant, kernels",
    [
        (
            "cifar10",
            "5×5×3→192 192→160 160→96 5×5×96→192 192→192 192→192 3×3×192→192 192→192 192→10",
        ),
        ("mnist", "5×5×1→96 96→64 64→48 5×5×48→128 128→96 96→48 5×5×48→128 128→96 96→10"),
        ("svhn", "5×5×3→128 128→96 96→64 5×5×64→320 320→256 256→128 5×5×128→384 384→256 256→10"),
        (
            "imagenet_caffe",
            "11×11×3→96 96→96 96→96 5×5×96→256 256→256 256→256 3×3×256→384 384→384 384→384 "
            "3×3×384→1024 1024→1024 1024→1000",
        ),
    ],
)
def test_layers_are_those_of_the_published_files(variant, kernels):
    params = counting.abstract_variables(nin.Model(variant), nin.FACTS[variant].input)["params"]
    blocks = len(params) // 3
    names = [
        name
        for i in range(1, blocks + 1)
        for name in (f"conv{i}", f"cccp{2 * i - 1}", f"cccp{2 * i}")
    ]
    shapes = [params[name]["kernel"].shape for name in names]
    got = [f"{i}→{o}" if (h, w) == (1, 1) else f"{h}×{w}×{i}→{o}" for h, w, i, o in shapes]
    assert got == kernels.split()


def test_heads_differ_only_by_the_fully_connected_layer():
    count = {
        variant: counting.count(nin.Model(variant), (32, 32, 3)).params
        for variant in nin.VARIANTS
        if "cifar10" in variant
    }
    fully_connected = 8 * 8 * 10 * 10 + 10
    assert count["cifar10_fc"] - count["cifar10"] == fully_connected
    assert count["cifar10_fc_dropout"] == count["cifar10_fc"]
    assert count["cifar10_plain_fc"] - count["cifar10_plain"] == fully_connected


def test_the_plain_twin_keeps_the_convolutions_and_no_1x1():
    params = counting.abstract_variables(nin.Model("cifar10_plain"), (32, 32, 3))["params"]
    assert {name: layer["kernel"].shape for name, layer in params.items()} == {
        "conv1": (5, 5, 3, 192),
        "conv2": (5, 5, 192, 192),
        "conv3": (3, 3, 192, 10),
    }


def test_the_last_layer_is_rectified_and_averaged():
    apply, variables, image = build()
    logits, ends = apply(variables, image)
    assert ends["cccp6"].min() == 0 and ends["cccp6"].shape == (2, 4, 4, 10)
    np.testing.assert_allclose(logits, ends["cccp6"].mean((1, 2)), rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(logits, ends["poolg"][:, 0, 0])


def test_dropout_lies_between_the_mlpconv_layers():
    apply, variables, image = build(dropout=1.0)
    _, ends = apply(variables, image, train=True, rngs={"dropout": jax.random.key(0)})
    assert ends["pool1"].any()
    for name in ("conv2", "conv3"):  # they see nothing but zeros
        rectified = np.broadcast_to(
            np.maximum(variables["params"][name]["bias"], 0), ends[name].shape
        )
        np.testing.assert_allclose(ends[name], rectified, rtol=1e-6)


def test_only_the_head_with_dropout_drops_its_inputs():
    for head in ("fc", "fc_dropout"):
        apply, variables, image = build(head=head, dropout=0.0, head_dropout=1.0)
        logits, _ = apply(variables, image, train=True, rngs={"dropout": jax.random.key(0)})
        only_bias = np.allclose(logits, variables["params"]["fc"]["bias"][None], atol=1e-6)
        assert only_bias == (head == "fc_dropout")


def test_the_imagenet_network_drops_before_its_last_convolution_only():
    assert [row.dropout for row in nin.TABLES["imagenet_caffe"]] == [False, False, False, True]
    assert [row.dropout for row in nin.TABLES["cifar10"]] == [False, True, True]


def test_weights_start_with_the_published_deviations():
    image = jnp.zeros((1, 8, 8, 3))
    params = jax.jit(nin.Model("cifar100", width=0.5).init)(jax.random.key(0, impl="rbg"), image)[
        "params"
    ]
    stds = {
        "conv1": 0.001,
        "cccp1": 0.01,
        "cccp2": 0.01,
        "conv2": 0.05,
        "conv3": 0.05,
        "cccp6": 0.05,
    }
    for name, std in stds.items():
        np.testing.assert_allclose(params[name]["kernel"].std(), std, rtol=0.1, err_msg=name)
        assert not params[name]["bias"].any()


@pytest.mark.parametrize("last_bias, all_learn", [(0.0, False), (2.0, True)])
def test_biases_above_zero_in_the_last_layer_let_every_class_learn(last_bias, all_learn):
    """A class whose map is zero everywhere gets no gradient; features of one sign make such."""
    model = nin.Model("mnist", width=0.25, weight_init="he", last_bias=last_bias)
    image = jnp.asarray(np.random.default_rng(0).normal(size=(4, 28, 28, 1)), jnp.float32)
    params = jax.jit(model.init)(jax.random.key(0), image)["params"]
    for name, layer in params.items():
        np.testing.assert_array_equal(layer["bias"], last_bias if name == "cccp6" else 0.0)

    def loss(params):
        logits, _ = model.apply({"params": params}, image)
        return -jax.nn.log_softmax(logits)[:, 0].mean()

    gradient = jax.jit(jax.grad(loss))(params)["cccp6"]["kernel"]
    assert gradient.any((0, 1, 2)).all() == all_learn


def test_unknown_values_and_small_images_are_refused():
    with pytest.raises(
        ValueError, match=r"unknown model\.head 'max'; there are: gap, fc, fc_dropout"
    ):
        nin.Model(head="max")
    with pytest.raises(
        ValueError, match=r"unknown model\.table 'imagenet'; there are: cifar10, .*, imagenet_caffe"
    ):
        nin.Model(table="imagenet")
    with pytest.raises(
        ValueError, match=r"unknown model\.variant 'imagenet'; there are: cifar10, .*imagenet_caffe"
    ):
        nin.Model("imagenet")
    jax.eval_shape(nin.Model().init, jax.random.key(0), jnp.zeros((1, 4, 4, 3)))
    with pytest.raises(ValueError, match="an image of 3×3 is too small: pool2 has no pixels left"):
        jax.eval_shape(nin.Model().init, jax.random.key(0), jnp.zeros((1, 3, 3, 3)))
