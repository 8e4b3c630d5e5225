"""One run of a sweep: its command, its process, and the record of how it went.

Beside the run's own folder ID lie ID.log, what it wrote to the terminal, and ID.json, its record.
Its process holds a lock on the log, so that nobody else starts it, even where the sweep itself has
been killed.
"""

import contextlib
import ctypes
import datetime
import fcntl
import json
import os
import pathlib
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import IO, NamedTuple

from cnn_papers import files
from cnn_papers.claims import plan
from cnn_papers.claims.plan import Job
from cnn_papers.claims.records import (
    FAILED,
    FINISHED,
    OUTCOMES,
    RUNNING,
    STOPPED,
    Record,
    read_record,
)
from cnn_papers.errors import UserError

# Asked to stop, or killed: nothing is wrong with the run itself.
STOPS = [
    128 + n for n in (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)
]
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux
TAIL = 4096  # bytes of a log that its last line is looked for in


class Place(NamedTuple):
    """Where a run may compute: CPU cores (none: on any), and what the environment says besides."""

    cores: tuple[int, ...] = ()
    environment: tuple[tuple[str, str], ...] = ()


class Running(NamedTuple):
    """A run under way."""

    job: Job
    place: Place
    process: subprocess.Popen
    record: Record
    began: float


def command(folder: pathlib.Path, job: Job) -> list[str]:
    """The command line of `job` in the sweep's `folder`."""
    return [
        sys.executable,
        "-m",
        "cnn_papers.main",
        *plan.flags_of(job),
        f"--workdir={folder / job.id}",
    ]


def read(folder: pathlib.Path, job: Job) -> Record:
    """Returns how `job` went so far; UserError if its record is damaged."""
    record = read_record(folder, job.id)
    if record.outcome != RUNNING or is_taken(folder, job):
        return record
    # Whatever ran it was killed.
    seconds = round(record.seconds + _lasted(folder, job, record), 1)
    return record._replace(outcome=STOPPED, seconds=seconds)


def is_taken(folder: pathlib.Path, job: Job) -> bool:
    """Whether a process runs `job` now."""
    path = folder / f"{job.id}.log"
    if not path.exists():
        return False
    with path.open("a") as log:
        return not _lock(log)


def has_trained(folder: pathlib.Path, job: Job, record: Record) -> bool:
    """Whether something lies there that the code of the time made."""
    return record.outcome in FINISHED or any((folder / job.id / "checkpoints").glob("[0-9]*"))


def start(folder: pathlib.Path, job: Job, source: str, code: str, place: Place) -> Running:
    """Starts `job`, or goes on with it. Its process stops with a saved state when this one dies.

    `source` and `code` are digests for its record.

    Raises:
      UserError: another process runs it.
    """
    before = read(folder, job)
    now = datetime.datetime.now().isoformat(" ", "seconds")
    record = Record(RUNNING, None, source, code, now, before.seconds, before.attempts + 1)
    line = command(folder, job)
    with _writing(folder), (folder / f"{job.id}.log").open("a") as log:
        if not _lock(log):
            raise in_use(folder, job)
        print(f"$ {shlex.join(line)}", file=log, flush=True)
        _write(folder, job, record)
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PYTHONUNBUFFERED": "1", **dict(place.environment)},
            process_group=0,  # Ctrl-C reaches the sweep alone, which passes it on
            preexec_fn=_prepare(place.cores),
        )
    return Running(job, place, process, record, time.monotonic())


def end(folder: pathlib.Path, run: Running) -> Record:
    """Writes how `run`, whose process has ended, went."""
    code = run.process.wait()
    code = 128 - code if code < 0 else code
    outcome = OUTCOMES.get(code, STOPPED if code in STOPS else FAILED)
    seconds = round(run.record.seconds + time.monotonic() - run.began, 1)
    record = run.record._replace(outcome=outcome, exit_code=code, seconds=seconds)
    _write(folder, run.job, record)
    return record


def last_line(folder: pathlib.Path, job: Job) -> str:
    """The last line of the log of `job` that says something; "" where there is no log."""
    path = folder / f"{job.id}.log"
    if not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
        lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def in_use(folder: pathlib.Path, job: Job) -> UserError:
    """Says that another process runs `job`, and which, where that is written."""
    lock = folder / job.id / files.LOCK
    owner = f" ({lock.read_text()})" if lock.exists() else ""
    return UserError(f"{folder / job.id} is being run by another process{owner}; wait, or stop it")


def _lasted(folder: pathlib.Path, job: Job, record: Record) -> float:
    """Seconds from the start of the last attempt to its last word."""
    log = folder / f"{job.id}.log"
    if not record.started or not log.exists():
        return 0.0
    return max(
        0.0, log.stat().st_mtime - datetime.datetime.fromisoformat(record.started).timestamp()
    )


def _lock(log: IO[str]) -> bool:
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(folder: pathlib.Path, job: Job, record: Record) -> None:
    with _writing(folder), files.replacing(folder / f"{job.id}.json") as part:
        ran = {"config": job.config, "overrides": dict(job.overrides)}
        part.write_text(json.dumps({**ran, **record._asdict()}, indent=1))


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"runs {folder} cannot be written to: {error.strerror}; the same command goes on"
        ) from error


def _prepare(cores: Sequence[int]) -> Callable[[], None] | None:
    """What the new process does before it becomes the run, where Linux has it: keep to `cores`, die
    with this one.
    """
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def prepare() -> None:
        if cores:
            os.sched_setaffinity(0, cores)
        libc.prctl(DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # too late
            os._exit(128 + signal.SIGTERM)

    return prepare
