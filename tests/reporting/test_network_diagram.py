"""Diagrams of networks: each row of the layer table, bars in proportion, no overlap."""

import functools
import itertools
import re
from typing import Any
from xml.etree import ElementTree

import pytest

from cnn_papers import branches, counting, zoo
from cnn_papers.counting import Layer, Network
from cnn_papers.reporting import network_diagram

NETWORKS = [
    ("lenet", "original"),
    ("alexnet", "paper"),
    ("googlenet", "paper"),
    ("resnet", "50"),
    ("densenet", "121"),
]
SVG = "{http://www.w3.org/2000/svg}"
WIDEST = 0.6  # of a letter, in heights of its font; mostly it is narrower


class Drawn:
    """A diagram that is read back."""

    def __init__(self, text: str):
        self.root = ElementTree.fromstring(text)
        self.texts = [(element, element.text or "") for element in self.root.iter(f"{SVG}text")]

    def boxes(self, kind: str) -> list[dict[str, float]]:
        found = [rect for rect in self.root.iter(f"{SVG}rect") if rect.get("class") == kind]
        return [
            {key: float(rect.attrib[key]) for key in ("x", "y", "width", "height")}
            for rect in found
        ]

    def row(self, y: str) -> list[str]:
        """The texts on one line, from left to right."""
        line = [(float(e.attrib["x"]), text) for e, text in self.texts if e.get("y") == y]
        return [text for _, text in sorted(line)]

    def names(self) -> list[Any]:
        return [e for e, _ in self.texts if e.get("class") == "name"]

    def arrows(self) -> list[str]:
        return [path.attrib["d"] for path in self.root.iter(f"{SVG}path") if path.get("marker-end")]


@functools.cache
def drawn(name: str, variant: str) -> tuple[Network, branches.Structure, str]:
    model = zoo.build_model(name, variant=variant)
    size = zoo.model_module(name).FACTS[variant].input
    network, structure = counting.count(model, size), branches.find(model, size)
    columns = getattr(model, "columns", 1)
    return network, structure, network_diagram.draw("A title", network, structure, columns)


@pytest.mark.parametrize(("name", "variant"), NETWORKS)
def test_a_diagram_has_every_row_of_the_table(name, variant):
    network, structure, text = drawn(name, variant)
    assert len(text.encode()) < 60_000
    diagram = Drawn(text)
    rows = {}
    for element in diagram.names():
        rows.setdefault(element.text, diagram.row(element.attrib["y"]))
    assert list(rows) == ["image", *(layer.name for layer in network.layers), "total"]
    for layer in network.layers:
        expected = ["×".join(map(str, layer.shape))] if layer.shape else []
        for number, whole in ((layer.params, network.params), (layer.macs, network.macs)):
            expected += [f"{number:,}", f"{number / whole:.1%}"] if number else []
        row = rows[layer.name]
        assert row[len(row) - len(expected) :] == expected
    assert rows["total"] == ["total", f"{network.params:,}", f"{network.macs:,}"]
    parts = [part for found in structure.branches.values() for branch in found for part in branch]
    assert len(diagram.boxes("part")) == len(parts)
    numbers = [text for _, text in diagram.texts if re.fullmatch("[0-9,]+ · [0-9,]+", text)]
    assert numbers == [f"{part.params:,} · {part.macs:,}" for part in parts]


@pytest.mark.parametrize(("name", "variant"), NETWORKS)
def test_bars_are_in_proportion_to_shares(name, variant):
    """The greatest of all is the longest; both kinds have one scale."""
    network, _, text = drawn(name, variant)
    diagram = Drawn(text)
    shares = {
        "params": [layer.params / network.params for layer in network.layers if layer.params],
        "macs": [layer.macs / network.macs for layer in network.layers if layer.macs],
    }
    greatest = max(*shares["params"], *shares["macs"])
    for kind, expected in shares.items():
        widths = [bar["width"] for bar in diagram.boxes(kind)]
        lengths = [network_diagram.LONGEST * share / greatest for share in expected]
        assert widths == pytest.approx(lengths, abs=0.005)  # two decimals are written


@pytest.mark.parametrize(("name", "variant"), NETWORKS)
def test_boxes_and_texts_do_not_overlap(name, variant):
    diagram = Drawn(drawn(name, variant)[2])
    for kind in ("layer", "part"):
        boxes = diagram.boxes(kind)
        for i, one in enumerate(boxes):
            for other in boxes[:i]:
                beside = any(
                    one[at] >= other[at] + other[size] or other[at] >= one[at] + one[size]
                    for at, size in (("x", "width"), ("y", "height"))
                )
                assert beside, (kind, one, other)
    ends: dict[str, list[tuple[float, float, str]]] = {}
    for element, text in diagram.texts:
        kinds = element.attrib["class"].split()
        font = 16 if "title" in kinds else 9.5 if "small" in kinds else 12
        width, x = WIDEST * font * len(text), float(element.attrib["x"])
        left = x - width if "end" in kinds else x
        ends.setdefault(element.attrib["y"], []).append((left, left + width, text))
    for line in ends.values():
        line.sort()
        for (_, right, one), (left, _, other) in itertools.pairwise(line):
            assert right <= left, (one, other)


def test_columns_have_boxes_and_arrows_cross_where_a_layer_reads_both():
    network, _, text = drawn("alexnet", "paper")
    diagram = Drawn(text)
    assert len(diagram.boxes("layer")) == 1 + 2 * len(network.layers)
    written = [text for _, text in diagram.texts]
    assert written.count("column 1: 27×27×128") == written.count("column 2: 27×27×128") == 2
    crossing = {"conv3", "fc6", "fc7", "fc8"}
    assert len(diagram.arrows()) == sum(
        4 if layer.name in crossing else 2 for layer in network.layers
    )


def test_a_network_without_blocks_or_columns_needs_no_explanation():
    layers = (Layer("a<b", (4, 4, 2), 10, 0), Layer("fc", (1, 1, 3), 30, 90))
    network = Network((4, 4, 1), layers, 40, 90)
    nothing = branches.Structure({}, frozenset(), {})
    diagram = Drawn(network_diagram.draw("one & two", network, nothing))
    heads = ["one & two", "output", "parameters", "share", "multiply-adds", "share"]
    assert [text for _, text in diagram.texts][: len(heads)] == heads
    assert [bar["width"] for bar in diagram.boxes("params")] == pytest.approx([85 / 4, 85 * 3 / 4])
    assert [bar["width"] for bar in diagram.boxes("macs")] == [85]
    assert [element.text for element in diagram.names()] == ["image", "a<b", "fc", "total"]


def test_a_long_branch_goes_on_in_the_next_line_and_says_what_it_reads():
    chain = tuple(Layer(f"layer{i}", (2, 2, 1), 1, 1) for i in range(4))
    network = Network((2, 2, 1), (Layer("block", (2, 2, 5), 4, 4),), 4, 4)
    structure = branches.Structure({"block": (chain, ())}, frozenset(["block"]), {})
    diagram = Drawn(network_diagram.draw("", network, structure))
    (block,) = [box for box in diagram.boxes("layer") if box["height"] > network_diagram.BOX]
    places = [(part["x"], part["y"]) for part in diagram.boxes("part")]
    assert block["height"] == network_diagram.BOX + 3 * network_diagram.LINE
    assert [x for x, _ in places] == sorted(x for x, _ in places[:3]) + [places[0][0]]
    assert places[3][1] == places[0][1] + network_diagram.LINE
    written = [text for _, text in diagram.texts]
    assert network_diagram.DENSE in written and "without parameters" in written
    # to the block, to its first part, between three parts, and around to the last
    assert len(diagram.arrows()) == 1 + 1 + 2 + 1
