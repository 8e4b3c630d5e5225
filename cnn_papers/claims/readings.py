"""Reads the metric of a claim off its finished runs."""

import json
import pathlib
from collections.abc import Sequence

from cnn_papers.claims import metrics, plan
from cnn_papers.claims.metrics import Finished, Reading
from cnn_papers.claims.records import OUTCOMES
from cnn_papers.errors import UserError
from cnn_papers.facts import Claim
from cnn_papers.opstrings import parse


def finished(folder: pathlib.Path, job: plan.Job) -> Finished | None:
    """What `job` left in the sweep's `folder`; None where it is not finished."""
    from cnn_papers.runs import (
        rows,  # here: planning needs no JAX
        workdir,
    )

    try:
        code = json.loads((folder / f"{job.id}.json").read_text()).get("exit_code")
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise UserError(f"{folder / job.id}.json cannot be read: {error}") from error
    run = workdir.read_run(folder / job.id)
    if code not in OUTCOMES or run is None:
        return None
    return Finished(run["config"], rows.read_rows(folder / job.id / rows.METRICS), OUTCOMES[code])


def read_claim(
    claim: Claim, scale: str, seeds: Sequence[int], folder: pathlib.Path | None
) -> dict[str, dict[int, Reading]]:
    """What the metric of `claim` reads off its finished runs in `folder`, by arm and seed; others
    are left out.

    At scale `exact` it is read off the configurations alone. Raises a UserError that names the run
    where it lacks what the metric reads.
    """
    (op,) = parse(claim.metric, metrics, leading=1, key="metric")
    found: dict[str, dict[int, Reading]] = {}
    for arm, planned in plan.jobs(claim, scale, seeds).items():
        found[arm] = {}
        for seed, job in zip(seeds, planned, strict=False):  # exact claims have one job
            if scale == plan.EXACT:
                run: Finished | None = Finished(plan.load(job), [], "done")
            else:
                run = finished(folder, job) if folder else None
            if run is None:
                continue
            try:
                found[arm][seed] = op(run)
            except UserError as error:
                raise UserError(f"run {job.id}: {error}") from error
    return found
