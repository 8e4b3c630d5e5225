"""CNN-F, -M and -S: differences of the variants, gray input, larger and smaller images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting
from cnn_papers.models import cnn_fms


def random_parameters(model, input_shape, rng):
    params = counting.abstract_variables(model, input_shape)["params"]

    def draw(shape):
        return jnp.asarray(rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape), jnp.float32)

    return {"params": jax.tree.map(lambda leaf: draw(leaf.shape), params)}


def layer_table(variant, **fields):
    network = counting.count(cnn_fms.Model(variant, **fields), (224, 224, 3))
    return {layer.name: layer for layer in network.layers}


def test_a_shorter_fc7_changes_only_fc7_and_fc8():
    full = layer_table("M")
    for units in (2048, 1024, 128):
        short = layer_table(f"M-{units}")
        differing = {name for name in full if full[name] != short[name]}
        assert differing == {"fc7", "fc8"}
        assert short["fc7"].params == 4096 * units + units
        assert short["fc8"].params == units * 1000 + 1000


def test_s_is_m_with_other_strides():
    """CNN-S has CNN-M's parameters, 1.75 times its multiply-adds and one normalisation fewer."""
    medium, slow = layer_table("M"), layer_table("S")
    assert [layer.params for layer in medium.values() if layer.params] == [
        layer.params for layer in slow.values() if layer.params
    ]
    assert round(cnn_fms.FACTS["S"].macs / cnn_fms.FACTS["M"].macs, 2) == 1.75
    assert [name for name in medium if "norm" in name] == ["norm1", "norm2"]
    assert [name for name in slow if "norm" in name] == ["norm1"]


def test_padding_of_the_released_s_leaves_fc6_its_map(monkeypatch):
    """Without padding in conv2 the parameters and fc6's 6×6 map are the same (Deviations)."""
    paper = cnn_fms.Model("S")
    released = cnn_fms.TABLE["S"] | {"conv2": cnn_fms.Conv(256, 5, 1, 0, pool=(2, 2))}
    monkeypatch.setitem(cnn_fms.TABLE, "released", released)
    network = counting.count(paper.clone(net="released"), (224, 224, 3))
    shapes = {layer.name: layer.shape for layer in network.layers}
    assert network.params == cnn_fms.FACTS["S"].params == 102_908_520
    assert (shapes["conv2"], shapes["pool5"]) == ((33, 33, 256), (6, 6, 512))
    assert network.macs < cnn_fms.FACTS["S"].macs


def test_gray_reads_one_channel():
    """A gray image and its copy in three channels have the same logits.

    They are those of the colour net whose kernels share the gray net's among the channels.
    """
    rng = np.random.default_rng(0)
    fields = {"width": 0.05, "num_classes": 4}
    gray, colour = cnn_fms.Model("F-gray", **fields), cnn_fms.Model("F", **fields)
    variables = random_parameters(gray, (64, 64, 1), rng)
    assert variables["params"]["conv1"]["kernel"].shape == (11, 11, 1, 3)
    image = jnp.asarray(rng.normal(size=(2, 64, 64, 1)), jnp.float32)
    copied = jnp.repeat(image, 3, -1)
    one, _ = jax.jit(gray.apply)(variables, image)
    three, _ = jax.jit(gray.apply)(variables, copied)
    assert np.ptp(one) > 0.01
    np.testing.assert_allclose(one, three, rtol=1e-5, atol=1e-6)

    conv1 = variables["params"]["conv1"]
    split = variables["params"] | {
        "conv1": conv1 | {"kernel": jnp.repeat(conv1["kernel"] / 3, 3, 2)}
    }
    np.testing.assert_allclose(
        one, jax.jit(colour.apply)({"params": split}, copied)[0], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize(
    ("variant", "larger", "positions"), [("F", (288, 256), (3, 2)), ("M", (256, 320), (2, 4))]
)
def test_larger_images_give_maps_of_scores(variant, larger, positions):
    model = cnn_fms.Model(variant, width=0.02, num_classes=5)
    rng = np.random.default_rng(0)
    variables = random_parameters(model, (224, 224, 3), rng)
    image = jnp.asarray(rng.normal(size=(1, *larger, 3)), jnp.float32)
    logits, ends = jax.jit(model.apply)(variables, image)
    assert ends["fc8"].shape == (1, *positions, 5)
    np.testing.assert_allclose(logits, ends["fc8"].mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("variant", "side", "stride"),
    [("F", 64, None), ("M", 64, None), ("S", 64, None), ("F", 32, 1), ("M", 32, 1)],
)
def test_small_images_need_a_smaller_stride(variant, side, stride):
    model = cnn_fms.Model(variant, width=0.25, num_classes=10, conv1_stride=stride)
    shape = jax.eval_shape(
        lambda: model.init_with_output(jax.random.key(0), jnp.zeros((1, side, side, 3)))[0][0]
    ).shape
    assert shape == (1, 10)


def test_bad_input_is_refused():
    with pytest.raises(
        ValueError, match=r"unknown model\.variant 'N'; there are: F, M, S, M-2048, M-1024, M-128"
    ):
        cnn_fms.Model("N")
    with pytest.raises(ValueError, match=r"unknown model\.net 'N'; there are: F, M, S"):
        cnn_fms.Model("F", net="N")
    with pytest.raises(
        ValueError, match="an image of 24×24 is too small: pool2 has no pixels left"
    ):
        jax.eval_shape(cnn_fms.Model("M").init, jax.random.key(0), jnp.zeros((1, 24, 24, 3)))
