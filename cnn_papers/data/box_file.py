"""Reads a file of boxes that may hold an object, made elsewhere, such as edge boxes.

It is a `.npz` with an array [p, 4] for each image, see `boxes`, in pixels of the upright original,
under the image's id, which for a VOC folder and for VOC in TFDS is the name of its file:
`numpy.savez("boxes.npz", **{"000001.jpg": boxes, ...})`. It may hold the images of several splits,
and more. The order of an image's boxes stays as it is.
"""

import concurrent.futures
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from cnn_papers import files
from cnn_papers.data import host_ops
from cnn_papers.data.progress import reported
from cnn_papers.data.split import DamagedExample, Split
from cnn_papers.errors import UserError, did_you_mean, listed

SUFFIX = ".npz"


def read(path: pathlib.Path, split: Split) -> list[np.ndarray]:
    """Returns the boxes of every image of `split` in a file of boxes, float32 [p, 4].

    Raises:
      UserError: the file cannot be read, lacks an image, or has boxes that are not inside theirs.
    """
    if not path.exists():
        raise UserError(f"config.data.proposals={path}: there is no such file")
    try:
        boxes_by_id = files.read_npz(path)
    except ValueError as error:
        raise UserError(
            f"config.data.proposals={path} cannot be read ({error}): write it with numpy.savez, "
            "an array [boxes, 4] under the id of each image"
        ) from error
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        count = len(split.examples)
        ids_and_sizes = list(
            reported(
                pool.map(lambda index: _id_and_size(split, index), range(count)),
                count,
                f"reading the images of {split.name}",
            )
        )
    missing = [name for name, _ in ids_and_sizes if name and name not in boxes_by_id]
    if missing:
        hint = did_you_mean(missing[0], boxes_by_id) or f"it has {listed(sorted(boxes_by_id))}"
        raise UserError(
            f"config.data.proposals={path} lacks {len(missing):,} of the {count:,} images of "
            f"{split.name}: {listed(missing)}; {hint}"
        )
    return [
        _checked(boxes_by_id[name], f"config.data.proposals={path}: image {name}", size)
        if name
        else np.zeros((0, 4), np.float32)
        for name, size in ids_and_sizes
    ]


def _id_and_size(split: Split, index: int) -> tuple[str, tuple[int, ...]]:
    """Returns id, height and width of an image; of one that cannot be read, "" and ()."""
    try:
        example = split.examples[index]
        if split.objects is not None:
            return example["id"], split.objects[index].size
        return example["id"], host_ops.decode(example["image"]).shape[:2]
    except (DamagedExample, ValueError):
        return "", ()


def _checked(boxes: np.ndarray, what: str, size: Sequence[int]) -> np.ndarray:
    """Returns boxes as float32; UserError, which begins with `what`, if they are none."""
    if boxes.ndim != 2 or boxes.shape[1] != 4 or boxes.dtype.kind not in "fiu":
        raise UserError(f"{what}: {boxes.dtype} {list(boxes.shape)} is no array of boxes [p, 4]")
    low, high = boxes[:, :2], boxes[:, 2:]
    inside = ((low >= 0) & (low < high) & (high <= np.array(size))).all(1)
    if not inside.all():
        number = int(np.argmin(inside))
        box = ", ".join(f"{edge:g}" for edge in boxes[number])
        raise UserError(
            f"{what}: box {number} [{box}] is not [y1, x1, y2, x2] inside its "
            f"{size[0]}×{size[1]} pixels (height×width)"
        )
    return boxes.astype(np.float32)
