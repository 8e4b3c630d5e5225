"""One pass of a test protocol over a split: class probabilities of every image, in the order of the
split.

Views are batched by shape and every shape is one compiled program. Every host reads the whole
split; the devices share each batch.
"""

import collections
import functools
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers.data import prefetch
from cnn_papers.data.pipeline import Pipeline
from cnn_papers.data.progress import reported
from cnn_papers.evaluation.protocols import Part, Protocol
from cnn_papers.parallel import mesh as meshes

AHEAD = 2  # batches on the devices before their scores are read
Shape = tuple[int, ...]
Programs = Callable[[Any, bool, Shape], Callable[[Any, jax.Array], Any]]


class Source(NamedTuple):
    """Where a protocol finds its images.

    Attributes:
      raw, prepared: the same split before and after the operations that set an image's size.
      method: how `raw` images are resized.
      pixels: how many a batch of views may have, mirror images included.
    """

    raw: Pipeline
    prepared: Pipeline
    method: str
    pixels: int


class Outcome(NamedTuple):
    """What a pass gives: `probabilities` float32 [images, classes] and `label` int32 [images], in
    order.

    `programs` were run, `compiling` seconds went by for them, `seconds` for the rest; `enlarged`
    images were smaller than the protocol's largest scale.
    """

    probabilities: np.ndarray
    label: np.ndarray
    programs: int
    seconds: float
    compiling: float
    enlarged: int


def make_programs(model: Any, variables: Any, normalise: Any, mesh: jax.sharding.Mesh) -> Programs:
    """The compiled programs of one network, made when first asked for: (score, mirrored, batch
    shape) -> program.

    A program takes variables and uint8 images [n, h, w, c]; it gives float32 [n, classes], summed
    over the views that `score` has of an image and of its mirror image, and their number.
    """
    everywhere, over_data = meshes.replicated(mesh), meshes.data_sharding(mesh)

    def apply(
        score: Any, mirrored: bool, variables: Any, image: jax.Array
    ) -> tuple[jax.Array, jax.Array]:
        pair = jnp.stack(
            [image, image[:, :, ::-1]] if mirrored else [image], 1
        )  # beside each other: on one device
        looks = normalise(pair.reshape(-1, *image.shape[1:]), jax.random.key(0))
        total, count = score(model, variables, looks)
        return total.reshape(*pair.shape[:2], -1).sum(1), jnp.float32(count * pair.shape[1])

    @functools.cache
    def program(score: Any, mirrored: bool, shape: Shape) -> Any:
        image = jax.ShapeDtypeStruct(shape, np.uint8)
        jitted = jax.jit(
            functools.partial(apply, score, mirrored),
            in_shardings=(everywhere, over_data),
            out_shardings=everywhere,
        )
        return jitted.lower(variables, image).compile()

    return program


def run(
    protocol: Protocol, programs: Programs, variables: Any, source: Source, *, name: str
) -> Outcome:
    """Class probabilities of all images: the softmax averaged over views, mirror images and parts.

    Raises:
      UserError: an image that cannot be read, which is named; a label the network has no output
      for.
    """
    began, total, weight = time.monotonic(), np.float32(0), sum(part.weight for part in protocol)
    used: dict[Any, float] = {}  # seconds each program took to make
    label, enlarged = np.zeros(0, np.int32), 0
    for i, part in enumerate(protocol, 1):
        title = name if len(protocol) == 1 else f"{name}, part {i} of {len(protocol)}"
        mean, label, small = _mean(
            part, functools.partial(_timed, programs, used), variables, source, title
        )
        total, enlarged = total + np.float32(part.weight / weight) * mean, max(enlarged, small)
    total = np.asarray(total)
    compiling = sum(used.values())
    # OverFeat's maxima add up to more than one; softmax outputs, to one but for rounding.
    probabilities = total / total.sum(1, keepdims=True)
    return Outcome(
        probabilities, label, len(used), time.monotonic() - began - compiling, compiling, enlarged
    )


def _timed(programs: Programs, used: dict[Any, float], *key: Any) -> Any:
    began = time.monotonic()
    program = programs(*key)
    used.setdefault(key, time.monotonic() - began)
    return program


def _mean(
    part: Part, programs: Programs, variables: Any, source: Source, title: str
) -> tuple[np.ndarray, np.ndarray, int]:
    """The mean over a part's views of every image, the labels, and how many images were scaled up."""
    pipeline = source.prepared if part.prepared else source.raw
    count, devices = len(pipeline), pipeline.sharding.num_devices
    label, enlarged = np.zeros(count, np.int32), np.zeros(count, bool)
    sums, looks = np.zeros((count, pipeline.num_classes), np.float32), np.zeros(count, np.float32)

    def look(i: int) -> tuple[int, list[np.ndarray], bool]:
        example = pipeline.example(i, seed=(0, 0))
        image = example["image"]
        return (
            example["label"],
            list(part.views(image, source.method)),
            min(image.shape[:2]) < part.short,
        )

    def views() -> Iterator[tuple[int, np.ndarray]]:
        for i, made in enumerate(reported(prefetch.read(count, look), count, title)):
            label[i], seen, enlarged[i] = made
            yield from ((i, view) for view in seen)

    def rows(shape: Shape) -> int:
        fit = source.pixels // (shape[0] * shape[1] * (2 if part.mirrored else 1))
        return max(devices, fit - fit % devices)

    waiting: collections.deque[tuple[np.ndarray, Any]] = collections.deque()

    def collect(left: int) -> None:
        while len(waiting) > left:
            owners, (total, number) = waiting.popleft()
            np.add.at(sums, owners, np.asarray(total)[: len(owners)])
            np.add.at(looks, owners, np.asarray(number))

    for owners, batch in _by_shape(views(), rows, devices):
        program = programs(part.score, part.mirrored, batch.shape)
        waiting.append((owners, program(variables, _on_devices(batch, pipeline.sharding))))
        collect(AHEAD)
    collect(0)
    assert (looks == looks[0]).all() and looks[0] > 0, (
        f"{title} looked at images {np.unique(looks)} times"
    )
    return sums / looks[:, None], label, int(enlarged.sum())


def _by_shape(
    views: Iterator[tuple[int, np.ndarray]], rows: Callable[[Shape], int], devices: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Batches of views of one shape with the image each belongs to; a shape has batches of one size
    only.

    The last batch of a shape is filled up with copies that belong to no image; where it is the only
    one, it is no larger than it must be.
    """
    groups: dict[Shape, list[tuple[int, np.ndarray]]] = {}
    full: set[Shape] = set()
    for owner, view in views:
        group = groups.setdefault(view.shape, [])
        group.append((owner, view))
        if len(group) == rows(view.shape):
            yield _stacked(group, len(group))
            full.add(view.shape)
            group.clear()
    for shape, group in groups.items():
        if group:
            yield _stacked(
                group, rows(shape) if shape in full else -(-len(group) // devices) * devices
            )


def _stacked(group: list[tuple[int, np.ndarray]], rows: int) -> tuple[np.ndarray, np.ndarray]:
    owners, views = zip(*group, strict=True)
    return np.array(owners), np.stack(views + views[-1:] * (rows - len(views)))


def _on_devices(batch: np.ndarray, sharding: Any) -> jax.Array:
    return jax.make_array_from_callback(batch.shape, sharding, lambda index: batch[index])
