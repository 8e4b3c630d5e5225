"""Runs one job of a sweep in a process of its own, and keeps its record.

The process holds a lock on the log of the run, so that nothing else starts it, even if the sweep
itself has been killed.
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

# Signals that stop or kill a run which itself has no fault.
STOPS = (signal.SIGHUP, signal.SIGINT, signal.SIGKILL, signal.SIGTERM, signal.SIGUSR1)
DEATH_SIGNAL = 1  # PR_SET_PDEATHSIG of Linux
TAIL = 4096  # bytes at the end of a log that are searched for its last line


class Place(NamedTuple):
    """The part of a machine for one run: CPU cores (any, if none) and environment variables."""

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
    """Returns the command line of `job` in the sweep's `folder`."""
    return [
        sys.executable,
        "-m",
        "cnn_papers.main",
        *plan.flags_of(job, folder),
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
    """Returns whether a process runs `job` now."""
    path = folder / f"{job.id}.log"
    if not path.exists():
        return False
    with path.open("a") as log:
        return not _lock(log)


def has_trained(folder: pathlib.Path, job: Job, record: Record) -> bool:
    """Returns whether the run has results or a state that its code made."""
    return record.outcome in FINISHED or any((folder / job.id / "checkpoints").glob("[0-9]*"))


def start(folder: pathlib.Path, job: Job, source: str, code: str, place: Place) -> Running:
    """Starts or continues `job`; its process saves its state and stops when this one dies.

    `source` and `code` are digests for its record. Raises UserError if another process runs it.
    """
    before = read(folder, job)
    now = datetime.datetime.now().isoformat(" ", "seconds")
    record = Record(RUNNING, None, source, code, now, before.seconds, before.attempts + 1)
    line = command(folder, job)
    path = folder / f"{job.id}.log"
    # The command may name files whose names are not UTF-8.
    with _writing(folder), path.open("a", encoding="utf-8", errors="surrogateescape") as log:
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
            process_group=0,  # Ctrl-C reaches only the sweep, which passes it on
            preexec_fn=_prepare(place.cores),
        )
    return Running(job, place, process, record, time.monotonic())


def end(folder: pathlib.Path, run: Running) -> Record:
    """Writes and returns the record of `run`, whose process has ended."""
    code = run.process.wait()
    code = 128 - code if code < 0 else code
    outcome = OUTCOMES.get(code, STOPPED if code - 128 in STOPS else FAILED)
    seconds = round(run.record.seconds + time.monotonic() - run.began, 1)
    record = run.record._replace(outcome=outcome, exit_code=code, seconds=seconds)
    _write(folder, run.job, record)
    return record


def last_line(folder: pathlib.Path, job: Job) -> str:
    """Returns the last line of the log of `job` that is not blank; "" if there is no log."""
    path = folder / f"{job.id}.log"
    if not path.exists():
        return ""
    with path.open("rb") as log:
        log.seek(max(0, log.seek(0, os.SEEK_END) - TAIL))
        lines = log.read().decode(errors="replace").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), "")


def in_use(folder: pathlib.Path, job: Job) -> UserError:
    """Returns the error that another process runs `job`, with its name if it wrote one."""
    lock = folder / job.id / files.LOCK
    owner = f" ({lock.read_text()})" if lock.exists() else ""
    return UserError(f"{folder / job.id} is being run by another process{owner}; wait, or stop it")


def _lasted(folder: pathlib.Path, job: Job, record: Record) -> float:
    """Returns the seconds from the start of the last attempt to its last line in the log."""
    log = folder / f"{job.id}.log"
    if not record.started or not log.exists():
        return 0.0
    started = datetime.datetime.fromisoformat(record.started).timestamp()
    return max(0.0, log.stat().st_mtime - started)


def _lock(log: IO[str]) -> bool:
    try:
        fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _write(folder: pathlib.Path, job: Job, record: Record) -> None:
    with _writing(folder), files.replacing(folder / f"{job.id}.json") as part:
        about = {"config": job.config, "overrides": dict(job.overrides)}
        part.write_text(json.dumps({**about, **record._asdict()}, indent=1))


@contextlib.contextmanager
def _writing(folder: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"runs {folder} cannot be written to: {error.strerror}; repeat the command to continue"
        ) from error


def _prepare(cores: Sequence[int]) -> Callable[[], None] | None:
    """Returns what a new process does first, on Linux: keep to `cores`, die with this one."""
    if sys.platform != "linux":
        return None
    libc, parent = ctypes.CDLL(None), os.getpid()

    def prepare() -> None:
        if cores:
            os.sched_setaffinity(0, cores)
        libc.prctl(DEATH_SIGNAL, signal.SIGTERM)
        if os.getppid() != parent:  # it died before
            os._exit(128 + signal.SIGTERM)

    return prepare
