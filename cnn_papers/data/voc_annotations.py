"""Reads annotations of VOC's form: an XML file for each image."""

import math
import pathlib
import xml.etree.ElementTree as ElementTree
from typing import NamedTuple

from cnn_papers.errors import UserError

_EDGES = ("ymin", "xmin", "ymax", "xmax")
_DIFFICULT = {"": False, "Unspecified": False, "0": False, "1": True}


class AnnotatedObject(NamedTuple):
    """One object of an annotation.

    Attributes:
      name: of its class.
      edges: ymin, xmin, ymax, xmax as written: pixels are counted from 1, and the last is included.
      is_difficult: whether a detector need not find it.
    """

    name: str
    edges: tuple[float, ...]
    is_difficult: bool


class Annotation(NamedTuple):
    """The annotation of one image.

    Attributes:
      size: (height, width) of the image; None if the file does not give it.
      objects: in the order of the file.
    """

    size: tuple[int, int] | None
    objects: tuple[AnnotatedObject, ...]


def read(path: pathlib.Path) -> Annotation:
    """Reads an annotation.

    Raises:
      UserError: the file cannot be read or parsed, an object lacks its class or an edge, a value is
        no number, `<difficult>` is neither 0 nor 1 (absent and `Unspecified` are 0).
      FileNotFoundError: there is no such file.
    """
    try:
        root = ElementTree.fromstring(path.read_bytes())
    except FileNotFoundError:
        raise
    except (OSError, ValueError, LookupError, ElementTree.ParseError) as error:
        raise UserError(f"cannot read the annotation {path}: {error}") from error
    if root.tag != "annotation":
        raise UserError(f"{path} is no annotation: it begins with <{root.tag}>, not <annotation>")
    objects = tuple(
        _object(element, f"object {number} of {path}")
        for number, element in enumerate(root.findall("object"), 1)
    )
    size = root.find("size")
    if size is None:
        return Annotation(None, objects)
    height, width = (_number(size, side, f"<size> of {path}") for side in ("height", "width"))
    return Annotation((int(height), int(width)), objects)


def _object(element: ElementTree.Element, what: str) -> AnnotatedObject:
    """Reads one `<object>`; `what` names it in messages."""
    name = _text(element, "name")
    if not name:
        raise UserError(f"{what} has no <name>")
    box = element.find("bndbox")
    if box is None:
        raise UserError(f"{what} ({name}) has no <bndbox>")
    difficult = _text(element, "difficult")
    if difficult not in _DIFFICULT:
        raise UserError(f"{what} ({name}): <difficult> is {difficult!r}, neither 0 nor 1")
    edges = tuple(_number(box, edge, f"{what} ({name})") for edge in _EDGES)
    return AnnotatedObject(name, edges, _DIFFICULT[difficult])


def _text(element: ElementTree.Element, tag: str) -> str:
    """Returns a text with one space where it has several or breaks the line, "" without one."""
    return " ".join((element.findtext(tag) or "").split())


def _number(element: ElementTree.Element, tag: str, what: str) -> float:
    text = _text(element, tag)
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise UserError(f"{what}: <{tag}> is {text!r}, not a number")
    return value
