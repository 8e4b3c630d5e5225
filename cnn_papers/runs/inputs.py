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
from cnn_papers.data import proposals
from cnn_papers.data.augment import (
    DeviceTransform,
    augment_batch,
    before_whitening,
    compose,
    needs_statistics,
    parse_device,
)
from cnn_papers.data.pipeline import Pipeline, check_kind, parse_host
from cnn_papers.data.reader import cutting_out, with_object_to_cut_out
from cnn_papers.data.sources import open_split, open_to_test
from cnn_papers.data.split import DamagedExample, Split, with_classes_of
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


def open_one(data: Any, split: str, *, name: str = "") -> Split:
    """Opens a split of `data`, which is `config.data`, or of another data set `name`."""
    return open_split(name or data.name, split, data.data_dir, max_bad_boxes=_max_bad_boxes(data))


def open_one_to_test(data: Any, split: str) -> Split:
    """Opens a split as `open_one` does, for what needs no other split of the data set."""
    return open_to_test(data.name, split, data.data_dir, max_bad_boxes=_max_bad_boxes(data))


def _max_bad_boxes(data: Any) -> int:
    return data.get("max_bad_boxes", 0)  # a run may be older than the key


def open_splits(config: Any) -> tuple[Split, Split]:
    """Opens the splits of `config.data` to train and to evaluate on; both have the same labels.

    They have the proposals that `config.data.proposals` names, which may take hours: what is wrong
    is found before them.

    Raises:
      UserError: data that is missing, or without objects where an operation cuts them out; one
        class only, or more than the network's head has; a head without the output for the
        background that the task needs; a class to evaluate on that is not trained on; as
        `with_proposals`.
    """
    data, train = config.data, open_train(config)
    _check_boxes(train, config.task)
    _check_classes(config, train)
    held_out = with_classes_of(open_one(data, data.eval_split), train.class_names)
    eval_host = parse_host(data.eval_host, key="data.eval_host")
    held_out = with_object_to_cut_out(held_out, eval_host)
    return with_proposals(train, config), with_proposals(held_out, config)


def open_train(config: Any) -> Split:
    """Opens the split of `config.data` to train on, with the images that `open_splits` gives it.

    It has no proposals. What is computed ahead of a run, such as statistics, is of these images.

    Raises:
      UserError: as `open_splits`, about this split.
    """
    train_host = parse_host(config.data.train_host, key="data.train_host")
    return with_object_to_cut_out(open_one(config.data, config.data.train_split), train_host)


def with_proposals(split: Split, config: Any) -> Split:
    """Returns `split` with the proposals that `config.data.proposals` names; "" names none.

    Process 0 loads or makes them and sends them to the others. A run may be older than the key.

    Raises:
      UserError: no such proposer or file of boxes, or a file of other images; data without boxes,
        where the task needs them.
    """
    text = config.data.get("proposals", "")
    if not text:
        return split
    _check_boxes(split, config.task)
    found: list[np.ndarray] = []  # stays empty on other processes than the first

    def load() -> None:
        found.extend(proposals.packed(proposals.of_split(split, text)))

    processes.broadcast(load)
    boxes, counts = processes.arrays_from_first(found)
    return split._replace(proposals=proposals.unpacked(boxes, counts))


def open_data(config: Any, train: Split, held_out: Split, mesh: Mesh) -> Data:
    """Opens the splits of `open_splits` for batches over `mesh`.

    Raises:
      UserError: a batch larger than the split; data that is damaged; an op string that is wrong.
    """
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


def _check_classes(config: Any, train: Split) -> None:
    """Raises UserError unless the network's head has the outputs that the classes need."""
    classes, outputs = len(train.class_names), config.model.num_classes
    background = tasks.task_module(config.task).BACKGROUND
    if classes + background < 2:
        raise UserError(
            f"{train.name} has one class, {train.class_names[0]}: training needs two or more"
        )
    if background and classes + background != outputs:
        raise UserError(
            f"{train.name} has {classes} classes, and config.task={config.task} needs one more "
            f"output for the background; the network's head has {outputs}: "
            f"set --config.model.num_classes={classes + background}"
        )
    if classes > outputs:
        raise UserError(
            f"{train.name} has {classes} classes, the network's head {outputs}: "
            f"set --config.model.num_classes={classes}"
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
    _check_needs(split, config.task, host)
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


def _check_needs(split: Split, task: str, host: OpString) -> None:
    """Raises UserError unless the examples of `split` have what `task` needs after `host`."""
    _check_boxes(split, task)
    needs, cut_out = tasks.task_module(task).NEEDS, cutting_out(host)
    if needs == "labels" and cut_out is not None:
        raise UserError(
            f"config.task={task} learns all classes of an image, and '{cut_out.name}' in "
            f"config.{host.key} cuts out one object: take config.task=classify, or whole images"
        )
    if needs == "label" and cut_out is None and not _has_labels(split):
        raise UserError(
            f"config.task={task} needs a label of every image, and those of {split.name} have "
            "boxes only: to learn the classes of objects cut out, write random_object(0.1) after "
            "decode in config.data.train_host, and largest_object(0.1) in config.data.eval_host"
        )


def _check_boxes(split: Split, task: str) -> None:
    """Raises UserError if `task` learns from boxes and `split` has none."""
    if tasks.task_module(task).NEEDS == "boxes" and split.objects is None:
        raise UserError(
            f"config.task={task} learns from boxes, and {split.name} has none: name other data "
            "with --config.data.name, such as voc_folder:PATH"
        )


def _has_labels(split: Split) -> bool:
    """Tells whether the images have labels, by the first that can be read."""
    if split.objects is None or split.labels is not None:
        return True
    for i in range(len(split.examples)):
        try:
            return "label" in split.examples[i]
        except DamagedExample:
            continue
    return True


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
    op_string = parse_host(config.data[host], key=f"data.{host}")
    shapes = set()
    for size in ((48, 64, 3), (600, 500, 3)):
        image: Any = cv2.imencode(".png", np.zeros(size, np.uint8))[1].tobytes()
        for op in op_string.ops:
            if not op.needs("objects"):  # the image stands for one object
                image = op(image, rng=np.random.default_rng(0), epoch=0)
        shapes.add(image.shape)
    if len(shapes) == 1:
        return shapes.pop()
    return zoo.model_module(config.model_name).FACTS[config.model.variant].input
