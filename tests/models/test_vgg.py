"""VGG: the columns of Table 1, initialisation, dense evaluation."""

import jax
import numpy as np
import pytest
from support.random_variables import random_variables

from cnn_papers import counting
from cnn_papers.models import vgg

SMALL = {"width": 0.0625, "num_classes": 5}


def kernels(variant):
    params = counting.abstract_variables(vgg.Model(variant), (224, 224, 3))["params"]
    return {name: tree["kernel"].shape for name, tree in params.items() if "kernel" in tree}


def test_table_2_in_millions():
    printed = {"A": 133, "A-LRN": 133, "B": 133, "C": 134, "D": 138, "E": 144}
    assert {name: round(vgg.FACTS[name].params / 1e6) for name in printed} == printed


@pytest.mark.parametrize(
    "variant, depth", [("A", 11), ("A-LRN", 11), ("B", 13), ("C", 16), ("D", 16), ("E", 19)]
)
def test_table_1_depths(variant, depth):
    assert len(kernels(variant)) == depth


def test_where_the_configurations_differ():
    c, d, shallow = kernels("C"), kernels("D"), kernels("B-5x5")
    assert {name for name in c if c[name] != d[name]} == {"conv3_3", "conv4_3", "conv5_3"}
    assert c["conv5_3"] == (1, 1, 512, 512) and d["conv5_3"] == (3, 3, 512, 512)
    assert [name for name in shallow if shallow[name][:2] == (5, 5)] == [
        f"conv{stage}_1" for stage in range(1, 6)
    ]
    assert d["fc6"] == (7, 7, 512, 4096)


def test_local_response_normalisation_follows_only_the_first_convolution():
    plain, normalised = (
        counting.count(vgg.Model(name), (224, 224, 3)).layers for name in ("A", "A-LRN")
    )
    assert [row.name for row in normalised][:3] == ["conv1_1", "norm1", "pool1"]
    assert {row.name for row in normalised} - {row.name for row in plain} == {"norm1"}


def test_batch_normalised_convolutions_keep_their_bias():
    params = counting.abstract_variables(vgg.Model("D-BN"), (224, 224, 3))["params"]
    assert params["conv3_2"]["bias"].shape == params["bn3_2"]["scale"].shape == (256,)
    channels = 2 * 64 + 2 * 128 + 3 * 256 + 6 * 512
    assert vgg.FACTS["D-BN"].params - vgg.FACTS["D"].params == 2 * channels


@pytest.mark.parametrize(
    "weight_init, deviation",
    [
        ("caffe", 0.01),
        ("paper", 0.1),
        ("he", (2 / 1152) ** 0.5),
        ("glorot", (2 / 2304) ** 0.5),
    ],
)
def test_initialisation(weight_init, deviation):
    model = vgg.Model("A", weight_init=weight_init, width=0.5, num_classes=5)
    image = np.zeros((1, 32, 32, 3), np.float32)
    kernel = jax.jit(lambda key: model.init(key, image)["params"]["conv3_2"]["kernel"])(
        jax.random.key(0)
    )
    assert kernel.shape == (3, 3, 128, 128)
    np.testing.assert_allclose(np.std(kernel), deviation, rtol=0.01)


def test_an_unknown_initialisation_is_refused():
    with pytest.raises(
        ValueError,
        match=r"^unknown model\.weight_init 'xavier'; there are: caffe, paper, glorot, he$",
    ):
        vgg.Model("A", weight_init="xavier")


def test_a_larger_image_gives_a_map_of_scores_and_their_average():
    model = vgg.Model("A", **SMALL)
    variables = random_variables(model, (64, 64, 3))
    image = np.random.default_rng(1).normal(size=(2, 96, 128, 3)).astype(np.float32)
    logits, ends = jax.jit(model.apply)(variables, image)
    assert ends["fc8"].shape == (2, 2, 3, 5)
    np.testing.assert_allclose(logits, ends["fc8"].mean((1, 2)), rtol=1e-5, atol=1e-6)


def test_an_image_smaller_than_the_first_fully_connected_layer_is_refused():
    model = vgg.Model("A", **SMALL)
    variables = random_variables(model, (64, 64, 3))
    with pytest.raises(
        ValueError, match=r"^an image of 63×80 is too small: fc6 has no pixels left"
    ):
        jax.eval_shape(model.apply, variables, np.zeros((1, 63, 80, 3), np.float32))
    jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    with pytest.raises(
        ValueError, match=r"^an image of 31×31 is too small: pool5 has no pixels left"
    ):
        jax.eval_shape(model.init, jax.random.key(0), np.zeros((1, 31, 31, 3), np.float32))
