"""Reads off a compiled program what the devices of a mesh send each other, by layer."""

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

# A line of XLA's text: `%x = f32[8,3,3]{…} all-gather(…)`, or a tuple of such shapes,
# `op_name="jit(…)/…/conv3/…"`.
_LINE = re.compile(
    r"= (?P<shapes>.*?) "
    r"(?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
    r"(?P<start>-start)?\("
)
_SHAPE = re.compile(r"\b(?:[a-z]+(?P<bits>\d+)|pred)\[(?P<sides>[\d,]*)\]")
_GROUP = re.compile(
    r"replica_groups=(?:\{\{(?P<listed>[\d,]*)\}|\[\d+,(?P<size>\d+)\]"
    r"|mesh\[(?P<axes>.*?)\][^{]*\{(?P<over>.*?)\})"
)


class Collective(NamedTuple):
    """A collective operation, or the part of a joined one that serves one layer.

    Attributes:
      kind: all-gather, all-reduce, reduce-scatter, all-to-all or collective-permute.
      layer: of the network; "" outside it, and where XLA joins several operations without naming
        the layer of each part.
      backward: whether it serves the gradient, as far as its name tells.
      bytes: number that each device holds when it is done (before it, for a reduce-scatter).
    """

    kind: str
    layer: str
    backward: bool
    bytes: int


def collectives(compiled: Any, layers: Iterable[str]) -> list[Collective]:
    """Returns the collective operations of a compiled program over more than one device.

    Args:
      layers: the names of the network's layers.
    """
    layers, result = set(layers), []
    for line in compiled.as_text().splitlines():
        match = _LINE.search(line)
        if match is None or _group_size(line) == 1:
            continue
        sizes = _sizes(match)
        name = re.search(r'op_name="([^"]*)"', line)
        names = _parts(name[1] if name else "")
        if len(names) == 1 and len(set(sizes)) == 1:
            names *= len(sizes)  # with other shapes too, XLA for TPUs names all after the first
        parts = Counter[tuple[str, bool]]()
        if len(names) == len(sizes):
            for path, size in zip(names, sizes, strict=True):
                layer = next((part for part in path.split("/") if part in layers), "")
                parts[layer, "transpose(" in path] += size
        elif sizes:
            parts["", all("transpose(" in path for path in names)] += sum(sizes)
        times = _group_size(line) if match["kind"] == "reduce-scatter" else 1
        for (layer, backward), size in parts.items():
            result.append(Collective(match["kind"], layer, backward, size * times))
    return result


def _parts(path: str) -> list[str]:
    """Returns the names of what XLA joined into one: `a/(b:c)/d` is a/b/d and a/c/d."""
    opening = re.search(r"(?:^|/)\(", path)
    if opening is None:
        return [path]
    depth, at, parts = 1, opening.end(), [""]
    while depth and at < len(path):
        depth += (path[at] == "(") - (path[at] == ")")
        if path[at] == ":" and depth == 1:
            parts.append("")
        elif depth:
            parts[-1] += path[at]
        at += 1
    return [path[: opening.end() - 1] + part + path[at:] for part in parts]


def _group_size(line: str) -> int:
    """Returns the number of devices that exchange with each other, 0 if the line does not tell."""
    match = _GROUP.search(line)
    if match is None:
        return 0
    if match["axes"]:  # mesh['a'=4,'b'=2] {'a'}, or {'a':(1)2} for a part of an axis
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match["axes"]))
        over = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match["over"])
        return math.prod(int(part or sizes[axis]) for axis, part in over)
    return int(match["size"]) if match["size"] else match["listed"].count(",") + 1


def _sizes(line: re.Match[str]) -> list[int]:
    """Returns the number of bytes of each result."""
    sizes = []
    for match in _SHAPE.finditer(line["shapes"]):
        sides = [int(side) for side in match["sides"].split(",") if side]
        sizes.append(math.prod(sides) * int(match["bits"] or 8) // 8)
    if line["start"] and line["kind"] != "all-reduce":  # the others list their operands first
        sizes = sizes[1:2] if line["kind"] == "collective-permute" else sizes[len(sizes) // 2 :]
    return sizes
