"""The input pipeline: batches of a split on the devices.

A batch is streamed from disk through reader threads, or gathered from a split that is resident on
the devices. Batch i is a pure function of (seed, i), whatever the number of hosts, devices or
threads, so a run resumes at a step by naming it. Training runs through one permutation of the split
after the other; evaluation visits every example once, in order, the last batch padded and masked.
"""

import functools
import itertools
import logging
import math
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import cv2
import jax
import numpy as np

from cnn_papers import opstrings
from cnn_papers.data import host_ops, prefetch
from cnn_papers.data.image_files import TooManyPixels
from cnn_papers.data.split import DamagedExample, Split
from cnn_papers.errors import UserError
from cnn_papers.opstrings import OpString

RESIDENT_BYTES = 2**30  # a larger split is streamed unless told otherwise
PART = 256  # the most examples that a reader thread works through at once
PART_BYTES = 2**22  # the most bytes of images that it does
Batch = dict[str, jax.Array]


def parse_host(text: str, *, key: str) -> OpString:
    """Parses operations of `host_ops`; `key` is the config key of `text`, for messages."""
    return OpString(key, text, opstrings.parse(text, host_ops, leading=1, key=key))


class Pipeline:
    """One split, ready to be batched.

    Args:
      split: the encoded examples.
      host: operations of `data.host_ops`; every image of an epoch must come out with the same
        shape.
      num_classes: labels must be below it.
      resident: "auto" (if the split fits and nothing on the host is random), "always" or "never".
      max_skips: how many examples that cannot be read, decoded or scaled may be replaced by their
        neighbours; 0 for evaluation.
      sharding: of a batch over the devices, along the first axis of every array.
      replicated: of arrays that every device holds in full.

    Raises:
      UserError: operations that an image cannot have, random ones on a resident split, images of
        different shapes, damaged examples beyond `max_skips`, labels out of range. When streaming,
        errors in images after the first are raised with their batch.
    """

    def __init__(
        self,
        split: Split,
        host: OpString,
        *,
        num_classes: int,
        resident: str = "auto",
        max_skips: int = 0,
        sharding: jax.sharding.Sharding,
        replicated: jax.sharding.Sharding,
    ):
        self.split, self.num_classes, self.max_skips = split, num_classes, max_skips
        self.key, self.ops = host.key, host.ops
        if not self.ops or self.ops[0].name != "decode":
            raise UserError(
                f"config.{self.key} must begin with 'decode': examples arrive as encoded bytes"
            )
        self.sharding, self.replicated = sharding, replicated
        self.skipped: set[str] = set()  # ids of examples that training leaves out
        self._warned: set[str] = set()  # warnings given before
        self._lock = threading.Lock()
        self._is_random = any(op.needs("rng") for op in self.ops)
        # Shapes repeat after as many epochs as the operations that depend on the epoch have sizes.
        period = math.lcm(*(len(op.args) for op in self.ops if op.needs("epoch")))
        self._shapes = [
            self.example(0, seed=(0, 0), epoch=epoch)["image"].shape for epoch in range(period)
        ]
        self.resident = self._load() if self._is_resident(resident) else None

    def __len__(self) -> int:
        return len(self.split.examples)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Returns the (h, w, c) of the images, in the first epoch if it changes with the epoch."""
        return self._shapes[0]

    @property
    def image_shapes(self) -> list[tuple[int, ...]]:
        """Returns every (h, w, c) that the images have in some epoch."""
        return list(dict.fromkeys(self._shapes))

    def class_counts(self) -> np.ndarray | None:
        """Returns the number of examples of each class, int [num_classes].

        None if every example would have to be read for it.
        """
        labels = self.split.labels if self.resident is None else self.resident[1]
        return None if labels is None else np.bincount(labels, minlength=self.num_classes)

    def batch_shapes(
        self, batch_size: int, *, mask: bool = False
    ) -> list[dict[str, jax.ShapeDtypeStruct]]:
        """Returns the shapes of a batch of `train_batches`, for every shape of image.

        With `mask` they are those of `eval_batches`.
        """
        size = self._divisible(batch_size) if mask else batch_size
        array = functools.partial(jax.ShapeDtypeStruct, sharding=self.sharding)
        others = {"label": array((size,), np.int32)}
        if mask:
            others["mask"] = array((size,), np.bool_)
        return [{"image": array((size, *shape), np.uint8), **others} for shape in self.image_shapes]

    def train_batches(self, batch_size: int, *, seed: int, steps: range) -> Iterator[Batch]:
        """Yields the batches of `steps`: uint8 `image` [n, h, w, c] and int32 `label` [n].

        If the shape changes with the epoch, a batch has that of the epoch in which it begins.
        """
        permutation = functools.lru_cache(maxsize=4)(
            functools.partial(_permutation, len(self), seed)
        )

        def positions(rows: np.ndarray) -> np.ndarray:
            return np.array(
                [permutation(row // len(self))[row % len(self)] for row in rows.tolist()]
            )

        return self._batches(steps, batch_size, positions, seed)

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """Yields every example once, in order: batches as in training, with a bool `mask` [n].

        The last batch is filled up with copies of the last example, which `mask` leaves out. A
        batch is `batch_size` rounded up to a number that divides over the devices.
        """
        batch_size = self._divisible(batch_size)
        steps = range(math.ceil(len(self) / batch_size))
        batches = self._batches(steps, batch_size, lambda rows: np.minimum(rows, len(self) - 1), 0)
        for step, batch in zip(steps, batches, strict=True):
            is_example = self._share(step, batch_size) < len(self)
            yield {**batch, "mask": self._to_devices(is_example, batch_size)}

    def images(self) -> Iterator[np.ndarray]:
        """Yields every image once, in order, as uint8 [n, h, w, c] on the host, for statistics."""
        return (part["image"] for part in self._parts())

    def example(self, index: int, *, seed: tuple[int, int], epoch: int = 0) -> dict[str, Any]:
        """Returns the image and label at `index`, or of the next example that is not left out."""
        for i in itertools.chain(range(index, len(self)), range(index)):
            example = self._transformed(self._read([i])[0], seed, epoch)
            if example is not None:
                return example
        raise UserError(f"{self.split.name} has no image that can be decoded")

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
        rng = np.random.default_rng(seed) if self._is_random else None
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

    def _is_resident(self, wanted: str) -> bool:
        if wanted not in ("auto", "always", "never"):
            raise UserError(f"config.data.resident is 'auto', 'always' or 'never', not '{wanted}'")
        changing = [op.name for op in self.ops if op.needs("rng") or op.needs("epoch")]
        if wanted == "always" and changing:
            state = "is random" if self._is_random else "depends on the epoch"
            raise UserError(
                f"config.{self.key}: '{changing[0]}' {state}; "
                "a resident split needs device operations instead"
            )
        fits = len(self) * int(np.prod(self.image_shape)) <= RESIDENT_BYTES
        return wanted == "always" or (wanted == "auto" and fits and not changing)

    def _load(self) -> tuple[jax.Array, jax.Array]:
        """Puts all images and labels of the split on every device."""
        parts = list(self._parts())
        arrays = {
            name: np.concatenate([part[name] for part in parts]) for name in ("image", "label")
        }
        return self._replicate(arrays["image"]), self._replicate(arrays["label"])

    def _replicate(self, array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(
            array.shape, self.replicated, lambda index: array[index]
        )

    def _parts(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields every example once, in order, in arrays of up to PART examples."""
        parts = [range(start, min(start + PART, len(self))) for start in range(0, len(self), PART)]

        def read(k: int) -> dict[str, np.ndarray]:
            return self._stack(parts[k], [(0, 0)] * len(parts[k]), 0)

        return prefetch.read(len(parts), read)

    def _batches(
        self,
        steps: range,
        batch_size: int,
        positions: Callable[[np.ndarray], np.ndarray],
        seed: int,
    ) -> Iterator[Batch]:
        """Yields batches of the examples at `positions(rows)`; each host reads its own rows.

        Rows are counted from the first row of batch 0 on, over all batches.
        """
        if self.resident is not None:
            gather = jax.jit(_gather, out_shardings=self.sharding)
            indices = (positions(self._share(step, batch_size)).astype(np.int32) for step in steps)
            return prefetch.started(
                gather(*self.resident, self._to_devices(index, batch_size)) for index in indices
            )
        # A batch is read in parts of about the same size, each by one thread.
        share = len(self._local_rows(batch_size))
        largest_part = max(1, min(PART, PART_BYTES // math.prod(self.image_shape)))
        parts = math.ceil(share / largest_part)
        size = math.ceil(share / parts)

        def read(k: int) -> dict[str, np.ndarray]:
            step, part = steps[k // parts], k % parts
            rows = self._share(step, batch_size)[part * size : (part + 1) * size]
            seeds = [(seed, row) for row in rows.tolist()]
            epoch = step * batch_size // len(self)
            return self._stack(positions(rows).tolist(), seeds, epoch)

        read_parts = prefetch.read(len(steps) * parts, read)
        local_batches = (_joined(list(itertools.islice(read_parts, parts))) for _ in steps)
        return prefetch.started(
            {name: self._to_devices(array, batch_size) for name, array in batch.items()}
            for batch in local_batches
        )

    def _divisible(self, batch_size: int) -> int:
        """Returns `batch_size` rounded up to a multiple of the number of devices."""
        return batch_size + -batch_size % self.sharding.num_devices

    def _share(self, step: int, batch_size: int) -> np.ndarray:
        """Returns the rows of batch `step`, counted over all batches, that this host reads."""
        return step * batch_size + self._local_rows(batch_size)

    def _local_rows(self, batch_size: int) -> np.ndarray:
        """Returns the rows of a batch that this host's devices hold, in ascending order."""
        rows: set[int] = set()
        for index in self.sharding.addressable_devices_indices_map((batch_size,)).values():
            along_batch = index[0] if index else slice(None)  # no index: the device holds all rows
            rows.update(range(*along_batch.indices(batch_size)))
        return np.array(sorted(rows))

    def _to_devices(self, local: np.ndarray, batch_size: int) -> jax.Array:
        """Returns the batch over all devices; `local` are the rows that this host holds."""
        if jax.process_count() == 1:
            return jax.device_put(local, self.sharding)
        rows = self._local_rows(batch_size)

        def of_device(index: Any) -> np.ndarray:
            first, end, _ = index[0].indices(batch_size)
            return local[np.searchsorted(rows, first) : np.searchsorted(rows, end)]

        shape = (batch_size, *local.shape[1:])
        return jax.make_array_from_callback(shape, self.sharding, of_device)

    def _stack(
        self, indices: Sequence[int], seeds: Sequence[tuple[int, int]], epoch: int
    ) -> dict[str, np.ndarray]:
        """Returns the examples at `indices` after the operations, stacked to arrays."""
        examples = [
            self._transformed(example, seed, epoch) or self.example(i, seed=seed, epoch=epoch)
            for i, seed, example in zip(indices, seeds, self._read(indices), strict=True)
        ]
        shapes = {
            self._shapes[epoch % len(self._shapes)],
            *(example["image"].shape for example in examples),
        }
        if len(shapes) > 1:
            two_shapes = " and ".join(map(str, sorted(shapes)[:2]))
            raise UserError(
                f"config.{self.key}: images of {self.split.name} come out with different shapes, "
                f"such as {two_shapes}; end with a crop or resize"
            )
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def _gather(images: jax.Array, labels: jax.Array, index: jax.Array) -> Batch:
    return {"image": images[index], "label": labels[index]}


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
