"""Finds a network's names in the keys of a state dict that was saved from a larger module.

Trainers keep the network in an attribute of theirs, so that its names begin with `model.` or
`backbone.`; torch's wrappers put a component of their own into them.
"""

import collections
import re
from collections.abc import Collection, Mapping, Sequence, Set
from typing import NamedTuple

from cnn_papers.weights import torch_names

# Components of torch.nn.DataParallel and DistributedDataParallel, torch.compile and FSDP.
WRAPPERS = ("module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module")
AVERAGED = re.compile("ema|swa|avg|average", re.IGNORECASE)


class Placed(NamedTuple):
    """The keys of a file by the names of a network.

    Attributes:
      keys: {name: key}; a key that has no place keeps its own name.
      notes: what was done to the names, in words.
      twice: a name that two keys have, and these keys; empty if there is none.
    """

    keys: dict[str, str]
    notes: tuple[str, ...] = ()
    twice: tuple[str, ...] = ()


def place(shapes: Mapping[str, Sequence[int]], expected: Set[str], head: str = "") -> Placed:
    """Returns the keys of a state dict by the names of a network.

    Args:
      shapes: of the tensors, by key.
      expected: the names of the network's tensors.
      head: the name of the layer that gives the classes; "" if there is no single one.
    """
    notes = []
    names = {key: _unwrapped(key) for key in shapes}
    parts = {part for key in shapes for part in key.split(".")}
    if wrappers := [f"'{part}.'" for part in WRAPPERS if part in parts]:
        notes.append(f"its names lose {' and '.join(wrappers)}, which torch's wrappers put there")

    prefix, left_out = _prefix(names.values(), expected)
    if left_out:
        names = {key: name for key, name in names.items() if not name.startswith(left_out)}
        notes.append(f"the averaged weights under '{left_out}' are left out, those beside it taken")
    if prefix and all(name.startswith(prefix) for name in names.values()):
        notes.append(f"all names lose their prefix '{prefix}'")
    elif prefix:
        notes.append(f"the names that begin with '{prefix}' lose this prefix")
        whole = {key: name for key, name in names.items() if name.startswith(prefix)}
        inside = {_present(name.removeprefix(prefix), expected) for name in whole.values()}
        rest = [key for key in names if key not in whole]
        # Beside a complete network, what can be no layer is of a loss or a metric.
        if inside >= expected and all(len(shapes[key]) < 2 for key in rest):
            notes.append(f"the network is complete under it; left out: {', '.join(rest)}")
            names = whole
    names = {key: _present(name.removeprefix(prefix), expected) for key, name in names.items()}

    if own_head := _own_head(names, shapes, expected, head):
        notes.append(f"'{own_head}' is taken for the last layer, '{head}'")
        names = {
            key: name.replace(f"{own_head}.", f"{head}.", 1)
            if name.rpartition(".")[0] == own_head
            else name
            for key, name in names.items()
        }

    keys: dict[str, str] = {}
    for key, name in names.items():
        if name in keys:
            return Placed(keys, tuple(notes), (name, keys[name], key))
        keys[name] = key
    return Placed(keys, tuple(notes))


def _unwrapped(key: str) -> str:
    return ".".join(part for part in key.split(".") if part not in WRAPPERS)


def _present(name: str, expected: Set[str]) -> str:
    today = torch_names.as_torchvision(name)
    return today if today in expected else name


def _prefix(names: Collection[str], expected: Set[str]) -> tuple[str, str]:
    """Returns the prefix of the network's names, and that of averaged weights beside them.

    Each is "" if there is none. A prefix is taken if more than half of the network's names follow
    it, or if all names of the file have it and one of the network's follows.
    """
    found: collections.Counter[str] = collections.Counter()
    for name in names:
        parts = name.split(".")
        for i in range(len(parts)):
            if _present(".".join(parts[i:]), expected) in expected:
                found["".join(f"{part}." for part in parts[:i])] += 1
    enough = [prefix for prefix, count in found.items() if 2 * count > len(expected)]
    plain = [prefix for prefix in enough if not AVERAGED.search(prefix)]
    averaged = [prefix for prefix in enough if AVERAGED.search(prefix)]
    if len(plain) == 1 and len(averaged) == 1:
        return plain[0], averaged[0]
    if len(enough) == 1:
        return enough[0], ""
    shared = [prefix for prefix in found if all(name.startswith(prefix) for name in names)]
    return (min(shared, key=lambda prefix: (-found[prefix], len(prefix))) if shared else ""), ""


def _own_head(
    names: Mapping[str, str],
    shapes: Mapping[str, Sequence[int]],
    expected: Set[str],
    head: str,
) -> str:
    """Returns the file's name of the network's last layer, "" if it has the network's or none.

    A file has its own if the network's is missing, and a weight of two axes and its bias are all
    that has no place: `head`, or `fc.1` of a torch.nn.Sequential.
    """
    rest = {name: key for key, name in names.items() if name not in expected}
    layers = {name.rpartition(".")[0] for name in rest}
    if not head or f"{head}.weight" in names.values() or len(layers) != 1:
        return ""
    (layer,) = layers
    leaves = {name.rpartition(".")[2] for name in rest}
    fits = leaves == {"weight", "bias"} and len(shapes[rest[f"{layer}.weight"]]) == 2
    return layer if fits and len(names) > len(rest) else ""
