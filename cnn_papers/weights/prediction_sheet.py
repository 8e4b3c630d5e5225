"""Draws a sheet of images with the classes that a network predicts for them."""

import pathlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from cnn_papers import files
from cnn_papers.data import contact_sheet

MOST = 64  # images of a sheet
SIDE = 192  # smaller images are enlarged by a whole factor to at most this many pixels


class Prediction(NamedTuple):
    """An image of a sheet.

    Attributes:
      path: its file.
      image: uint8 [h, w, c], as the network sees it but for its normalisation.
      label: number of the best class.
      lines: what is written below it.
    """

    path: pathlib.Path
    image: np.ndarray
    label: int
    lines: Sequence[str]


def write(
    path: pathlib.Path,
    predictions: Sequence[Prediction],
    class_maps: Callable[[np.ndarray], np.ndarray] | None,
) -> None:
    """Writes the first MOST predictions to a PNG file.

    With `class_maps`, see `class_maps.make_class_maps`, each image has itself beside it under the
    map of its best class, bright where the network sees that.

    Raises:
      UserError: the file cannot be written.
    """
    tiles = []
    for prediction in predictions[:MOST]:
        zoom = max(1, SIDE // max(prediction.image.shape[:2]))
        enlarged = prediction.image.repeat(zoom, 0).repeat(zoom, 1)
        image = np.broadcast_to(enlarged, (*enlarged.shape[:2], 3))
        if class_maps:
            of_class = class_maps(prediction.image[None])[0, ..., prediction.label]
            image = np.concatenate([image, under_map(image, of_class)], 1)
        tiles.append(image)
    texts = ["\n".join([item.path.name, *item.lines]) for item in predictions[:MOST]]
    across = contact_sheet.COLUMNS // 2 if class_maps else contact_sheet.COLUMNS
    sheet = contact_sheet.draw(np.stack(tiles), texts, across)
    with files.atomic_write(path) as part:
        part.write_bytes(cv2.imencode(".png", sheet[..., ::-1])[1].tobytes())


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
