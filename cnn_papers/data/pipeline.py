"""Batches on the devices: streamed from disk through reader threads, or gathered from a split that
lives on the device.

Batch i is a pure function of (seed, i), whatever the number of hosts, devices or threads, so a run
resumes at a step by naming it. Training runs through one permutation of the split after the other;
evaluation visits every example once, in order, the last batch padded and masked.
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

from cnn_papers.data import host_ops, prefetch
from cnn_papers.data.split import DamagedExample, Split
from cnn_papers.errors import UserError
from cnn_papers.opstrings import parse

RESIDENT_BYTES = 2**30  # a larger split is streamed unless told otherwise
PART = 256  # examples that a reader thread works through at once, fewer where they are large
PART_BYTES = 2**22
Batch = dict[str, jax.Array]


class Pipeline:
    """One split, ready to be batched.

    Args:
      split: the encoded examples.
      ops: an op string of `data.host_ops`; every image of an epoch must come out with the same
      shape.
      key: the config key `ops` comes from, for messages.
      num_classes: labels must be below it.
      resident: "auto" (where it fits and nothing on the host is random), "always" or "never".
      max_skips: how many examples that cannot be read or decoded may be replaced by their
      neighbours; 0 for evaluation.
      sharding: of a batch over the devices; the first axis of every array.
      replicated: of what every device holds whole.

    Raises:
      UserError: a bad op string, operations that an image cannot have, random ones on a resident
        split, images of different shapes, damaged examples beyond `max_skips`, labels out of range.
        While streaming, what is wrong with other images than the first comes with the batch.
    """

    def __init__(
        self,
        split: Split,
        ops: str,
        *,
        key: str,
        num_classes: int,
        resident: str = "auto",
        max_skips: int = 0,
        sharding: jax.sharding.Sharding,
        replicated: jax.sharding.Sharding,
    ):
        self.split, self.key, self.num_classes, self.max_skips = split, key, num_classes, max_skips
        self.ops = parse(ops, host_ops, leading=1, key=key)
        if not self.ops or self.ops[0].name != "decode":
            raise UserError(
                f"config.{key} must begin with 'decode': examples arrive as encoded bytes"
            )
        self.sharding, self.replicated = sharding, replicated
        self.skipped: set[str] = set()
        self._said: set[str] = set()
        self._lock = threading.Lock()
        self._draws = any(op.needs("rng") for op in self.ops)
        period = math.lcm(*(len(op.args) for op in self.ops if op.needs("epoch")))
        self._shapes = [
            self.example(0, seed=(0, 0), epoch=epoch)["image"].shape for epoch in range(period)
        ]
        self.resident = self._load() if self._is_resident(resident) else None

    def __len__(self) -> int:
        return len(self.split.examples)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """(h, w, c) of the images, of the first epoch where it changes."""
        return self._shapes[0]

    @property
    def image_shapes(self) -> list[tuple[int, ...]]:
        """Every (h, w, c) that images come out with in one epoch or another."""
        return list(dict.fromkeys(self._shapes))

    def batch_shapes(
        self, batch_size: int, *, mask: bool = False
    ) -> list[dict[str, jax.ShapeDtypeStruct]]:
        """What the batches of `train_batches` look like, for every shape of image; with `mask`, of
        `eval_batches`.
        """
        size = batch_size + (-batch_size % self.sharding.num_devices if mask else 0)
        of = functools.partial(jax.ShapeDtypeStruct, sharding=self.sharding)
        rest = {"label": of((size,), np.int32)} | ({"mask": of((size,), np.bool_)} if mask else {})
        return [{"image": of((size, *shape), np.uint8), **rest} for shape in self.image_shapes]

    def train_batches(self, batch_size: int, *, seed: int, steps: range) -> Iterator[Batch]:
        """Batches of the given steps: uint8 `image` [n, h, w, c] and int32 `label` [n].

        Where the shape changes with the epoch, a batch has that of the epoch in which it begins.
        """
        shuffled = functools.lru_cache(maxsize=4)(functools.partial(_permutation, len(self), seed))

        def positions(rows: np.ndarray) -> np.ndarray:
            return np.array([shuffled(row // len(self))[row % len(self)] for row in rows.tolist()])

        return self._batches(steps, batch_size, positions, seed)

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """Every example once, in order; the last batch is filled up, `mask` [n] tells what counts.

        A batch is as much larger than `batch_size` as it takes to divide over the devices.
        """
        batch_size += -batch_size % self.sharding.num_devices
        steps = range(-(-len(self) // batch_size))
        batches = self._batches(steps, batch_size, lambda rows: np.minimum(rows, len(self) - 1), 0)
        for step, batch in zip(steps, batches, strict=True):
            yield {
                **batch,
                "mask": self._to_devices(self._share(step, batch_size) < len(self), batch_size),
            }

    def images(self) -> Iterator[np.ndarray]:
        """Every image once, in order, as uint8 [n, h, w, c] on the host; for statistics."""
        return (part["image"] for part in self._parts())

    def example(self, index: int, *, seed: tuple[int, int], epoch: int = 0) -> dict[str, Any]:
        """The image and label at `index`, or of the next example that can be used while the budget
        lasts.
        """
        for i in itertools.chain(range(index, len(self)), range(index)):
            example = self._transformed(self._read([i])[0], seed, epoch)
            if example is not None:
                return example
        raise UserError(f"{self.split.name} has no image that can be decoded")

    def _read(self, indices: Sequence[int]) -> list[dict[str, Any] | DamagedExample]:
        """The encoded examples at `indices`, or why one cannot be read."""
        examples: Any = self.split.examples
        if len(indices) > 1 and hasattr(examples, "__getitems__"):
            try:
                return examples.__getitems__(indices)
            except DamagedExample as error:  # one at a time, to see which
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
        """The example after the operations; None if it cannot be read or decoded and the budget
        lasts.
        """
        if isinstance(example, DamagedExample):
            return self._skip(
                str(example), f"left out an example: {example}", str(example), example
            )
        name = example["id"]
        if not 0 <= example["label"] < self.num_classes:
            raise UserError(
                f"label {example['label']} of {name} is out of range: the network has "
                f"{self.num_classes} classes (config.model.num_classes)"
            )
        rng = (
            np.random.default_rng(seed) if self._draws else None
        )  # one for all, or they would draw alike
        decode, *others = self.ops
        try:
            image = decode(example["image"], rng=rng)
        except ValueError as error:
            reason = f"image {name} of {self.split.name} {error}"
            return self._skip(name, f"left out image {name}: it {error}", reason, error)
        for op in others:
            before = image
            try:
                image = op(before, rng=rng, epoch=epoch)
                if not image.size:
                    raise ValueError("nothing is left of it")
            except (ValueError, TypeError, ArithmeticError, cv2.error) as error:
                reason = f"{before.shape}: {str(error).splitlines()[0]}"
                raise UserError(
                    f"config.{self.key}: '{op.name}' fails on {name}, {reason}"
                ) from error
            if op.name in host_ops.WINDOWS and min(before.shape[:2]) < min(image.shape[:2]):
                self._say_once(
                    f"config.{self.key}: '{op.name}' scales up images smaller than its window, first {name}"
                )
        return {"image": image, "label": np.int32(example["label"])}

    def _skip(self, identifier: str, left_out: str, reason: str, error: Exception) -> None:
        """Counts an example that cannot be used, once, and logs `left_out`; UserError where the
        budget is spent.
        """
        with self._lock:
            if identifier in self.skipped:
                return
            if len(self.skipped) >= self.max_skips:
                raise UserError(
                    f"{reason} (config.data.max_skips lets training leave some out, evaluation needs every image)"
                ) from error
            self.skipped.add(identifier)
            count = len(self.skipped)
        logging.getLogger(__name__).warning(
            "%s (%d of at most %d)", left_out, count, self.max_skips
        )

    def _say_once(self, what: str) -> None:
        operation = what.split(",")[0]
        with self._lock:
            known = operation in self._said
            self._said.add(operation)
        if not known:
            logging.getLogger(__name__).warning("%s", what)

    def _is_resident(self, wanted: str) -> bool:
        if wanted not in ("auto", "always", "never"):
            raise UserError(f"config.data.resident is 'auto', 'always' or 'never', not '{wanted}'")
        drawing = [op.name for op in self.ops if op.needs("rng") or op.needs("epoch")]
        if wanted == "always" and drawing:
            state = "is random" if self._draws else "depends on the epoch"
            raise UserError(
                f"config.{self.key}: '{drawing[0]}' {state}; a resident split needs device operations instead"
            )
        fits = len(self) * int(np.prod(self.image_shape)) <= RESIDENT_BYTES
        return wanted == "always" or (wanted == "auto" and fits and not drawing)

    def _load(self) -> tuple[jax.Array, jax.Array]:
        """The whole split as arrays on the devices."""
        parts = list(self._parts())
        arrays = {
            name: np.concatenate([part[name] for part in parts]) for name in ("image", "label")
        }
        return self._everywhere(arrays["image"]), self._everywhere(arrays["label"])

    def _everywhere(self, array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(
            array.shape, self.replicated, lambda index: array[index]
        )

    def _parts(self) -> Iterator[dict[str, np.ndarray]]:
        """Every example once, in order, in arrays of up to PART."""
        parts = [range(start, min(start + PART, len(self))) for start in range(0, len(self), PART)]
        return prefetch.read(
            len(parts), lambda k: self._stack(parts[k], [(0, 0)] * len(parts[k]), 0)
        )

    def _batches(
        self,
        steps: range,
        batch_size: int,
        positions: Callable[[np.ndarray], np.ndarray],
        seed: int,
    ) -> Iterator[Batch]:
        """Batches of the examples at `positions(rows)`, rows counted over all batches; each host
        reads its share.
        """
        if self.resident is not None:
            gather = jax.jit(_gather, out_shardings=self.sharding)
            chosen = (positions(self._share(step, batch_size)).astype(np.int32) for step in steps)
            return prefetch.started(
                gather(*self.resident, self._to_devices(index, batch_size)) for index in chosen
            )
        share, size = (
            len(self._local(batch_size)),
            max(1, min(PART, PART_BYTES // math.prod(self.image_shape))),
        )
        parts = -(-share // size)  # that a batch is read in, of about the same size
        size = -(-share // parts)

        def read(k: int) -> dict[str, np.ndarray]:
            step, part = steps[k // parts], k % parts
            rows = self._share(step, batch_size)[part * size : (part + 1) * size]
            epoch = step * batch_size // len(self)
            return self._stack(
                positions(rows).tolist(), [(seed, row) for row in rows.tolist()], epoch
            )

        read_parts = prefetch.read(len(steps) * parts, read)
        local = (_joined(list(itertools.islice(read_parts, parts))) for _ in steps)
        return prefetch.started(
            {name: self._to_devices(array, batch_size) for name, array in batch.items()}
            for batch in local
        )

    def _share(self, step: int, batch_size: int) -> np.ndarray:
        """The rows of batch `step`, counted over all batches, that this host reads."""
        return step * batch_size + self._local(batch_size)

    def _local(self, batch_size: int) -> np.ndarray:
        """The rows of a batch that this host's devices hold, in order: wherever on the mesh they
        are.
        """
        places = self.sharding.addressable_devices_indices_map((batch_size,)).values()
        return np.unique(
            [
                row
                for place in places
                for row in range(*(place or (slice(None),))[0].indices(batch_size))
            ]
        )

    def _to_devices(self, local: np.ndarray, batch_size: int) -> jax.Array:
        """The whole batch over all devices, of which this host holds the rows `local`."""
        if jax.process_count() == 1:
            return jax.device_put(local, self.sharding)
        rows = self._local(batch_size)

        def held(place: Any) -> np.ndarray:
            first, end, _ = place[0].indices(batch_size)
            return local[np.searchsorted(rows, first) : np.searchsorted(rows, end)]

        return jax.make_array_from_callback((batch_size, *local.shape[1:]), self.sharding, held)

    def _stack(
        self, indices: Sequence[int], seeds: Sequence[tuple[int, int]], epoch: int
    ) -> dict[str, np.ndarray]:
        """The examples at `indices` after the operations, as arrays."""
        examples = [
            self._transformed(example, seed, epoch) or self.example(i, seed=seed, epoch=epoch)
            for i, seed, example in zip(indices, seeds, self._read(indices), strict=True)
        ]
        shapes = {
            self._shapes[epoch % len(self._shapes)],
            *(example["image"].shape for example in examples),
        }
        if len(shapes) > 1:
            raise UserError(
                f"config.{self.key}: images of {self.split.name} come out with different shapes, such as "
                f"{' and '.join(map(str, sorted(shapes)[:2]))}; end with a crop or resize"
            )
        return {name: np.stack([example[name] for example in examples]) for name in examples[0]}


def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def _gather(images: jax.Array, labels: jax.Array, index: jax.Array) -> Batch:
    return {"image": images[index], "label": labels[index]}


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return (
        parts[0]
        if len(parts) == 1
        else {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    )
