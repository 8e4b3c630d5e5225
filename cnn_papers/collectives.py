"""What the devices of a mesh send each other in a compiled program, by layer: kind, direction, bytes."""

import math
import re
from collections.abc import Iterable
from typing import Any, NamedTuple

# A line of XLA's text: `%x = f32[8,3,3]{…} all-gather(…)`, or a tuple of such shapes, `op_name="jit(…)/…/conv3/…"`.
_LINE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)
_SHAPE = re.compile(r"\b(?P<type>[a-z]+)(?P<bits>\d+)\[(?P<sides>[\d,]*)\]")
_GROUP = re.compile(r"replica_groups=(?:\{\{(?P<listed>[\d,]*)\}|\[\d+,(?P<size>\d+)\])")


class Collective(NamedTuple):
    """One exchange.

    Attributes:
      kind: all-gather, all-reduce, reduce-scatter, all-to-all or collective-permute.
      layer: of the network; "" outside it, or of several layers at once (gradients are summed over `data` in one go).
      backward: whether it serves the gradient.
      bytes: that each device holds when it is done (before, for a reduce-scatter).
    """

    kind: str
    layer: str
    backward: bool
    bytes: int


def collectives(compiled: Any, layers: Iterable[str]) -> list[Collective]:
    """The exchanges of a compiled program between more than one device, for the `layers` of the network by name."""
    known = sorted(layers, key=len, reverse=True)
    found = []
    for line in compiled.as_text().splitlines():
        match = _LINE.search(line)
        if match is None or _group_size(line) == 1:
            continue
        name = re.search(r'op_name="([^"]*)"', line)
        path = name[1] if name else ""
        several = len(_SHAPE.findall(match["shapes"])) > 1
        layer = next((layer for layer in known if f"/{layer}/" in f"{path}/" and not several), "")
        size = _bytes(match["shapes"]) * (_group_size(line) if match["kind"] == "reduce-scatter" else 1)
        found.append(Collective(match["kind"], layer, "transpose(" in path, size))
    return found


def _group_size(line: str) -> int:
    match = _GROUP.search(line)
    if match is None:
        return 0
    return int(match["size"]) if match["size"] else match["listed"].count(",") + 1


def _bytes(shapes: str) -> int:
    sizes = []
    for match in _SHAPE.finditer(shapes):
        sides = [int(side) for side in match["sides"].split(",") if side]
        sizes.append(math.prod(sides) * int(match["bits"]) // 8)
    return sum(sizes)
