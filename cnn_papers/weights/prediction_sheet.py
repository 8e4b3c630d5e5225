"""Draws a sheet of images with the classes that a network predicts for them."""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from cnn_papers import files
from cnn_papers.data import contact_sheet

MOST = 64  # images of a sheet
FRAME = (213, 0, 0)  # RGB around images that are predicted wrong
SIDE = 192  # smaller images are enlarged by a whole factor to at most this many pixels


class Tile(NamedTuple):
    """An image of a sheet.

    Attributes:
      path: its file.
      image: uint8 [h, w, c], as the network sees it but for its normalisation.
      label: number of the best class.
      lines: what is written below it.
      is_wrong: whether it is marked by a frame.
    """

    path: pathlib.Path
    image: np.ndarray
    label: int
    lines: Sequence[str]
    is_wrong: bool = False


def write(
    path: pathlib.Path,
    tiles: Sequence[Tile],
    class_maps: Callable[[np.ndarray], np.ndarray] | None,
) -> None:
    """Writes the first MOST tiles to a PNG file.

    With `class_maps`, see `class_maps.make_class_maps`, each image has itself beside it under the
    map of its best class, bright where the network sees that.

    Raises:
      UserError: the file cannot be written.
    """
    images = []
    for tile in tiles[:MOST]:
        zoom = max(1, SIDE // max(tile.image.shape[:2]))
        enlarged = tile.image.repeat(zoom, 0).repeat(zoom, 1)
        image = np.broadcast_to(enlarged, (*enlarged.shape[:2], 3))
        if class_maps:
            of_class = class_maps(tile.image[None])[0, ..., tile.label]
            image = np.concatenate([image, under_map(image, of_class)], 1)
        images.append(framed(image) if tile.is_wrong else image)
    texts = ["\n".join([tile.path.name, *tile.lines]) for tile in tiles[:MOST]]
    across = contact_sheet.COLUMNS // 2 if class_maps else contact_sheet.COLUMNS
    sheet = contact_sheet.draw(np.stack(images), texts, across)
    with files.atomic_write(path) as part:
        part.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())


def framed(image: np.ndarray) -> np.ndarray:
    """Returns a copy of an image, uint8 [h, w, 3], with a frame over its edges."""
    width = max(2, max(image.shape[:2]) // 40)
    frame = np.ones(image.shape[:2], bool)
    frame[width:-width, width:-width] = False
    return np.where(frame[..., None], np.array(FRAME, np.uint8), image)


def under_map(image: np.ndarray, of_class: np.ndarray) -> np.ndarray:
    """Returns an image, uint8 [h, w, 3], half covered by the colours of a map, float [h', w'].

    Black is 0 and below, white the highest value of the map.
    """
    positive = np.maximum(of_class, 0)
    levels = np.rint(255 * positive / max(positive.max(), 1e-12)).astype(np.uint8)
    size = image.shape[1::-1]
    colours = cv2.applyColorMap(
        cv2.resize(levels, size, interpolation=cv2.INTER_LINEAR), cv2.COLORMAP_INFERNO
    )[..., ::-1]
    return ((image.astype(np.uint16) + colours) // 2).astype(np.uint8)
