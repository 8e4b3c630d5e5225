"""Sweeps over three claims whose runs are written instead of trained."""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from cnn_papers.claims.plan import Job
from cnn_papers.facts import Claim, Scale
from launch import sweep
from support.commands import exit_code
from support.written_sweeps import write_job

SCALES = {"desk": Scale({"config": "configs/resnet.py"})}


def claim(rate: float) -> Claim:
    """The claim that a net of this rate errs less than one of rate 0.1."""
    arms = {"before": {"optim.lr": 0.1}, "after": {"optim.lr": rate}}
    return Claim("Statement.", "§1", arms, "last('val/top1_error')", "lower", "", SCALES)


CLAIMS = {"clear": claim(0.2), "slight": claim(0.3), "none": claim(0.4)}
# The error of an arm beyond that of its seed, by its rate.
EFFECTS = {
    0.1: [0.0] * 12,
    0.2: [-5.0, -5.1, -4.9] * 4,
    0.3: [-1.0, -3.0, -2.0] * 4,
    0.4: [-1.0, 1.1, 0.1] * 4,
}


class Killed(BaseException):
    """The sweep is killed."""


class Ended(NamedTuple):
    """What a run leaves in place of `process.Running`."""

    job: Job


class WrittenRuns:
    """Stands in for `local.run_all`: each run leaves the files of a finished one, of 30 seconds.

    `stop_after` is the number of runs after which the sweep is killed.
    """

    def __init__(self) -> None:
        self.ids: list[str] = []
        self.folder = pathlib.Path()
        self.stop_after: int | None = None

    def run_all(
        self,
        todo: Sequence[Job],
        places: Any,
        begin: Any,
        ended: Callable[[Any, Sequence[Any], Sequence[Job]], None],
        tick: Any,
        grace_s: float,
        may_begin: Callable[[Job], bool],
    ) -> int:
        for place, job in enumerate(todo):
            if not may_begin(job):
                break
            if self.stop_after is not None and len(self.ids) >= self.stop_after:
                raise Killed
            values = dict(job.overrides)
            effect = EFFECTS[values["optim.lr"]][values["seed"]]
            row = {"step": 10, "val/top1_error": 50.0 + values["seed"] + effect}
            write_job(self.folder, job, [row])
            self.ids.append(job.id)
            ended(Ended(job), [], todo[place + 1 :])
        return 0

    def ask(self, folder: pathlib.Path, *flags: str) -> int:
        """Runs the sweep of all claims; returns its exit code."""
        self.folder = folder
        return exit_code(sweep.cli, "--all_claims", f"--runs={folder}", *flags)
