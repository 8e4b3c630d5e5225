"""Draws boxes with labels on the pixels of an image."""

from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

FONT, FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
# Okabe and Ito's palette without its black, which any colour vision tells apart.
COLOURS = (
    (230, 159, 0),
    (86, 180, 233),
    (240, 228, 66),
    (204, 121, 167),
    (0, 158, 115),
    (213, 94, 0),
    (0, 114, 178),
)
LEGIBLE = 320  # pixels of the longer side from which a label can be read beside others
_SIDE = 500  # of an image whose lines are two pixels wide and whose text has FONT_SCALE
_PAD = 2  # pixels around the text of a tag

Colour = tuple[int, int, int]  # RGB


def draw_boxes(
    image: np.ndarray,
    boxes: np.ndarray,
    labels: Sequence[str],
    colours: Sequence[Colour],
    *,
    zoom: int = 1,
) -> np.ndarray:
    """Returns a copy of an image with boxes, each with its label in a tag of its colour.

    Where boxes or tags cross, the first is on top: give the best first. A line is black beside its
    colour, so that it is seen on any ground.

    Args:
      image: uint8 [h, w, c], grey or RGB.
      boxes: [k, 4], in its pixels, see `boxes`; beyond the image they are cut off.
      labels: a text for each box, "" for none.
      colours: RGB of each box.
      zoom: whole factor by which the image is enlarged first, see `legible_zoom`.

    Returns uint8 RGB [zoom * h, zoom * w, 3].
    """
    enlarged = image.repeat(zoom, 0).repeat(zoom, 1)
    drawn = np.ascontiguousarray(np.broadcast_to(enlarged, (*enlarged.shape[:2], 3))).copy()
    height, width = drawn.shape[:2]
    thick = max(2, round(2 * max(height, width) / _SIDE))
    limits = (height, width) * 2
    edges = np.clip(np.rint(zoom * np.asarray(boxes, float)), 0, limits).astype(int).reshape(-1, 4)
    corners = [((x1, y1), (max(x1, x2 - 1), max(y1, y2 - 1))) for y1, x1, y2, x2 in edges.tolist()]
    marked = [*zip(corners, labels, colours, strict=True)][::-1]
    for (first, last), _, colour in marked:
        cv2.rectangle(drawn, first, last, BLACK, thick + 2)
        cv2.rectangle(drawn, first, last, colour, thick)
    for (first, _), label, colour in marked:
        if label:
            _draw_tag(drawn, first, label, colour)
    return drawn


def legible_zoom(image: Any) -> int:
    """Returns the least whole factor that makes the longer side of an image LEGIBLE pixels."""
    return -(-LEGIBLE // max(image.shape[:2]))


def colour_of(label: int) -> Colour:
    """Returns the colour of the class `label`; classes that are COLOURS apart share one."""
    return COLOURS[label % len(COLOURS)]


def fitting(text: str, width: int) -> str:
    """Returns as much of `text` as fits into `width` pixels; OpenCV draws only ASCII."""
    text = ascii_of(text)
    while len(text) > 1 and cv2.getTextSize(text, FONT, FONT_SCALE, 1)[0][0] > width:
        text = text[:-1]
    return text


def ascii_of(text: str) -> str:
    """Returns `text` with a question mark for every character that OpenCV cannot draw."""
    return text.encode("ascii", "replace").decode()


def _draw_tag(image: np.ndarray, corner: tuple[int, int], label: str, colour: Colour) -> None:
    """Writes a label above `corner` (x, y) of a box or, where there is no room, below it."""
    height, width = image.shape[:2]
    larger = max(1.0, max(height, width) / _SIDE)
    scale, stroke, text = FONT_SCALE * larger, max(1, round(larger)), ascii_of(label)
    (text_width, text_height), below = cv2.getTextSize(text, FONT, scale, stroke)
    tag_width, tag_height = text_width + 2 * _PAD, text_height + below + _PAD
    left = max(0, min(corner[0], width - tag_width))
    top = corner[1] - tag_height if corner[1] >= tag_height else corner[1]
    cv2.rectangle(image, (left, top), (left + tag_width - 1, top + tag_height - 1), colour, -1)
    bright = np.dot(colour, (0.299, 0.587, 0.114)) > 110
    place = left + _PAD, top + tag_height - below
    cv2.putText(image, text, place, FONT, scale, BLACK if bright else WHITE, stroke, cv2.LINE_AA)
