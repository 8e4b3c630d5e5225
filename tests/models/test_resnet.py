"""ResNet: shortcuts, strides, depth, and blocks run as a loop."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.random_variables import random_variables

from cnn_papers import counting
from cnn_papers.models import resnet

# the last stage is too short for a loop
DEEP = {"blocks": (3, 3, 2), "width": 0.5, "num_classes": 5}
IMAGE = np.random.default_rng(1).normal(size=(2, 16, 16, 3)).astype(np.float32)


def convert(variables, blocks):
    return {
        collection: resnet.convert_blocks(tree, blocks) for collection, tree in variables.items()
    }


def outcome(model, variables):
    """Returns logits in evaluation, and gradients and statistics of a training step."""

    @jax.jit
    def run(variables):
        logits, _ = model.apply(variables, IMAGE)

        def loss(params):
            (scores, _), state = model.apply(
                {**variables, "params": params}, IMAGE, train=True, mutable=["batch_stats"]
            )
            return (scores**2).mean(), state["batch_stats"]

        gradient, statistics = jax.grad(loss, has_aux=True)(variables["params"])
        return logits, {"params": gradient, "batch_stats": statistics}

    return run(variables)


@pytest.mark.parametrize("shortcut", ["C", pytest.param("A", marks=pytest.mark.process)])
def test_a_loop_over_blocks_computes_the_same_network(shortcut):
    plain = resnet.Model("cifar-20", shortcut=shortcut, **DEEP)
    loop = resnet.Model("cifar-20", shortcut=shortcut, scan=True, **DEEP)
    variables = random_variables(plain, (16, 16, 3))
    stacked = convert(variables, DEEP["blocks"])
    assert set(stacked["params"]) > {
        "conv2_1",
        "conv2_2_to_3",
        "conv3_2_to_3",
        "conv4_1",
        "conv4_2",
    }
    assert jax.tree.map(jnp.shape, stacked) == jax.tree.map(
        jnp.shape, random_variables(loop, (16, 16, 3))
    )
    jax.tree.map(np.testing.assert_array_equal, convert(stacked, DEEP["blocks"]), variables)

    logits, trained = outcome(plain, variables)
    loop_logits, loop_trained = outcome(loop, stacked)
    np.testing.assert_allclose(loop_logits, logits, rtol=1e-4, atol=1e-5)
    for mine, theirs in zip(
        jax.tree.leaves(convert(trained, DEEP["blocks"])),
        jax.tree.leaves(loop_trained),
        strict=True,
    ):
        np.testing.assert_allclose(theirs, mine, rtol=1e-3, atol=1e-4 * np.abs(mine).max())


def test_a_loop_is_named_by_its_blocks():
    layers = counting.count(resnet.Model("cifar-1202"), (32, 32, 3)).layers
    shapes = {row.name: (row.shape, row.params) for row in layers}
    assert shapes["conv2_2_to_200"] == ((32, 32, 16), 199 * (2 * 9 * 16 * 16 + 4 * 16))
    assert shapes["conv4_2_to_200"] == ((8, 8, 64), 199 * (2 * 9 * 64 * 64 + 4 * 64))


@pytest.mark.parametrize(
    "variant",
    [
        "18",
        "34-A",
        "50",
        "152-v1.5",
        "plain-34",
        "cifar-8",
        "cifar-plain-56",
        "cifar-110",
        "cifar-pre-164",
    ],
)
def test_the_name_is_the_number_of_weight_layers(variant):
    image = resnet.FACTS[variant].input  # of which the network is traced already
    params = counting.abstract_variables(resnet.Model(variant), image)["params"]
    kernels = [path for path, leaf in jax.tree.leaves_with_path(params) if leaf.ndim == 4]
    weights = [path for path in kernels if "conv_proj" not in jax.tree_util.keystr(path)]
    assert len(weights) == int(re.search(r"\d+", variant)[0])


def test_options_a_b_and_c_cost_what_the_paper_says():
    facts = resnet.FACTS
    for plain, option_a in (
        ("plain-18", "18-A"),
        ("plain-34", "34-A"),
        ("cifar-plain-20", "cifar-20"),
    ):
        assert facts[plain][1:3] == facts[option_a][1:3]
    thirteen = (
        3 * (64 * 64 + 128) + 3 * (128 * 128 + 256) + 5 * (256 * 256 + 512) + 2 * (512 * 512 + 1024)
    )
    assert facts["34-C"].params - facts["34"].params == thirteen == 919_168


@pytest.mark.parametrize("depth", ["50", "101", "152"])
def test_the_later_stride_costs_more_with_as_many_parameters(depth):
    paper, later = resnet.FACTS[depth], resnet.FACTS[f"{depth}-v1.5"]
    assert later.params == paper.params
    # the first 1×1 of conv3_1, conv4_1 and conv5_1 on four times the area
    assert later.macs - paper.macs == 231_211_008
    assert resnet.Model(depth).stride_in == "1x1"
    assert resnet.Model(f"{depth}-v1.5").stride_in == "3x3"


def test_pre_activation_nets_have_the_stated_parameters_without_normalisation():
    """arXiv:1603.05027, Table 4: 1.7M with 164 layers, 10.2M with 1001."""
    for depth, stated in (("164", 1.7), ("1001", 10.2)):
        params = counting.abstract_variables(resnet.Model(f"cifar-pre-{depth}"), (32, 32, 3))
        leaves = jax.tree.leaves_with_path(params["params"])
        kernels = [leaf for path, leaf in leaves if "kernel" in jax.tree_util.keystr(path)]
        assert round(sum(leaf.size for leaf in kernels) / 1e6, 1) == stated


@pytest.mark.parametrize("width", [16, 64])  # of the input: a projection, and the identity
def test_a_pre_activation_block_is_the_papers(width):
    """Against its formula: x + W3 r(n(W2 r(n(W1 r(n(x)))))), the projection after the first r."""
    stride = 2 if width == 16 else 1
    block = resnet.PreActivationBlock(16, stride)
    x = IMAGE[..., :1] * np.linspace(-1, 1, width, dtype=np.float32)
    variables = random_variables(block, x.shape[1:])
    params, stats = variables["params"], variables["batch_stats"]

    def convolve(value, name, step=1):
        return jax.lax.conv_general_dilated(
            value,
            params[name]["kernel"],
            (step, step),
            [(size // 2, size // 2) for size in params[name]["kernel"].shape[:2]],
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    def rectified(value, name):
        mean, var = stats[name]["mean"], stats[name]["var"]
        normal = (np.asarray(value) - mean) / np.sqrt(var + 1e-5)
        return np.maximum(normal * params[name]["scale"] + params[name]["bias"], 0)

    first = rectified(x, "bn1")
    h = rectified(convolve(first, "conv1", stride), "bn2")
    h = convolve(rectified(convolve(h, "conv2"), "bn3"), "conv3")
    assert ("conv_proj" in params) == (width == 16)
    shortcut = convolve(first, "conv_proj", stride) if width == 16 else x
    got = jax.jit(functools.partial(block.apply, train=False))(variables, x)
    np.testing.assert_allclose(got, shortcut + h, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"shortcut": "D"}, "unknown model.shortcut 'D'; there are: A, B, C, none"),
        ({"stride_in": "7x7"}, "unknown model.stride_in '7x7'; there are: 1x1, 3x3"),
        ({"stem": "vgg"}, "unknown model.stem 'vgg'; there are: imagenet, cifar"),
        ({"blocks": (2, 2)}, "model.blocks names 2 stages, model.widths 4"),
        (
            {"pre_activation": True},
            "model.pre_activation needs bottleneck=True, shortcut='B', stride_in='1x1' and "
            "stem='cifar'",
        ),
    ],
)
def test_a_field_that_makes_no_network_is_refused(fields, message):
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        resnet.Model("18", **fields)
