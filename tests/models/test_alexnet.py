"""AlexNet's fields: columns, layers left out, normalisation, dropout, initialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting
from cnn_papers.models import alexnet

SMALL = {"width": 0.125, "conv1_stride": 1, "num_classes": 7}


def build(variant="paper", **fields):
    """Returns a small network's compiled `apply`, random variables and two images."""
    model = alexnet.Model(variant, **SMALL, **fields)
    random = np.random.default_rng(0)

    def normal(leaf):
        return random.normal(scale=0.2, size=leaf.shape).astype(np.float32)

    variables = jax.tree.map(normal, counting.abstract_variables(model, (32, 32, 3)))
    apply = jax.jit(model.apply, static_argnames=("train", "mutable"))
    return apply, variables, random.normal(size=(2, 32, 32, 3)).astype(np.float32)


def kernels(**fields):
    """Returns the kernel shapes of the full network."""
    params = counting.abstract_variables(alexnet.Model(**fields), (227, 227, 3))["params"]
    return {name: layer["kernel"].shape for name, layer in params.items() if "kernel" in layer}


def test_kernels_read_the_channels_that_figure_2_draws():
    assert kernels() == {
        "conv1": (11, 11, 3, 96),
        "conv2": (5, 5, 48, 256),
        "conv3": (3, 3, 256, 384),
        "conv4": (3, 3, 192, 384),
        "conv5": (3, 3, 192, 256),
        "fc6": (6, 6, 256, 4096),
        "fc7": (1, 1, 4096, 4096),
        "fc8": (1, 1, 4096, 1000),
    }
    assert kernels(variant="one_gpu")["conv5"] == (3, 3, 192, 256)  # conv5 keeps its kernels


def test_columns_meet_at_conv3_and_not_before():
    apply, variables, image = build()
    kernel = variables["params"]["conv1"]["kernel"]
    silenced = kernel * (np.arange(kernel.shape[-1]) >= kernel.shape[-1] // 2)
    changed = {
        "params": {
            **variables["params"],
            "conv1": {**variables["params"]["conv1"], "kernel": silenced},
        }
    }
    _, before = apply(variables, image)
    _, after = apply(changed, image)
    for name in ("conv1", "norm1", "pool1", "conv2", "norm2", "pool2"):
        mine, other = np.split(np.asarray(before[name] != after[name]), 2, -1)
        assert mine.any() and not other.any(), name
    mine, other = np.split(np.asarray(before["conv3"] != after["conv3"]), 2, -1)
    assert mine.any() and other.any()


@pytest.mark.parametrize(
    "without, reader, shape",
    [
        ("conv2", "conv3", (3, 3, 96, 384)),
        ("conv3", "conv4", (3, 3, 256, 384)),  # conv4 now reads both columns
        ("conv4", "conv5", (3, 3, 192, 256)),
        ("conv5", "fc6", (6, 6, 384, 4096)),
        ("fc6", "fc7", (6, 6, 256, 4096)),
        ("fc7", "fc8", (1, 1, 4096, 1000)),
    ],
)
def test_a_layer_left_out_changes_only_the_layer_after_it(without, reader, shape):
    whole, got = kernels(), kernels(without=(without,))
    others = {name: kernel for name, kernel in whole.items() if name != without}
    assert got == {**others, reader: shape}
    network = counting.count(alexnet.Model(without=(without,)), (227, 227, 3))
    shapes = {row.name: row.shape for row in network.layers}
    assert without not in shapes and shapes["pool1"] == (27, 27, 96)
    assert shapes["pool2"][:2] == (13, 13) and shapes["pool5"][:2] == (6, 6)
    assert shapes["fc8"] == (1, 1, 1000)
    sizes = [np.prod(kernel) + kernel[-1] for kernel in got.values()]
    assert network.params == sum(sizes)


def test_the_layer_after_two_left_out_reads_both_columns():
    got = kernels(without=("conv3", "conv4"))
    assert got["conv5"] == (3, 3, 256, 256) and got["fc6"] == (6, 6, 256, 4096)


def test_pooling_without_overlap_keeps_every_map():
    full = counting.count(alexnet.Model(pool=(2, 2)), (227, 227, 3))
    sides = {row.name: row.shape[:2] for row in full.layers if row.name.startswith("pool")}
    assert sides == {"pool1": (27, 27), "pool2": (13, 13), "pool5": (6, 6)}
    assert full.params == alexnet.FACTS["paper"].params


def test_response_normalisation_stays_within_a_column_and_switches_off():
    apply, variables, image = build()
    _, ends = apply(variables, 100 * image)
    a = np.asarray(ends["conv1"], np.float64)
    channels = a.shape[-1]
    expected = np.empty_like(a)
    for i in range(channels):
        column = range(channels // 2) if i < channels // 2 else range(channels // 2, channels)
        near = [j for j in column if abs(j - i) <= 2]
        expected[..., i] = a[..., i] / (2 + 1e-4 * (a[..., near] ** 2).sum(-1)) ** 0.75
    np.testing.assert_allclose(ends["norm1"], expected, rtol=1e-4, atol=1e-5)
    rows = counting.count(alexnet.Model(lrn=False), (227, 227, 3)).layers
    assert not [row.name for row in rows if row.name.startswith("norm")]


@pytest.mark.parametrize(
    "activation, low, high", [("relu", 0, np.inf), ("tanh", -1, 1), ("sigmoid", 0, 1)]
)
def test_activation_bounds_every_hidden_layer(activation, low, high):
    apply, variables, image = build(activation=activation)
    _, ends = apply(variables, image)
    for name in ("conv1", "conv3", "conv5", "fc6", "fc7"):
        assert low <= ends[name].min() and ends[name].max() <= high and ends[name].max() > 0.5, name
    assert (ends["conv1"].min() < -0.1) == (activation == "tanh")


def test_the_paper_drops_outputs_of_fc6_and_fc7():
    apply, variables, image = build(dropout=1.0)
    logits, ends = apply(variables, image, train=True, rngs={"dropout": jax.random.key(2)})
    assert ends["fc6"].max() > 1 and ends["fc6"].std(0).max() > 0.1  # fc6 itself has seen the image
    bias = {name: np.maximum(variables["params"][name]["bias"], 0) for name in ("fc6", "fc7")}
    np.testing.assert_allclose(ends["fc7"][0, 0, 0], bias["fc7"], rtol=1e-6)
    np.testing.assert_allclose(logits[1], variables["params"]["fc8"]["bias"], rtol=1e-6)


def test_one_weird_trick_drops_inputs_of_fc6_and_fc7():
    apply, variables, image = build("one_weird_trick", dropout=1.0)
    logits, ends = apply(variables, image, train=True, rngs={"dropout": jax.random.key(2)})
    assert ends["avgpool"].max() > 1
    np.testing.assert_allclose(
        ends["fc6"][0, 0, 0], np.maximum(variables["params"]["fc6"]["bias"], 0), rtol=1e-6
    )
    fc8 = variables["params"]["fc8"]
    fc7 = np.asarray(ends["fc7"])[:, 0, 0]
    expected = fc7 @ fc8["kernel"][0, 0] + fc8["bias"]  # nothing is dropped before fc8
    np.testing.assert_allclose(logits, expected, rtol=1e-4, atol=1e-5)


def test_initialisation_is_the_papers():
    image = np.zeros((1, 32, 32, 3), np.float32)
    params = jax.jit(alexnet.Model(**SMALL).init)(jax.random.key(0, impl="rbg"), image)["params"]
    ones = {name for name, layer in params.items() if (layer["bias"] == 1).all()}
    assert ones == {"conv2", "conv4", "conv5", "fc6", "fc7"}
    assert all(not layer["bias"].any() for name, layer in params.items() if name not in ones)
    for name, layer in params.items():
        np.testing.assert_allclose(layer["kernel"].std(), 0.01, rtol=0.1, err_msg=name)


def test_batch_norm_replaces_biases_and_normalises_before_the_activation():
    apply, variables, image = build("batch_norm", activation="tanh")
    assert sorted(variables["batch_stats"]) == [f"bn{i}" for i in range(1, 6)]
    assert all("bias" not in variables["params"][f"conv{i}"] for i in range(1, 6))
    rngs = {"dropout": jax.random.key(0)}
    (_, ends), updated = apply(variables, image, train=True, rngs=rngs, mutable=("batch_stats",))
    for i in (1, 2, 3):  # conv4 and conv5 have the same code
        scale, bias = variables["params"][f"bn{i}"]["scale"], variables["params"][f"bn{i}"]["bias"]
        normalised = (np.arctanh(np.asarray(ends[f"conv{i}"], np.float64)) - bias) / scale
        np.testing.assert_allclose(normalised.mean((0, 1, 2)), 0, atol=1e-2)
        np.testing.assert_allclose(normalised.std((0, 1, 2)), 1, atol=2e-2)
    assert "norm1" not in ends
    assert (updated["batch_stats"]["bn2"]["mean"] != variables["batch_stats"]["bn2"]["mean"]).all()


@pytest.mark.parametrize("height, width", [(224, 224), (257, 320)])
def test_one_weird_trick_takes_any_size(height, width):
    model = alexnet.Model("one_weird_trick")
    shapes = counting.abstract_variables(model, (224, 224, 3))
    image = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    logits, ends = jax.eval_shape(model.apply, shapes, image)
    assert logits.shape == (2, 1000) and ends["avgpool"].shape == (2, 6, 6, 256)


@pytest.mark.parametrize(
    "fields, message",
    [
        (
            {"activation": "gelu"},
            r"unknown model\.activation 'gelu'; there are: relu, tanh, sigmoid",
        ),
        ({"weight_init": "xavier"}, r"unknown model\.weight_init 'xavier'; there are: paper, he"),
        ({"columns": 3}, r"unknown model\.columns '3'; there are: 1, 2"),
        ({"pool": (4, 2)}, r"unknown model\.pool '\(4, 2\)'; there are: \(3, 2\), \(2, 2\)"),
        (
            {"without": ("conv1",)},
            r"unknown layer 'conv1' in model\.without; there are: conv2, conv3, .*, fc7",
        ),
        (
            {"halved": ("fc6",)},
            r"unknown layer 'fc6' in model\.halved; there are: conv1, .*, conv5",
        ),
        (
            {"variant": "caffenet"},
            r"unknown model\.variant 'caffenet'; there are: paper, one_tower",
        ),
    ],
)
def test_an_unknown_value_is_refused_with_a_list(fields, message):
    with pytest.raises(ValueError, match=message):
        alexnet.Model(**fields)


def test_an_image_too_small_is_refused():
    model = alexnet.Model()
    image = jax.ShapeDtypeStruct((1, 66, 66, 3), jnp.float32)
    with pytest.raises(
        ValueError, match="an image of 66×66 is too small: pool5 has no pixels left"
    ):
        jax.eval_shape(model.init, jax.random.key(0), image)
    jax.eval_shape(model.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 67, 67, 3), jnp.float32))
