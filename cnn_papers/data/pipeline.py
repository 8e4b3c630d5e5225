"""The input pipeline: batches of a split on the devices.

A batch is streamed from disk through reader threads, or gathered from a split that is resident on
the devices. Batch i is a pure function of (seed, i), whatever the number of hosts, devices or
threads, so a run resumes at a step by naming it. Training runs through one permutation of the split
after the other; evaluation visits every example once, in order, the last batch padded and masked.
"""

import functools
import itertools
import math
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from cnn_papers import opstrings
from cnn_papers.data import device_ops, host_ops, prefetch
from cnn_papers.data.reader import Reader
from cnn_papers.data.split import Split
from cnn_papers.errors import UserError
from cnn_papers.opstrings import OpString

RESIDENT_BYTES = 2**30  # a larger split is streamed unless told otherwise
PART = 256  # the most examples that a reader thread works through at once
PART_BYTES = 2**22  # the most bytes of images that it does
Batch = dict[str, jax.Array]


def parse_host(text: str, *, key: str) -> OpString:
    """Parses operations of `host_ops`; `key` is the config key of `text`, for messages."""
    return OpString(key, text, opstrings.parse(text, host_ops, leading=1, key=key))


def check_kind(host: OpString, device: OpString) -> None:
    """Raises UserError if `device` is for images and `host` gives descriptors, or the other way."""
    last = host.ops[-1].name if host.ops else ""
    given = "descriptors" if last in host_ops.DESCRIPTORS else "images"
    for op in device.ops:
        taken = "descriptors" if op.name in device_ops.DESCRIPTORS else "images"
        if taken != given:
            raise UserError(
                f"config.{device.key}: '{op.name}' is for {taken}, and config.{host.key} "
                f"gives {given}"
            )


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
      boxes: whether batches have the boxes of a split that has some.
      many_labels: whether batches have `labels`, of which an image may have several.
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
        boxes: bool = True,
        many_labels: bool = False,
        sharding: jax.sharding.Sharding,
        replicated: jax.sharding.Sharding,
    ):
        self.num_classes = num_classes
        self.reader = Reader(
            split,
            host,
            num_classes=num_classes,
            max_skips=max_skips,
            boxes=boxes,
            many_labels=many_labels,
        )
        self.split = self.reader.split
        self.sharding, self.replicated = sharding, replicated
        self.resident = self._load() if self._is_resident(resident) else None

    def __len__(self) -> int:
        return len(self.split.examples)

    @property
    def image_shape(self) -> tuple[int, ...]:
        """Returns the (h, w, c) of the images, in the first epoch if it changes with the epoch."""
        return self.reader.shapes[0]

    @property
    def image_shapes(self) -> list[tuple[int, ...]]:
        """Returns every (h, w, c) that the images have in some epoch."""
        return list(dict.fromkeys(self.reader.shapes))

    def class_counts(self) -> np.ndarray | None:
        """Returns the number of examples of each class, int [num_classes].

        None if every example would have to be read for it. An image with several labels counts for
        each of its classes. Of a split with `counts_objects` it is the number of objects that are
        not difficult.
        """
        if self.reader.labels is not None:
            return (self.reader.labels > 0).sum(0)
        if self.counts_objects:
            labels = np.concatenate(
                [image.classes[image.easy()] for image in self.split.objects or ()]
            )
        elif self.resident is not None:
            labels = self.resident.get("label")
        else:
            labels = self.split.labels
        return None if labels is None else np.bincount(labels, minlength=self.num_classes)

    @property
    def counts_objects(self) -> bool:
        """Tells whether it is objects that are learnt, not images: boxes, or what is cut out."""
        return self.reader.has_boxes or any(op.needs("objects") for op in self.reader.ops)

    @property
    def counts_labels(self) -> bool:
        """Tells whether `class_counts` are those of the one label of each image."""
        return self.reader.labels is None and not self.counts_objects

    def batch_shapes(
        self, batch_size: int, *, mask: bool = False
    ) -> list[dict[str, jax.ShapeDtypeStruct]]:
        """Returns the shapes of a batch of `train_batches`, for every shape of image.

        With `mask` they are those of `eval_batches`.
        """
        size = self._divisible(batch_size) if mask else batch_size
        array = functools.partial(jax.ShapeDtypeStruct, sharding=self.sharding)
        masks = {"mask": array((size,), np.bool_)} if mask else {}
        by_shape = {example["image"].shape: example for example in reversed(self.reader.arrays)}
        return [
            {
                name: array((size, *value.shape), value.dtype)
                for name, value in by_shape[shape].items()
            }
            | masks
            for shape in self.image_shapes
        ]

    def train_batches(self, batch_size: int, *, seed: int, steps: range) -> Iterator[Batch]:
        """Yields the batches of `steps`: uint8 `image` [n, h, w, c], and what is known of it.

        `label` int32 [n] is that of the examples, or the class of the object that is cut out; it is
        absent if there is neither. With `many_labels` there are `labels` int8 [n, num_classes]: 1
        for a class that an image shows, -1 for one that it does not, 0 for one that is neither (its
        objects are all difficult, or the output has no class). With boxes there are `boxes` float32
        [n, m, 4] on `image`, see `boxes`; `classes` int32 [n, m] and `difficult` bool [n, m];
        `size` int32 [n, 2], height and width of the upright original; if the split has any,
        `proposals` float32 [n, p, 4]. m and p are the split's largest numbers, at least 1. Rows
        that fill up, and boxes of which the operations leave nothing, are zeros of the class
        `boxes.NONE`.

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

    def shuffled_images(self, seed: int) -> Iterator[np.ndarray]:
        """Yields every image once, uint8 [h, w, c] on the host, in an order drawn by `seed`."""
        order = _permutation(len(self), seed, 0).tolist()
        if self.resident is not None:
            images = self.resident["image"].addressable_data(0)
            return (np.asarray(images[i]) for i in order)

        def read(k: int) -> np.ndarray:
            return self.reader.example(order[k], seed=(seed, order[k]))["image"]

        return prefetch.read(len(order), read)

    def _is_resident(self, wanted: str) -> bool:
        if wanted not in ("auto", "always", "never"):
            raise UserError(f"config.data.resident is 'auto', 'always' or 'never', not '{wanted}'")
        reader = self.reader
        changing = [op.name for op in reader.ops if op.needs("rng") or op.needs("epoch")]
        if wanted == "always" and changing:
            state = "is random" if reader.is_random else "depends on the epoch"
            raise UserError(
                f"config.{reader.key}: '{changing[0]}' {state}; "
                "a resident split needs device operations instead"
            )
        fits = len(self) * sum(x.nbytes for x in self._large_arrays()) <= RESIDENT_BYTES
        return wanted == "always" or (wanted == "auto" and fits and not changing)

    def _large_arrays(self) -> list[np.ndarray]:
        """Returns the image of an example and, where there are any, its boxes."""
        first = self.reader.arrays[0]
        return [first[name] for name in ("image", "boxes", "proposals") if name in first]

    def _load(self) -> dict[str, jax.Array]:
        """Puts all arrays of the split on every device."""
        return {name: self._replicate(array) for name, array in _joined([*self._parts()]).items()}

    def _replicate(self, array: np.ndarray) -> jax.Array:
        return jax.make_array_from_callback(
            array.shape, self.replicated, lambda index: array[index]
        )

    def _parts(self) -> Iterator[dict[str, np.ndarray]]:
        """Yields every example once, in order, in arrays of up to PART examples."""
        parts = [range(start, min(start + PART, len(self))) for start in range(0, len(self), PART)]

        def read(k: int) -> dict[str, np.ndarray]:
            return self.reader.stack(parts[k], [(0, 0)] * len(parts[k]), 0)

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
                gather(self.resident, self._to_devices(index, batch_size)) for index in indices
            )
        # A batch is read in parts of about the same size, each by one thread.
        share = len(self._local_rows(batch_size))
        example_bytes = sum(array.nbytes for array in self._large_arrays())
        largest_part = max(1, min(PART, PART_BYTES // example_bytes))
        parts = math.ceil(share / largest_part)
        size = math.ceil(share / parts)

        def read(k: int) -> dict[str, np.ndarray]:
            step, part = steps[k // parts], k % parts
            rows = self._share(step, batch_size)[part * size : (part + 1) * size]
            seeds = [(seed, row) for row in rows.tolist()]
            epoch = step * batch_size // len(self)
            return self.reader.stack(positions(rows).tolist(), seeds, epoch)

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


def _permutation(size: int, seed: int, epoch: int) -> np.ndarray:
    return np.random.default_rng((seed, epoch)).permutation(size)


def _gather(arrays: Batch, index: jax.Array) -> Batch:
    return {name: array[index] for name, array in arrays.items()}


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    if len(parts) == 1:
        return parts[0]
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
