"""Reads the records of a sweep's runs.

A sweep's folder holds, for every run, `ID/` (the run's own folder), `ID.json` (its record) and
`ID.log` (what it wrote to the terminal). A run has finished if its record says so and its own
folder is still there.
"""

import json
import pathlib
from typing import NamedTuple

from cnn_papers.errors import UserError

NEW, RUNNING, STOPPED, FAILED = "new", "running", "stopped", "failed"
OUTCOMES = {0: "done", 3: "diverged"}  # of a finished run, by its exit code
FINISHED = tuple(OUTCOMES.values())
RUN = "run.json"  # in the run's own folder


class Record(NamedTuple):
    """The state of a run, as `ID.json` keeps it.

    Attributes:
      outcome: new, running, done, diverged, stopped (a later sweep continues it) or failed.
      exit_code: of the last attempt, 128 + n if signal n ended it; None before it ended.
      source: digest of the source that it ran with; "" if the sweep did not note it.
      code: digest of the source and of the run's configuration.
      started: local time at which the last attempt started.
      seconds: time of all attempts; a killed one counts until its last line in the log.
      attempts: number of times it was started.
    """

    outcome: str = NEW
    exit_code: int | None = None
    source: str = ""
    code: str = ""
    started: str = ""
    seconds: float = 0.0
    attempts: int = 0


def read_record(folder: pathlib.Path, job_id: str) -> Record:
    """Returns the record of a run of the sweep in `folder`.

    The record is that of a new run if there is none, or if the run has finished but its own folder
    was removed since. Raises UserError if the record is damaged.
    """
    path = folder / f"{job_id}.json"
    try:
        values = {"source": "", **json.loads(path.read_text())}  # older sweeps did not note it
        record = Record(**{field: values[field] for field in Record._fields})
    except FileNotFoundError:
        return Record()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} cannot be read: {error}; remove it and {job_id} to start that run again"
        ) from error
    if record.outcome in FINISHED and not (folder / job_id / RUN).is_file():
        return Record()
    return record
