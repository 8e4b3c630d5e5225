"""Batches on the devices: streamed from disk through reader threads, or gathered from a split that lives on the device.

Batch i is a pure function of (seed, i), whatever the number of hosts, devices or threads, so a run resumes at a step
by naming it. Training runs through one permutation of the split after the other; evaluation visits every example once,
in order, the last batch padded and masked.
"""

import collections
import functools
import itertools
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import cv2
import jax
import numpy as np

from cnn_papers.data import host_ops
from cnn_papers.data.sources import Split
from cnn_papers.errors import UserError
from cnn_papers.opstrings import parse

RESIDENT_BYTES = 2**30  # a larger split is streamed unless told otherwise
PART = 256  # examples read at once where order does not change
PREFETCH = 2  # batches on their way to the devices
Batch = dict[str, jax.Array]


class Pipeline:
    """One split, ready to be batched.

    Args:
      split: the encoded examples.
      ops: an op string of `data.host_ops`; every image must come out with the same shape.
      key: the config key `ops` comes from, for messages.
      num_classes: labels must be below it.
      resident: "auto" (where it fits and nothing on the host is random), "always" or "never".
      max_skips: how many undecodable images may be replaced by their neighbours; 0 for evaluation.
      sharding: of a batch over the devices; the first axis of every array.
      replicated: of what every device holds whole.

    Raises:
      UserError: a bad op string, operations that an image cannot have, random ones on a resident split, images of
        different shapes, undecodable images beyond `max_skips`, labels out of range. While streaming, what is wrong
        with other images than the first comes with the batch.
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
            raise UserError(f"config.{key} must begin with 'decode': examples arrive as encoded bytes")
        self.sharding, self.replicated = sharding, replicated
        self.skipped: set[str] = set()
        self._lock = threading.Lock()
        self.image_shape = self.example(0, seed=(0, 0))["image"].shape
        self.resident = self._load() if self._is_resident(resident) else None

    def __len__(self) -> int:
        return len(self.split.examples)

    def train_batches(self, batch_size: int, *, seed: int, steps: range) -> Iterator[Batch]:
        """Batches of the given steps: uint8 `image` [n, h, w, c] and int32 `label` [n]."""
        shuffled = functools.lru_cache(maxsize=4)(functools.partial(_permutation, len(self), seed))
        return self._batches(steps, batch_size, lambda j: int(shuffled(j // len(self))[j % len(self)]), seed)

    def eval_batches(self, batch_size: int) -> Iterator[Batch]:
        """Every example once, in order; the last batch is filled up, `mask` [n] tells what counts.

        A batch is as much larger than `batch_size` as it takes to divide over the devices.
        """
        batch_size += -batch_size % self.sharding.num_devices
        steps = range(-(-len(self) // batch_size))
        batches = self._batches(steps, batch_size, lambda j: min(j, len(self) - 1), 0)
        for step, batch in zip(steps, batches, strict=True):
            yield {**batch, "mask": self._to_devices(_share(step, batch_size) < len(self))}

    def images(self) -> Iterator[np.ndarray]:
        """Every image once, in order, as uint8 [n, h, w, c] on the host; for statistics."""
        return (part["image"] for part in self._parts())

    def example(self, index: int, *, seed: tuple[int, int]) -> dict[str, Any]:
        """The image and label at `index`, or of the next image that can be decoded while the budget lasts."""
        for i in itertools.chain(range(index, len(self)), range(index)):
            example = self._transformed(self.split.examples[i], seed)
            if example is not None:
                return example
        raise UserError(f"{self.split.name} has no image that can be decoded")

    def _transformed(self, example: dict[str, Any], seed: tuple[int, int]) -> dict[str, Any] | None:
        """The example after the operations; None if it cannot be decoded and the budget lasts."""
        if not 0 <= example["label"] < self.num_classes:
            raise UserError(
                f"label {example['label']} of {example['id']} is out of range: the network has "
                f"{self.num_classes} classes (config.model.num_classes)"
            )
        rng = np.random.default_rng(seed)  # one for all operations, or they would draw alike
        decode, *others = self.ops
        try:
            image = decode(example["image"], rng=rng)
        except ValueError as error:
            self._skip(str(example["id"]), error)
            return None
        for op in others:
            before = image
            try:
                image = op(before, rng=rng)
                if not image.size:
                    raise ValueError("nothing is left of it")
            except (ValueError, TypeError, ArithmeticError, cv2.error) as error:
                reason = f"{before.shape}: {str(error).splitlines()[0]}"
                raise UserError(f"config.{self.key}: '{op.name}' fails on {example['id']}, {reason}") from error
        return {"image": image, "label": np.int32(example["label"])}

    def _skip(self, identifier: str, error: Exception) -> None:
        with self._lock:
            if identifier in self.skipped:
                return
            if len(self.skipped) >= self.max_skips:
                raise UserError(
                    f"image {identifier} of {self.split.name} {error} "
                    "(config.data.max_skips lets training leave some out, evaluation needs every image)"
                ) from error
            self.skipped.add(identifier)
        logging.getLogger(__name__).warning("left out image %s: it %s", identifier, error)

    def _is_resident(self, wanted: str) -> bool:
        if wanted not in ("auto", "always", "never"):
            raise UserError(f"config.data.resident is 'auto', 'always' or 'never', not '{wanted}'")
        drawing = [op.name for op in self.ops if op.needs("rng")]
        if wanted == "always" and drawing:
            raise UserError(
                f"config.{self.key}: '{drawing[0]}' is random; a resident split needs device operations instead"
            )
        fits = len(self) * int(np.prod(self.image_shape)) <= RESIDENT_BYTES
        return wanted == "always" or (wanted == "auto" and fits and not drawing)

    def _load(self) -> tuple[jax.Array, jax.Array]:
        """The whole split as arrays on the devices."""
        parts = list(self._parts())
        arrays = {name: np.concatenate([part[name] for part in parts]) for name in ("image", "label")}
        return jax.device_put(arrays["image"], self.replicated), jax.device_put(arrays["label"], self.replicated)

    def _parts(self) -> Iterator[dict[str, np.ndarray]]:
        """Every example once, in order, in arrays of up to PART; sources read slices faster than single examples."""

        def part(k: int) -> dict[str, np.ndarray]:
            rows = range(k * PART, min((k + 1) * PART, len(self)))
            transformed = [
                self._transformed(example, (0, 0)) for example in self.split.examples[rows.start : rows.stop]
            ]
            pairs = zip(rows, transformed, strict=True)
            return self._stack([example or self.example(i, seed=(0, 0)) for i, example in pairs])

        return _read(-(-len(self) // PART), part)

    def _batches(self, steps: range, batch_size: int, position: Callable[[int], int], seed: int) -> Iterator[Batch]:
        """Batches of the examples at `position(j)`, where j counts rows over all batches; each host reads its share."""
        if self.resident is not None:
            gather = jax.jit(_gather, out_shardings=self.sharding)
            rows = (np.array([position(int(j)) for j in _share(step, batch_size)], np.int32) for step in steps)
            return _ahead(gather(*self.resident, self._to_devices(index)) for index in rows)
        share = batch_size // jax.process_count()

        def read(k: int) -> dict[str, Any]:
            j = int(_share(steps[k // share], batch_size)[k % share])
            return self.example(position(j), seed=(seed, j))

        examples = _read(len(steps) * share, read)
        stacked = (self._stack(list(itertools.islice(examples, share))) for _ in steps)
        return _ahead({name: self._to_devices(array) for name, array in batch.items()} for batch in stacked)

    def _to_devices(self, local: np.ndarray) -> jax.Array:
        return jax.make_array_from_process_local_data(self.sharding, local)

    def _stack(self, examples: list[dict[str, Any]]) -> dict[str, np.ndarray]:
        shapes = {self.image_shape, *(example["image"].shape for example in examples)}
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


def _share(step: int, batch_size: int) -> np.ndarray:
    """The rows of batch `step`, counted over all batches, that this host reads."""
    share = batch_size // jax.process_count()
    return step * batch_size + jax.process_index() * share + np.arange(share)


def _read(count: int, make: Callable[[int], dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """`make(0)` … `make(count - 1)` in order, made ahead by Grain's reader threads, which end with the iterator."""
    import grain

    def attempt(k: int) -> dict[str, Any] | UserError:
        try:
            return make(int(k))
        except UserError as error:  # handed on as it is: Grain would add lines of its own
            return error

    cv2.setNumThreads(0)  # the reader threads already use every core
    options = grain.ReadOptions(num_threads=2 * (os.cpu_count() or 1), prefetch_buffer_size=256)
    for made in grain.MapDataset.range(count).map(attempt).to_iter_dataset(options):
        if isinstance(made, UserError):
            raise made
        yield made


def _ahead(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Keeps `PREFETCH` batches under way, so that transfers overlap with steps."""
    batches, waiting = iter(batches), collections.deque[Batch]()
    while True:
        waiting.extend(itertools.islice(batches, PREFETCH + 1 - len(waiting)))
        if not waiting:
            return
        yield waiting.popleft()
