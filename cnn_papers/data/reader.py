"""Reads the examples of a split, and takes their images and boxes through the host operations."""

import inspect
import itertools
import logging
import math
import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from cnn_papers.boxes import NONE, Boxed, area, without_empty
from cnn_papers.data import host_ops
from cnn_papers.data.image_files import TooManyPixels
from cnn_papers.data.objects import labels_of_images
from cnn_papers.data.split import DamagedExample, Split, only
from cnn_papers.errors import UserError
from cnn_papers.opstrings import Op, OpString

EVAL = "data.eval_host"  # the config key of the operations of evaluation


def cutting_out(host: OpString) -> Op | None:
    """Returns the operation that cuts out an object, whose class is the label; None without one."""
    return next((op for op in host.ops if op.needs("objects")), None)


def with_object_to_cut_out(split: Split, host: OpString) -> Split:
    """Returns `split` without the images that have no object to cut out, if `host` does so.

    Images all of whose objects are difficult are among them. A warning has their number.

    Raises:
      UserError: a split without boxes, or one in which no image has such an object.
    """
    cut_out = cutting_out(host)
    if cut_out is None:
        return split
    if split.objects is None:
        raise UserError(
            f"config.{host.key}: '{cut_out.name}' cuts out an object, and {split.name} has no boxes"
        )
    kept = [i for i, objects in enumerate(split.objects) if len(objects.easy())]
    passed_over = len(split.examples) - len(kept)
    if not kept:
        raise UserError(f"config.{host.key}: {split.name} has no object that can be cut out")
    if not passed_over:
        return split
    logging.getLogger(__name__).warning(
        "%d of the %d images of %s have no object to cut out: they are passed over",
        passed_over,
        len(split.examples),
        split.name,
    )
    return only(split, kept)


def _decodes_smaller(decode: Op) -> bool:
    arguments = inspect.signature(decode.function).bind_partial(None, *decode.args, **decode.kwargs)
    return bool(arguments.arguments.get("short"))


class Reader:
    """The examples of a split after the host operations; many threads may read at once.

    Args:
      split, host, num_classes, max_skips, boxes, many_labels: as for `pipeline.Pipeline`.

    Attributes:
      split: without the images that `with_object_to_cut_out` passes over.
      key, ops: the operations, and the config key of their text.
      has_boxes: whether examples have boxes.
      labels: int8 [n, num_classes] of all examples, from their boxes; None without `many_labels`
        or boxes.
      is_random: whether one of the operations draws at random.
      arrays: the first example in each epoch, after which shapes repeat.
      skipped: ids of the examples that are left out.

    Raises:
      UserError: operations that do not begin with `decode`, or decode an image smaller that is
        tested or has boxes; that cut out an object later than next,
        or that the first image cannot have; an object of a class that is out of range.
    """

    def __init__(
        self,
        split: Split,
        host: OpString,
        *,
        num_classes: int,
        max_skips: int,
        boxes: bool = True,
        many_labels: bool = False,
    ):
        self.num_classes, self.max_skips = num_classes, max_skips
        self.key, self.ops = host.key, host.ops
        if not self.ops or self.ops[0].name != "decode":
            raise UserError(
                f"config.{self.key} must begin with 'decode': examples arrive as encoded bytes"
            )
        if _decodes_smaller(self.ops[0]) and (self.key == EVAL or split.objects is not None):
            reason = (
                "a test scales whole images" if self.key == EVAL else "boxes are of whole images"
            )
            raise UserError(f"config.{self.key}: {reason}: write 'decode' without 'short'")
        cut_out = cutting_out(host)
        if cut_out is not None and any(op.needs("objects") for op in self.ops[2:]):
            raise UserError(
                f"config.{self.key}: an object is cut out of the whole image: write "
                f"'{cut_out.name}' once, right after 'decode'"
            )
        if any(op.name in host_ops.DESCRIPTORS for op in self.ops[:-1]):
            names = " or ".join(host_ops.DESCRIPTORS)
            raise UserError(f"config.{self.key}: nothing can follow {names}: write it last")
        self.split = split = with_object_to_cut_out(split, host)
        self.has_boxes = boxes and split.objects is not None
        self.many_labels, self.labels = many_labels, None
        if self.has_boxes or cut_out is not None or many_labels:
            self._check_classes()
        if many_labels and split.objects is not None:
            self.labels = self._without_a_class(labels_of_images(split.objects, num_classes))
        self._most_objects = _largest_count([objects.boxes for objects in split.objects or ()])
        self._most_proposals = _largest_count(split.proposals or ())
        self.is_random = any(op.needs("rng") for op in self.ops)
        self.skipped: set[str] = set()
        self._warned: set[str] = set()  # warnings given before
        self._lock = threading.Lock()
        # Shapes repeat after as many epochs as the operations that depend on the epoch have sizes.
        period = math.lcm(*(len(op.args) for op in self.ops if op.needs("epoch")))
        self.arrays = [self.example(0, seed=(0, 0), epoch=epoch) for epoch in range(period)]

    @property
    def shapes(self) -> list[tuple[int, ...]]:
        """Returns the (h, w, c) of the images in each epoch, after which they repeat."""
        return [arrays["image"].shape for arrays in self.arrays]

    def example(self, index: int, *, seed: tuple[int, int], epoch: int = 0) -> dict[str, Any]:
        """Returns the arrays at `index`, or of the next example that is not left out.

        They are uint8 `image` [h, w, c]; int32 `label`, if the example has one or an operation cuts
        out an object; with many labels `labels`; and with boxes `boxes`, `classes`, `difficult`,
        `size` and, if the split has any, `proposals`, see `pipeline.Pipeline.train_batches`.
        """
        count = len(self.split.examples)
        for i in itertools.chain(range(index, count), range(index)):
            example = self._transformed(i, self._read([i])[0], seed, epoch)
            if example is not None:
                return example
        raise UserError(f"{self.split.name} has no image that can be decoded")

    def stack(
        self, indices: Sequence[int], seeds: Sequence[tuple[int, int]], epoch: int
    ) -> dict[str, np.ndarray]:
        """Returns the examples at `indices` after the operations, stacked to arrays."""
        examples = [
            self._transformed(i, example, seed, epoch) or self.example(i, seed=seed, epoch=epoch)
            for i, seed, example in zip(indices, seeds, self._read(indices), strict=True)
        ]
        shapes = {
            self.shapes[epoch % len(self.shapes)],
            *(example["image"].shape for example in examples),
        }
        if len(shapes) > 1:
            two_shapes = " and ".join(map(str, sorted(shapes)[:2]))
            raise UserError(
                f"config.{self.key}: images of {self.split.name} come out with different shapes, "
                f"such as {two_shapes}; end with a crop or resize"
            )
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}

    def _read(self, indices: Sequence[int]) -> list[dict[str, Any] | DamagedExample]:
        """Returns the encoded examples at `indices`, the error in place of one that is damaged."""
        examples: Any = self.split.examples
        if len(indices) > 1 and hasattr(examples, "__getitems__"):
            try:
                return examples.__getitems__(indices)
            except DamagedExample as error:  # read one at a time below, to see which
                logging.getLogger(__name__).debug("%s", error)
        read: list[dict[str, Any] | DamagedExample] = []
        for i in indices:
            try:
                read.append(examples[i])
            except DamagedExample as error:
                read.append(error)
        return read

    def _transformed(
        self, i: int, example: dict[str, Any] | DamagedExample, seed: tuple[int, int], epoch: int
    ) -> dict[str, Any] | None:
        """Returns example `i` after the operations, None if it is damaged and may be left out."""
        if isinstance(example, DamagedExample):
            reason = str(example)
            return self._skip(reason, f"left out an example: {reason}", reason, example)
        name, label = example["id"], example.get("label")
        if label is not None and not 0 <= label < self.num_classes:
            raise self._out_of_range(label, name)
        # One generator for all operations: with one each they would draw the same numbers.
        rng = np.random.default_rng(seed) if self.is_random else None
        decode, *others = self.ops

        def unusable(error: ValueError) -> None:
            reason = f"image {name} of {self.split.name} {error}"
            return self._skip(name, f"left out image {name}: it {error}", reason, error)

        try:
            image = decode(example["image"], rng=rng)
        except ValueError as error:
            return unusable(error)
        objects = None if self.split.objects is None else self.split.objects[i]
        image = self._with_boxes(i, image, name)
        for op in others:
            before = image
            try:
                image = op(before, rng=rng, epoch=epoch, objects=objects)
                if op.needs("objects"):
                    assert objects is not None
                    image, row = image
                    label = objects.classes[row]
                if 0 in image.shape:
                    raise ValueError("nothing is left of it")
            except TooManyPixels as error:
                return unusable(error)
            except (ValueError, TypeError, ArithmeticError, cv2.error) as error:
                reason = f"{before.shape}: {str(error).splitlines()[0]}"
                raise UserError(
                    f"config.{self.key}: '{op.name}' fails on {name}, {reason}"
                ) from error
            if op.name in host_ops.WINDOWS and min(before.shape[:2]) < min(image.shape[:2]):
                self._warn_once(
                    f"config.{self.key}: '{op.name}' scales up images smaller than its window",
                    name,
                )
            if op.name in host_ops.DESCRIPTORS and not image.any():
                self._warn_once(
                    f"config.{self.key}: '{op.name}' finds only zeros in images of one colour",
                    name,
                )
        arrays = self._with_arrays_of_boxes(i, image)
        if label is not None:
            arrays["label"] = np.int32(label)
        if self.many_labels:
            arrays["labels"] = self._labels_of(i, label)
        return arrays

    def _with_boxes(self, i: int, pixels: np.ndarray, name: str) -> np.ndarray | Boxed:
        """Returns the decoded image `i`, with its objects' boxes and proposals if there are any."""
        if self.split.objects is None:
            return pixels
        objects = self.split.objects[i]
        if pixels.shape[:2] != tuple(objects.size):
            height, width = pixels.shape[:2]
            raise UserError(
                f"image {name} of {self.split.name} has {height}×{width} pixels, its boxes are of "
                f"an image of {objects.size[0]}×{objects.size[1]}"
            )
        if not self.has_boxes:
            return pixels
        proposals = [] if self.split.proposals is None else [self.split.proposals[i]]
        boxes = [np.asarray(box, np.float32).reshape(-1, 4) for box in (objects.boxes, *proposals)]
        return Boxed(pixels, np.concatenate(boxes))

    def _with_arrays_of_boxes(self, i: int, image: np.ndarray | Boxed) -> dict[str, Any]:
        """Returns the arrays of image `i` by name; rows that fill up are zeros, classes NONE."""
        if not isinstance(image, Boxed):
            return {"image": image}
        assert self.split.objects is not None
        objects = self.split.objects[i]
        boxes = without_empty(image.boxes)
        count = len(objects.boxes)
        classes = np.where(area(boxes[:count]) > 0, objects.classes, NONE)
        arrays = {
            "image": image.pixels,
            "boxes": _filled_up(boxes[:count], self._most_objects),
            "classes": _filled_up(classes.astype(np.int32), self._most_objects, NONE),
            "difficult": _filled_up(np.asarray(objects.difficult, bool), self._most_objects),
            "size": np.array(objects.size, np.int32),
        }
        if self.split.proposals is not None:
            arrays["proposals"] = _filled_up(boxes[count:], self._most_proposals)
        return arrays

    def _labels_of(self, i: int, label: Any) -> np.ndarray:
        """Returns the labels of image `i`; without boxes its own `label` is its only class."""
        if self.labels is not None:
            return self.labels[i]
        assert label is not None
        labels = np.full(self.num_classes, -1, np.int8)
        labels[label] = 1
        return self._without_a_class(labels)

    def _without_a_class(self, labels: np.ndarray) -> np.ndarray:
        """Returns `labels` with 0 for outputs of the network that are of no class."""
        labels[..., len(self.split.class_names) :] = 0
        return labels

    def _check_classes(self) -> None:
        """Raises UserError if an object has a class that is out of range."""
        for i, objects in enumerate(self.split.objects or ()):
            wrong = objects.classes[(objects.classes < 0) | (objects.classes >= self.num_classes)]
            if len(wrong):
                name = self.split.examples[i]["id"]
                raise self._out_of_range(wrong[0], f"an object of {name}")

    def _out_of_range(self, label: int, name: str) -> UserError:
        return UserError(
            f"label {label} of {name} is out of range: the network has "
            f"{self.num_classes} classes (config.model.num_classes)"
        )

    def _skip(self, identifier: str, left_out: str, reason: str, error: Exception) -> None:
        """Counts a damaged example once and logs `left_out`; UserError beyond `max_skips`."""
        with self._lock:
            if identifier in self.skipped:
                return
            if len(self.skipped) >= self.max_skips:
                raise UserError(
                    f"{reason} (config.data.max_skips lets training leave some out, "
                    "evaluation needs every image)"
                ) from error
            self.skipped.add(identifier)
            count = len(self.skipped)
        logging.getLogger(__name__).warning(
            "%s (%d of at most %d)", left_out, count, self.max_skips
        )

    def _warn_once(self, warning: str, name: str) -> None:
        """Logs `warning`, with the `name` of the first example that it concerns."""
        with self._lock:
            is_new = warning not in self._warned
            self._warned.add(warning)
        if is_new:
            logging.getLogger(__name__).warning("%s, first %s", warning, name)


def _largest_count(arrays: Sequence[np.ndarray]) -> int:
    return max([1, *map(len, arrays)])


def _filled_up(rows: np.ndarray, count: int, value: int = 0) -> np.ndarray:
    """Returns `count` rows, the last of them filled with `value`."""
    filled = np.full((count, *rows.shape[1:]), value, rows.dtype)
    filled[: len(rows)] = rows
    return filled
