"""Converts weights between torch's layout and our variables, and selects those a network takes.

torch's layout is that of the files of torchvision and timm: convolutions [out, in, h, w], fully
connected layers [out, c·h·w]. Ours are [h, w, in, out], and the first fully connected layer is a
convolution of the whole map. Weights are passed on flat, as {"params/conv1/kernel": array}.
"""

import logging
import math
import re
from collections.abc import Mapping
from typing import Any, NamedTuple, NoReturn

import flax.linen as nn
import flax.traverse_util
import numpy as np

from cnn_papers import counting, zoo
from cnn_papers.errors import UserError, listed
from cnn_papers.models import resnet
from cnn_papers.weights import arithmetic, prefixes, torch_names

# Layers that are linear in torch and may be convolutions of a whole map here.
LINEAR = re.compile(r"(.*/)?fc\d*")

# Auxiliary heads, without which a network can be evaluated.
AUXILIARY = re.compile(r"(^|[/.])aux(1\.|2\.|_)")

Flat = dict[str, Any]  # "params/conv1/kernel" -> array


class Tensor(NamedTuple):
    """An array in our layout, with its name and shape in the source."""

    array: np.ndarray
    name: str
    shape: tuple[int, ...]


class Source(NamedTuple):
    """The weights that a network may start from.

    Attributes:
      place: the file or folder, for messages.
      tensors: by our path.
      names: torch's name for each path of the network; empty if the source uses ours.
      unplaced: the shapes of tensors that have no place in the network, by name.
      origin: the network that the weights are of, None if that is not known.
    """

    place: str
    tensors: dict[str, Tensor]
    names: dict[str, str]
    unplaced: Mapping[str, tuple[int, ...]] = {}
    origin: arithmetic.Origin | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        """The classes of the outputs that the weights are known to give; () if there are none."""
        return self.origin.class_names if self.origin else ()


def to_torch(
    variables: Mapping[str, Any], model_name: str, model: nn.Module
) -> dict[str, np.ndarray]:
    """Returns the torch state dict of `variables`, which belong to `model`."""
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
    origin: arithmetic.Origin | None = None,
) -> Source:
    """Returns the tensors of a state dict in the layout of `model`.

    Names may be torchvision's, or our own, which `weight_files.write` uses for families that
    torchvision does not publish; the naming that fits more tensors is taken. Prefixes of a larger
    module come off, which is said.

    Args:
      state: float32 arrays by name.
      model_name, model: the network.
      image_shape: (h, w, c) of its images.
      place: the file, for messages.
      origin: the network that the file says its weights are of.

    Raises:
      UserError: two tensors have one name.
    """
    like = abstract(model, image_shape)
    shapes = {key: array.shape for key, array in state.items()}
    layouts = []
    for modules in (torch_names.published(model_name, model), {}):
        names = {path: _torch_name(path, modules) for path in like}
        head = names.get(_head(like), "")
        placed = prefixes.place(shapes, set(names.values()), head.rpartition(".")[0])
        layouts.append((len(placed.keys.keys() & set(names.values())), modules, names, placed))
    _, modules, names, placed = max(layouts, key=lambda layout: layout[0])
    if placed.twice:
        name, one, other = placed.twice
        raise UserError(f"weights {place}: {one} and {other} are both {name}")
    for note in placed.notes:
        logging.getLogger(__name__).info("weights %s: %s", place, note)

    if origin is None and modules:
        origin = arithmetic.Origin(torch_names.published_fields(model_name, model), True)
    tensors = {
        path: Tensor(_to_ours(state[key], like[path].shape), key, state[key].shape)
        for path, name in names.items()
        if (key := placed.keys.get(name)) is not None
    }
    taken = {tensor.name for tensor in tensors.values()}
    unplaced = {key: shapes[key] for key in placed.keys.values() if key not in taken}
    return Source(place, tensors, names, unplaced, origin)


def from_variables(
    variables: Mapping[str, Any],
    model: nn.Module,
    *,
    place: str,
    class_names: tuple[str, ...] = (),
) -> Source:
    """Returns the arrays of another network of ours."""
    flat = {path: np.asarray(leaf) for path, leaf in flatten(variables, model).items()}
    tensors = {path: Tensor(array, path, array.shape) for path, array in flat.items()}
    origin = arithmetic.Origin(arithmetic.fields_of(model), class_names=class_names)
    return Source(place, tensors, {}, origin=origin)


def select(
    source: Source,
    model: nn.Module,
    image_shape: tuple[int, ...],
    *,
    layers: str = "",
    other_head: bool = False,
) -> tuple[Flat, list[str]]:
    """Returns the arrays of `source` that `model` takes, by path, and the layers that stay fresh.

    Args:
      source: the weights.
      model, image_shape: the network, and (h, w, c) of its images.
      layers: a regular expression for whole names of layers to take (`conv1_1|fc.*`). All if
        empty, auxiliary heads only if `source` has them.
      other_head: with all layers, those that give the classes may have another number of classes;
        they stay fresh.

    Raises:
      UserError: arrays are missing, of another shape, or without a place in the network, or are of
        a network of the same shapes that computes other (not if layers are named).
    """
    like = abstract(model, image_shape)
    wanted = _matching(like, layers)

    # Layers that stay fresh: those not named, a head for other classes, missing auxiliary heads.
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
    fresh |= absent  # evaluation does not need them, and published files often lack them
    wanted = [path for path in wanted if layer_of(path) not in absent]

    # All others must fit and, unless layers are named, all arrays of the source must have a place,
    # and the network must compute what that of the source does.
    wanted.sort(key=lambda path: not path.startswith("params/"))  # statistics are named last
    problems = [problem for path in wanted if (problem := _problem(source, path, like[path].shape))]
    left: dict[str, tuple[int, ...]] = {}
    if not layers:
        extra = [source.tensors[path] for path in source.tensors if path not in like]
        shapes = {**source.unplaced, **{tensor.name: tensor.shape for tensor in extra}}
        left = {name: shape for name, shape in shapes.items() if not AUXILIARY.search(name)}
    if problems or left:
        _refuse(source.place, problems, left, hint=other_head and not layers)
    if not layers:
        arithmetic.check(source.origin, model, source.place, to_start_from=other_head)
    return {path: source.tensors[path].array for path in wanted}, sorted(fresh)


def _refuse(
    place: str, problems: list[str], left: Mapping[str, tuple[int, ...]], *, hint: bool
) -> NoReturn:
    """Raises UserError for weights of another network.

    Args:
      place: the file or folder.
      problems: what the network needs and does not find.
      left: the shapes of arrays that have no place in it, by their names in the source.
      hint: whether layers can be named.
    """
    parts = [listed(problems, separator="; ")] if problems else []
    if left:
        shapes = [f"{name} {list(shape)}" for name, shape in left.items()]
        parts.append(f"without a place in this network are {listed(shapes)}")
    if hint:
        parts.append("name the layers to take with --config.init_layers")
    raise UserError(f"weights {place} are of another network: {'; '.join(parts)}")


def _matching(like: Flat, layers: str) -> list[str]:
    """Returns the paths whose layer matches `layers`, all if it is empty."""
    if not layers:
        return list(like)
    wanted = zoo.matching_layers(map(layer_of, like), layers, key="init_layers")
    return [path for path in like if layer_of(path) in wanted]


def put(variables: Mapping[str, Any], arrays: Flat, model: nn.Module) -> dict[str, Any]:
    """Returns `variables` of `model` with `arrays` of `select` in their places."""
    tree = {"params": {}, "batch_stats": {}}
    tree |= flax.traverse_util.unflatten_dict(flatten(variables, model) | arrays, sep="/")
    if _scans(model):
        tree = {name: resnet.convert_blocks(part, model.blocks) for name, part in tree.items()}
    return tree


def flatten(variables: Mapping[str, Any], model: nn.Module) -> Flat:
    """Returns the leaves of `variables` by path, as {"params/conv1/kernel": leaf}.

    Blocks that `model` runs as one loop are separated, as files have them.
    """
    if _scans(model):
        variables = {
            name: resnet.convert_blocks(dict(tree), model.blocks)
            for name, tree in variables.items()
        }
    return flax.traverse_util.flatten_dict(dict(variables), sep="/")


def abstract(model: nn.Module, image_shape: tuple[int, ...]) -> Flat:
    """Returns shapes by path, as `flatten` does, of the variables of `model` for `image_shape`."""
    model = model.clone(scan=False) if _scans(model) else model
    return flatten(counting.abstract_variables(model, image_shape), model)


def layer_of(path: str) -> str:
    """Returns the layer of a path: `inception_3a/1x1` of `params/inception_3a/1x1/kernel`."""
    return "/".join(path.split("/")[1:-1])


def _scans(model: Any) -> bool:
    return getattr(model, "scan", False)


def _torch_name(path: str, published: Mapping[str, str]) -> str:
    layer, leaf = layer_of(path), path.rpartition("/")[-1]
    return f"{published.get(layer, layer.replace('/', '.'))}.{torch_names.LEAVES.get(leaf, leaf)}"


def _to_ours(array: np.ndarray, like: tuple[int, ...]) -> np.ndarray:
    """Returns a torch array in our layout: a convolution, or a linear layer as `like` has it."""
    if len(like) == 4 and array.ndim == 2 and array.shape[1] == math.prod(like[:3]):
        array = array.reshape(len(array), like[2], like[0], like[1])
    if len(like) == 4 and array.ndim == 4:
        return array.transpose(2, 3, 1, 0)
    return array.T if len(like) == array.ndim == 2 else array


def _head(like: Flat) -> str:
    """Returns the path of the kernel of the last fully connected layer; "" if there is none."""
    kernels = [path for path in like if path.endswith("/kernel") and not AUXILIARY.search(path)]
    return max((path for path in kernels if LINEAR.fullmatch(layer_of(path))), default="")


def _is_other_head(source: Source, path: str, like: tuple[int, ...], model: Any) -> bool:
    if path not in source.tensors:
        return False
    shape = source.tensors[path].array.shape
    return shape != like and shape[:-1] == like[:-1] and like[-1] == model.num_classes


def _problem(source: Source, path: str, like: tuple[int, ...]) -> str | None:
    """Describes why `path` cannot be taken, in the source's names and shapes; None if it can."""
    tensor = source.tensors.get(path)
    if tensor is not None and tensor.array.shape == like:
        return None
    name = source.names.get(path, path) if tensor is None else tensor.name
    expected = like
    if path in source.names and len(like) == 4:  # the shape in torch's layout
        linear = tensor is not None and len(tensor.shape) == 2
        expected = (like[3], math.prod(like[:3])) if linear else (like[3], like[2], *like[:2])
    elif path in source.names:
        expected = like[::-1]
    state = "is missing" if tensor is None else f"is {list(tensor.shape)}"
    return f"{name} {state}, {list(expected)} expected"
