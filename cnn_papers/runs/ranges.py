"""Checks that the values of a config make sense."""

import math
from typing import Any

from cnn_papers import tasks
from cnn_papers.errors import UserError
from cnn_papers.evaluation import run_analyses

# Every other number outside `model` may be zero, and none may be negative.
POSITIVE = (
    "batch_size",
    "checkpoint.every_steps",
    "checkpoint.keep",
    "eval.every_epochs",
    "log_every_steps",
    "model.num_classes",
    "model.width",
    "optim.accumulate",
    "optim.lr_batch",
    "optim.max_skipped_in_a_row",
)
BELOW_ONE = ("optim.ema_decay", "optim.momentum")
MAY_BE_NEGATIVE = ("mesh.data",)  # -1 is all devices; `mesh.make_mesh` checks the rest


def check_ranges(config: Any) -> None:
    """Raises UserError for values that have the right type but make no sense.

    A new number is zero or more; it needs an entry only where zero, a negative value or a limit
    above has a meaning of its own.
    """
    for key, value in _numbers(config).items():
        _check_number(key, value)
    if config.seed >= 2**32:
        raise UserError(f"config.seed={config.seed} must be below 2**32")
    group, part = config.optim.bn_group, config.batch_size // config.optim.accumulate
    if group and part % group:
        raise UserError(
            f"config.optim.bn_group={group} does not divide the batch of {part}: set it to a "
            "divisor, or to 0 for statistics of the whole batch"
        )
    if config.init_layers and not config.init_from:
        raise UserError("config.init_layers selects layers of config.init_from, which is empty")
    if config.optim.move_frozen_statistics and not config.optim.frozen:
        raise UserError(
            "config.optim.move_frozen_statistics needs config.optim.frozen, which is empty"
        )
    if not (config.total_steps or config.total_epochs):
        raise UserError("config.total_epochs or config.total_steps must be positive")
    _check_task(config)
    tasks.task_module(config.task).parse_protocols(config.eval.protocol)
    run_analyses.parse(config.eval.analyses)


def _check_task(config: Any) -> None:
    """Raises UserError for an unknown task, and for a warm-up or analyses that it cannot have."""
    task = tasks.task_module(config.task)
    headline = task.HEADLINE
    is_error = headline.lower_is_better and headline.name in task.Totals._fields
    if config.optim.warmup_until_error and not is_error:
        raise UserError(
            "config.optim.warmup_until_error needs the error of each training step, which the "
            f"task '{config.task}' does not have; () sets no warm-up"
        )
    if config.eval.analyses and task.NEEDS != "label":
        raise UserError(
            f"config.eval.analyses={config.eval.analyses} is for images with one label, and "
            f"config.task={config.task} learns from {task.NEEDS}: leave it empty"
        )
    if config.loss.ranking and task.NEEDS != "labels":
        raise UserError(
            "config.loss.ranking ranks images by each of their labels, and "
            f"config.task={config.task} learns from {task.NEEDS}: set it to False, or take "
            "config.task=multilabel"
        )


def _check_number(key: str, value: float) -> None:
    if not math.isfinite(value):
        raise UserError(f"config.{key}={value} must be finite")
    if key in POSITIVE and value <= 0:
        raise UserError(f"config.{key}={value} must be positive")
    if value < 0 and not key.startswith("model.") and key not in MAY_BE_NEGATIVE:
        raise UserError(f"config.{key}={value} must be zero or more")
    if key in BELOW_ONE and value >= 1:
        raise UserError(f"config.{key}={value} must be below 1")
    if key.endswith("dropout") and not 0 <= value < 1:
        raise UserError(f"config.{key}={value} must be in [0, 1)")


def _numbers(config: Any, prefix: str = "") -> dict[str, float]:
    """Returns the numbers of a config by dotted key."""
    numbers: dict[str, float] = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            numbers |= _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            numbers[f"{prefix}{key}"] = value
    return numbers
