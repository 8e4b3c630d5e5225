"""Names of our layers in torch, for the families that torchvision and timm publish.

The function of a family takes a network and returns {our layer: torch module}. Our paths are joined
by "/", torch's by "."; LEAVES are the names of their arrays.
"""

import re
from typing import Any

LEAVES = {
    "kernel": "weight",
    "bias": "bias",
    "scale": "weight",
    "mean": "running_mean",
    "var": "running_var",
}


def _alexnet(model: Any) -> dict[str, str]:
    if model.table != "one_weird_trick":
        return {}
    places = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
    names = {layer: f"features.{place}" for layer, place in places.items()}
    return names | {"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"}


def _vgg(model: Any) -> dict[str, str]:
    names, place = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}, 0
    for stage, sizes in enumerate(model.stages, 1):
        for i in range(1, len(sizes) + 1):
            names[f"conv{stage}_{i}"] = f"features.{place}"
            if model.batch_norm:
                names[f"bn{stage}_{i}"] = f"features.{place + 1}"
            place += 3 if model.batch_norm else 2
        place += 1  # the pooling
    return names


def _resnet(model: Any) -> dict[str, str]:
    if model.pre_activation:  # torchvision has none
        return {}
    names = {"conv1": "conv1", "bn1": "bn1", "fc": "fc"}
    for stage, count in enumerate(model.blocks, 1):
        for i in range(count):
            ours, theirs = f"conv{stage + 1}_{i + 1}", f"layer{stage}.{i}"
            for j in (1, 2, 3) if model.bottleneck else (1, 2):
                names |= {
                    f"{ours}/conv{j}": f"{theirs}.conv{j}",
                    f"{ours}/bn{j}": f"{theirs}.bn{j}",
                }
            names |= {
                f"{ours}/conv_proj": f"{theirs}.downsample.0",
                f"{ours}/bn_proj": f"{theirs}.downsample.1",
            }
    return names


def _densenet(model: Any) -> dict[str, str]:
    names = {
        "conv0": "features.conv0",
        "bn0": "features.norm0",
        "norm": "features.norm5",
        "fc": "classifier",
    }
    for i, count in enumerate(model.blocks, 1):
        for j in range(1, count + 1):
            ours, theirs = f"block{i}/layer{j}", f"features.denseblock{i}.denselayer{j}"
            for k in (1, 2):
                names |= {
                    f"{ours}/bn{k}": f"{theirs}.norm{k}",
                    f"{ours}/conv{k}": f"{theirs}.conv{k}",
                }
        if i < len(model.blocks):
            names[f"transition{i}/bn"] = f"features.transition{i}.norm"
            names[f"transition{i}/conv"] = f"features.transition{i}.conv"
    return names


def _googlenet(model: Any) -> dict[str, str]:
    branches = {
        "1x1": "branch1",
        "3x3_reduce": "branch2.0",
        "3x3": "branch2.1",
        "5x5_reduce": "branch3.0",
        "5x5": "branch3.1",
        "pool_proj": "branch4.1",
    }
    convolutions = {"conv1": "conv1", "conv2_reduce": "conv2", "conv2": "conv3"}
    for module in ("3a", "3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"):
        convolutions |= {
            f"inception_{module}/{ours}": f"inception{module}.{theirs}"
            for ours, theirs in branches.items()
        }
    names = {"fc": "fc"}
    for ours, theirs in {"aux_4a": "aux1", "aux_4d": "aux2"}.items() if model.aux_heads else ():
        convolutions[f"{ours}/conv"] = f"{theirs}.conv"
        names |= {f"{ours}/fc1": f"{theirs}.fc1", f"{ours}/fc2": f"{theirs}.fc2"}
    for ours, theirs in convolutions.items():
        names |= {ours: f"{theirs}.conv", f"{ours}_bn": f"{theirs}.bn"}
    return names


FAMILIES = {
    "alexnet": _alexnet,
    "vgg": _vgg,
    "resnet": _resnet,
    "densenet": _densenet,
    "googlenet": _googlenet,
}
# The fields of the published networks that no shape shows.
PUBLISHED_FIELDS: dict[str, dict[str, Any]] = {
    "alexnet": {"activation": "relu", "lrn": False, "pool": [3, 2], "conv1_stride": None},
    "vgg": {"lrn": False},
    "resnet": {"stride_in": "3x3"},
    "googlenet": {"lrn": False, "pool4_window": 2, "aux_cells": 4},
}
# timm's names for the fully connected layers of VGG, and torchvision's.
TIMM = {
    "pre_logits.fc1": "classifier.0",
    "pre_logits.fc2": "classifier.3",
    "head.fc": "classifier.6",
}


def published(model_name: str, model: Any) -> dict[str, str]:
    """Returns {our layer: torch module} for torchvision's file of a network, {} without one."""
    return FAMILIES[model_name](model) if model_name in FAMILIES else {}


def published_fields(model_name: str, model: Any) -> dict[str, Any]:
    """Returns the fields, as JSON has them, of torchvision's network of the shapes of `model`.

    Only those that no shape shows; {} if torchvision publishes no network of the family.
    """
    fields = PUBLISHED_FIELDS.get(model_name, {}) if published(model_name, model) else {}
    if model_name == "resnet" and not model.bottleneck:  # nothing else has a choice of stride
        return {name: value for name, value in fields.items() if name != "stride_in"}
    return dict(fields)


def as_torchvision(key: str) -> str:
    """Returns torchvision's present name of a tensor that timm or an older file calls `key`."""
    key = re.sub(r"(denselayer\d+\.(?:norm|conv))\.(\d)", r"\1\2", key)
    module, _, leaf = key.rpartition(".")
    return f"{TIMM[module]}.{leaf}" if module in TIMM else key
