"""Opens and checks the data of a run as its config says; every command with `--config` does so."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from flax.errors import FlaxError
from jax.sharding import Mesh

from cnn_papers import tasks, zoo
from cnn_papers.data.augment import (
    DeviceTransform,
    augment_batch,
    before_whitening,
    compose,
    needs_statistics,
    parse_device,
)
from cnn_papers.data.pipeline import Pipeline, check_kind, parse_host
from cnn_papers.data.split import Split
from cnn_papers.data.statistics import (
    Statistics,
    from_arrays,
    load_or_compute,
    to_arrays,
    with_whitening,
)
from cnn_papers.errors import UserError
from cnn_papers.opstrings import OpString
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes
from cnn_papers.runs.splits import check_classes, check_needs


class DataOps(NamedTuple):
    """The operations of `config.data`: on the host and the device, in training and evaluation."""

    train_host: OpString
    eval_host: OpString
    train_device: OpString
    eval_device: OpString


class Data(NamedTuple):
    """Both splits of a run on its mesh, with the device operations of training and evaluation.

    Attributes:
      train, held_out: the splits `config.data.train_split` and `config.data.eval_split`.
      statistics: of the training images; None if no device operation needs any.
      augment: (uint8 images [n, h, w, c], key) -> float32 images, for training.
      normalise: the same for evaluation.
    """

    train: Pipeline
    held_out: Pipeline
    statistics: Statistics | None
    augment: DeviceTransform
    normalise: DeviceTransform


class Length(NamedTuple):
    """The length of a run in steps: in total, of an epoch, and between two evaluations."""

    total: int
    per_epoch: float
    eval_every: int

    def evaluates(self, step: int) -> bool:
        """Tells whether the run is evaluated after `step` steps."""
        return step > 0 and (step % self.eval_every == 0 or step == self.total)


def parse_data(data: Any) -> DataOps:
    """Parses the op strings of `data`, which is `config.data`; UserError if one is wrong."""
    host = [parse_host(data[key], key=f"data.{key}") for key in ("train_host", "eval_host")]
    device = [parse_device(data[key], key=f"data.{key}") for key in ("train_device", "eval_device")]
    for pair in zip(host, device, strict=True):
        check_kind(*pair)
    return DataOps(*host, *device)


def open_data(config: Any, train: Split, held_out: Split, mesh: Mesh) -> Data:
    """Opens the splits of `splits.open_splits` for batches over `mesh`.

    Raises:
      UserError: as `splits.check_classes`; a batch larger than the split; data that is damaged; an
        op string that is wrong.
    """
    check_classes(config, train)
    if config.batch_size > len(train.examples):
        raise UserError(
            f"config.batch_size={config.batch_size} exceeds "
            f"the {len(train.examples)} images of {train.name}"
        )
    data = config.data
    ops = parse_data(data)
    statistics = open_statistics(train, config, ops, mesh)
    return Data(
        train=open_pipeline(train, config, ops.train_host, mesh, max_skips=data.max_skips),
        held_out=open_pipeline(held_out, config, ops.eval_host, mesh),
        statistics=statistics,
        augment=compose(ops.train_device, statistics, train=True),
        normalise=compose(ops.eval_device, statistics, train=False),
    )


def open_pipeline(
    split: Split,
    config: Any,
    host: OpString,
    mesh: Mesh,
    *,
    max_skips: int = 0,
    resident: str = "",
    num_classes: int = 0,
) -> Pipeline:
    """Opens `split` for batches over `mesh`, through the operations `host`.

    `resident` takes the place of `config.data.resident` if it is not empty, and `num_classes` that
    of the number of classes of the network's head. Batches have boxes if the task needs them.

    Raises:
      UserError: as `Pipeline`; images without a label or data without boxes, where the task needs
        them.
    """
    check_needs(split, config.task, host)
    task = tasks.task_module(config.task)
    return Pipeline(
        split,
        host,
        num_classes=num_classes or config.model.num_classes - task.BACKGROUND,
        resident=resident or config.data.resident,
        max_skips=max_skips,
        boxes=task.NEEDS == "boxes",
        many_labels=task.NEEDS == "labels",
        sharding=meshes.data_sharding(mesh),
        replicated=meshes.replicated(mesh),
    )


def open_statistics(train: Split, config: Any, ops: DataOps, mesh: Mesh) -> Statistics | None:
    """Returns the statistics of the training images, None if no device operation needs any.

    Process 0 loads or computes them and sends them to the others, so that all compile the same
    program.
    """
    if not needs_statistics(ops.train_device) and not needs_statistics(ops.eval_device):
        return None
    statistics: Statistics | None = None  # stays None on other processes than the first

    def load() -> str:
        nonlocal statistics
        statistics = _load_or_compute(train, config, ops, mesh)
        return statistics.fingerprint

    fingerprint = processes.broadcast(load)
    arrays = [] if statistics is None else to_arrays(statistics)
    return from_arrays(processes.arrays_from_first(arrays), fingerprint)


def _load_or_compute(train: Split, config: Any, ops: DataOps, mesh: Mesh) -> Statistics:
    """Returns the statistics of `train` that are kept on disk, or computes them by a pass over it.

    They are of the training images after the host operations of evaluation; whitening, if there is
    any, also after the device operations before `zca`.
    """
    pipeline = open_pipeline(
        train, config, ops.eval_host, mesh, max_skips=config.data.max_skips, resident="never"
    )
    statistics = load_or_compute(train, ops.eval_host.text, pipeline.images)
    before_zca = before_whitening(ops.eval_device, ops.train_device)
    if before_zca is None:
        return statistics
    transform = jax.jit(compose(before_zca, statistics, train=False))

    def images() -> Iterator[np.ndarray]:
        return (np.asarray(transform(part, jax.random.key(0))) for part in pipeline.images())

    ops_text = f"{ops.eval_host.text} {before_zca.text}"
    return with_whitening(statistics, train, ops_text, images)


def eval_batch_size(config: Any) -> int:
    """Returns how many images are evaluated at once."""
    return config.eval.batch_size or config.batch_size


def run_length(config: Any, examples: int) -> Length:
    """Returns the length in steps of a run over `examples` training images."""
    per_epoch = examples / config.batch_size
    total = config.total_steps or max(1, round(config.total_epochs * per_epoch))
    return Length(total, per_epoch, max(1, round(config.eval.every_epochs * per_epoch)))


def check_images(data: Data, evaluate: Callable[[dict[str, Any]], Any], batch_size: int) -> None:
    """Traces the augmentation and an evaluation for every shape of image.

    `evaluate` takes the shapes of an evaluation batch.

    Raises:
      UserError: images that an operation or the network cannot take.
    """
    train_batches = data.train.batch_shapes(batch_size)
    for batch in train_batches:
        jax.eval_shape(functools.partial(augment_batch, data.augment), batch, jax.random.key(0))
    (held_out_batch,) = data.held_out.batch_shapes(batch_size, mask=True)
    first, *others = data.train.image_shapes
    keys = dict.fromkeys(others, "train_host") | {data.held_out.image_shape: "eval_host"}
    for shape, key in keys.items():
        try:
            image = jax.ShapeDtypeStruct((held_out_batch["image"].shape[0], *shape), np.uint8)
            evaluate(held_out_batch | {"image": image})
        except (TypeError, ValueError, FlaxError) as error:
            raise UserError(
                f"a network for images of {first} (config.data.train_host) cannot take those of "
                f"{shape} (config.data.{key}): {str(error).splitlines()[0]}"
            ) from error


def configured_input(config: Any, host: str = "eval_host") -> tuple[int, ...]:
    """Returns the (h, w, c) that `config.data[host]` gives the network, without opening its data.

    If the host operations keep the size of the images, it is the paper's input size.
    """
    shapes = _shapes_after(config.data[host], f"data.{host}")
    if len(shapes) == 1:
        return next(iter(shapes))
    return zoo.model_module(config.model_name).FACTS[config.model.variant].input


@functools.cache  # descriptors of an image take a while
def _shapes_after(op_string: str, key: str) -> frozenset[tuple[int, ...]]:
    """Returns the shapes that host operations make of images of two sizes."""
    shapes = set()
    for size in ((48, 64, 3), (600, 500, 3)):
        image: Any = cv2.imencode(".png", np.zeros(size, np.uint8))[1].tobytes()
        for op in parse_host(op_string, key=key).ops:
            if not op.needs("objects"):  # the image stands for one object
                image = op(image, rng=np.random.default_rng(0), epoch=0)
        shapes.add(image.shape)
    return frozenset(shapes)
