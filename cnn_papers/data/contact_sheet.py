"""A picture of what a network sees: images in a grid, each with its class."""

import cv2
import numpy as np

COLUMNS = 8
TILE = 112  # smaller images are enlarged by a whole factor to about this many pixels
MARGIN, LINE = 6, 16  # pixels around images and for a line of text
_FONT, _FONT_SCALE = cv2.FONT_HERSHEY_SIMPLEX, 0.4


def displayable(seen: np.ndarray, view: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """What the network sees as colours, uint8.

    One map per channel, a factor and an offset for the whole sheet, takes mean and deviation of
    `view` to those of `pixels`. It undoes any normalisation that is such a map itself, and shows
    the others as they are.

    Args:
      seen: float [n, h, w, c], augmented and normalised.
      view: float [n, h', w', c], the same images only normalised.
      pixels: uint8 [n, h', w', c], the same images before either.
    """
    axes = (0, 1, 2)
    deviation = view.std(axes)
    factor = pixels.std(axes) / np.where(deviation > 0, deviation, 1)
    colours = (seen - view.mean(axes)) * factor + pixels.mean(axes)
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8)


def draw(images: np.ndarray, names: list[str]) -> np.ndarray:
    """The sheet, uint8 RGB [h, w, 3], of uint8 images [n, h, w, c] with a name below each."""
    height, width = images.shape[1:3]
    enlarged = max(1, round(TILE / max(height, width)))
    tile_height, tile_width = height * enlarged, max(width * enlarged, 4 * LINE)
    rows, columns = -(-len(images) // COLUMNS), min(COLUMNS, len(images))
    cell_height, cell_width = tile_height + LINE + MARGIN, tile_width + MARGIN
    sheet = np.full((rows * cell_height + MARGIN, columns * cell_width + MARGIN, 3), 255, np.uint8)
    for i, (image, name) in enumerate(zip(images, names, strict=True)):
        top, left = MARGIN + i // COLUMNS * cell_height, MARGIN + i % COLUMNS * cell_width
        tile = image.repeat(enlarged, 0).repeat(
            enlarged, 1
        )  # one channel becomes three on assignment
        sheet[top : top + tile_height, left : left + width * enlarged] = tile
        text = _fitting(name, tile_width)
        cv2.putText(
            sheet,
            text,
            (left, top + tile_height + LINE - 4),
            _FONT,
            _FONT_SCALE,
            (0, 0, 0),
            1,
            cv2.LINE_AA,
        )
    return sheet


def _fitting(name: str, width: int) -> str:
    """As much of a name as fits into `width` pixels; OpenCV draws ASCII alone."""
    text = name.encode("ascii", "replace").decode()
    while len(text) > 1 and cv2.getTextSize(text, _FONT, _FONT_SCALE, 1)[0][0] > width:
        text = text[:-1]
    return text
