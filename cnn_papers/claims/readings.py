"""Applies the metric of a claim, a function of `metrics.py`, to its finished runs."""

from collections.abc import Iterable, Mapping, Sequence

from cnn_papers.claims import metrics, plan
from cnn_papers.claims.loading import Unfinished
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


def exact_runs(arms: Mapping[str, Iterable[Job]]) -> dict[str, Finished]:
    """Returns the runs of a claim at scale `exact`, by id: configurations without rows."""
    return {job.id: Finished(plan.load(job), [], "done") for jobs in arms.values() for job in jobs}
