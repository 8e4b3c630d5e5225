"""What a run reports: metrics.jsonl (the truth), timing.jsonl, TensorBoard events, and lines or a bar on the terminal.

Rows of metrics.jsonl depend on the run alone, so that a run killed and taken up again writes the same file; whatever
the clock says goes to timing.jsonl.
"""

import json
import logging
import math
import os
import pathlib
import socket
import sys
import time
from typing import Any

import jax
import numpy as np
import rich.progress

from cnn_papers import terminal
from cnn_papers.errors import UserError
from cnn_papers.parallel import processes

METRICS, TIMING = "metrics.jsonl", "timing.jsonl"
Row = dict[str, Any]


def read_rows(path: pathlib.Path) -> list[Row]:
    """The rows of a .jsonl file; a last line cut off by a crash is left out. Raises UserError on a damaged one."""
    if not path.exists():
        return []
    lines = path.read_bytes().split(b"\n")
    try:
        return [json.loads(line) for line in lines[:-1] if line]
    except ValueError as error:
        raise UserError(f"{path} is damaged ({error}); restore it, or start in another workdir") from error


class Writer:
    """Writes the reports of one run from `start_step` on; rows beyond it, of a lost future, are removed first.

    So is the evaluation at `start_step` where it is `pending`, about to be made again.
    A figure that is not finite is left out of its row: JSON has no word for it. Raises UserError on a full disk.
    Of several processes the first alone writes.
    """

    def __init__(
        self,
        workdir: pathlib.Path,
        *,
        start_step: int,
        total_steps: int,
        steps_per_epoch: float,
        pending: bool = False,
    ):
        self.workdir, self.total_steps, self.steps_per_epoch = workdir, total_steps, steps_per_epoch
        self._events: Events | None = None
        if processes.is_first():
            for name in (METRICS, TIMING):
                _cut_back(workdir / name, start_step, pending)
            self._events = _open_events(workdir, start_step)
        self._bar = _open_bar(start_step, total_steps)
        self._since, self._step = time.monotonic(), start_step

    def resume_clock(self, step: int) -> None:
        """Leaves out what happened since the last report (compiling, evaluating, saving) from the speed."""
        self._since, self._step = time.monotonic(), step

    def train(self, step: int, values: Row, batch_size: int) -> None:
        """Reports training figures up to `step`, and the speed since the last report."""
        self._write(METRICS, step, {f"train/{name}": value for name, value in values.items()})
        text = f"epoch {self._epoch(step)}  loss {values['loss']:.4f}  top-1 error {values['top1_error']:.2f}%"
        eta = ""
        if step > self._step:  # the first step after compiling has no speed
            seconds = (time.monotonic() - self._since) / (step - self._step)
            self._write(TIMING, step, {"images_per_second": round(batch_size / seconds, 1)})
            text += f"  {batch_size / seconds:,.0f} images/s"
            eta = f"  ETA {_clock(seconds * (self.total_steps - step))}"
        if self._bar:
            self._bar.update(self._bar.task_ids[0], completed=step, text=text)
        else:
            self.say(f"step {step}/{self.total_steps}  {text}{eta}")
        self.resume_clock(step)

    def evaluation(self, step: int, values: Row, note: str = "", looked_at: Row | None = None) -> None:
        """Reports the errors on the evaluation split at `step`, and what analyses found inside the network."""
        row = {f"val/{name}": value for name, value in values.items()}
        self._write(METRICS, step, row | {f"analysis/{name}": value for name, value in (looked_at or {}).items()})
        errors = "  ".join(f"top-{k} error {values[f'top{k}_error']:.2f}%" for k in (1, 5))
        self.say(f"step {step}/{self.total_steps}  epoch {self._epoch(step)}  evaluation: {errors}{note}")

    def filters(self, step: int, params: Any, channels: int, columns: int = 1) -> None:
        """Draws the first layer's kernels, those that read an image of so many channels, for TensorBoard.

        Each of a network's `columns` is a picture of its own, since they learn different things (AlexNet §6.1).
        """
        for i, part in enumerate(first_kernels(params, channels, columns), 1):
            if self._events:
                self._events.image(step, f"conv1_column{i}" if columns > 1 else "conv1", filter_grid(part))

    def say(self, text: str) -> None:
        """One line on the terminal, above the bar if there is one."""
        if self._bar:
            self._bar.console.print(text, highlight=False, markup=False)
        else:
            terminal.say(text)

    def close(self) -> None:
        """Flushes and closes everything."""
        if self._events:
            self._events.close()
        if self._bar:
            self._bar.stop()

    def _epoch(self, step: int) -> str:
        return f"{step / self.steps_per_epoch:.1f}"

    def _write(self, name: str, step: int, row: Row) -> None:
        if not processes.is_first():
            return
        row = {name: value for name, value in row.items() if math.isfinite(value)}
        try:
            with (self.workdir / name).open("a") as file:
                file.write(json.dumps({"step": step, **row}) + "\n")
        except OSError as error:
            raise UserError(f"{self.workdir / name} cannot be written to: {error.strerror}") from error
        if self._events:
            self._events.scalars(step, row)


class Events:
    """TensorBoard events, written without TensorFlow. Best effort: the first failure is logged and ends it.

    Written at once: TensorBoard's own thread loses minutes of them to a kill and ends in a traceback on a full disk.
    """

    def __init__(self, folder: pathlib.Path, start_step: int):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event: Any = event_pb2  # generated at import: type checkers cannot look inside
        self._summary: Any = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
        folder.mkdir(exist_ok=True)
        numbers = [int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.[0-9]*.*")]
        number = max(int(time.time()), *numbers, 0) + 1  # files are read in this order, whatever the clock did since
        name = f"events.out.tfevents.{number:010d}.{socket.gethostname()}"
        self._file = (folder / name).open("wb", buffering=0)
        self._writer, self._broken = RecordWriter(self._file), False
        self._add(self._event.Event(wall_time=time.time(), file_version="brain.Event:2"))
        # Tells TensorBoard to drop what an interrupted process wrote from that step on.
        session = self._event.SessionLog(status=self._event.SessionLog.START)
        self._add(self._event.Event(session_log=session, step=start_step + 1, wall_time=time.time()))

    def scalars(self, step: int, values: Row) -> None:
        items = [self._summary.Value(tag=name, simple_value=value) for name, value in values.items()]
        self._add(self._event.Event(step=step, wall_time=time.time(), summary=self._summary(value=items)))

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """`image` is uint8 RGB [h, w, 3]."""
        import cv2

        encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        picture = self._summary.Image(
            height=image.shape[0], width=image.shape[1], colorspace=3, encoded_image_string=encoded
        )
        summary = self._summary(value=[self._summary.Value(tag=name, image=picture)])
        self._add(self._event.Event(step=step, wall_time=time.time(), summary=summary))

    def close(self) -> None:
        self._try(self._file.close)

    def _add(self, event: Any) -> None:
        if not self._broken:
            self._try(self._writer.write, event.SerializeToString())

    def _try(self, function: Any, *arguments: Any) -> None:
        try:
            function(*arguments)
        except Exception as error:  # a full disk or a dead file system must not end the training
            if not self._broken:
                logging.getLogger(__name__).warning("TensorBoard events stop here: %s", error)
            self._broken = True


def first_kernels(params: Any, channels: int, columns: int = 1) -> list[np.ndarray]:
    """The kernels [h, w, c, n] of the convolution that reads an image of so many channels, by column; none of none."""
    kernels = [leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 4 and leaf.shape[2] == channels]
    return np.split(processes.gathered(kernels[0]).astype(np.float32), columns, -1) if kernels else []


def filter_grid(kernel: np.ndarray, columns: int = 8, zoom: int = 6) -> np.ndarray:
    """Kernels [h, w, c, n] up to `columns` side by side as uint8 RGB; each is stretched to its own full range."""
    h, w, c, n = kernel.shape
    low, high = kernel.min((0, 1, 2)), kernel.max((0, 1, 2))
    scaled = (255 * (kernel - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    scaled = scaled if c == 3 else np.repeat(scaled.mean(2, keepdims=True).astype(np.uint8), 3, 2)
    columns = min(columns, n)
    rows = -(-n // columns)
    grid = np.full((rows * (h + 1) - 1, columns * (w + 1) - 1, 3), 255, np.uint8)
    for i in range(n):
        top, left = i // columns * (h + 1), i % columns * (w + 1)
        grid[top : top + h, left : left + w] = scaled[..., i]
    return grid.repeat(zoom, 0).repeat(zoom, 1)


def _cut_back(path: pathlib.Path, last_step: int, pending: bool) -> None:
    """Keeps the rows of a .jsonl file up to `last_step`, without its evaluation where that is `pending`."""
    rows = [row for row in read_rows(path) if row["step"] <= last_step]
    if pending:
        rows = [row for row in rows if row["step"] < last_step or "val/top1_error" not in row]
    part = path.with_suffix(".tmp")
    try:
        part.write_text("".join(json.dumps(row) + "\n" for row in rows))
        os.replace(part, path)
    except OSError as error:
        raise UserError(f"{path} cannot be written to: {error.strerror}") from error


def _open_events(workdir: pathlib.Path, start_step: int) -> Events | None:
    try:
        return Events(workdir / "tensorboard", start_step)
    except (ImportError, OSError, ValueError) as error:
        logging.getLogger(__name__).warning("no TensorBoard events: %s", error)
        return None


def _open_bar(start_step: int, total_steps: int) -> rich.progress.Progress | None:
    if not sys.stdout.isatty():
        return None
    fields = ("{task.completed}/{task.total}", "{task.fields[text]}")
    bar = rich.progress.Progress(
        rich.progress.TextColumn("step"),
        rich.progress.TextColumn(fields[0]),
        rich.progress.BarColumn(20),
        rich.progress.TextColumn(fields[1]),
        rich.progress.TextColumn("ETA"),
        rich.progress.TimeRemainingColumn(),
    )
    bar.add_task("train", total=total_steps, completed=start_step, text="compiling")
    bar.start()
    return bar


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
