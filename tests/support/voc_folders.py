"""Writes folders of VOC's layout."""

import pathlib
from collections.abc import Mapping, Sequence

import cv2
import numpy as np

HEIGHT, WIDTH = 40, 60  # of every image
Box = tuple[str, tuple[float, float, float, float]]  # class; ymin, xmin, ymax, xmax from 1


def write_voc(
    folder: pathlib.Path,
    objects: Mapping[str, Sequence[Box]],
    **sets: Sequence[str],
) -> str:
    """Writes an image of noise and an annotation for each name; returns `voc_folder:PATH`.

    Args:
      folder: created if missing.
      objects: of each image, by its name.
      sets: the names of the images of each image set; by default all are in `train`.
    """
    for part in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (folder / part).mkdir(parents=True, exist_ok=True)
    for i, (name, of_image) in enumerate(objects.items()):
        pixels = np.random.default_rng(i).integers(0, 255, (HEIGHT, WIDTH, 3), np.uint8)
        assert cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), pixels)
        (folder / "Annotations" / f"{name}.xml").write_text(annotation(of_image))
    for name, images in (sets or {"train": [*objects]}).items():
        (folder / "ImageSets/Main" / f"{name}.txt").write_text("".join(f"{i}\n" for i in images))
    return f"voc_folder:{folder}"


def annotation(
    objects: Sequence[Box], *, height: int = HEIGHT, width: int = WIDTH, difficult: str = "0"
) -> str:
    """Returns the text of an annotation; `difficult` is of all objects."""
    parts = [
        f"<object><name>{name}</name><difficult>{difficult}</difficult><bndbox>"
        f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
        "</bndbox></object>"
        for name, (ymin, xmin, ymax, xmax) in objects
    ]
    size = f"<size><width>{width}</width><height>{height}</height><depth>3</depth></size>"
    return f"<annotation>{size}{''.join(parts)}</annotation>"
