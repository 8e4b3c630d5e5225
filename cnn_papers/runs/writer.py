"""Writes the reports of a run: metrics.jsonl, timing.jsonl, TensorBoard events, terminal lines.

metrics.jsonl is the record that everything else reads. Its rows depend only on the run, so that a
run that was killed and continued writes the same file; measured times go to timing.jsonl.
"""

import importlib.util
import json
import math
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import rich.console
import rich.progress

from cnn_papers import terminal
from cnn_papers.errors import UserError
from cnn_papers.facts import Measure
from cnn_papers.parallel import processes
from cnn_papers.runs import pictures, rows, tensorboard


class Writer:
    """Writes the reports of one run. Of several processes only the first one writes.

    Values that are not finite are left out of their row, since JSON cannot express them. All
    methods raise UserError on a full disk.

    Args:
      workdir: folder of the run.
      start_step: rows after it, which an interrupted process wrote, are removed.
      total_steps, steps_per_epoch: length of the run and of an epoch.
      measures: of the run's task; terminal lines have those that are in a report.
      pending: whether the evaluation at `start_step` will be repeated; its row is removed too.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        start_step: int,
        total_steps: int,
        steps_per_epoch: float,
        measures: Sequence[Measure],
        pending: bool = False,
    ):
        self.workdir, self.total_steps, self.steps_per_epoch = workdir, total_steps, steps_per_epoch
        self.measures = measures
        self._events: tensorboard.Events | None = None
        if processes.is_first():
            for name in (rows.METRICS, rows.TIMING):
                rows.cut_back(workdir / name, start_step, pending)
            self._events = tensorboard.open_events(workdir, start_step)
        self._bar = _open_bar(start_step, total_steps)
        self._since, self._step = time.monotonic(), start_step

    def resume_clock(self, step: int) -> None:
        """Excludes the time since the last report (to compile, evaluate, save) from the speed."""
        self._since, self._step = time.monotonic(), step

    def report_training(self, step: int, values: rows.Row, batch_size: int) -> None:
        """Reports training values up to `step`, and the speed since the last report."""
        self._write(rows.METRICS, step, {f"train/{name}": value for name, value in values.items()})
        text = f"epoch {self._epoch(step)}  loss {values['loss']:.4f}  {self._measured(values)}"
        eta = ""
        if step > self._step:  # the first step after compiling has no speed
            seconds = (time.monotonic() - self._since) / (step - self._step)
            self._write(rows.TIMING, step, {"images_per_second": round(batch_size / seconds, 1)})
            text += f"  {batch_size / seconds:,.0f} images/s"
            eta = f"  ETA {_clock(seconds * (self.total_steps - step))}"
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=step, text=text)
        else:
            self.say(f"step {step}/{self.total_steps}  {text}{eta}")
        self.resume_clock(step)

    def report_evaluation(
        self, step: int, values: rows.Row, note: str = "", analyses: rows.Row | None = None
    ) -> None:
        """Reports the values on the evaluation split at `step`, and those of analyses."""
        row = {f"val/{name}": value for name, value in values.items()}
        row |= {f"analysis/{name}": value for name, value in (analyses or {}).items()}
        self._write(rows.METRICS, step, row)
        place = f"step {step}/{self.total_steps}  epoch {self._epoch(step)}"
        self.say(f"{place}  evaluation: {self._measured(values)}{note}")

    def draw_filters(self, step: int, params: Any, channels: int, columns: int = 1) -> None:
        """Draws the kernels that read an image of `channels` channels, for TensorBoard.

        Each of the network's `columns` is a picture of its own, since the columns learn different
        kernels (AlexNet §6.1).
        """
        for i, kernels in enumerate(pictures.first_kernels(params, channels, columns), 1):
            if self._events:
                name = f"conv1_column{i}" if columns > 1 else "conv1"
                self._events.image(step, name, pictures.filter_grid(kernels))

    def say(self, text: str) -> None:
        """Prints one line on the terminal, above the bar if there is one."""
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            terminal.say(text)

    def close(self) -> None:
        """Closes the events and the bar."""
        if self._events:
            self._events.close()
        if self._bar:
            self._bar.stop()

    def _measured(self, values: rows.Row) -> str:
        return "  ".join(m.text(values[m.name]) for m in self.measures if m.name in values)

    def _epoch(self, step: int) -> str:
        return f"{step / self.steps_per_epoch:.1f}"

    def _write(self, name: str, step: int, row: rows.Row) -> None:
        if not processes.is_first():
            return
        row = {name: value for name, value in row.items() if math.isfinite(value)}
        try:
            with (self.workdir / name).open("a") as file:
                file.write(json.dumps({"step": step, **row}) + "\n")
        except OSError as error:
            raise UserError(
                f"{self.workdir / name} cannot be written to: {error.strerror}"
            ) from error
        if self._events:
            self._events.scalars(step, row)


def _open_bar(start_step: int, total_steps: int) -> rich.progress.Progress | None:
    """Returns a progress bar on a terminal or in a notebook; None where output is only text."""
    # In a notebook, rich needs ipywidgets to draw one line again and again.
    in_notebook = rich.get_console().is_jupyter and importlib.util.find_spec("ipywidgets")
    if not (sys.stdout.isatty() or in_notebook):
        return None
    fields = ("{task.completed}/{task.total}", "{task.fields[text]}")
    bar = rich.progress.Progress(
        rich.progress.TextColumn("step"),
        rich.progress.TextColumn(fields[0]),
        rich.progress.BarColumn(20),
        rich.progress.TextColumn(fields[1]),
        rich.progress.TextColumn("ETA"),
        rich.progress.TimeRemainingColumn(),
        # The shared one may be of another stdout.
        console=rich.get_console() if in_notebook else rich.console.Console(),
    )
    bar.add_task("train", total=total_steps, completed=start_step, text="compiling")
    bar.start()
    return bar


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
