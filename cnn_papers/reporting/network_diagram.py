"""Draws a network as an SVG diagram, its layers from the image down."""

import html
import pathlib
from collections.abc import Sequence
from typing import Any

from cnn_papers import branches as structures
from cnn_papers import files
from cnn_papers.branches import Structure
from cnn_papers.counting import Layer, Network
from cnn_papers.reporting.svg import COLOURS

WIDTH, MARGIN = 1180, 20  # pixels, as all lengths here
LEFT, RIGHT = MARGIN, 530  # of the boxes
OUTPUT = 640  # right end of the output shapes
COLUMNS = {"params": (745, 755), "macs": (1010, 1020)}  # right end of numbers, left end of bars
LONGEST = 85  # the bar of the greatest share
SHARE = 127  # from the left end of the bars to the right end of the share in words
BOX = 26  # height of a layer's box
GAP, CROSSING = 16, 30  # between two layers, where arrows do not cross and where they may
RAIL = 14  # from the border of a block to the line where its branches part or meet
PART, LINE = 30, 38  # height of a part's box, and from one line of parts to the next
IN_A_LINE, BETWEEN = 3, 16  # parts in a line, and between two of them
STYLE = f"""
text {{ font: 12px Helvetica, Arial, sans-serif; fill: #222 }}
.title {{ font-size: 16px; font-weight: bold }}
.name {{ font-weight: bold }}
.small {{ font-size: 9.5px }}
.note, .head {{ font-size: 10.5px; fill: #595959 }}
.end {{ text-anchor: end }}
.layer {{ fill: #eef3f8; stroke: #7c93a8 }}
.own {{ fill: none; stroke: #7c93a8; stroke-dasharray: 4 3 }}
.part {{ fill: #fff; stroke: #a9b8c6 }}
.line {{ fill: none; stroke: #7c93a8 }}
.params {{ fill: {COLOURS[0]} }}
.macs {{ fill: {COLOURS[1]} }}
"""
DENSE = "each part reads all before it"
NOTE = 15  # height of a line of explanation


def write(path: pathlib.Path, title: str, model: Any, network: Network) -> None:
    """Writes the diagram of `model`, whose layer table is `network`; replaces `path` if it exists.

    Raises:
      UserError: `path` cannot be written.
    """
    structure = structures.find(model, network.input)
    text = draw(title, network, structure, getattr(model, "columns", 1))
    with files.atomic_write(path) as part:
        part.write_text(text, "utf-8")


def draw(title: str, network: Network, structure: Structure, columns: int = 1) -> str:
    """Returns the diagram as the text of an SVG file.

    Every row of the layer table is a box with its output, parameters and multiply-adds, and a bar
    for its share of the network's. All bars have one scale. Boxes within a box are its branches.

    Args:
      title: names the network.
      network: its layer table.
      structure: what is inside its layers.
      columns: of the network; each has a box of its own, and arrows cross where a layer reads all.
    """
    shares = [share for layer in network.layers for share in _shares(layer, network).values()]
    scale = LONGEST / max([*shares, 1e-12])
    notes = _notes(network, structure, columns)
    y, before, gap = 66 + NOTE * len(notes), 1, GAP if columns == 1 else CROSSING
    parts = [*_head(title, notes, y - 10), *_layer_box(Layer("image", network.input, 0, 0), y)]
    parts += _text(OUTPUT, y + 17, _shape(network.input), "end")
    y += BOX
    for layer in network.layers:
        branches = structure.branches.get(layer.name, ())
        count = columns if layer.shape and layer.shape[-1] % columns == 0 else 1
        top = y + gap
        if layer.shape:
            parts += _arrows(y, top, before, count, structure.groups.get(layer.name, count))
            before = count
        if branches:
            bottom = top + BOX + LINE * len(_lines(branches))
            parts += [_rect(LEFT, top, RIGHT - LEFT, bottom - top, "layer")]
            parts += [*_name(layer.name, LEFT, top), *_block(branches, top + BOX)]
            if layer.name in structure.dense:
                parts += _text(RIGHT - RAIL, top + 17, DENSE, "note end")
        else:
            bottom = top + BOX
            parts += _layer_box(layer, top, count)
        parts += _values(layer, network, top + 17, scale)
        y = bottom
    y += GAP
    parts += [f'<path class="line" d="M{MARGIN} {y}H{WIDTH - MARGIN}"/>']
    parts += _text(LEFT + 10, y + 20, "total", "name")
    for number, (end, _) in zip((network.params, network.macs), COLUMNS.values(), strict=True):
        parts += _text(end, y + 20, f"{number:,}", "end")
    height = y + 20 + MARGIN
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" '
            f'viewBox="0 0 {WIDTH} {height}" role="img">',
            f"<title>{html.escape(title)}</title>",
            f"<style>{STYLE}</style>",
            '<marker id="tip" viewBox="0 0 6 6" refX="6" refY="3" markerWidth="6" '
            'markerHeight="6" orient="auto"><path d="M0 0L6 3L0 6z" fill="#7c93a8"/></marker>',
            '<rect width="100%" height="100%" fill="#fff"/>',
            *parts,
            "</svg>\n",
        ]
    )


def _notes(network: Network, structure: Structure, columns: int) -> list[str]:
    """Returns the explanations that the diagram needs, a line each."""
    notes = {
        "In a block each part has its name and output, then its parameters · its multiply-adds.": (
            bool(structure.branches)
        ),
        "A layer reads its own column, or both where arrows cross.": columns > 1,
        "Dashed: parameters that have no output here (normalisations, auxiliary classifiers).": (
            not all(layer.shape for layer in network.layers)
        ),
    }
    return [note for note, is_needed in notes.items() if is_needed]


def _head(title: str, notes: Sequence[str], y: float) -> list[str]:
    """Returns the title, the explanations and at `y` the headings of the numbers."""
    parts = _text(MARGIN, 32, title, "title")
    for i, note in enumerate(notes):
        parts += _text(MARGIN, 52 + NOTE * i, note, "note")
    for text, end in (
        ("output", OUTPUT),
        ("parameters", COLUMNS["params"][0]),
        ("share", COLUMNS["params"][1] + SHARE),
        ("multiply-adds", COLUMNS["macs"][0]),
        ("share", COLUMNS["macs"][1] + SHARE),
    ):
        parts += _text(end, y, text, "head end")
    return parts


def _layer_box(layer: Layer, top: float, columns: int = 1) -> list[str]:
    """Returns a box with a layer's name, or one for each of its columns."""
    if not layer.shape:
        return [_rect(LEFT, top, RIGHT - LEFT, BOX, "own"), *_name(layer.name, LEFT, top)]
    parts = []
    for i, (left, right) in enumerate(_spans(columns), 1):
        parts += [_rect(left, top, right - left, BOX, "layer"), *_name(layer.name, left, top)]
        if columns > 1:
            own = (*layer.shape[:-1], layer.shape[-1] // columns)
            parts += _text(right - 10, top + 17, f"column {i}: {_shape(own)}", "end small")
    return parts


def _name(name: str, left: float, top: float) -> list[str]:
    return _text(left + 10, top + 17, name, "name")


def _spans(columns: int) -> list[tuple[float, float]]:
    """Returns the left and right ends of the boxes of `columns` side by side."""
    width = (RIGHT - LEFT - BETWEEN * (columns - 1)) / columns
    return [
        (LEFT + i * (width + BETWEEN), LEFT + i * (width + BETWEEN) + width) for i in range(columns)
    ]


def _arrows(start: float, end: float, before: int, after: int, groups: int) -> list[str]:
    """Returns arrows from `before` boxes to `after` boxes, each to its own if there are groups."""
    centres = [[(left + right) / 2 for left, right in _spans(n)] for n in (before, after)]
    return [
        _arrow(f"M{above:g} {start:g}L{below:g} {end:g}")
        for i, above in enumerate(centres[0])
        for j, below in enumerate(centres[1])
        if groups == 1 or i == j or before != after
    ]


def _lines(branches: Sequence[Sequence[Layer]]) -> list[Sequence[Layer]]:
    """Returns the parts of each line of a block; a branch without parts has a line too."""
    if _is_side_by_side(branches):
        branches = [[part for branch in branches for part in branch]]
    return [
        branch[i : i + IN_A_LINE]
        for branch in branches
        for i in range(0, max(len(branch), 1), IN_A_LINE)
    ]


def _is_side_by_side(branches: Sequence[Sequence[Layer]]) -> bool:
    """Returns whether there are so many branches of one part that a line has several of them."""
    return len(branches) > 4 and all(len(branch) == 1 for branch in branches)


def _block(branches: Sequence[Sequence[Layer]], top: float) -> list[str]:
    """Returns the branches of a block, each from the line on the left to that on the right."""
    left, right = LEFT + RAIL, RIGHT - RAIL
    parts: list[str] = []
    if _is_side_by_side(branches):
        for row, line in enumerate(_lines(branches)):
            for column, part in enumerate(line):
                parts += _part(part, column, top + row * LINE)
        return parts
    y = top
    for branch in branches:
        parts += _branch(branch, y)
        y += LINE * len(_lines([branch]))
    ends = f"V{y - LINE + PART / 2:g}"
    return [
        *parts,
        f'<path class="line" d="M{left} {top:g}{ends}"/>',
        f'<path class="line" d="M{right} {top + PART / 2:g}{ends}"/>',
    ]


def _branch(branch: Sequence[Layer], top: float) -> list[str]:
    """Returns the parts of a branch with their arrows, in one line or more."""
    left, right = LEFT + RAIL, RIGHT - RAIL
    y, first = top + PART / 2, _part_left(0)  # y is the middle of a line
    if not branch:
        return [
            *_text(first + 6, y - 4, "without parameters", "small"),
            f'<path class="line" d="M{left} {y:g}H{right}"/>',
        ]
    parts = [_arrow(f"M{left} {y:g}H{first:g}")]
    lines = _lines([branch])
    for row, line in enumerate(lines):
        for column, part in enumerate(line):
            parts += _part(part, column, y - PART / 2)
            if column:
                parts.append(_arrow(f"M{_part_left(column) - BETWEEN:g} {y:g}h{BETWEEN}"))
        past = _part_left(len(line)) - BETWEEN
        if row + 1 < len(lines):  # around to the start of the next line
            between, below = y + LINE / 2, y + LINE
            around = f"h{RAIL / 2:g}V{between:g}H{left + RAIL / 2:g}V{below:g}H{first:g}"
            parts.append(_arrow(f"M{past:g} {y:g}{around}"))
        else:
            parts.append(f'<path class="line" d="M{past:g} {y:g}H{right}"/>')
        y += LINE
    return parts


def _part(part: Layer, column: int, top: float) -> list[str]:
    """Returns the box of one part of a block."""
    left, width = _part_left(column), _part_left(1) - _part_left(0) - BETWEEN
    return [
        _rect(left, top, width, PART, "part"),
        *_text(left + 6, top + 12, part.name, "small name"),
        *_text(left + width - 6, top + 12, _shape(part.shape), "small end"),
        *_text(left + width - 6, top + 25, f"{part.params:,} · {part.macs:,}", "small end"),
    ]


def _part_left(column: int) -> float:
    """Returns the left end of a part."""
    left, right = LEFT + 2 * RAIL, RIGHT - 2 * RAIL
    return left + column * (right - left + BETWEEN) / IN_A_LINE


def _values(layer: Layer, network: Network, y: float, scale: float) -> list[str]:
    """Returns a layer's output, its two numbers, their bars and shares; `y` is the text's."""
    parts = _text(OUTPUT, y, _shape(layer.shape), "end") if layer.shape else []
    for kind, share in _shares(layer, network).items():
        number = getattr(layer, kind)
        if number:
            end, left = COLUMNS[kind]
            parts += _text(end, y, f"{number:,}", "end")
            parts.append(_rect(left, y - 9, scale * share, 10, kind))
            parts += _text(left + SHARE, y, f"{share:.1%}", "end")
    return parts


def _shares(layer: Layer, network: Network) -> dict[str, float]:
    """Returns a layer's parts of the network's parameters and multiply-adds."""
    return {
        "params": layer.params / max(network.params, 1),
        "macs": layer.macs / max(network.macs, 1),
    }


def _shape(shape: Sequence[int]) -> str:
    return "×".join(map(str, shape))


def _text(x: float, y: float, text: str, kind: str) -> list[str]:
    return [f'<text class="{kind}" x="{x:g}" y="{y:g}">{html.escape(text)}</text>']


def _rect(x: float, y: float, width: float, height: float, kind: str) -> str:
    return (
        f'<rect class="{kind}" x="{x:g}" y="{y:g}" width="{width:.2f}" height="{height:g}" rx="2"/>'
    )


def _arrow(path: str) -> str:
    return f'<path class="line" d="{path}" marker-end="url(#tip)"/>'
