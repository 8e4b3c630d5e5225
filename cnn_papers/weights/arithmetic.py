"""Refuses weights that fit a network by their shapes but are of one that computes other outputs.

ResNet-50 of the paper and of torchvision have the same arrays, but stride in other convolutions:
the weights of one fit the other, which then gives other classes. So files that we write carry the
fields of their network, and torchvision's networks have theirs in `torch_names`. They carry the
names of its classes too, which no array shows either.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn

from cnn_papers.errors import UserError

# The entries in the metadata of a .safetensors file, as JSON: the fields, and a list of classes.
METADATA = "cnn_papers"
CLASSES = "cnn_papers_classes"

# Fields that shapes show, or that change no output of an evaluation.
FREE = frozenset(
    (
        *("parent", "name", "num_classes", "width", "dtype", "scan", "holds_one", "aux_heads"),
        *("dropout", "input_dropout", "aux_dropout", "head", "head_dropout", "rescale_input"),
        *("weight_init", "init_range", "last_bias", "memory_efficient", "sample"),
    )
)


class Origin(NamedTuple):
    """The network that weights were saved from.

    Attributes:
      fields: those of its fields that are known, as JSON has them.
      published: whether they are known from torchvision's names only.
      class_names: of its first outputs or, mostly, of all; () if they are unknown.
    """

    fields: Mapping[str, Any]
    published: bool = False
    class_names: tuple[str, ...] = ()


def fields_of(model: nn.Module) -> dict[str, Any]:
    """Returns the fields of a network that say what it computes, as JSON has them."""
    names = sorted(vars(type(model))["__dataclass_fields__"].keys() - FREE)
    return json.loads(json.dumps({name: getattr(model, name) for name in names}))


def to_metadata(model: nn.Module, class_names: Sequence[str] = ()) -> dict[str, str]:
    """Returns the metadata of a file with the weights of `model`; `class_names` as in `Origin`."""
    classes = {CLASSES: json.dumps(class_names)} if class_names else {}
    return {METADATA: json.dumps(fields_of(model)), **classes}


def from_metadata(metadata: Mapping[str, str] | None) -> Origin | None:
    """Returns the network of which a file says that its weights are; None if it says nothing.

    Raises:
      ValueError: the fields are not a JSON object, or the classes not a list of names.
    """
    if not metadata or METADATA not in metadata:
        return None
    fields = json.loads(metadata[METADATA])
    if not isinstance(fields, dict):
        raise ValueError(f"its metadata '{METADATA}' is not a JSON object")
    class_names = json.loads(metadata.get(CLASSES, "[]"))
    if not isinstance(class_names, list) or not all(isinstance(name, str) for name in class_names):
        raise ValueError(f"its metadata '{CLASSES}' is not a JSON list of names")
    return Origin(fields, class_names=tuple(class_names))


def check(origin: Origin | None, model: nn.Module, place: str, *, to_start_from: bool) -> None:
    """Raises UserError if weights of the shapes of `model` are of a network that computes other.

    Args:
      origin: the network of the weights, None if it is not known.
      model: the network that takes them.
      place: the file or folder, for messages.
      to_start_from: whether a training starts from them, which may name the layers to take.
    """
    ours = fields_of(model)
    theirs = {} if origin is None else {k: v for k, v in origin.fields.items() if k in ours}
    other = {name: value for name, value in theirs.items() if value != ours[name]}
    if origin is None or not other:
        return
    differences = ", ".join(f"{name}={_shown(other[name])}" for name in other)
    own = ", ".join(_shown(ours[name]) for name in other)
    variant = _variant(model, ours | other)
    # An unset field is None, which no flag can write.
    flags = [f"--config.model.{name}={_shown(value)}" for name, value in other.items() if value]
    flag = f"--config.model.variant={variant}" if variant else " ".join(flags)
    took = "torchvision publishes these names for" if origin.published else "they were saved from"
    way_out = ""
    if origin.published:
        metadata = {METADATA: json.dumps({name: ours[name] for name in other})}
        way_out += (
            f"; if they are of this one all the same, save them with safetensors and {metadata=}"
        )
    if to_start_from:
        way_out += "; or name the layers to take with --config.init_layers"
    raise UserError(
        f"weights {place} have the shapes of this network, but {took} one with {differences}, not "
        f"{own}: write {flag}{way_out}"
    )


def paper_input(model: nn.Module) -> tuple[int, int, int]:
    """Returns the (h, w, c) of the images of the paper's network that `model` is.

    Where fields make it none of the paper's networks, they are those of the file's main variant.
    """
    paper = importlib.import_module(type(model).__module__)
    variant = _variant(model, fields_of(model)) or _variant(model, fields_of(paper.Model()))
    return paper.FACTS[variant].input


def _variant(model: nn.Module, fields: Mapping[str, Any]) -> str:
    """Returns the variant of the paper of `model` that has `fields`, "" if none has."""
    paper = importlib.import_module(type(model).__module__)
    return next((name for name in paper.VARIANTS if fields_of(paper.Model(name)) == fields), "")


def _shown(value: Any) -> str:
    return repr(tuple(value) if isinstance(value, list) else value)
