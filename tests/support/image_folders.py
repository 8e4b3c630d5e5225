"""Writes folders of images as people lay theirs out."""

import pathlib
from collections.abc import Mapping

import cv2
import numpy as np


def write_images(folder: pathlib.Path, images: Mapping[str, int], *, colours: str = "") -> str:
    """Writes so many images of each class to a sub-folder of its name, and returns `folder:PATH`.

    An image of class `x` is of its own grey, noise, and a bright channel by the place of `x` among
    the comma-separated `colours`, by default the classes themselves.

    Args:
      folder: created if missing.
      images: number of images by the name of the class, which may be a path (`train/cat`).
      colours: see above.
    """
    order = colours.split(",") if colours else [name.rpartition("/")[2] for name in images]
    order = list(dict.fromkeys(order))
    for name, count in images.items():
        place = order.index(name.rpartition("/")[2])
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = np.random.default_rng((place, i)).integers(0, 60, (32, 32, 3), np.uint8)
            pixels[..., place % 3] += 150
            assert cv2.imwrite(str(folder / name / f"{i:03}.png"), pixels)
    return f"folder:{folder}"
