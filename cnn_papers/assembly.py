"""From a config to the pieces of a run: checks, model, data. Every door that takes `--config` starts here."""

import importlib
import pkgutil
from typing import Any, NamedTuple

import cv2
import flax.linen as nn
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

import cnn_papers.models
from cnn_papers.data import host_ops
from cnn_papers.data.augment import Transform, compose, needs_statistics
from cnn_papers.data.pipeline import Pipeline
from cnn_papers.data.sources import Split, open_split
from cnn_papers.data.statistics import Statistics, load_or_compute
from cnn_papers.errors import UserError
from cnn_papers.opstrings import parse
from cnn_papers.training import mesh as meshes

POSITIVE = [
    "batch_size",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "eval.every_epochs",
    "log_every_steps",
    "model.num_classes",
    "optim.accumulate",
    "optim.lr_batch",
    "optim.max_skipped_in_a_row",
]
NOT_NEGATIVE = [
    "data.max_skips",
    "eval.batch_size",
    "loss.aux_weight",
    "optim.ema_decay",
    "optim.lr",
    "optim.momentum",
    "optim.warmup_epochs",
    "optim.weight_decay",
    "seed",
    "total_epochs",
    "total_steps",
]
BELOW_ONE = ("optim.ema_decay", "optim.momentum")


class Data(NamedTuple):
    """Both splits of a run on its mesh, with what their device operations need to know of the training images.

    `augment` and `view` take (uint8 images [n, h, w, c], key) to the float32 images of training and of evaluation.
    """

    train: Pipeline
    held_out: Pipeline
    augment: Transform
    view: Transform


def check_ranges(config: Any) -> None:
    """Raises UserError for numbers that have the right type but make no sense."""
    for key in POSITIVE + NOT_NEGATIVE:
        value = _get(config, key)
        if value < 0 or (value == 0 and key in POSITIVE):
            raise UserError(f"config.{key}={value} must be {'positive' if key in POSITIVE else 'zero or more'}")
        if key in BELOW_ONE and value >= 1:
            raise UserError(f"config.{key}={value} must be below 1")
    if not (config.total_steps or config.total_epochs):
        raise UserError("config.total_epochs or config.total_steps must be positive")


def _get(config: Any, key: str) -> Any:
    for part in key.split("."):
        config = config[part]
    return config


def model_names() -> list[str]:
    """The files of `cnn_papers.models` that are networks."""
    return [module.name for module in pkgutil.iter_modules(cnn_papers.models.__path__) if module.name != "layers"]


def model_module(name: str) -> Any:
    """The file of `cnn_papers.models` called `name`, with `Model` and `FACTS`."""
    if name not in model_names():
        raise UserError(f"unknown config.model_name '{name}'; there are: {', '.join(model_names())}")
    return importlib.import_module(f"cnn_papers.models.{name}")


def build_model(name: str, *, dtype: str = "float32", **fields: Any) -> nn.Module:
    """The network `name` with its `variant` and other `fields`; a field that is None is left to the variant."""
    if dtype not in ("float32", "bfloat16"):
        raise UserError(f"config.model.dtype is float32 or bfloat16, not '{dtype}'")
    try:
        return model_module(name).Model(**fields, dtype=jnp.dtype(dtype))
    except (ValueError, TypeError) as error:
        raise UserError(f"config.model: {error}") from error


def open_data(config: Any, mesh: Mesh) -> Data:
    """Opens both splits of `config.data` for batches over `mesh`, checked against the head and the batch size."""
    data, classes = config.data, config.model.num_classes
    train, held_out = (open_split(data.name, split, data.data_dir) for split in (data.train_split, data.eval_split))
    if len(train.class_names) > classes:
        raise UserError(
            f"{train.name} has {len(train.class_names)} classes, the network's head {classes}: "
            f"set --config.model.num_classes={len(train.class_names)}"
        )
    if config.batch_size > len(train.examples):
        raise UserError(
            f"config.batch_size={config.batch_size} exceeds the {len(train.examples)} images of {train.name}"
        )
    statistics = _statistics(train, config, mesh)
    return Data(
        open_pipeline(train, config, "train_host", mesh, max_skips=data.max_skips),
        open_pipeline(held_out, config, "eval_host", mesh),
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
        sharding=meshes.over_data(mesh),
        replicated=meshes.replicated(mesh),
    )


def _statistics(train: Split, config: Any, mesh: Mesh) -> Statistics | None:
    """The statistics of the training images as evaluation sees them, if any device operation asks for them."""
    if not needs_statistics(config.data.train_device, config.data.eval_device):
        return None
    pipeline = open_pipeline(train, config, "eval_host", mesh, max_skips=config.data.max_skips, resident="never")
    return load_or_compute(train, config.data.eval_host, pipeline.images)


def configured_input(config: Any) -> tuple[int, ...]:
    """The (h, w, c) that the config feeds the network, without opening its data.

    Where the host operations leave images as large as they come, it is the input the paper's figures hold for.
    """
    ops = parse(config.data.eval_host, host_ops, leading=1, key="data.eval_host")
    shapes = set()
    for size in ((48, 64, 3), (600, 500, 3)):
        image: Any = cv2.imencode(".png", np.zeros(size, np.uint8))[1].tobytes()
        for op in ops:
            image = op(image, rng=np.random.default_rng(0))
        shapes.add(image.shape)
    if len(shapes) == 1:
        return shapes.pop()
    return model_module(config.model_name).FACTS[config.model.variant].input
