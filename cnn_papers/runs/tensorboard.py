"""Writes TensorBoard events without TensorFlow."""

import logging
import pathlib
import socket
import time
from typing import Any

import numpy as np

from cnn_papers.runs import rows


class Events:
    """The events of one run. After the first failure, which is logged, nothing more is written.

    Events are written immediately. TensorBoard's own writer has a thread that loses minutes of
    them to a kill and ends in a traceback on a full disk.
    """

    def __init__(self, folder: pathlib.Path, start_step: int):
        from tensorboard.compat.proto import event_pb2, summary_pb2
        from tensorboard.summary.writer.record_writer import RecordWriter

        self._event: Any = event_pb2  # generated at import: type checkers cannot look inside
        self._summary: Any = summary_pb2.Summary  # pyright: ignore[reportAttributeAccessIssue]
        folder.mkdir(exist_ok=True)
        numbers = [
            int(path.name.split(".")[3]) for path in folder.glob("events.out.tfevents.[0-9]*.*")
        ]
        # Files are read in the order of this number, so it grows even if the clock was set back.
        number = max(int(time.time()), *numbers, 0) + 1
        name = f"events.out.tfevents.{number:010d}.{socket.gethostname()}"
        self._file = (folder / name).open("wb", buffering=0)
        self._writer, self._broken = RecordWriter(self._file), False
        self._add(self._event.Event(wall_time=time.time(), file_version="brain.Event:2"))
        # Makes TensorBoard drop the events that an interrupted process wrote from this step on.
        session = self._event.SessionLog(status=self._event.SessionLog.START)
        self._add(
            self._event.Event(session_log=session, step=start_step + 1, wall_time=time.time())
        )

    def scalars(self, step: int, values: rows.Row) -> None:
        """Writes one value for each name."""
        items = [
            self._summary.Value(tag=name, simple_value=value) for name, value in values.items()
        ]
        self._add(
            self._event.Event(step=step, wall_time=time.time(), summary=self._summary(value=items))
        )

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """Writes a uint8 RGB image [h, w, 3]."""
        import cv2

        encoded = cv2.imencode(".png", image[..., ::-1])[1].tobytes()
        picture = self._summary.Image(
            height=image.shape[0], width=image.shape[1], colorspace=3, encoded_image_string=encoded
        )
        summary = self._summary(value=[self._summary.Value(tag=name, image=picture)])
        self._add(self._event.Event(step=step, wall_time=time.time(), summary=summary))

    def close(self) -> None:
        """Closes the file."""
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


def open_events(workdir: pathlib.Path, start_step: int) -> Events | None:
    """Opens the events of a run from `start_step`; logs a warning and returns None on failure."""
    try:
        return Events(workdir / "tensorboard", start_step)
    except (ImportError, OSError, ValueError) as error:
        logging.getLogger(__name__).warning("no TensorBoard events: %s", error)
        return None
