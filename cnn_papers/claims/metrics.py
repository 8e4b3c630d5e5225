"""The metrics of claims: functions that read a value off a finished run, as a `Reading`.

A claim's `metric` names one of them. Errors are in percent. The measures and losses of a run that
diverged count as those of guessing.
"""

import math
import re
from typing import Any, NamedTuple

import numpy as np

from cnn_papers import tasks
from cnn_papers.errors import UserError


class Finished(NamedTuple):
    """A finished run.

    Attributes:
      config: its configuration, a locked ConfigDict.
      rows: of its metrics.jsonl.
      outcome: "done" or "diverged".
      seconds: time of all attempts.
      started: local time at which the last attempt started.
      source: digest of its source; "" if it was not noted.
      machine, versions: that it ran on, in words.
    """

    config: Any
    rows: list[dict[str, Any]]
    outcome: str
    seconds: float = 0.0
    started: str = ""
    source: str = ""
    machine: str = ""
    versions: str = ""


class Reading(NamedTuple):
    """One value of one run, NaN if there is none; the true one is at least this if `censored`."""

    value: float
    censored: bool = False


def last(run: Finished, name: str) -> Reading:
    """Returns the last value of `name`, such as 'val/top1_error' or 'train/loss'."""
    return mean_last(run, name, 1)


def mean_last(run: Finished, name: str, n: int) -> Reading:
    """Returns the mean of the last `n` values of `name`."""
    if run.outcome == "diverged":
        return Reading(_guessing(run, name))
    values = _values(run, name, at_least=n)
    return Reading(sum(values[-n:]) / n)


def best(run: Finished, name: str) -> Reading:
    """Returns the best value of `name`, which flatters every arm a little: its split chose it."""
    if run.outcome == "diverged":
        return last(run, name)
    sign = _sign(run, name)
    return Reading(sign * float(np.nanmin([sign * value for value in _values(run, name)])))


def gap(run: Finished, name: str, other: str) -> Reading:
    """Returns the last value of `name` minus that of `other`; NaN for a run that diverged."""
    if run.outcome == "diverged":
        return Reading(math.nan)
    return Reading(last(run, name).value - last(run, other).value)


def images_to(run: Finished, name: str, level: float) -> Reading:
    """Returns the training images seen when `name` is first at `level` or better.

    If it never is, these are all images that the run saw, censored. They are as fine as rows are
    written: `log_every_steps` for training, `eval.every_epochs` for evaluation.
    """
    batch_size, sign = run.config.batch_size, _sign(run, name)
    for row in run.rows:
        if name in row and sign * row[name] <= sign * level:
            return Reading(float(row["step"] * batch_size))
    if run.outcome != "diverged":
        _values(run, name)
    return Reading(
        float(max((row["step"] for row in run.rows), default=0) * batch_size), censored=True
    )


def tested(run: Finished, protocol: str | int, name: str) -> Reading:
    """Returns `name` ('top1_error') in the final test by `protocol`.

    `protocol` is its name or, if a name stands twice, its whole text or its place in
    `config.eval.protocol`, from 0.
    """
    if run.outcome == "diverged":
        return Reading(_guessing(run, name))
    rows = {
        row["test/protocol"]: row
        for row in run.rows
        if "test/protocol" in row and "test/ensemble" not in row
    }
    texts = [text for i, text in enumerate(rows) if protocol in (i, text, text.partition("(")[0])]
    if len(texts) != 1:
        raise UserError(
            f"metric tested({protocol!r}, …) finds {len(texts)} tests; "
            f"there are: {', '.join(rows) or 'none'}; config.eval.protocol names them"
        )
    row = rows[texts[0]]
    if f"test/{name}" not in row:
        names = " and ".join(tasks.measures(run.config.task))
        raise UserError(f"metric tested(…, '{name}'): a test has {names}")
    return Reading(row[f"test/{name}"])


def tested_change(run: Finished, before: str | int, after: str | int, name: str) -> Reading:
    """Returns `name` in the final test by `after` minus that by `before`, of one network."""
    if run.outcome == "diverged":
        return Reading(math.nan)
    return Reading(tested(run, after, name).value - tested(run, before, name).value)


def analysis(run: Finished, name: str) -> Reading:
    """Returns the last value of the analysis `name`; NaN for a run that diverged."""
    if run.outcome == "diverged":
        return Reading(math.nan)
    return Reading(_values(run, f"analysis/{name}")[-1])


def drift(run: Finished, name: str, spread: str = "") -> Reading:
    """Returns the range of the analysis `name` over the evaluations of a run.

    Of an analysis with numbered parts, `name/0`, `name/1`, …, it is the mean of their ranges. It is
    divided by the mean of the analysis `spread` over the evaluations, if one is named, so that
    units of another scale compare; NaN for a run that diverged.
    """
    if run.outcome == "diverged":
        return Reading(math.nan)
    parts = {
        key
        for row in run.rows
        for key in row
        if re.fullmatch(rf"analysis/{re.escape(name)}/\d+", key)
    }
    ranges = [
        np.ptp(_values(run, key, at_least=2)) for key in sorted(parts) or [f"analysis/{name}"]
    ]
    width = np.mean(_values(run, f"analysis/{spread}")) if spread else 1.0
    return Reading(float(np.mean(ranges) / width))


def parameters(run: Finished) -> Reading:
    """Returns the trainable parameters of the configured network, with auxiliary heads."""
    return Reading(float(_network(run).params))


def multiply_adds(run: Finished) -> Reading:
    """Returns the multiply-adds of the configured network for one image in evaluation."""
    return Reading(float(_network(run).macs))


def window_saving(
    run: Finished, height: int, width: int, windows: int = 0, features_only: bool = False
) -> Reading:
    """Returns by how many times one pass over height×width pixels saves multiply-adds.

    It is compared with one pass for each window, see `sliding.saving`.
    """
    from cnn_papers.claims import sliding

    model, shape = _model_and_input(run)
    return Reading(
        sliding.saving(
            model, shape, (height, width, shape[-1]), windows, features_only=features_only
        )
    )


def sliding_difference(run: Finished, height: int, width: int) -> Reading:
    """Returns the difference that sliding fully connected layers over height×width pixels makes.

    It is compared with the same layers on each window, see `sliding.difference`.
    """
    from cnn_papers.claims import sliding

    model, shape = _model_and_input(run)
    return Reading(sliding.difference(model, shape, (height, width, shape[-1]), run.config.seed))


def _values(run: Finished, name: str, at_least: int = 1) -> list[float]:
    """Returns the values of `name` in order, NaN if a row of its kind lacks it.

    Rows lack only values that are not finite, and older values must not stand for these. Raises
    UserError if there are fewer than `at_least`.
    """
    kind = name.partition("/")[0] + "/"
    rows = [row for row in run.rows if any(key.startswith(kind) for key in row)]
    values = [row.get(name, math.nan) for row in rows] if any(name in row for row in rows) else []
    if not 0 < at_least <= len(values):
        known = sorted({key for row in run.rows for key in row} - {"step"})
        raise UserError(
            f"a metric needs {at_least} values of '{name}', the run has {len(values)}; "
            f"it has: {known}"
        )
    return values


def _sign(run: Finished, name: str) -> int:
    """Returns 1 if lower values of `name` are better, -1 if higher ones are."""
    measure = tasks.measures(run.config.task).get(name.rpartition("/")[2])
    return -1 if measure is not None and not measure.lower_is_better else 1


def _guessing(run: Finished, name: str) -> float:
    """Returns the measure or loss `name` of a network that guesses; NaN for other values."""
    task = tasks.task_module(run.config.task)
    return task.guessing(run.config.model.num_classes).get(name.rpartition("/")[2], math.nan)


def _network(run: Finished) -> Any:
    from cnn_papers import counting  # here: metrics of rows need no JAX

    return counting.count(*_model_and_input(run))


def _model_and_input(run: Finished) -> tuple[Any, tuple[int, ...]]:
    """Returns the configured network, and the (h, w, c) of its images."""
    from cnn_papers import zoo
    from cnn_papers.runs import inputs

    model = zoo.build_model(run.config.model_name, **run.config.model)
    return model, inputs.configured_input(run.config)
