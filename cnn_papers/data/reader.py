"""Reads the examples of a split, and takes their images through the host operations."""

import itertools
import logging
import math
import threading
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np

from cnn_papers.data import host_ops
from cnn_papers.data.image_files import TooManyPixels
from cnn_papers.data.split import DamagedExample, Split
from cnn_papers.errors import UserError
from cnn_papers.opstrings import OpString


class Reader:
    """The examples of a split after the host operations; many threads may read at once.

    Args:
      split, host, num_classes, max_skips: as for `pipeline.Pipeline`.

    Attributes:
      key, ops: the operations, and the config key of their text.
      is_random: whether one of them draws at random.
      shapes: the (h, w, c) of the images in each epoch, after which they repeat.
      skipped: ids of the examples that are left out.

    Raises:
      UserError: operations that do not begin with `decode`, or that the first image cannot have.
    """

    def __init__(self, split: Split, host: OpString, *, num_classes: int, max_skips: int):
        self.split, self.num_classes, self.max_skips = split, num_classes, max_skips
        self.key, self.ops = host.key, host.ops
        if not self.ops or self.ops[0].name != "decode":
            raise UserError(
                f"config.{self.key} must begin with 'decode': examples arrive as encoded bytes"
            )
        self.is_random = any(op.needs("rng") for op in self.ops)
        self.skipped: set[str] = set()
        self._warned: set[str] = set()  # warnings given before
        self._lock = threading.Lock()
        # Shapes repeat after as many epochs as the operations that depend on the epoch have sizes.
        period = math.lcm(*(len(op.args) for op in self.ops if op.needs("epoch")))
        self.shapes = [
            self.example(0, seed=(0, 0), epoch=epoch)["image"].shape for epoch in range(period)
        ]

    def example(self, index: int, *, seed: tuple[int, int], epoch: int = 0) -> dict[str, Any]:
        """Returns the image and label at `index`, or of the next example that is not left out."""
        count = len(self.split.examples)
        for i in itertools.chain(range(index, count), range(index)):
            example = self._transformed(self._read([i])[0], seed, epoch)
            if example is not None:
                return example
        raise UserError(f"{self.split.name} has no image that can be decoded")

    def stack(
        self, indices: Sequence[int], seeds: Sequence[tuple[int, int]], epoch: int
    ) -> dict[str, np.ndarray]:
        """Returns the examples at `indices` after the operations, stacked to arrays."""
        examples = [
            self._transformed(example, seed, epoch) or self.example(i, seed=seed, epoch=epoch)
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
        self, example: dict[str, Any] | DamagedExample, seed: tuple[int, int], epoch: int
    ) -> dict[str, Any] | None:
        """Returns the example after the operations, None if it is damaged and may be left out."""
        if isinstance(example, DamagedExample):
            reason = str(example)
            return self._skip(reason, f"left out an example: {reason}", reason, example)
        name = example["id"]
        if not 0 <= example["label"] < self.num_classes:
            raise UserError(
                f"label {example['label']} of {name} is out of range: the network has "
                f"{self.num_classes} classes (config.model.num_classes)"
            )
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
        for op in others:
            before = image
            try:
                image = op(before, rng=rng, epoch=epoch)
                if not image.size:
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
        return {"image": image, "label": np.int32(example["label"])}

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
