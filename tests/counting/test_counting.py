"""Counts of programs that loop, recompute and call compiled functions."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers import counting
from cnn_papers.models import alexnet, googlenet, resnet
from cnn_papers.models.shared import layers


class Net(nn.Module):
    """A 3×3 convolution of 4 channels, then `body`, then one score for each of 5 classes."""

    body: str = "plain"

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.Conv(4, (3, 3), name="first")(image)
        ends = {"first": x}
        if self.body == "scan":
            scan = nn.scan(
                lambda conv, x, _: (conv(x), None),
                variable_axes={"params": 0},
                split_rngs={"params": True},
                length=3,
            )
            x = ends["body"] = scan(nn.Conv(4, (3, 3), name="body"), x, None)[0]
        if self.body == "remat":
            x = ends["body"] = nn.remat(nn.Conv)(4, (3, 3), name="body")(x)
        if self.body == "jit":
            x = ends["body"] = nn.jit(nn.Conv)(4, (3, 3), name="body")(x)
        if self.body == "columns":
            x = ends["body"] = layers.Conv(4, 3, padding=1, groups=2, name="body")(x)
        if self.body == "grouped":
            x = ends["body"] = nn.Conv(4, (3, 3), feature_group_count=2, name="body")(x)
        ends["a_last"] = layers.FullyConnected(5, name="a_last")(x)
        if train:
            ends["aux_head"] = nn.Dense(7, name="aux_head")(x)
        return ends["a_last"].mean((1, 2)), ends


# The image is 6×6×3. A 3×3 convolution from 4 to 4 channels has 9·4·4 weights and 4 biases, and is
# applied at 36 positions.
ONE = 9 * 4 * 4


@pytest.mark.parametrize(
    "body, params, macs",
    [
        ("scan", 3 * (ONE + 4), 3 * 36 * ONE),
        ("remat", ONE + 4, 36 * ONE),
        ("jit", ONE + 4, 36 * ONE),
        ("columns", ONE // 2 + 4, 36 * ONE // 2),
        ("grouped", ONE // 2 + 4, 36 * ONE // 2),
    ],
)
def test_counts_through_loops_recomputation_compiled_functions_and_groups(body, params, macs):
    network = counting.count(Net(body), (6, 6, 3))
    assert network.layers == (
        counting.Layer("first", (6, 6, 4), 9 * 3 * 4 + 4, 36 * 9 * 3 * 4),
        counting.Layer("body", (6, 6, 4), params, macs),
        counting.Layer("a_last", (1, 1, 5), 36 * 4 * 5 + 5, 36 * 4 * 5),
        counting.Layer("aux_head", (), 4 * 7 + 7, 0),
    )


def test_counts_a_whole_program_inside_jit():
    class Compiled(nn.Module):
        @nn.compact
        def __call__(self, image, *, train=False):
            return nn.jit(Net)("scan", name="inner")(image)

    inside, outside = counting.count(Compiled(), (6, 6, 3)), counting.count(Net("scan"), (6, 6, 3))
    assert inside.macs == outside.macs
    # without the auxiliary head's 35 parameters
    assert inside.layers[-1] == counting.Layer("inner", (), outside.params - 35, outside.macs)


def test_batch_normalisation_counts_two_parameters_a_channel_and_no_statistics():
    class Normalised(nn.Module):
        @nn.compact
        def __call__(self, image, *, train=False):
            x = nn.BatchNorm(use_running_average=not train, name="bn")(image)
            return x.mean((1, 2)), {"bn": x}

    assert counting.count(Normalised(), (4, 4, 3)).layers == (
        counting.Layer("bn", (4, 4, 3), 6, 0),
    )


@pytest.mark.parametrize(
    "model, input_shape",
    [
        (alexnet.Model(), (227, 227, 3)),
        (googlenet.Model(), (224, 224, 3)),
        (resnet.Model("cifar-1202"), (32, 32, 3)),
    ],
    ids=["alexnet", "googlenet", "resnet"],
)
def test_rows_add_up_to_the_totals(model, input_shape):
    network = counting.count(model, input_shape)
    assert sum(row.params for row in network.layers) == network.params
    assert sum(row.macs for row in network.layers) == network.macs
    assert network.input == input_shape


def test_rows_follow_the_network_and_not_the_alphabet():
    names = [row.name for row in counting.count(googlenet.Model(), (224, 224, 3)).layers]
    assert names[:4] == ["conv1", "pool1", "conv2_reduce", "conv2"]
    assert (
        names.index("inception_5b")
        < names.index("pool5")
        < names.index("fc")
        < names.index("aux_4a")
    )


def test_an_image_smaller_than_the_papers_counts_less():
    whole, small = (counting.count(resnet.Model("18"), (side, side, 3)) for side in (128, 64))
    assert small.params == whole.params
    # all but the classifier's 512,000 shrink with the area
    assert 4 * (small.macs - 512_000) == whole.macs - 512_000


def test_a_network_is_traced_once_and_its_shapes_are_the_callers():
    traced = []

    class Traced(nn.Module):
        width: int

        @nn.compact
        def __call__(self, image, *, train=False):
            traced.append(self.width)
            x = nn.Dense(self.width, name="fc")(image.mean((1, 2)))
            return x, {"fc": x}

    for width, shape in ((2, (4, 4, 3)), (2, (4, 4, 3)), (2, (5, 4, 1)), (3, (4, 4, 3))):
        params = counting.abstract_variables(Traced(width), shape)["params"]
        assert params.pop("fc")["kernel"].shape == (shape[-1], width)
    assert traced == [2, 2, 3]


def test_a_field_may_be_a_list():
    fields = {"widths": (8,), "num_classes": 5}
    networks = (resnet.Model(blocks=blocks, **fields) for blocks in ([1], (1,)))
    first, second = (counting.count(network, (8, 8, 3)) for network in networks)
    assert first == second


def test_nothing_is_allocated():
    variables = counting.abstract_variables(alexnet.Model(), (227, 227, 3))
    assert all(isinstance(leaf, jax.ShapeDtypeStruct) for leaf in jax.tree.leaves(variables))
    assert counting.parameter_count({"a": np.zeros((2, 3)), "b": {"c": jnp.zeros(4)}}) == 10
