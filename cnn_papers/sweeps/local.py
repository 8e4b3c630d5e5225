"""Runs several jobs at once on this machine, each with its part of the cores and GPUs."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence

from cnn_papers.claims.plan import Job
from cnn_papers.errors import UserError
from cnn_papers.sweeps.process import Place, Running
from cnn_papers.terminal import say

POLL_S = 0.05
# Launchers repeat a signal within moments; a person's second Ctrl-C comes later.
SECOND_THOUGHT_S = 1.0
# A process that is still starting does not handle Ctrl-C.
PASSED_ON: dict[int, int] = {signal.SIGINT: signal.SIGTERM}
Signal = tuple[int, float]  # its number, and the time it came


def places(jobs: int) -> list[Place]:
    """Returns the parts of this machine for `jobs` runs at once.

    Runs that share a GPU divide its memory. Raises UserError if there are too few cores, or if the
    GPUs do not divide over the runs.
    """
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
    count = len(cores) or os.cpu_count() or 1
    if not 1 <= jobs <= count:
        raise UserError(f"--jobs={jobs} must be from 1 to {count}, the number of CPU cores")
    if jobs == 1:
        return [Place()]
    gpus = _gpus()
    if gpus and len(gpus) % jobs and jobs % len(gpus):
        raise UserError(f"--jobs={jobs}: {len(gpus)} GPUs do not divide evenly over {jobs} runs")
    return [Place(_part(cores, i, jobs), _environment(gpus, i, jobs)) for i in range(jobs)]


def run_all(
    jobs: Sequence[Job],
    places: Sequence[Place],
    begin: Callable[[Job, Place], Running],
    ended: Callable[[Running, Sequence[Running], Sequence[Job]], None],
    tick: Callable[[Sequence[Running], Sequence[Job]], None],
    grace_s: float,
    may_begin: Callable[[Job], bool] = lambda job: True,
) -> int:
    """Runs `jobs`, one in each of `places` at a time.

    Returns the signal that stopped them, 0 if none did. A signal is passed on once; runs that are
    alive `grace_s` seconds later are killed, at once on a second Ctrl-C.

    Args:
      jobs: the jobs, in the order of their start.
      places: the parts of this machine.
      begin: starts a job in a place.
      ended: called with a run whose process has ended, those that continue and those that wait.
      tick: called at every poll with the runs under way and those that wait.
      grace_s: seconds.
      may_begin: a job waits until this is true of it; those of which it never is are not run.
    """
    waiting, running, free = list(jobs), list[Running](), list(places)
    passed_on, since = 0, 0.0  # the signal that was passed on, and the time it came
    with _signals() as signals:
        try:
            while running or (waiting and not signals):
                while free and not signals and (job := next(filter(may_begin, waiting), None)):
                    waiting.remove(job)
                    running.append(begin(job, free.pop(0)))
                if not running:
                    break
                tick(running, waiting)
                time.sleep(POLL_S)
                for run in [run for run in running if run.process.poll() is not None]:
                    running.remove(run)
                    free.append(run.place)
                    ended(run, running, waiting)
                if signals and not passed_on:
                    passed_on, since = signals[0]
                    _send(running, PASSED_ON.get(passed_on, passed_on))
                    say(f"\n{signal.Signals(passed_on).name}: runs under way save and stop")
                elif passed_on and (time.monotonic() > since + grace_s or _repeated(signals)):
                    _send(running, signal.SIGKILL)
        except BaseException:
            # They save and stop; the sweep does not wait, as it cannot record them.
            _send(running, signal.SIGTERM)
            raise
    return signals[0][0] if signals else 0


@contextlib.contextmanager
def _signals() -> Iterator[list[Signal]]:
    """Yields the list of signals that come while the block runs."""
    signals: list[Signal] = []

    def receive(number: int, _: object) -> None:
        signals.append((number, time.monotonic()))

    before = {
        number: signal.signal(number, receive)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
    }
    try:
        yield signals
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _repeated(signals: Sequence[Signal]) -> bool:
    """Returns whether a person pressed Ctrl-C again."""
    earliest = signals[0][1] + SECOND_THOUGHT_S
    return any(number == signal.SIGINT and at > earliest for number, at in signals)


def _send(running: Sequence[Running], number: int) -> None:
    for run in running:
        run.process.send_signal(number)


def _gpus() -> list[str]:
    """Returns the NVIDIA GPUs that runs may use."""
    if os.environ.get("JAX_PLATFORMS") == "cpu":
        return []
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in named.split(",") if gpu]
    if shutil.which("nvidia-smi") is None:
        return []
    query = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
    return subprocess.run(query, capture_output=True, text=True).stdout.split()


def _environment(gpus: Sequence[str], index: int, jobs: int) -> tuple[tuple[str, str], ...]:
    """Returns the variables by which run `index` of `jobs` uses its part of the GPUs."""
    if not gpus:
        return ()
    if len(gpus) >= jobs:
        return (("CUDA_VISIBLE_DEVICES", ",".join(_part(gpus, index, jobs))),)
    share = float(os.environ.get("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.9")) * len(gpus) / jobs
    return (
        ("CUDA_VISIBLE_DEVICES", gpus[index % len(gpus)]),
        ("XLA_PYTHON_CLIENT_MEM_FRACTION", f"{share:.3f}"),
    )


def _part(things: Sequence, index: int, parts: int) -> tuple:
    return tuple(things[len(things) * index // parts : len(things) * (index + 1) // parts])
