"""How far a sweep is: a line for each run that ends and, on a terminal, one that changes; with the
time left.
"""

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


class Progress:
    """Prints how the runs of a sweep go.

    Args:
      folder: of the sweep.
      records: how every run of the sweep went so far, by id; kept up to date here.
      configs: the config of each, by id.
      places: how many run at once.
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
        """Says how the run of `job` ended."""
        self.records[job.id] = record
        count = sum(record.outcome in FINISHED for record in self.records.values())
        line = f"[{count}/{len(self.records)}] {job.id} {record.outcome} after {duration(record.seconds)}"
        if record.outcome in (FAILED, STOPPED):
            line += f" (exit code {record.exit_code}): {process.last_line(self.folder, job)}"
        clear = "\r\033[K" if sys.stdout.isatty() else ""
        say(
            clear + (f"{line}; {self._time_left(running, waiting)}" if running or waiting else line)
        )

    def tick(self, running: Sequence[Running], waiting: Sequence[Job]) -> None:
        """Draws the line that changes."""
        if not sys.stdout.isatty() or time.monotonic() < self._drawn + REDRAW_S:
            return
        self._drawn = time.monotonic()
        names = ", ".join(f"{run.job.id} {duration(self._drawn - run.began)}" for run in running)
        line = f"{len(running)} running, {len(waiting)} waiting; {self._time_left(running, waiting)}: {names}"
        say(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}", end="")

    def _time_left(self, running: Sequence[Running], waiting: Sequence[Job]) -> str:
        """By what finished runs took, of the same recipe where there are any."""
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
    """Lines on how the runs of a sweep stand, with the last words of each that failed."""
    counts = collections.Counter(records[job.id].outcome for job in jobs)
    said = ", ".join(f"{number} {outcome}" for outcome, number in counts.items())
    lines = [f"runs in {folder}: {said or 'none to start'}"]
    for job in jobs:
        if records[job.id].outcome == FAILED:
            log = os.path.join(folder, f"{job.id}.log")
            lines.append(
                f"failed: {log} (exit code {records[job.id].exit_code}): {process.last_line(folder, job)}"
            )
    return lines
