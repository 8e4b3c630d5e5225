"""Checks that the values of a config make sense."""

import math
from typing import Any

from cnn_papers.errors import UserError
from cnn_papers.evaluation import run_analyses, support

POSITIVE = [
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
]


NOT_NEGATIVE = [
    "data.max_skips",
    "eval.batch_size",
    "eval.precise_bn",
    "loss.aux_weight",
    "optim.bn_group",
    "optim.ema_decay",
    "optim.lr",
    "optim.max_loss",
    "optim.momentum",
    "optim.warmup_epochs",
    "optim.weight_decay",
    "seed",
    "total_epochs",
    "total_steps",
]


BELOW_ONE = ("optim.ema_decay", "optim.momentum")


def check_ranges(config: Any) -> None:
    """Raises UserError for values that have the right type but make no sense."""
    for key, value in _numbers(config).items():
        if not math.isfinite(value):
            raise UserError(f"config.{key}={value} must be finite")
        if key in POSITIVE + NOT_NEGATIVE and (value < 0 or (value == 0 and key in POSITIVE)):
            raise UserError(
                f"config.{key}={value} must be {'positive' if key in POSITIVE else 'zero or more'}"
            )
        if key in BELOW_ONE and value >= 1:
            raise UserError(f"config.{key}={value} must be below 1")
        if key.endswith("dropout") and not 0 <= value < 1:
            raise UserError(f"config.{key}={value} must be in [0, 1)")
    if config.seed >= 2**32:
        raise UserError(f"config.seed={config.seed} must be below 2**32")
    if (
        config.optim.bn_group
        and config.batch_size // config.optim.accumulate % config.optim.bn_group
    ):
        raise UserError(
            f"config.optim.bn_group={config.optim.bn_group} does not divide the batch of {config.batch_size}"
        )
    if config.init_layers and not config.init_from:
        raise UserError("config.init_layers says what to take of config.init_from, which is empty")
    if not (config.total_steps or config.total_epochs):
        raise UserError("config.total_epochs or config.total_steps must be positive")
    support.parse(config.eval.protocol)
    run_analyses.parse(config.eval.analyses)


def _numbers(config: Any, prefix: str = "") -> dict[str, float]:
    """The numbers of a config by dotted key."""
    found: dict[str, float] = {}
    for key, value in config.items():
        if hasattr(value, "items"):
            found |= _numbers(value, f"{prefix}{key}.")
        elif isinstance(value, int | float):
            found[f"{prefix}{key}"] = value
    return found
