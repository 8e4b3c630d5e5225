"""Runs a test protocol over a split: scores of every image, in the split's order.

Views are batched by shape, and every shape is one compiled program. Every host reads the whole
split; the devices share each batch.
"""

import collections
import functools
import math
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers.data import mirror, prefetch
from cnn_papers.data.image_files import TooManyPixels
from cnn_papers.data.pipeline import Pipeline
from cnn_papers.data.progress import reported
from cnn_papers.errors import UserError
from cnn_papers.evaluation.protocols import Part, Protocol
from cnn_papers.evaluation.results import Outcome
from cnn_papers.parallel import mesh as meshes

AHEAD = 2  # batches that are on the devices before their scores are read
Shape = tuple[int, ...]
Programs = Callable[[Any, bool, Shape], Callable[[Any, jax.Array], Any]]


class Source(NamedTuple):
    """The images of a test.

    Attributes:
      raw, prepared: the same split before and after the operations that set an image's size.
      method: how `raw` images are resized.
      pixels: the most pixels that a batch of views may have, mirror images included.
    """

    raw: Pipeline
    prepared: Pipeline
    method: str
    pixels: int


class Means(NamedTuple):
    """Values of every image, from `mean_of_views`.

    Attributes:
      values: float32 [images, width]; of views that are kept apart [images · views, width].
      labels: as in `results.Outcome`.
      enlarged: number of images that were scaled up.
    """

    values: np.ndarray
    labels: np.ndarray
    enlarged: int


def make_programs(model: Any, variables: Any, normalise: Any, mesh: jax.sharding.Mesh) -> Programs:
    """Returns the function (score, mirrored, batch shape) -> compiled program of one network.

    A program takes variables and uint8 images [n, h, w, c]. It returns float32 [n, classes], the
    sum of what `score` gives over the terms that it takes of an image and of its mirror image, and
    the number of terms. Programs are cached.
    """
    replicated, data_sharding = meshes.replicated(mesh), meshes.data_sharding(mesh)
    mirrored_of = mirror.for_input_of(model)

    def apply(
        score: Any, mirrored: bool, variables: Any, image: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        # An image and its mirror image are neighbours, so that they are on one device.
        pairs = jnp.stack([image, mirrored_of(image)] if mirrored else [image], 1)
        views = normalise(pairs.reshape(-1, *image.shape[1:]), jax.random.key(0))
        total, count = score(model, variables, views)
        return total.reshape(*pairs.shape[:2], -1).sum(1), jnp.float32(count * pairs.shape[1])

    @functools.cache
    def program(score: Any, mirrored: bool, shape: Shape) -> Any:
        image = jax.ShapeDtypeStruct(shape, np.uint8)
        jitted = jax.jit(
            functools.partial(apply, score, mirrored),
            in_shardings=(replicated, data_sharding),
            out_shardings=replicated,
        )
        return jitted.lower(variables, image).compile()

    return program


def run(
    protocol: Protocol,
    programs: Programs,
    variables: Any,
    source: Source,
    *,
    name: str,
    sum_to_one: bool = True,
) -> Outcome:
    """Computes class probabilities of all images with `protocol`, called `name` in messages.

    They are what the parts' `score` gives, softmax outputs, averaged over views, mirror images and
    parts. Other scores do not `sum_to_one`.

    Raises:
      UserError: an image that cannot be read, which is named; a label that the network has no
        output for.
    """
    began = time.monotonic()
    weights = sum(part.weight for part in protocol)
    seconds_by_program: dict[Any, float] = {}
    timed_programs = timed(programs, seconds_by_program)
    total, labels, enlarged = np.float32(0), np.zeros(0, np.int32), 0
    for i, part in enumerate(protocol, 1):
        title = name if len(protocol) == 1 else f"{name}, part {i} of {len(protocol)}"
        width = source.raw.num_classes
        means = mean_of_views(part, timed_programs, variables, source, title, width=width)
        total = total + np.float32(part.weight / weights) * means.values
        labels, enlarged = means.labels, max(enlarged, means.enlarged)
    total = np.asarray(total)
    compiling = sum(seconds_by_program.values())
    return Outcome(
        # OverFeat's maxima add up to more than one; softmax outputs to one, up to rounding.
        scores=total / total.sum(1, keepdims=True) if sum_to_one else total,
        labels=labels,
        programs=len(seconds_by_program),
        seconds=time.monotonic() - began - compiling,
        compiling=compiling,
        enlarged=enlarged,
    )


def timed(programs: Programs, seconds_by_program: dict[Any, float]) -> Programs:
    """Returns `programs`, which keep the seconds that the first use of each took to compile it."""

    def program(*key: Any) -> Any:
        began = time.monotonic()
        found = programs(*key)
        seconds_by_program.setdefault(key, time.monotonic() - began)
        return found

    return program


def mean_of_views(
    part: Part,
    programs: Programs,
    variables: Any,
    source: Source,
    title: str,
    *,
    width: int,
    kept_apart: int = 1,
) -> Means:
    """Returns the mean over the views of `part` for every image, in the split's order.

    Args:
      title: of the display of progress.
      width: number of values that the part's `score` gives of a view.
      kept_apart: the number of views of an image, to keep the values of each; 1 takes their mean.
    """
    pipeline = source.prepared if part.prepared else source.raw
    images, devices = len(pipeline), pipeline.sharding.num_devices
    labels, enlarged = [], np.zeros(images, bool)
    sums = np.zeros((images * kept_apart, width), np.float32)
    counts = np.zeros(images * kept_apart, np.float32)  # terms of each sum

    def numbered_views() -> Iterator[tuple[int, np.ndarray]]:
        read = functools.partial(_read_views, part, pipeline, source.method)
        for i, example in enumerate(reported(prefetch.read(images, read), images, title)):
            label, views, enlarged[i] = example
            labels.append(label)
            yield from ((kept_apart * i + k % kept_apart, view) for k, view in enumerate(views))

    def rows(shape: Shape) -> int:
        """Returns how many views of `shape` a batch has, a multiple of the number of devices."""
        fitting = source.pixels // (shape[0] * shape[1] * (2 if part.mirrored else 1))
        return max(devices, fitting - fitting % devices)

    under_way: collections.deque[tuple[np.ndarray, Any]] = collections.deque()

    def collect(remaining: int) -> None:
        """Adds up the results of the oldest batches, until only `remaining` are under way."""
        while len(under_way) > remaining:
            owners, (total, count) = under_way.popleft()
            np.add.at(sums, owners, np.asarray(total)[: len(owners)])
            np.add.at(counts, owners, np.asarray(count))

    for owners, batch in _by_shape(numbered_views(), rows, devices):
        program = programs(part.score, part.mirrored, batch.shape)
        under_way.append((owners, program(variables, _on_devices(batch, pipeline.sharding))))
        collect(AHEAD)
    collect(0)
    assert (counts == counts[0]).all() and counts[0] > 0, (
        f"{title} scored {np.unique(counts)} views of an image, not as many of each"
    )
    return Means(sums / counts[:, None], np.stack(labels), int(enlarged.sum()))


def _read_views(
    part: Part, pipeline: Pipeline, method: str, i: int
) -> tuple[np.ndarray, list[np.ndarray], bool]:
    """Returns label or labels of image `i`, its views, and whether it was scaled up for them."""
    example = pipeline.reader.example(i, seed=(0, 0))
    image = example["image"]
    try:
        views = list(part.views(image, method))
    except TooManyPixels as error:
        identifier = pipeline.split.examples[i]["id"]
        raise UserError(f"image {identifier} of {pipeline.split.name} {error}") from error
    label = example["labels" if pipeline.reader.many_labels else "label"]
    return label, views, min(image.shape[:2]) < part.short


def _by_shape(
    views: Iterator[tuple[int, np.ndarray]], rows: Callable[[Shape], int], devices: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields batches of views of one shape, with the numbers of the images that they belong to.

    All batches of a shape have the same size. The last one is filled up with copies that belong to
    no image; if it is the only one, it is as small as the devices allow.
    """
    groups: dict[Shape, list[tuple[int, np.ndarray]]] = {}
    full: set[Shape] = set()  # shapes that have had a full batch
    for owner, view in views:
        group = groups.setdefault(view.shape, [])
        group.append((owner, view))
        if len(group) == rows(view.shape):
            yield _stacked(group, len(group))
            full.add(view.shape)
            group.clear()
    for shape, group in groups.items():
        if group:
            smallest = math.ceil(len(group) / devices) * devices
            yield _stacked(group, rows(shape) if shape in full else smallest)


def _stacked(group: list[tuple[int, np.ndarray]], rows: int) -> tuple[np.ndarray, np.ndarray]:
    owners, views = zip(*group, strict=True)
    return np.array(owners), np.stack(views + views[-1:] * (rows - len(views)))


def _on_devices(batch: np.ndarray, sharding: Any) -> jax.Array:
    return jax.make_array_from_callback(batch.shape, sharding, lambda index: batch[index])
