"""Applies the metric of a claim, a function of `metrics.py`, to its finished runs."""

from collections.abc import Iterable, Mapping, Sequence

from cnn_papers.claims import catalogue, metrics, plan
from cnn_papers.claims.loading import Sweep, Unfinished
from cnn_papers.claims.metrics import Finished, Reading
from cnn_papers.claims.plan import Job
from cnn_papers.errors import UserError
from cnn_papers.facts import Claim
from cnn_papers.opstrings import parse


def read_claim(
    claim: Claim,
    arms: Mapping[str, Sequence[Job]],
    runs: Mapping[str, Finished | Unfinished],
) -> dict[str, dict[int, Reading]]:
    """Returns the readings of a claim's metric by arm and seed, of finished runs only.

    Args:
      claim: the claim.
      arms: its jobs by arm.
      runs: the runs by id.

    Raises:
      UserError: a run, which the message names, lacks what the metric reads.
    """
    (metric,) = parse(claim.metric, metrics, leading=1, key="metric")
    readings: dict[str, dict[int, Reading]] = {arm: {} for arm in arms}
    for arm, jobs in arms.items():
        for job in jobs:
            run = runs.get(job.id)
            if not isinstance(run, Finished):
                continue
            try:
                readings[arm][dict(job.overrides)["seed"]] = metric(run)
            except UserError as error:
                raise UserError(f"run {job.id}: {error}") from error
    return readings


def of_sweep(sweep: Sweep, name: str) -> dict[str, dict[int, Reading]]:
    """Returns the readings of a claim by arm and seed, of finished runs and of the ledger.

    Raises UserError as `read_claim` does.
    """
    readings = read_claim(catalogue.find(name), sweep.arms[name], sweep.runs)
    for arm, entries in sweep.known.get(name, {}).items():
        if arm in readings:
            readings[arm] = {s: entry.reading for s, entry in entries.items()} | readings[arm]
    return readings


def looks_of(sweep: Sweep, name: str) -> tuple[int, ...]:
    """Returns the numbers of seeds at which a claim was looked at, also by sweeps of the ledger."""
    lines = [entry for by_seed in sweep.known.get(name, {}).values() for entry in by_seed.values()]
    return tuple(sorted({*sweep.looks, *(look for entry in lines for look in entry.looks)}))


def exact_runs(arms: Mapping[str, Iterable[Job]]) -> dict[str, Finished]:
    """Returns the runs of a claim at scale `exact`, by id: configurations without rows."""
    return {job.id: Finished(plan.load(job), [], "done") for jobs in arms.values() for job in jobs}
