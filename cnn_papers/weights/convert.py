"""Weights in files: torch's layout, as torchvision and timm publish it, to our variables and back.

A file is `.safetensors`, or one that `torch.save` wrote (`.pth`, `.pt`, `.bin`), of which tensors
alone are read: nothing in it is ever executed.
"""

import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

import flax.linen as nn
import flax.traverse_util
import numpy as np

from cnn_papers import counting
from cnn_papers.errors import UserError
from cnn_papers.models import resnet
from cnn_papers.weights import torch_names

LINEAR = re.compile(
    r"(.*/)?fc\d*"
)  # layers that are linear in torch and convolutions of a whole map here

AUXILIARY = re.compile(r"(^|/)aux(1\.|2\.|_)")  # heads that a network may do without

Flat = dict[str, Any]  # "params/conv1/kernel" -> array


class Tensor(NamedTuple):
    """One array to take: in our layout, with its name and shape where it comes from."""

    array: np.ndarray
    name: str
    shape: tuple[int, ...]


class Source(NamedTuple):
    """What a network may start from.

    Attributes:
      place: the file or folder, for messages.
      tensors: by our path.
      names: what the source calls each path that the network has; empty where it uses ours.
      homeless: the names of tensors that have no place in the network.
    """

    place: str
    tensors: dict[str, Tensor]
    names: dict[str, str]
    homeless: tuple[str, ...] = ()


def to_torch(
    variables: Mapping[str, Any], model_name: str, model: nn.Module
) -> dict[str, np.ndarray]:
    """The state dict of `variables`: convolutions [out, in, h, w], fully connected layers [out,
    c·h·w].
    """
    published = torch_names.published(model_name, model)
    state = {}
    for path, leaf in flatten(variables, model).items():
        array = np.asarray(leaf, np.float32)
        if array.ndim == 4:
            array = array.transpose(3, 2, 0, 1)
            if LINEAR.fullmatch(layer_of(path)):
                array = array.reshape(len(array), -1)
        elif array.ndim == 2:
            array = array.T
        state[_torch_name(path, published)] = np.ascontiguousarray(array)
    return state


def from_torch(
    state: Mapping[str, np.ndarray],
    model_name: str,
    model: nn.Module,
    image_shape: tuple[int, ...],
    *,
    place: str,
) -> Source:
    """The tensors of a state dict, in the layout of `model` for images of `image_shape` (h, w, c).

    Whether their names are torchvision's or our own, which `write` uses where nothing is published,
    shows.
    """
    like = abstract(model, image_shape)
    published = torch_names.published(model_name, model)
    layouts = [{path: _torch_name(path, names) for path in like} for names in (published, {})]
    names = max(layouts, key=lambda names: len(state.keys() & set(names.values())))
    tensors = {
        path: Tensor(_to_ours(state[name], like[path].shape), name, state[name].shape)
        for path, name in names.items()
        if name in state
    }
    homeless = state.keys() - {tensor.name for tensor in tensors.values()}
    return Source(place, tensors, names, tuple(sorted(homeless)))


def from_variables(variables: Mapping[str, Any], model: nn.Module, *, place: str) -> Source:
    """The arrays of another network of ours."""
    flat = {path: np.asarray(leaf) for path, leaf in flatten(variables, model).items()}
    return Source(
        place, {path: Tensor(array, path, array.shape) for path, array in flat.items()}, {}
    )


def select(
    source: Source,
    model: nn.Module,
    image_shape: tuple[int, ...],
    *,
    layers: str = "",
    other_head: bool = False,
) -> tuple[Flat, list[str]]:
    """The arrays of `source` that `model` starts from, by path, and the layers that keep their
    fresh start.

    Args:
      layers: a regular expression for whole names of layers (`conv1_1|fc.*`): those are taken; all
        where it is empty, auxiliary heads where both sides have them.
      other_head: with all layers, those that give the classes may be of another number of classes;
        they stay fresh.

    Raises:
      UserError: arrays missing, of another shape, or without a place in the network.
    """
    like = abstract(model, image_shape)
    try:
        wanted = [path for path in like if re.fullmatch(layers or ".*", layer_of(path))]
    except re.error as error:
        raise UserError(
            f"config.init_layers: '{layers}' is no regular expression: {error}"
        ) from error
    if not wanted:
        names = ", ".join(dict.fromkeys(map(layer_of, like)))
        raise UserError(f"config.init_layers: no layer is called '{layers}'; there are: {names}")
    fresh = {layer_of(path) for path in like} - {layer_of(path) for path in wanted}
    if other_head and not layers:
        fresh = {
            layer_of(path)
            for path in wanted
            if _is_other_head(source, path, like[path].shape, model)
        }
        wanted = [path for path in wanted if layer_of(path) not in fresh]
    absent = {
        layer_of(path)
        for path in wanted
        if path not in source.tensors and AUXILIARY.search(layer_of(path))
    }
    fresh |= absent  # evaluation does without them, and published files often are
    wanted = [path for path in wanted if layer_of(path) not in absent]
    problems = [problem for path in wanted if (problem := _problem(source, path, like[path].shape))]
    if not layers:
        extra = [source.tensors[path].name for path in sorted(source.tensors.keys() - like.keys())]
        left = [name for name in (*source.homeless, *extra) if not AUXILIARY.search(name)]
        problems += [f"{name} has no place in this network" for name in left]
    if problems:
        more = f", and {len(problems) - 3} more" if len(problems) > 3 else ""
        hint = (
            "; name the layers to take with --config.init_layers"
            if other_head and not layers
            else ""
        )
        raise UserError(
            f"weights {source.place} are of another network: {'; '.join(problems[:3])}{more}{hint}"
        )
    return {path: source.tensors[path].array for path in wanted}, sorted(fresh)


def put(variables: Mapping[str, Any], arrays: Flat, model: nn.Module) -> dict[str, Any]:
    """`variables` of `model` with `arrays` (by path, as `select` gives them) in their places."""
    tree = {"params": {}, "batch_stats": {}}
    tree |= flax.traverse_util.unflatten_dict(flatten(variables, model) | arrays, sep="/")
    return (
        {name: resnet.convert_blocks(part, model.blocks) for name, part in tree.items()}
        if _scans(model)
        else tree
    )


def flatten(variables: Mapping[str, Any], model: nn.Module) -> Flat:
    """{"params/conv1/kernel": leaf}; blocks that `model` runs as one loop are taken apart, as files
    have them.
    """
    if _scans(model):
        variables = {
            name: resnet.convert_blocks(dict(tree), model.blocks)
            for name, tree in variables.items()
        }
    return flax.traverse_util.flatten_dict(dict(variables), sep="/")


def abstract(model: nn.Module, image_shape: tuple[int, ...]) -> Flat:
    """The shapes of what `flatten` gives for `model`, initialised with images of `image_shape`."""
    model = model.clone(scan=False) if _scans(model) else model
    return flatten(counting.abstract_variables(model, image_shape), model)


def layer_of(path: str) -> str:
    """`inception_3a/1x1` of `params/inception_3a/1x1/kernel`."""
    return "/".join(path.split("/")[1:-1])


def _scans(model: Any) -> bool:
    return getattr(model, "scan", False)


def _torch_name(path: str, published: Mapping[str, str]) -> str:
    layer, leaf = layer_of(path), path.rpartition("/")[-1]
    return f"{published.get(layer, layer.replace('/', '.'))}.{torch_names.LEAVES.get(leaf, leaf)}"


def _to_ours(array: np.ndarray, like: tuple[int, ...]) -> np.ndarray:
    """A torch array in our layout: [out, in, h, w] to [h, w, in, out], [out, c·h·w] to the
    convolution of that map.
    """
    if len(like) == 4 and array.ndim == 2 and array.shape[1] == math.prod(like[:3]):
        array = array.reshape(len(array), like[2], like[0], like[1])
    if len(like) == 4 and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if len(like) == array.ndim == 2 else array


def _is_other_head(source: Source, path: str, like: tuple[int, ...], model: Any) -> bool:
    if path not in source.tensors:
        return False
    there = source.tensors[path].array.shape
    return there != like and there[:-1] == like[:-1] and like[-1] == model.num_classes


def _problem(source: Source, path: str, like: tuple[int, ...]) -> str | None:
    """What keeps `path` from being taken: names, and shapes where arrays come from."""
    tensor, name = source.tensors.get(path), source.names.get(path, path)
    if tensor is not None and tensor.array.shape == like:
        return None
    expected = like
    if path in source.names and len(like) == 4:  # as torch would have it
        linear = tensor is not None and len(tensor.shape) == 2
        expected = (like[3], math.prod(like[:3])) if linear else (like[3], like[2], *like[:2])
    elif path in source.names:
        expected = like[::-1]
    there = "is missing" if tensor is None else f"is {list(tensor.shape)}"
    return f"{name} {there}, {list(expected)} expected"
