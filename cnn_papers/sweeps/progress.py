"""Shows the progress of a sweep: a line for each run that ends and, on a terminal, a live one."""

import collections
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Mapping, Sequence

from cnn_papers.claims.plan import Job
from cnn_papers.claims.records import FAILED, FINISHED, STOPPED, Record
from cnn_papers.sweeps import process
from cnn_papers.sweeps.process import Running
from cnn_papers.terminal import duration, say

REDRAW_S = 1.0
CLEAR = "\r\033[K"  # the line of a terminal


class Progress:
    """Prints the progress of a sweep's runs, with the time left.

    Args:
      folder: of the sweep.
      records: the record of every run, by id; kept up to date here.
      configs: the config of every run, by id.
      places: number of runs at a time.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        records: dict[str, Record],
        configs: Mapping[str, str],
        places: int,
    ) -> None:
        self.folder, self.records, self.configs, self.places = folder, records, configs, places
        self._drawn = 0.0

    def ended(
        self, job: Job, record: Record, running: Sequence[Running], waiting: Sequence[Job]
    ) -> None:
        """Prints how the run of `job` ended."""
        self.records[job.id] = record
        count = sum(record.outcome in FINISHED for record in self.records.values())
        line = f"[{count}/{len(self.records)}] {job.id} {record.outcome}"
        line += f" after {duration(record.seconds)}"
        if record.outcome in (FAILED, STOPPED):
            line += f" (exit code {record.exit_code}): {process.last_line(self.folder, job)}"
        if running or waiting:
            line += f"; {self._time_left(running, waiting)}"
        say(f"{CLEAR}{line}" if sys.stdout.isatty() else line)

    def tick(self, running: Sequence[Running], waiting: Sequence[Job]) -> None:
        """Draws the live line again, if it is due."""
        if not sys.stdout.isatty() or time.monotonic() < self._drawn + REDRAW_S:
            return
        self._drawn = time.monotonic()
        names = ", ".join(f"{run.job.id} {duration(self._drawn - run.began)}" for run in running)
        line = f"{len(running)} running, {len(waiting)} waiting; "
        line += f"{self._time_left(running, waiting)}: {names}"
        say(f"{CLEAR}{line[: shutil.get_terminal_size().columns - 1]}", end="")

    def _time_left(self, running: Sequence[Running], waiting: Sequence[Job]) -> str:
        """Estimates the time left from finished runs, of the same recipe if there are any."""
        took = collections.defaultdict(list)
        for name, record in self.records.items():
            if record.outcome in FINISHED:
                took[self.configs[name]].append(record.seconds)
                took[""].append(record.seconds)
        if not took:
            return "time left unknown"
        mean = {config: sum(seconds) / len(seconds) for config, seconds in took.items()}

        def expected(job: Job) -> float:
            return max(0.0, mean.get(job.config, mean[""]) - self.records[job.id].seconds)

        now = time.monotonic()
        under_way = [max(0.0, expected(run.job) - (now - run.began)) for run in running]
        left = max([sum(under_way + [expected(job) for job in waiting]) / self.places, *under_way])
        return f"about {duration(left)} left"


def summary(folder: pathlib.Path, jobs: Sequence[Job], records: Mapping[str, Record]) -> list[str]:
    """Returns lines on the state of a sweep's runs, with the last line of each that failed."""
    counts = collections.Counter(records[job.id].outcome for job in jobs)
    listed = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    lines = [f"runs in {folder}: {listed or 'none to start'}"]
    for job in jobs:
        record = records[job.id]
        if record.outcome == FAILED:
            log = os.path.join(folder, f"{job.id}.log")
            last_line = process.last_line(folder, job)
            lines.append(f"failed: {log} (exit code {record.exit_code}): {last_line}")
    return lines
