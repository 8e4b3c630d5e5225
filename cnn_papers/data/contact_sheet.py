"""Draws a contact sheet: images in a grid, each with a text below it."""

import cv2
import numpy as np

from cnn_papers.data import drawing

COLUMNS = 8
TILE = 112  # smaller images are enlarged by a whole factor to about this many pixels
MARGIN, LINE = 6, 16  # pixels between images, and the height of a line of text


def displayable(augmented: np.ndarray, normalised: np.ndarray, pixels: np.ndarray) -> np.ndarray:
    """Returns augmented images as colours, uint8 [n, h, w, c].

    One factor and one offset per channel, for the whole sheet, map the mean and the standard
    deviation of `normalised` to those of `pixels`. This undoes a normalisation that is such a map
    itself, and leaves the effects of others visible.

    Args:
      augmented: float [n, h, w, c], as the network is trained on them.
      normalised: float [n, h', w', c], the same images with the operations of evaluation.
      pixels: uint8 [n, h', w', c], the same images before either.
    """
    axes = (0, 1, 2)
    deviation = normalised.std(axes)
    factor = pixels.std(axes) / np.where(deviation > 0, deviation, 1)
    colours = (augmented - normalised.mean(axes)) * factor + pixels.mean(axes)
    return np.clip(np.rint(colours), 0, 255).astype(np.uint8)


def draw(images: np.ndarray, texts: list[str], across: int = COLUMNS) -> np.ndarray:
    """Draws uint8 images [n, h, w, c] with the lines of a text below each, `across` in a row.

    Returns uint8 RGB [h, w, 3].
    """
    height, width = images.shape[1:3]
    enlarged = max(1, round(TILE / max(height, width)))
    tile_height, tile_width = height * enlarged, max(width * enlarged, 4 * LINE)
    rows, columns = -(-len(images) // across), min(across, len(images))
    lines = max(len(text.splitlines()) for text in texts)
    cell_height, cell_width = tile_height + lines * LINE + MARGIN, tile_width + MARGIN
    sheet = np.full((rows * cell_height + MARGIN, columns * cell_width + MARGIN, 3), 255, np.uint8)
    for i, (image, text) in enumerate(zip(images, texts, strict=True)):
        top, left = MARGIN + i // across * cell_height, MARGIN + i % across * cell_width
        tile = image.repeat(enlarged, 0).repeat(enlarged, 1)
        # The assignment makes three channels of one.
        sheet[top : top + tile_height, left : left + width * enlarged] = tile
        for number, line in enumerate(text.splitlines(), 1):
            place = (left, top + tile_height + number * LINE - 4)
            written = drawing.fitting(line, tile_width)
            font, scale = drawing.FONT, drawing.FONT_SCALE
            cv2.putText(sheet, written, place, font, scale, drawing.BLACK, 1, cv2.LINE_AA)
    return sheet
