"""What the devices of a mesh send each other in a compiled program, by layer: kind, direction,
bytes.
"""

import math
import re
from collections import Counter
from collections.abc import Iterable
from typing import Any, NamedTuple

# A line of XLA's text: `%x = f32[8,3,3]{…} all-gather(…)`, or a tuple of such shapes,
# `op_name="jit(…)/…/conv3/…"`.
_LINE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)"
    r"(?P<start>-start)?\("
)
_SHAPE = re.compile(r"\b(?:[a-z]+(?P<bits>\d+)|pred)\[(?P<sides>[\d,]*)\]")
_GROUP = re.compile(
    r"replica_groups=(?:\{\{(?P<listed>[\d,]*)\}|\[\d+,(?P<size>\d+)\]|mesh\[(?P<axes>.*?)\][^{]*\{(?P<over>.*?)\})"
)


class Collective(NamedTuple):
    """One exchange, or the part of a joint one that serves a layer.

    Attributes:
      kind: all-gather, all-reduce, reduce-scatter, all-to-all or collective-permute.
      layer: of the network; "" outside it, and where XLA joins several exchanges without saying
      whose each part is.
      backward: whether it serves the gradient, as far as its name says so.
      bytes: that each device holds when it is done (before, for a reduce-scatter).
    """

    kind: str
    layer: str
    backward: bool
    bytes: int


def collectives(compiled: Any, layers: Iterable[str]) -> list[Collective]:
    """The exchanges of a compiled program between more than one device, for the `layers` of the
    network by name.
    """
    known, found = set(layers), []
    for line in compiled.as_text().splitlines():
        match = _LINE.search(line)
        if match is None or _group_size(line) == 1:
            continue
        sizes = _sizes(match)
        name = re.search(r'op_name="([^"]*)"', line)
        names = _parts(name[1] if name else "")
        backward = all("transpose(" in part for part in names)
        if (
            len(names) == 1 and len(set(sizes)) == 1
        ):  # XLA for TPUs names parts of any shape after the first
            names *= len(sizes)
        parts = Counter[tuple[str, bool]]()
        for i, size in enumerate(sizes):
            paired = len(names) == len(sizes)
            layer = (
                next((part for part in names[i].split("/") if part in known), "") if paired else ""
            )
            parts[layer, "transpose(" in names[i] if paired else backward] += size
        times = _group_size(line) if match["kind"] == "reduce-scatter" else 1
        found += [Collective(match["kind"], *whose, size * times) for whose, size in parts.items()]
    return found


def _parts(path: str) -> list[str]:
    """The names of what XLA joined into one: `a/(b:c)/d` is a/b/d and a/c/d."""
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
    match = _GROUP.search(line)
    if match is None:
        return 0
    if match["axes"]:  # mesh['a'=4,'b'=2] {'a'}, or {'a':(1)2} for a part of an axis
        sizes = dict(re.findall(r"'(\w+)'=(\d+)", match["axes"]))
        over = re.findall(r"'(\w+)'(?::\(\d+\)(\d+))?", match["over"])
        return math.prod(int(part or sizes[axis]) for axis, part in over)
    return int(match["size"]) if match["size"] else match["listed"].count(",") + 1


def _sizes(line: re.Match[str]) -> list[int]:
    """Bytes of each result."""
    sizes = []
    for match in _SHAPE.finditer(line["shapes"]):
        sides = [int(side) for side in match["sides"].split(",") if side]
        sizes.append(math.prod(sides) * int(match["bits"] or 8) // 8)
    if (
        line["start"] and line["kind"] != "all-reduce"
    ):  # the other kinds' first halves list the operands too
        sizes = sizes[1:2] if line["kind"] == "collective-permute" else sizes[len(sizes) // 2 :]
    return sizes
