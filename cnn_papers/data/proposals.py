"""Boxes that may hold an object, for each image of a split: `config.data.proposals`.

The config names a proposer, such as `selective_search(size=320)`, or a file of boxes, which is read
by `box_file`. A proposer's boxes are kept on disk beside the data, where statistics are, under a
digest of all images and of the proposer with its arguments: other images make new ones.
"""

import concurrent.futures
import hashlib
import inspect
import logging
import os
import pathlib
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

import cv2
import numpy as np

from cnn_papers import files, opstrings
from cnn_papers.boxes import iou
from cnn_papers.data import box_file, host_ops, proposers, statistics
from cnn_papers.data.progress import reported
from cnn_papers.data.split import DamagedExample, Objects, Split
from cnn_papers.errors import UserError, listed
from cnn_papers.terminal import duration

KEY = "data.proposals"
SAVE_EVERY = 60.0  # seconds; a pass that is interrupted goes on from the last save

Proposer = Callable[[np.ndarray], np.ndarray]


def parse(text: str) -> opstrings.Op:
    """Returns the proposer that `text`, a value of `config.data.proposals`, names.

    Call it with an image: it returns boxes as `proposers` says.

    Raises:
      UserError: a text that names no proposer or several, or a file of boxes, which has none of
        another image.
    """
    if text.endswith(box_file.SUFFIX):
        raise UserError(
            f"config.{KEY}={text} has boxes of its own images only: for another image name a "
            f"proposer, such as --config.{KEY}='selective_search()'"
        )
    is_call = re.fullmatch(r"\w+\s*(\(.*\))?", text.strip(), re.DOTALL)
    ops = opstrings.parse(text, proposers, leading=1, key=KEY) if is_call else ()
    if len(ops) != 1:
        names = ", ".join(opstrings.functions(proposers))
        raise UserError(
            f"config.{KEY}={text!r} must name one proposer, with its arguments (there are: "
            f"{names}), or a file of boxes, which ends in {box_file.SUFFIX}"
        )
    return ops[0]


def of_split(split: Split, text: str) -> list[np.ndarray]:
    """Returns the proposals for every image of a split, float32 [p, 4] each.

    They are read from the file of boxes, or from disk where they were kept, or made in threads, one
    image each, and kept. An image that cannot be decoded has none.

    Args:
      split: any split.
      text: of `config.data.proposals`, not empty.

    Raises:
      UserError: as `parse` and `box_file.read`.
    """
    if text.endswith(box_file.SUFFIX):
        return box_file.read(pathlib.Path(text), split)
    proposer = parse(text)
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        name = f"proposals-{_digest(split, proposer, pool)}.npz"
        proposals = _kept(split, name)
        if len(proposals) == len(split.examples):
            return proposals
        with statistics.made_once(split, name):
            proposals = _kept(split, name)  # another process may have made them
            if len(proposals) < len(split.examples):
                _make(proposals, split, proposer, text, name, pool)
    return proposals


def recall(
    proposals: Sequence[np.ndarray], objects: Sequence[Objects], overlap: float = 0.5
) -> float:
    """Returns the share of true boxes that a proposal meets with an IoU of at least `overlap`.

    Difficult objects do not count, as in VOC's metric. Without objects it is nan.

    Args:
      proposals: float32 [p, 4] for each image.
      objects: of the same images.
      overlap: the smallest IoU.
    """
    found = count = 0
    for boxes, image in zip(proposals, objects, strict=True):
        true = image.boxes[~image.difficult]
        overlaps = iou(true[:, None], boxes[None])
        found += int((overlaps.max(1, initial=0) >= overlap).sum())
        count += len(true)
    return found / count if count else float("nan")


def digest(split: Split) -> str:
    """Returns a digest of the proposals of a split, "" if it has none."""
    if split.proposals is None:
        return ""
    arrays = packed(split.proposals)
    return hashlib.sha256(b"".join(array.tobytes() for array in arrays)).hexdigest()[:16]


# --- made and kept --------------------------------------------------------------------------------


def _digest(split: Split, proposer: opstrings.Op, pool: concurrent.futures.Executor) -> str:
    """Returns a digest of all images of a split, and of a proposer with all its arguments.

    It is of OpenCV's version too: another may decode or segment images differently.
    """
    bound = inspect.signature(proposer.function).bind(None, *proposer.args, **proposer.kwargs)
    bound.apply_defaults()
    arguments = list(bound.arguments.items())[1:]
    digest = hashlib.sha256(repr((cv2.__version__, proposer.name, arguments)).encode())

    def of_image(index: int) -> bytes:
        example = _read(split, index)
        return hashlib.sha256(example["image"] if example else b"damaged").digest()

    count = len(split.examples)
    found = pool.map(of_image, range(count))
    for part in reported(found, count, f"reading the images of {split.name}"):
        digest.update(part)
    return digest.hexdigest()[:16]


def _read(split: Split, index: int) -> dict[str, Any] | None:
    """Returns an encoded example, None if it is damaged."""
    try:
        return split.examples[index]
    except DamagedExample:
        return None


def _kept(split: Split, name: str) -> list[np.ndarray]:
    """Returns the proposals of the first images that the file `name` has; none without a file."""
    for folder in statistics.places(split):
        path = folder / name
        if not path.is_file():
            continue
        try:
            arrays = files.read_npz(path)
            boxes, counts = arrays["boxes"], arrays["counts"]
            if len(counts) > len(split.examples) or boxes.shape != (counts.sum(), 4):
                raise ValueError("it is of other images")
        except (ValueError, KeyError) as error:
            _log().warning("%s cannot be read (%s): its proposals are made again", path, error)
            continue
        return unpacked(boxes, counts)
    return []


def packed(proposals: Sequence[np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Returns all boxes, float32 [boxes, 4], and the number of each image's, int32 [images]."""
    counts = np.array([len(boxes) for boxes in proposals], np.int32)
    return np.concatenate([np.zeros((0, 4), np.float32), *proposals]), counts


def unpacked(boxes: np.ndarray, counts: np.ndarray) -> list[np.ndarray]:
    """Returns the boxes of each image, of those that `packed` put together."""
    return np.split(boxes, np.cumsum(counts)[:-1]) if len(counts) else []


def _make(
    proposals: list[np.ndarray],
    split: Split,
    proposer: Proposer,
    text: str,
    name: str,
    pool: concurrent.futures.Executor,
) -> None:
    """Appends the proposals of the images that have none yet, and keeps all under `name`."""
    done, count = len(proposals), len(split.examples)
    went_on = f", from image {done + 1:,} on" if done else ""
    _log().info("proposals of %s (%d images) by %s%s", split.name, count, text, went_on)
    began = saved = time.monotonic()
    undecodable: list[str] = []
    cv2.setNumThreads(0)  # a thread an image already uses every core
    made = pool.map(lambda index: _propose(split, index, proposer, undecodable), range(done, count))
    for boxes in reported(made, count - done, f"proposals of {split.name}"):
        proposals.append(boxes)
        if time.monotonic() - saved >= SAVE_EVERY:
            _keep(proposals, split, name)
            saved = time.monotonic()
    place = _keep(proposals, split, name)
    _log().info(
        "proposals of %s: %s an image, in %s, %s",
        split.name,
        f"{sum(map(len, proposals)) / count:,.0f}",
        duration(time.monotonic() - began),
        f"kept in {place}" if place else "kept nowhere",
    )
    if undecodable:
        _log().warning(
            "%s: images that cannot be decoded have no proposals: %s",
            split.name,
            listed(sorted(undecodable)),
        )


def _propose(split: Split, index: int, proposer: Proposer, undecodable: list[str]) -> np.ndarray:
    """Returns the proposals of one image; of one that cannot be decoded, which is noted, none."""
    example = _read(split, index)
    try:
        image = host_ops.decode(example["image"] if example else b"")
    except ValueError:
        undecodable.append(example["id"] if example else f"example {index}")
        return np.zeros((0, 4), np.float32)
    return proposer(image)


def _keep(proposals: Sequence[np.ndarray], split: Split, name: str) -> pathlib.Path | None:
    """Writes proposals beside the data or to the user's cache folder; returns the file, if any."""
    boxes, counts = packed(proposals)
    for folder in statistics.places(split):
        try:
            with files.replacing(folder / name) as part, part.open("wb") as file:
                np.savez(file, boxes=boxes, counts=counts)
            return folder / name
        except OSError as error:
            _log().info("proposals not kept in %s: %s", folder, error)
    return None


def _log() -> logging.Logger:
    return logging.getLogger(__name__)
