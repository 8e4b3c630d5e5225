"""Weights that fit a network by their shapes, but are of one that computes other outputs."""

import itertools
import json
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from support.random_variables import random_variables

from cnn_papers import zoo
from cnn_papers.errors import UserError
from cnn_papers.models import alexnet, googlenet, resnet, vgg
from cnn_papers.weights import arithmetic, convert, torch_names, weight_files

# All variants whose arrays have the same shapes as another's, by those that compute the same in
# evaluation. Equal numbers of parameters are equal shapes here.
ALIKE: dict[tuple[str, str], list[set[str]]] = {
    ("alexnet_cifar", "relu"): [{"relu"}, {"tanh"}, {"relu_lrn"}],
    ("cnn_fms", "M"): [{"M"}, {"S"}],
    ("cnn_fms", "M-gray"): [{"M-gray"}, {"S-gray"}],
    ("nin", "cifar10_fc"): [{"cifar10_fc", "cifar10_fc_dropout"}],
    ("nin", "cifar10_plain_fc"): [{"cifar10_plain_fc", "cifar10_plain_fc_dropout"}],
    ("resnet", "18-A"): [{"18-A"}, {"plain-18"}],
    ("resnet", "34-A"): [{"34-A"}, {"plain-34"}],
    ("resnet", "50"): [{"50"}, {"50-v1.5"}],
    ("resnet", "101"): [{"101"}, {"101-v1.5"}],
    ("resnet", "152"): [{"152"}, {"152-v1.5"}],
    **{
        ("resnet", f"cifar-{depth}"): [{f"cifar-{depth}"}, {f"cifar-plain-{depth}"}]
        for depth in (8, 20, 32, 44, 56, 110, 1202)
    },
    ("vgg", "A"): [{"A"}, {"A-LRN"}],
}
SMALL = {"width": 0.05, "num_classes": 4}
IMAGE = (64, 64, 3)


@pytest.mark.parametrize("name", zoo.model_names())
def test_variants_of_as_many_parameters_are_told_apart_where_they_compute_other(name):
    module = zoo.model_module(name)
    alike: dict[int, list[str]] = {}
    for variant, facts in module.FACTS.items():
        alike.setdefault(facts.params, []).append(variant)
    found = {}
    for variants in (group for group in alike.values() if len(group) > 1):
        kinds: dict[str, set[str]] = {}
        for variant in variants:
            fields = json.dumps(arithmetic.fields_of(module.Model(variant)))
            kinds.setdefault(fields, set()).add(variant)
        found[name, variants[0]] = list(kinds.values())
    assert found == {key: kinds for key, kinds in ALIKE.items() if key[0] == name}


PAIRS = [
    (name, one, other)
    for (name, _), kinds in ALIKE.items()
    for one, other in itertools.permutations([sorted(kind)[0] for kind in kinds], 2)
]


@pytest.mark.parametrize("class_names", [("cat", "dog\udcff"), ()])
def test_metadata_name_the_classes(class_names):
    metadata = arithmetic.to_metadata(zoo.build_model("resnet", variant="50"), class_names)
    origin = arithmetic.from_metadata(metadata)
    assert origin and origin.class_names == class_names and origin.fields["stride_in"] == "1x1"
    assert all(text.isascii() for text in metadata.values())


@pytest.mark.parametrize("classes", ['{"0": "cat"}', "[1, 2]", "no JSON"])
def test_metadata_that_name_no_classes_are_damaged(classes):
    metadata = arithmetic.to_metadata(zoo.build_model("resnet", variant="50"))
    with pytest.raises(ValueError):
        arithmetic.from_metadata(metadata | {arithmetic.CLASSES: classes})


@pytest.mark.parametrize(("name", "one", "other"), PAIRS)
def test_weights_say_of_which_of_two_equal_shapes_they_are(name, one, other):
    module = zoo.model_module(name)
    origin = arithmetic.from_metadata(arithmetic.to_metadata(module.Model(one)))
    arithmetic.check(origin, module.Model(one), "x", to_start_from=False)
    with pytest.raises(
        UserError,
        match=f"^weights x have the shapes of this network, but they were saved from one with .*: "
        f"write --config.model.variant={one}$",
    ):
        arithmetic.check(origin, module.Model(other), "x", to_start_from=False)


def written(path: Any, variant: str) -> Any:
    """A file with the weights of a small ResNet."""
    model = resnet.Model(variant, **SMALL)
    weight_files.write(path, random_variables(model, IMAGE), "resnet", model)
    return path


def take(path: Any, model: Any, **options: Any) -> convert.Flat:
    source = weight_files.source(path, "resnet", model, IMAGE)
    return convert.select(source, model, IMAGE, **options)[0]


@pytest.mark.parametrize(("one", "other"), [("50", "50-v1.5"), ("50-v1.5", "50")])
def test_an_exported_file_goes_into_its_own_network_only(one, other, tmp_path):
    path = written(tmp_path / "x.safetensors", one)
    assert take(path, resnet.Model(one, **SMALL))
    fields = {"50": "stride_in='1x1', not '3x3'", "50-v1.5": "stride_in='3x3', not '1x1'"}
    with pytest.raises(
        UserError,
        match=f"saved from one with {fields[one]}: write --config.model.variant={one}$",
    ):
        take(path, resnet.Model(other, **SMALL))


def as_published(path: Any, variant: str) -> Any:
    """The file as others write it, without our metadata."""
    safetensors.numpy.save_file(weight_files.read(written(path, variant)).tensors, path)
    return path


def test_published_weights_do_not_go_into_the_papers_bottlenecks(tmp_path):
    path = as_published(tmp_path / "x.safetensors", "50-v1.5")
    assert take(path, resnet.Model("50-v1.5", **SMALL))
    with pytest.raises(
        UserError,
        match="x.safetensors have the shapes of this network, but torchvision publishes these "
        "names for one with stride_in='3x3', not '1x1': write --config.model.variant=50-v1.5;"
        r" if they are of this one all the same, save them with safetensors and "
        r"metadata={'cnn_papers': '{\"stride_in\": \"1x1\"}'}$",
    ):
        take(path, resnet.Model("50", **SMALL))


def test_metadata_by_hand_and_named_layers_take_them_all_the_same(tmp_path):
    path, paper = as_published(tmp_path / "x.safetensors", "50-v1.5"), resnet.Model("50", **SMALL)
    with pytest.raises(UserError, match=r"; or name the layers to take with --config.init_layers$"):
        take(path, paper, other_head=True)
    taken = take(path, paper, other_head=True, layers=".*")
    metadata = {"cnn_papers": '{"stride_in": "1x1"}'}
    safetensors.numpy.save_file(weight_files.read(path).tensors, path, metadata)
    assert take(path, paper).keys() == taken.keys()
    with pytest.raises(UserError, match="saved from one with stride_in='1x1'"):
        take(path, resnet.Model("50-v1.5", **SMALL))


@pytest.mark.parametrize("entry", ["", "[1]", "{", pytest.param("[" * 100_000, id="deep")])
def test_metadata_that_cannot_be_read(entry, tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file({"a": np.zeros(1, np.float32)}, path, {"cnn_papers": entry})
    with pytest.raises(UserError, match=r"x.safetensors are damaged or not safetensors"):
        weight_files.read(path)


@pytest.mark.parametrize(
    ("name", "model", "flag"),
    [
        ("vgg", vgg.Model("A-LRN"), "variant=A"),
        ("vgg", vgg.Model("D", lrn=True), "variant=D"),
        ("resnet", resnet.Model("101"), "variant=101-v1.5"),
        ("resnet", resnet.Model("152"), "variant=152-v1.5"),
        ("resnet", resnet.Model("50", blocks=(2, 2, 2, 2)), "stride_in='3x3'"),
        ("resnet", resnet.Model("50-v1.5", stride_in="1x1"), "variant=50-v1.5"),
        ("googlenet", googlenet.Model("torchvision", pool4_window=3), "variant=torchvision"),
        (
            "googlenet",
            googlenet.Model("batch_norm", large_kernel=3),
            "variant=torchvision",
        ),
        (
            "alexnet",
            alexnet.Model("one_weird_trick", activation="tanh"),
            "variant=one_weird_trick",
        ),
        ("alexnet", alexnet.Model("one_weird_trick", pool=(2, 2)), "variant=one_weird_trick"),
    ],
)
def test_other_networks_of_the_shapes_that_torchvision_publishes(name, model, flag):
    origin = arithmetic.Origin(torch_names.published_fields(name, model), published=True)
    with pytest.raises(UserError, match=f"torchvision publishes .*: write --config.model.{flag};"):
        arithmetic.check(origin, model, "x", to_start_from=False)


@pytest.mark.parametrize(
    ("name", "variants"),
    {
        "alexnet": ("one_weird_trick", "paper"),
        "vgg": ("A", "B", "D", "E", "A-BN", "B-BN", "D-BN", "E-BN"),
        "resnet": ("18", "34", "50-v1.5", "101-v1.5", "152-v1.5", "18-A", "cifar-plain-8"),
        "densenet": ("121", "161", "169", "201"),
        "googlenet": ("torchvision", "torchvision_without_aux"),
        "lenet": ("original",),
    }.items(),
)
def test_the_published_networks_are_those_of_their_names(name, variants):
    for variant in variants:
        model = zoo.model_module(name).Model(variant)
        origin = arithmetic.Origin(torch_names.published_fields(name, model), published=True)
        arithmetic.check(origin, model, "x", to_start_from=False)


def test_a_run_of_another_arithmetic_is_no_start():
    """The weights of a folder are checked as those of a file."""
    donor, model = resnet.Model("18-A", **SMALL), resnet.Model("plain-18", **SMALL)
    source = convert.from_variables(random_variables(donor, IMAGE), donor, place="runs/a")
    with pytest.raises(
        UserError,
        match=r"^weights runs/a have .* saved from one with shortcut='A', not 'none': write "
        "--config.model.variant=18-A; or name the layers to take with --config.init_layers$",
    ):
        convert.select(source, model, IMAGE, other_head=True)
    taken, _ = convert.select(source, model, IMAGE, other_head=True, layers="conv.*")
    assert taken
