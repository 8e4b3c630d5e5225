"""Writes what claims read off the finished runs of a sweep to its ledger."""

import pathlib
from collections.abc import Sequence

from cnn_papers.claims import catalogue, definitions, ledger, plan
from cnn_papers.claims.ledger import Entry
from cnn_papers.claims.loading import load_run
from cnn_papers.claims.metrics import Finished
from cnn_papers.claims.plan import EXACT, Job
from cnn_papers.claims.readings import read_claim
from cnn_papers.errors import UserError
from cnn_papers.sweeps.request import Request
from cnn_papers.terminal import say


def add(folder: pathlib.Path, request: Request, jobs: Sequence[Job]) -> None:
    """Adds the readings of those of `jobs` that have finished to the request's ledger, if any.

    What cannot be read or added is said, and the sweep goes on.
    """
    if not request.ledger:
        return
    runs = {job.id: load_run(folder, job.id) for job in jobs}
    finished = {job_id: run for job_id, run in runs.items() if isinstance(run, Finished)}
    seeds = sorted({dict(job.overrides)["seed"] for job in jobs if job.id in finished})
    lines: list[Entry] = []
    for name, scale in request.claims.items():
        if scale != EXACT:
            of_claim = [seed for seed in seeds if seed < request.seeds_of(name)]
            lines += _lines(name, scale, of_claim, finished, request.looks)
    if not lines:
        return
    try:
        ledger.add(pathlib.Path(request.ledger), lines)
    except UserError as error:
        say(f"not in the ledger: {error}")


def _lines(
    name: str,
    scale: str,
    seeds: Sequence[int],
    finished: dict[str, Finished],
    looks: Sequence[int],
) -> list[Entry]:
    """Returns the lines of one claim; says why if it cannot be read."""
    claim = catalogue.find(name)
    arms = {
        arm: [job for job in jobs if job.id in finished]
        for arm, jobs in plan.jobs(claim, scale, seeds).items()
    }
    try:
        readings = read_claim(claim, arms, finished)
    except UserError as error:
        say(f"not in the ledger: claim {name}: {error}")
        return []
    asked = definitions.digest(claim, scale) if any(arms.values()) else ""
    lines = []
    for arm, jobs in arms.items():
        for job in jobs:
            reading = readings[arm][dict(job.overrides)["seed"]]
            run = finished[job.id]
            lines.append(ledger.entry_of(name, scale, asked, arm, job, run, reading, looks))
    return lines
