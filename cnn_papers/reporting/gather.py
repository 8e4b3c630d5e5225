"""Gathers the results of a sweep, of one run, or of a folder of runs."""

import os
import pathlib
from collections import Counter
from collections.abc import Iterable

from cnn_papers.claims import catalogue, verdicts
from cnn_papers.claims.loading import Sweep, Unfinished, load_sweep, versions_text
from cnn_papers.claims.metrics import Finished
from cnn_papers.claims.plan import EXACT, SWEEP, Job
from cnn_papers.claims.readings import exact_runs, read_claim
from cnn_papers.errors import UserError
from cnn_papers.facts import Claim
from cnn_papers.reporting import figure_data, results, single_runs
from cnn_papers.reporting.results import ArmResult, ClaimResult, GridRun, Results, SeedResult
from cnn_papers.runs import workdir

DIGITS = 12  # of a digest


def gather(folder: pathlib.Path, out: pathlib.Path) -> Results:
    """Returns the results of `folder`, for a report in the folder `out`.

    Raises:
      UserError: there is neither a sweep nor a run, or a file is damaged.
    """
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: give that of a sweep or of a run, or a results.json"
        )
    address = os.path.relpath(folder, out)
    if (folder / SWEEP).is_file():
        found = _of_sweep(load_sweep(folder), address)
    else:
        runs = sorted(path.parent for path in folder.glob(f"*/{workdir.RUN}"))
        if (folder / workdir.RUN).is_file():
            runs = [folder]
        if not runs:
            raise UserError(f"there is no sweep and no run in {folder}: give the folder of one")
        found = single_runs.of_runs(folder, runs, address)
    # As a reader of the file will have them, so that both write the same page.
    return results.from_json(results.to_json(found))


def _of_sweep(sweep: Sweep, address: str) -> Results:
    claims = [
        _claim(file, name, claim, sweep)
        for file, claims in catalogue.claims_of().items()
        for name, claim in claims.items()
    ]
    of_claims = {job_id for claim in claims for seeds in claim.runs.values() for job_id in seeds}
    done = {job_id: run for job_id, run in sweep.runs.items() if isinstance(run, Finished)}
    versions = [run.versions for run in done.values()]
    if EXACT in sweep.scales.values():
        versions.append(versions_text(workdir.versions()))  # this process computes such claims
    return Results(
        kind="sweep",
        runs=address,
        machines=_each_once(run.machine for run in done.values()),
        versions=_each_once(versions),
        outcomes={job_id: _outcome(run) for job_id, run in sweep.runs.items()},
        figures=figure_data.of_claims(sweep),
        code=Counter(run.source[:DIGITS] for run in done.values()),
        started=min((run.started for run in sweep.runs.values() if run.started), default=""),
        seconds=_seconds(sweep.runs.values()),
        claims=claims,
        others=[
            _grid_run(sweep.jobs[job_id], run)
            for job_id, run in done.items()
            if job_id not in of_claims
        ],
    )


def _claim(file: str, name: str, claim: Claim, sweep: Sweep) -> ClaimResult:
    """Returns one claim with its verdict, if it has one."""
    scale, arms = sweep.scales[name], sweep.arms.get(name, {})
    paper_delta = claim.scales[scale].paper_delta if scale else None
    trained = {} if scale == EXACT else arms
    job_ids = dict.fromkeys(job.id for jobs in trained.values() for job in jobs)
    result = ClaimResult(
        statement=claim.statement,
        source=claim.source,
        metric=claim.metric,
        expect=claim.expect,
        paper=claim.paper,
        scales=list(claim.scales),
        paper_delta=claim.paper_delta if paper_delta is None else paper_delta,
        ratio=claim.ratio,
        bound=claim.bound,
        name=name,
        scale=scale,
        title=figure_data.title_of(file),
        label=figure_data.label_of(file, name),
        runs={
            arm: {job.id: dict(job.overrides)["seed"] for job in jobs}
            for arm, jobs in trained.items()
        },
        seconds=_seconds(sweep.runs[job_id] for job_id in job_ids if job_id in sweep.runs),
        word=results.NOT_RUN,
        arms={},
    )
    try:
        runs = exact_runs(arms) if scale == EXACT else sweep.runs
        readings = read_claim(claim, arms, runs)
    except UserError as error:
        raise UserError(f"claim {name}: {error}") from error
    if not any(readings.values()):
        return result
    verdict = verdicts.judge(claim, readings, exact=scale == EXACT)
    by_arm = {
        name: ArmResult(
            *verdict.arms[name],
            {str(seed): SeedResult(*reading) for seed, reading in by_seed.items()},
        )
        for name, by_seed in readings.items()
    }
    return result._replace(**verdict._asdict() | {"arms": by_arm})


def _grid_run(job: Job, run: Finished) -> GridRun:
    return GridRun(job.id, job.config, dict(job.overrides), *single_runs.errors(run.rows))


def _outcome(run: Finished | Unfinished) -> str:
    return run.outcome if isinstance(run, Finished) else run.why


def _seconds(runs: Iterable[Finished | Unfinished]) -> float:
    return sum(run.seconds for run in runs if run.started)


def _each_once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
