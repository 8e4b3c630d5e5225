"""Which torch module holds the parameters of which of our layers, for the families that torchvision publishes.

Each function takes a network and returns {our layer: torch module}, paths joined by "/" and ".". Leaves follow LEAVES.
"""

from collections.abc import Mapping
from typing import Any

import flax.traverse_util
import numpy as np

LEAVES = {"kernel": "weight", "bias": "bias", "scale": "weight", "mean": "running_mean", "var": "running_var"}


def alexnet(model: Any) -> dict[str, str]:
    places = {"conv1": 0, "conv2": 3, "conv3": 6, "conv4": 8, "conv5": 10}
    names = {layer: f"features.{place}" for layer, place in places.items()}
    return names | {"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"}


def vgg(model: Any) -> dict[str, str]:
    names, place = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}, 0
    for stage, sizes in enumerate(model.stages, 1):
        for i in range(1, len(sizes) + 1):
            names[f"conv{stage}_{i}"] = f"features.{place}"
            if model.batch_norm:
                names[f"bn{stage}_{i}"] = f"features.{place + 1}"
            place += 3 if model.batch_norm else 2
        place += 1  # the pooling
    return names


def resnet(model: Any) -> dict[str, str]:
    names = {"conv1": "conv1", "bn1": "bn1", "fc": "fc"}
    for stage, count in enumerate(model.blocks, 1):
        for i in range(count):
            ours, theirs = f"conv{stage + 1}_{i + 1}", f"layer{stage}.{i}"
            for j in (1, 2, 3) if model.bottleneck else (1, 2):
                names |= {f"{ours}/conv{j}": f"{theirs}.conv{j}", f"{ours}/bn{j}": f"{theirs}.bn{j}"}
            if i == 0 and (stage > 1 or model.bottleneck):
                names |= {f"{ours}/conv_proj": f"{theirs}.downsample.0", f"{ours}/bn_proj": f"{theirs}.downsample.1"}
    return names


def densenet(model: Any) -> dict[str, str]:
    names = {"conv0": "features.conv0", "bn0": "features.norm0", "norm": "features.norm5", "fc": "classifier"}
    for i, count in enumerate(model.blocks, 1):
        for j in range(1, count + 1):
            ours, theirs = f"block{i}/layer{j}", f"features.denseblock{i}.denselayer{j}"
            for k in (1, 2):
                names |= {f"{ours}/bn{k}": f"{theirs}.norm{k}", f"{ours}/conv{k}": f"{theirs}.conv{k}"}
        if i < len(model.blocks):
            names[f"transition{i}/bn"] = f"features.transition{i}.norm"
            names[f"transition{i}/conv"] = f"features.transition{i}.conv"
    return names


def googlenet(model: Any) -> dict[str, str]:
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
            f"inception_{module}/{ours}": f"inception{module}.{theirs}" for ours, theirs in branches.items()
        }
    names = {"fc": "fc"}
    for ours, theirs in {"aux_4a": "aux1", "aux_4d": "aux2"}.items() if model.aux_heads else ():
        convolutions[f"{ours}/conv"] = f"{theirs}.conv"
        names |= {f"{ours}/fc1": f"{theirs}.fc1", f"{ours}/fc2": f"{theirs}.fc2"}
    for ours, theirs in convolutions.items():
        names |= {ours: f"{theirs}.conv", f"{ours}_bn": f"{theirs}.bn"}
    return names


def variables_from_torch(
    state: Mapping[str, np.ndarray], names: Mapping[str, str], like: Mapping[str, Any]
) -> dict[str, Any]:
    """The arrays of a state dict as variables shaped as `like`.

    Convolutions go from [out, in, h, w] to [h, w, in, out]; a linear layer over a flattened map, [out, c·h·w], becomes
    a convolution of that map's size.
    """
    flat = {}
    for path, leaf in flax.traverse_util.flatten_dict(like).items():
        value = state[f"{names['/'.join(path[1:-1])]}.{LEAVES[path[-1]]}"]
        if path[-1] == "kernel":
            h, w, channels, features = leaf.shape
            value = value.reshape(features, channels, h, w).transpose(2, 3, 1, 0)
        assert value.shape == leaf.shape, f"{path}: {value.shape} for {leaf.shape}"
        flat[path] = value
    return flax.traverse_util.unflatten_dict(flat)
