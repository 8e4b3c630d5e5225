"""Branches inside layers, found by following the data through a traced program."""

import flax.linen as nn
import pytest

from cnn_papers import branches, counting, zoo
from cnn_papers.counting import Layer
from cnn_papers.models import alexnet, densenet, googlenet, lenet, resnet


def named(structure: branches.Structure, layer: str) -> list[list[str]]:
    return [[part.name for part in branch] for branch in structure.branches[layer]]


def test_an_inception_module_has_four_branches():
    """Figure 2b and row 3a of Table 1; a 3×3 convolution with its biases, at 28×28 positions."""
    structure = branches.find(googlenet.Model(), (224, 224, 3))
    assert len(structure.branches) == 9 and not structure.dense
    assert named(structure, "inception_3a") == [
        ["1x1"],
        ["3x3_reduce", "3x3"],
        ["5x5_reduce", "5x5"],
        ["pool_proj"],
    ]
    weights = 9 * 96 * 128
    _, (reduce, conv), _, _ = structure.branches["inception_3a"]
    assert reduce.shape == (28, 28, 96)
    assert conv == Layer("3x3", (28, 28, 128), weights + 128, 28 * 28 * weights)


def test_a_naive_inception_module_pools_without_parameters():
    structure = branches.find(googlenet.Model("naive", width=0.25), (64, 64, 3))
    assert named(structure, "inception_3a") == [["1x1"], ["3x3"], ["5x5"], []]


@pytest.mark.parametrize(
    ("variant", "first", "second"),
    [
        ("50", [["conv_proj"], ["conv1", "conv2", "conv3"]], [["conv1", "conv2", "conv3"], []]),
        ("18", [["conv_proj"], ["conv1", "conv2"]], [["conv1", "conv2"], []]),
        ("18-A", [["conv1", "conv2"], []], [["conv1", "conv2"], []]),
        ("plain-18", [["conv1", "conv2"]], [["conv1", "conv2"]]),
        (
            "cifar-pre-29",
            [["conv_proj"], ["conv1", "conv2", "conv3"]],
            [["conv1", "conv2", "conv3"], []],
        ),
    ],
)
def test_a_residual_block_has_its_convolutions_and_its_shortcut(variant, first, second):
    structure = branches.find(resnet.Model(variant, width=0.25), (32, 32, 3))
    assert named(structure, "conv3_1") == first and named(structure, "conv3_2") == second
    assert not structure.dense


def test_blocks_that_run_as_one_loop():
    model = resnet.Model("cifar-20", width=0.5, scan=True)
    structure = branches.find(model, (32, 32, 3))
    assert named(structure, "conv2_2_to_3") == [["conv1", "conv2"], []]
    conv = structure.branches["conv2_2_to_3"][0][0]
    weights = 9 * 8 * 8
    assert conv == Layer("conv1", (32, 32, 8), 2 * weights, 2 * 32 * 32 * weights)


@pytest.mark.parametrize("memory_efficient", [False, True])
def test_a_dense_block_reads_all_before_it(memory_efficient):
    model = densenet.Model("40-12", blocks=(4, 3, 2), width=0.5, memory_efficient=memory_efficient)
    structure = branches.find(model, (32, 32, 3))
    assert named(structure, "block1") == [["layer1", "layer2", "layer3", "layer4"], []]
    assert structure.dense == {"block1", "block2"}  # of two layers nobody can tell
    assert [part.shape for part in structure.branches["block1"][0]] == [(32, 32, 6)] * 4


def test_each_map_of_lenets_c3_is_a_branch():
    structure = branches.find(lenet.Model(), (32, 32, 1))
    assert named(structure, "C3") == [[f"map{i}"] for i in range(16)]


def test_the_groups_of_alexnets_columns():
    """§3.5: the third convolution and the fully connected layers read both columns."""
    groups = branches.find(alexnet.Model(), (227, 227, 3)).groups
    read_own = {"conv2", "conv4", "conv5"}
    names = ("conv1", "conv2", "conv3", "conv4", "conv5", "fc6", "fc7", "fc8")
    assert groups == {name: 2 if name in read_own else 1 for name in names}


@pytest.mark.parametrize("name", ["densenet", "googlenet", "lenet", "resnet"])
def test_the_parts_of_a_layer_have_all_its_multiply_adds(name):
    """And no more parameters than it; the rest are normalisations."""
    variant, facts = next(iter(zoo.model_module(name).FACTS.items()))
    model = zoo.build_model(name, variant=variant)
    layers = {layer.name: layer for layer in counting.count(model, facts.input).layers}
    structure = branches.find(model, facts.input)
    assert structure.branches
    for layer, found in structure.branches.items():
        parts = [part for branch in found for part in branch]
        assert sum(part.macs for part in parts) == layers[layer].macs
        assert 0 < sum(part.params for part in parts) <= layers[layer].params


def test_functions_compiled_by_themselves_are_followed():
    class Net(nn.Module):
        """A block of two convolutions, the second compiled by itself, and a shortcut."""

        @nn.compact
        def __call__(self, image, *, train=False):
            x = nn.Conv(3, (3, 3), name="stem")(image)
            block = Block(name="block")(x)
            return block.mean((1, 2)), {"stem": x, "block": block}

    class Block(nn.Module):
        @nn.compact
        def __call__(self, x):
            y = nn.relu(nn.Conv(4, (1, 1), name="first")(x))
            return x + nn.jit(nn.Conv)(3, (3, 3), name="second")(y)

    structure = branches.find(Net(), (8, 8, 3))
    first, second = Layer("first", (8, 8, 4), 16, 8 * 8 * 12), Layer("second", (8, 8, 3), 111, 6912)
    assert structure.branches == {"block": ((first, second), ())}
