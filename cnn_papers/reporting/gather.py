"""Gathers the results of a sweep, of one run, or of a folder of runs."""

import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from cnn_papers.claims import catalogue, definitions, ledger, plan, sequential, verdicts
from cnn_papers.claims.ledger import DIGITS, Entry
from cnn_papers.claims.loading import Sweep, Unfinished, load_ledger, load_sweep, versions_text
from cnn_papers.claims.metrics import Finished
from cnn_papers.claims.plan import EXACT, SWEEP, Job
from cnn_papers.claims.readings import exact_runs, looks_of, read_claim
from cnn_papers.claims.readings import of_sweep as readings_of
from cnn_papers.claims.verdicts import Verdict
from cnn_papers.errors import UserError
from cnn_papers.facts import Claim
from cnn_papers.reporting import figure_data, results, results_file, single_runs
from cnn_papers.reporting.results import ArmResult, ClaimResult, GridRun, Results, SeedResult
from cnn_papers.runs import workdir


def of_ledger(path: pathlib.Path) -> Results:
    """Returns the results of a ledger; UserError if it is missing or damaged."""
    return results_file.from_json(results_file.to_json(of_sweep(load_ledger(path), ".")))


def latest(found: Results, ledger_path: pathlib.Path) -> dict[str, ClaimResult]:
    """Returns the claims of `found` as they stand today, by name, or of a ledger where it has them.

    Raises:
      UserError: the ledger is missing or damaged.
    """
    asked_since = [claim for claim in of_ledger(ledger_path).claims if claim.word in results.WORDS]
    return {claim.name: claim for claim in (*of_today(found).claims, *asked_since)}


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
        found = of_sweep(load_sweep(folder), address)
    else:
        runs = sorted(path.parent for path in folder.glob(f"*/{workdir.RUN}"))
        if (folder / workdir.RUN).is_file():
            runs = [folder]
        if not runs:
            raise UserError(f"there is no sweep and no run in {folder}: give the folder of one")
        found = single_runs.of_runs(folder, runs, address)
    # As a reader of the file will have them, so that both write the same page.
    return results_file.from_json(results_file.to_json(found))


def of_sweep(sweep: Sweep, address: str) -> Results:
    """Returns the results of a sweep, whose folder is at `address` from the report."""
    claims = [
        _claim(file, name, claim, sweep)
        for file, claims in catalogue.claims_of().items()
        for name, claim in claims.items()
    ]
    of_claims = {job_id for arms in sweep.arms.values() for job_id in _with_starts(arms)}
    done = {job_id: run for job_id, run in sweep.runs.items() if isinstance(run, Finished)}
    known = ledger.runs_of(sweep.known.values())
    versions = [made.versions for made in (*done.values(), *known)]
    if EXACT in sweep.scales.values():
        versions.append(versions_text(workdir.versions()))  # this process computes such claims
    return Results(
        kind="sweep",
        runs=address,
        machines=_each_once(made.machine for made in (*done.values(), *known)),
        versions=_each_once(versions),
        outcomes={job_id: _outcome(run) for job_id, run in sweep.runs.items()},
        figures=figure_data.of_claims(sweep, _changed(claims)),
        code=Counter(
            source[:DIGITS]
            for source in (*(run.source for run in done.values()), *(line.code for line in known))
        ),
        started=min(
            (run.started for run in (*sweep.runs.values(), *known) if run.started), default=""
        ),
        seconds=_seconds((*sweep.runs.values(), *known)),
        claims=claims,
        others=[
            _grid_run(sweep.jobs[job_id], run)
            for job_id, run in done.items()
            if job_id not in of_claims
        ],
    )


def of_today(found: Results) -> Results:
    """Returns results that a file holds, on the claims as they are defined now.

    A claim whose definition has changed since it was run loses its verdict and its figures; the
    texts of the others are today's. A claim that is gone is left out.
    """
    if found.kind != "sweep":
        return found
    recorded = {claim.name: claim for claim in found.claims}
    claims = [
        _today(file, name, claim, recorded.get(name))
        for file, claims in catalogue.claims_of().items()
        for name, claim in claims.items()
    ]
    gone = recorded.keys() - {claim.name for claim in claims}
    outdated = gone | _changed(claims)
    figures = [figure for figure in found.figures if not outdated.intersection(figure.claims)]
    return found._replace(claims=claims, figures=figures)


def _changed(claims: Sequence[ClaimResult]) -> set[str]:
    """Returns the names of the claims that are to be asked again."""
    return {claim.name for claim in claims if claim.word == results.ASK_AGAIN}


def _today(file: str, name: str, claim: Claim, recorded: ClaimResult | None) -> ClaimResult:
    """Returns one claim with the recorded verdict, if that still answers it."""
    scale = recorded.scale if recorded and recorded.scale in claim.scales else None
    now = without_verdict(file, name, claim, scale)
    if recorded is None or recorded.word == results.NOT_RUN:
        return now
    if recorded.word not in results.WORDS or recorded.asked != now.asked:
        return now._replace(word=results.ASK_AGAIN)
    verdict = {field: getattr(recorded, field) for field in (*Verdict._fields, "runs", "seconds")}
    return now._replace(**verdict)


def _claim(file: str, name: str, claim: Claim, sweep: Sweep) -> ClaimResult:
    """Returns one claim with its verdict, if it has one."""
    scale, arms = sweep.scales[name], sweep.arms.get(name, {})
    result = without_verdict(file, name, claim, scale)
    trained = {} if scale == EXACT else arms
    result = result._replace(
        runs={
            arm: {job.id: dict(job.overrides)["seed"] for job in jobs if job.id in sweep.jobs}
            for arm, jobs in trained.items()
        },
        seconds=_seconds(
            [
                *(sweep.runs[run] for run in _with_starts(trained) if run in sweep.runs),
                *ledger.runs_of([sweep.known.get(name, {})]),
            ]
        ),
    )
    if scale and any(_of_another_recipe(jobs, sweep, scale) for jobs in trained.values()):
        return result._replace(word=results.ASK_AGAIN)
    try:
        if scale == EXACT:
            readings = read_claim(claim, arms, exact_runs(arms))
        else:
            readings = readings_of(sweep, name) if scale else {}
    except UserError as error:
        raise UserError(f"claim {name}: {error}") from error
    if not any(readings.values()):
        return result
    looks = looks_of(sweep, name)
    if looks and scale != EXACT:
        verdict = sequential.judge(claim, readings, looks)
    else:
        verdict = verdicts.judge(claim, readings, exact=scale == EXACT)
    by_arm = {
        name: ArmResult(
            *verdict.arms[name],
            {str(seed): SeedResult(*reading) for seed, reading in by_seed.items()},
        )
        for name, by_seed in readings.items()
    }
    return result._replace(**verdict._asdict() | {"arms": by_arm})


def _with_starts(arms: Mapping[str, Sequence[Job]]) -> dict[str, None]:
    """Returns the ids of the jobs of a claim, and of those that they start from, each once."""
    return dict.fromkeys(link.id for jobs in arms.values() for job in jobs for link in job.chain)


def without_verdict(file: str, name: str, claim: Claim, scale: str | None) -> ClaimResult:
    """Returns a claim as it is defined now."""
    paper_delta, paper_data = _paper(claim, scale)
    return ClaimResult(
        statement=claim.statement,
        source=claim.source,
        metric=claim.metric,
        expect=claim.expect,
        paper=claim.paper,
        scales=list(claim.scales),
        paper_delta=paper_delta,
        paper_data=paper_data,
        ratio=claim.ratio,
        bound=claim.bound,
        name=name,
        scale=scale,
        asked=definitions.digest(claim, scale) if scale else "",
        title=figure_data.title_of(file),
        label=figure_data.label_of(file, name),
        runs={},
        seconds=0.0,
        word=results.NOT_RUN,
        arms={},
    )


def _paper(claim: Claim, scale: str | None) -> tuple[float | None, str]:
    """Returns the paper's difference for the data of `scale`, or none and the data set it is of."""
    if scale in (None, EXACT):
        return claim.paper_delta, ""
    if claim.scales[scale].paper_delta is not None:
        return claim.scales[scale].paper_delta, ""
    job, *_ = next(iter(plan.jobs(claim, scale, [0]).values()))
    if claim.paper_delta is None or plan.load(job).data.name == claim.paper_data:
        return claim.paper_delta, ""
    return None, claim.paper_data


def _of_another_recipe(jobs: Sequence[Job], sweep: Sweep, scale: str) -> bool:
    """Tells whether finished runs of an arm had another config than its jobs have now.

    So it is where that holds for the runs that they start from.
    """
    for links in zip(*(job.chain for job in jobs), strict=True):
        runs = [sweep.runs.get(link.id) for link in links]
        done = [run for run in runs if isinstance(run, Finished)]
        if not done:
            continue
        now = definitions.asked_of(plan.load(links[0]), scale)  # the same for every seed
        if any(definitions.asked_of(run.config, scale) != now for run in done):
            return True
    return False


def _grid_run(job: Job, run: Finished) -> GridRun:
    task = run.config.task
    found = single_runs.evaluated(run.rows, task)
    return GridRun(job.id, job.config, dict(job.overrides), *found, task=task)


def _outcome(run: Finished | Unfinished) -> str:
    return run.outcome if isinstance(run, Finished) else run.why


def _seconds(runs: Iterable[Finished | Unfinished | Entry]) -> float:
    return sum(run.seconds for run in runs if run.started)


def _each_once(texts: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(texts))
