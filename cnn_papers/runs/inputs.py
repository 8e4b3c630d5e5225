"""From a config to the data of a run, checked. Every door that takes `--config` starts here."""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import cv2
import jax
import numpy as np
from flax.errors import FlaxError
from jax.sharding import Mesh

from cnn_papers import zoo
from cnn_papers.data import host_ops
from cnn_papers.data.augment import DeviceTransform, before_whitening, compose, needs_statistics
from cnn_papers.data.pipeline import Pipeline
from cnn_papers.data.sources import open_split
from cnn_papers.data.split import Split
from cnn_papers.data.statistics import Statistics, Whitening, load_or_compute, with_whitening
from cnn_papers.errors import UserError
from cnn_papers.opstrings import parse
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes


class Data(NamedTuple):
    """Both splits of a run on its mesh, with what their device operations need to know of the
    training images.

    `augment` and `normalise` take (uint8 images [n, h, w, c], key) to the float32 images of
    training and of evaluation; `statistics` is None where neither asks for any.
    """

    train: Pipeline
    held_out: Pipeline
    statistics: Statistics | None
    augment: DeviceTransform
    normalise: DeviceTransform


class Length(NamedTuple):
    """How long a run is, in steps: in all, an epoch, between evaluations."""

    total: int
    per_epoch: float
    eval_every: int

    def evaluates(self, step: int) -> bool:
        """Whether the run is evaluated after `step` steps."""
        return step > 0 and (step % self.eval_every == 0 or step == self.total)


def open_data(config: Any, mesh: Mesh) -> Data:
    """Opens both splits of `config.data` for batches over `mesh`, checked against the head and the
    batch size.
    """
    data, classes = config.data, config.model.num_classes
    train, held_out = (
        open_split(data.name, split, data.data_dir) for split in (data.train_split, data.eval_split)
    )
    if len(train.class_names) > classes:
        raise UserError(
            f"{train.name} has {len(train.class_names)} classes, the network's head {classes}: "
            f"set --config.model.num_classes={len(train.class_names)}"
        )
    if config.batch_size > len(train.examples):
        raise UserError(
            f"config.batch_size={config.batch_size} exceeds the {len(train.examples)} images of {train.name}"
        )
    statistics = open_statistics(train, config, mesh)
    return Data(
        open_pipeline(train, config, "train_host", mesh, max_skips=data.max_skips),
        open_pipeline(held_out, config, "eval_host", mesh),
        statistics,
        compose(data.train_device, statistics, key="data.train_device", train=True),
        compose(data.eval_device, statistics, key="data.eval_device", train=False),
    )


def open_pipeline(
    split: Split, config: Any, ops: str, mesh: Mesh, *, max_skips: int = 0, resident: str = ""
) -> Pipeline:
    """The pipeline of `split` through the host operations `config.data[ops]`."""
    return Pipeline(
        split,
        config.data[ops],
        key=f"data.{ops}",
        num_classes=config.model.num_classes,
        resident=resident or config.data.resident,
        max_skips=max_skips,
        sharding=meshes.data_sharding(mesh),
        replicated=meshes.replicated(mesh),
    )


def open_statistics(train: Split, config: Any, mesh: Mesh) -> Statistics | None:
    """The figures of the training images as evaluation sees them that device operations ask for, if
    any does.

    Process 0 finds them for all, so that all compile the same program.
    """
    data = config.data
    if not any(
        needs_statistics(data[ops], key=f"data.{ops}") for ops in ("train_device", "eval_device")
    ):
        return None
    found: list[Statistics] = []
    mark = processes.broadcast(
        lambda: found.append(_find_statistics(train, config, mesh)) or found[0].fingerprint
    )
    arrays = processes.arrays_from_first(
        jax.tree.leaves(found[0]._replace(fingerprint=None)) if found else []
    )
    whitening = Whitening(*arrays[5:]) if arrays[5:] else None
    return Statistics(*arrays[:5], whitening=whitening, fingerprint=mark)


def _find_statistics(train: Split, config: Any, mesh: Mesh) -> Statistics:
    """The kept figures, or those of a pass over the images."""
    data = config.data
    pipeline = open_pipeline(
        train, config, "eval_host", mesh, max_skips=data.max_skips, resident="never"
    )
    statistics = load_or_compute(train, data.eval_host, pipeline.images)
    before = before_whitening(data.eval_device, data.train_device)
    if before is None:
        return statistics
    transform = jax.jit(compose(before, statistics, key="data.eval_device", train=False))

    def images() -> Iterator[np.ndarray]:
        return (np.asarray(transform(part, jax.random.key(0))) for part in pipeline.images())

    return with_whitening(statistics, train, f"{data.eval_host} {before}", images)


def run_length(config: Any, examples: int) -> Length:
    """The length of a run over `examples` training images, in steps."""
    per_epoch = examples / config.batch_size
    total = config.total_steps or max(1, round(config.total_epochs * per_epoch))
    return Length(total, per_epoch, max(1, round(config.eval.every_epochs * per_epoch)))


def check_images(data: Data, evaluate: Callable[[dict[str, Any]], Any], batch_size: int) -> None:
    """Traces what the first step and the first evaluation do with images; UserError for what they
    would trip over.

    `evaluate` takes the shapes of an evaluation batch.
    """
    first, *others = data.train.image_shapes
    label, mask = (jax.ShapeDtypeStruct((batch_size,), dtype) for dtype in (np.int32, np.bool_))
    for shape in (first, *others):
        jax.eval_shape(
            data.augment, jax.ShapeDtypeStruct((batch_size, *shape), np.uint8), jax.random.key(0)
        )
    places = dict.fromkeys(others, "train_host") | {data.held_out.image_shape: "eval_host"}
    for shape, key in places.items():
        try:
            image = jax.ShapeDtypeStruct((batch_size, *shape), np.uint8)
            evaluate({"image": image, "label": label, "mask": mask})
        except (TypeError, ValueError, FlaxError) as error:
            raise UserError(
                f"a network for images of {first} (config.data.train_host) cannot take those of {shape} "
                f"(config.data.{key}): {str(error).splitlines()[0]}"
            ) from error


def configured_input(config: Any, host: str = "eval_host") -> tuple[int, ...]:
    """The (h, w, c) that `config.data[host]` feeds the network, without opening its data.

    Where the host operations leave images as large as they come, it is the input the paper's
    figures hold for.
    """
    ops = parse(config.data[host], host_ops, leading=1, key=f"data.{host}")
    shapes = set()
    for size in ((48, 64, 3), (600, 500, 3)):
        image: Any = cv2.imencode(".png", np.zeros(size, np.uint8))[1].tobytes()
        for op in ops:
            image = op(image, rng=np.random.default_rng(0), epoch=0)
        shapes.add(image.shape)
    if len(shapes) == 1:
        return shapes.pop()
    return zoo.model_module(config.model_name).FACTS[config.model.variant].input
