"""AlexNet's switches: columns and their crossings, layers left out, normalisation, dropout, initialisation."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting
from cnn_papers.models import alexnet

SMALL = {"width": 0.125, "conv1_stride": 1, "num_classes": 7}


def build(variant="paper", side=32, **fields):
    model = alexnet.Model(variant, **{**SMALL, **fields})
    image = jax.random.normal(jax.random.key(0), (2, side, side, 3))
    return model, dict(jax.jit(model.init)(jax.random.key(1), image)), image


def kernels(**fields):
    """The kernel shapes of the full network."""
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
    model, variables, image = build()
    half = variables["params"]["conv1"]["kernel"].shape[-1] // 2
    silenced = variables["params"]["conv1"]["kernel"].at[..., :half].set(0)
    changed = {"params": {**variables["params"], "conv1": {**variables["params"]["conv1"], "kernel": silenced}}}
    _, before = model.apply(variables, image)
    _, after = model.apply(changed, image)
    for name in ("conv1", "norm1", "pool1", "conv2", "norm2", "pool2"):
        mine, other = jnp.split(before[name] != after[name], 2, -1)
        assert mine.any() and not other.any(), name
    assert all((before["conv3"] != after["conv3"])[..., half:].any((0, 1, 2)))


@pytest.mark.parametrize(
    "without, reader, shape",
    [
        ("conv2", "conv3", (3, 3, 96, 384)),
        ("conv3", "conv4", (3, 3, 256, 384)),  # the columns now cross before conv4
        ("conv4", "conv5", (3, 3, 192, 256)),
        ("conv5", "fc6", (6, 6, 384, 4096)),
        ("fc6", "fc7", (6, 6, 256, 4096)),
        ("fc7", "fc8", (1, 1, 4096, 1000)),
    ],
)
def test_a_layer_left_out_changes_only_what_reads_it(without, reader, shape):
    whole, got = kernels(), kernels(without=(without,))
    assert got == {**{name: kernel for name, kernel in whole.items() if name != without}, reader: shape}
    network = counting.count(alexnet.Model(without=(without,)), (227, 227, 3))
    shapes = {row.name: row.shape for row in network.layers}
    assert without not in shapes and shapes["pool1"] == (27, 27, 96)
    assert shapes["pool2"][:2] == (13, 13) and shapes["pool5"][:2] == (6, 6) and shapes["fc8"] == (1, 1, 1000)
    sizes = [np.prod(kernel) + kernel[-1] for kernel in got.values()]
    assert network.params == sum(sizes)


def test_two_layers_left_out_hand_the_crossing_on():
    got = kernels(without=("conv3", "conv4"))
    assert got["conv5"] == (3, 3, 256, 256) and got["fc6"] == (6, 6, 256, 4096)


def test_lrn_and_pooling_switch_off_without_touching_the_rest():
    _, variables, image = build()
    _, ends = alexnet.Model(**SMALL, lrn=False).apply(variables, image)
    assert not [name for name in ends if name.startswith("norm")]
    full = counting.count(alexnet.Model(pool=(2, 2)), (227, 227, 3))
    assert {row.name: row.shape[:2] for row in full.layers if row.name.startswith("pool")} == {
        "pool1": (27, 27),
        "pool2": (13, 13),
        "pool5": (6, 6),
    }
    assert full.params == alexnet.FACTS["paper"].params


def test_response_normalisation_stays_within_a_column():
    model, variables, image = build()
    _, ends = model.apply(variables, image)
    a = np.asarray(ends["conv1"], np.float64)
    expected = np.empty_like(a)
    channels = a.shape[-1]
    for i in range(channels):
        column = range(channels // 2) if i < channels // 2 else range(channels // 2, channels)
        near = [j for j in column if abs(j - i) <= 2]
        expected[..., i] = a[..., i] / (2 + 1e-4 * (a[..., near] ** 2).sum(-1)) ** 0.75
    np.testing.assert_allclose(ends["norm1"], expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("activation, low, high", [("relu", 0, np.inf), ("tanh", -1, 1), ("sigmoid", 0, 1)])
def test_activation_bounds_every_hidden_layer(activation, low, high):
    model, variables, image = build(activation=activation)
    _, ends = model.apply(jax.tree.map(lambda p: 5 * p, variables), image)
    for name in ("conv1", "conv3", "conv5", "fc6", "fc7"):
        assert low <= ends[name].min() and ends[name].max() <= high and ends[name].max() > 0.1, name
    assert (ends["conv1"].min() < -0.1) == (activation == "tanh")


def test_dropout_follows_the_fully_connected_layers_and_precedes_them_in_one_weird_trick():
    rngs = {"dropout": jax.random.key(2)}
    model, variables, image = build(dropout=1.0, weight_init="he")
    (logits, ends) = model.apply(variables, image, train=True, rngs=rngs)
    assert jnp.array_equal(ends["fc6"], model.apply(variables, image)[1]["fc6"])
    assert not ends["fc7"].any() and not logits.any()  # the biases start at zero
    model, variables, image = build("one_weird_trick", dropout=1.0)
    (logits, ends) = model.apply(variables, image, train=True, rngs=rngs)
    assert ends["avgpool"].any() and not ends["fc6"].any() and not logits.any()
    (logits, _) = alexnet.Model("one_weird_trick", **SMALL).apply(variables, image)
    assert logits.any()


def test_initialisation_is_the_papers_or_he():
    _, variables, _ = build(width=0.5)
    params = variables["params"]
    assert {name: set(np.unique(layer["bias"])) for name, layer in params.items()} == {
        "conv1": {0.0},
        "conv2": {1.0},
        "conv3": {0.0},
        "conv4": {1.0},
        "conv5": {1.0},
        "fc6": {1.0},
        "fc7": {1.0},
        "fc8": {0.0},
    }
    for name, layer in params.items():
        np.testing.assert_allclose(layer["kernel"].std(), 0.01, rtol=0.1, err_msg=name)
    he = build(weight_init="he", width=0.5)[1]["params"]
    assert not he["conv2"]["bias"].any()
    np.testing.assert_allclose(he["conv3"]["kernel"].std(), np.sqrt(2 / (9 * 128)), rtol=0.05)


def test_batch_norm_replaces_biases_and_normalises_what_the_activation_reads():
    model, variables, image = build("batch_norm", activation="tanh", dropout=0.0)
    names = [f"bn{i}" for i in range(1, 6)]
    assert sorted(variables["batch_stats"]) == names
    assert all("bias" not in variables["params"][f"conv{i}"] for i in range(1, 6))
    (_, ends), updated = model.apply(variables, image, train=True, mutable=["batch_stats"])
    for i in (1, 2, 5):
        before = jnp.arctanh(ends[f"conv{i}"])
        np.testing.assert_allclose(before.mean((0, 1, 2)), 0, atol=1e-3)
    assert "norm1" not in ends
    moved = updated["batch_stats"]["bn2"]["mean"]
    assert moved.shape == (32,) and jnp.abs(moved).min() > 0


@pytest.mark.parametrize("h, w", [(6, 6), (7, 13), (4, 9), (12, 1)])
def test_adaptive_average_pooling_against_a_loop(h, w):
    x = np.random.default_rng(0).normal(size=(2, h, w, 3)).astype(np.float32)
    expected = np.empty((2, 6, 6, 3), np.float32)
    for i in range(6):
        for j in range(6):
            rows = slice(int(np.floor(i * h / 6)), int(np.ceil((i + 1) * h / 6)))
            columns = slice(int(np.floor(j * w / 6)), int(np.ceil((j + 1) * w / 6)))
            expected[:, i, j] = x[:, rows, columns].mean((1, 2))
    np.testing.assert_allclose(alexnet.adaptive_average_pool(jnp.asarray(x), 6), expected, rtol=1e-5, atol=1e-6)


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
        ({"activation": "gelu"}, "unknown model.activation 'gelu'; there are: relu, tanh, sigmoid"),
        ({"weight_init": "xavier"}, "unknown model.weight_init 'xavier'; there are: paper, he"),
        ({"columns": 3}, "unknown model.columns '3'; there are: 1, 2"),
        ({"pool": (4, 2)}, r"unknown model.pool '\(4, 2\)'; there are: \(3, 2\), \(2, 2\)"),
        ({"without": ("conv1",)}, "unknown layer 'conv1' in model.without; there are: conv2, conv3, .*, fc7"),
        ({"halved": ("fc6",)}, "unknown layer 'fc6' in model.halved; there are: conv1, .*, conv5"),
        ({"variant": "caffenet"}, "unknown model.variant 'caffenet'; there are: paper, one_tower"),
    ],
)
def test_what_is_unknown_is_refused_with_a_list(fields, message):
    with pytest.raises(ValueError, match=message):
        alexnet.Model(**fields)


def test_an_image_too_small_is_refused():
    with pytest.raises(ValueError, match="pool5 has no pixels left; the smallest square image .* is 67×67"):
        counting.count(alexnet.Model(), (66, 66, 3))
    counting.count(alexnet.Model(), (67, 67, 3))
