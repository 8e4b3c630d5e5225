"""What a claim reads off a run, by the names its `metric` may have: functions of a `Finished` run
to a `Reading`.

Errors are in percent. A run that diverged knows nothing: its errors and losses count as those of
guessing.
"""

import math
import re
from typing import Any, NamedTuple

import numpy as np

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
    """One figure of one run, NaN where there is none; where `censored`, the true one is at least
    this.
    """

    value: float
    censored: bool = False


def last(run: Finished, name: str) -> Reading:
    """The last value of `name`, such as 'val/top1_error' or 'train/loss'."""
    return mean_last(run, name, 1)


def mean_last(run: Finished, name: str, n: int) -> Reading:
    """The mean of the last `n` values of `name`."""
    if run.outcome == "diverged":
        return Reading(_guessing(name, run.config.model.num_classes))
    found = _values(run, name, at_least=n)
    return Reading(sum(found[-n:]) / n)


def best(run: Finished, name: str) -> Reading:
    """The lowest value of `name`; chosen on the split it is of, and so a little flattering to every
    arm.
    """
    if run.outcome == "diverged":
        return last(run, name)
    return Reading(float(np.nanmin(_values(run, name))))


def gap(run: Finished, name: str, other: str) -> Reading:
    """The last value of `name` minus that of `other`; NaN for a run that diverged, which has no
    gap.
    """
    if run.outcome == "diverged":
        return Reading(math.nan)
    return Reading(last(run, name).value - last(run, other).value)


def images_to(run: Finished, name: str, level: float) -> Reading:
    """Training images seen when `name` is first at or below `level`; the run's all, censored, where
    it never is.

    As fine as rows are written: `log_every_steps` for training, `eval.every_epochs` for evaluation.
    """
    batch_size = run.config.batch_size
    for row in run.rows:
        if name in row and row[name] <= level:
            return Reading(float(row["step"] * batch_size))
    if run.outcome != "diverged":
        _values(run, name)
    return Reading(
        float(max((row["step"] for row in run.rows), default=0) * batch_size), censored=True
    )


def tested(run: Finished, protocol: str | int, name: str) -> Reading:
    """`name` ('top1_error') in the final test by `protocol`.

    That is its name, or where a name stands twice its whole text or its place in
    `config.eval.protocol`, from 0.
    """
    if run.outcome == "diverged":
        return Reading(_guessing(name, run.config.model.num_classes))
    rows = {
        row["test/protocol"]: row
        for row in run.rows
        if "test/protocol" in row and "test/ensemble" not in row
    }
    texts = [text for i, text in enumerate(rows) if protocol in (i, text, text.partition("(")[0])]
    if len(texts) != 1:
        there = f"there are: {', '.join(rows) or 'none'}; config.eval.protocol names them"
        raise UserError(f"metric tested({protocol!r}, …) finds {len(texts)} tests; {there}")
    row = rows[texts[0]]
    if f"test/{name}" not in row:
        raise UserError(f"metric tested(…, '{name}'): a test has top1_error and top5_error")
    return Reading(row[f"test/{name}"])


def tested_change(run: Finished, before: str | int, after: str | int, name: str) -> Reading:
    """`name` in the final test by the protocol `after` minus that by `before`, of one trained
    network.
    """
    if run.outcome == "diverged":
        return Reading(math.nan)
    return Reading(tested(run, after, name).value - tested(run, before, name).value)


def analysis(run: Finished, name: str) -> Reading:
    """The last value of the analysis `name`; NaN for a run that diverged."""
    if run.outcome == "diverged":
        return Reading(math.nan)
    return Reading(_values(run, f"analysis/{name}")[-1])


def drift(run: Finished, name: str) -> Reading:
    """The range of the analysis `name` over the evaluations of a run; NaN for a run that diverged.

    Of an analysis that has numbered parts, `name/0`, `name/1`, …, it is the mean of their ranges.
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
    return Reading(float(np.mean(ranges)))


def parameters(run: Finished) -> Reading:
    """Trainable parameters of the configured network, auxiliary heads included; nothing need have
    run.
    """
    return Reading(float(_network(run).params))


def multiply_adds(run: Finished) -> Reading:
    """Multiply-adds of the configured network for one image in evaluation; nothing need have run."""
    return Reading(float(_network(run).macs))


def window_saving(
    run: Finished, height: int, width: int, windows: int = 0, features_only: bool = False
) -> Reading:
    """How many times fewer multiply-adds one pass over height×width pixels takes than one for each
    window of it.

    See `sliding.saving`; nothing need have run.
    """
    from cnn_papers.claims import sliding

    model, shape = _model_and_input(run)
    return Reading(
        sliding.saving(
            model, shape, (height, width, shape[-1]), windows, features_only=features_only
        )
    )


def sliding_difference(run: Finished, height: int, width: int) -> Reading:
    """How far fully connected layers slid over the maps of height×width pixels are from the same on
    each window alone.

    See `sliding.difference`; nothing need have run.
    """
    from cnn_papers.claims import sliding

    model, shape = _model_and_input(run)
    return Reading(sliding.difference(model, shape, (height, width, shape[-1]), run.config.seed))


def _values(run: Finished, name: str, at_least: int = 1) -> list[float]:
    """The values of `name` in order, NaN where a row of its kind lacks it; UserError for fewer than
    `at_least`.

    Only figures that are not finite are left out of rows, and older ones must not stand for them.
    """
    kind = name.partition("/")[0] + "/"
    rows = [row for row in run.rows if any(key.startswith(kind) for key in row)]
    found = [row.get(name, math.nan) for row in rows] if any(name in row for row in rows) else []
    if not 0 < at_least <= len(found):
        known = sorted({key for row in run.rows for key in row} - {"step"})
        raise UserError(
            f"a metric needs {at_least} values of '{name}', the run has {len(found)}; it has: {known}"
        )
    return found


def _guessing(name: str, classes: int) -> float:
    """The error or loss of who guesses among `classes`; NaN for other figures."""
    kind = name.rpartition("/")[2]
    if kind == "loss":
        return math.log(classes)
    if kind in ("top1_error", "top5_error"):
        return max(0.0, 100 - 100 * int(kind[3]) / classes)
    return math.nan


def _network(run: Finished) -> Any:
    from cnn_papers import counting  # here: what is read off rows needs no JAX

    return counting.count(*_model_and_input(run))


def _model_and_input(run: Finished) -> tuple[Any, tuple[int, ...]]:
    """The configured network, and the (h, w, c) of its images."""
    from cnn_papers import zoo
    from cnn_papers.runs import inputs

    return zoo.build_model(run.config.model_name, **run.config.model), inputs.configured_input(
        run.config
    )
