"""Loads the folder of a sweep, once: its request, and every run, finished or not."""

import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from cnn_papers.claims import catalogue, ledger, plan
from cnn_papers.claims.ledger import Known
from cnn_papers.claims.metrics import Finished
from cnn_papers.claims.plan import SWEEP, Job
from cnn_papers.claims.records import FINISHED, NEW, RUNNING, read_record
from cnn_papers.errors import UserError
from cnn_papers.runs import rows, workdir

NOT_STARTED, UNDER_WAY = "not started", "under way or killed"
UNKNOWN = "unknown"  # the machine of a run whose version did not record it


class Unfinished(NamedTuple):
    """A run of a sweep that has not finished.

    Attributes:
      why: "not started", "under way or killed", "stopped" or "failed".
      seconds: time of all attempts.
      started: local time at which the last attempt started; "" of none.
    """

    why: str
    seconds: float = 0.0
    started: str = ""


class Sweep(NamedTuple):
    """The content of a sweep's folder.

    Attributes:
      folder: of the sweep.
      scales: the scale of every known claim; None for one that was not requested.
      arms: the jobs of each requested claim by arm, in the order of seeds.
      jobs: all runs of the sweep, by id.
      runs: how each of `jobs` stands, by id.
      looks: numbers of seeds at which claims are looked at until they are decided; none if all
        take the same number.
      known: what the sweep's ledger knows of each claim, by arm and seed.
    """

    folder: pathlib.Path
    scales: dict[str, str | None]
    arms: dict[str, dict[str, list[Job]]]
    jobs: dict[str, Job]
    runs: dict[str, Finished | Unfinished]
    looks: Sequence[int] = ()
    known: Mapping[str, Known] = {}


def load_sweep(folder: pathlib.Path) -> Sweep:
    """Reads the request and the runs of the sweep in `folder`.

    Raises UserError if a file is damaged, or if a requested claim no longer exists.
    """
    request = _read_request(folder)
    claims = catalogue.all_claims()
    try:
        looks, seeds = request.get("looks", []), range(request["seeds"])
        reached = {name: looks[0] for name in request["claims"] if looks}
        reached |= request.get("reached", {})
        scales = {name: request["claims"].get(name) for name in claims}
        unknown = request["claims"].keys() - claims.keys()
        jobs = {
            job["id"]: Job(job["id"], job["config"], tuple(job["overrides"].items()))
            for job in request["jobs"]
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / SWEEP} is damaged: {error!r}; remove it and start the sweep again"
        ) from error
    if unknown:
        raise UserError(f"{folder} holds a sweep of an unknown claim: {min(unknown)}")
    arms = {
        name: plan.jobs(claims[name], scale, seeds[: reached.get(name)])
        for name, scale in scales.items()
        if scale
    }
    runs = {job_id: load_run(folder, job_id) for job_id in jobs}
    entries = ledger.read(pathlib.Path(request["ledger"])) if request.get("ledger") else []
    known = ledger.known(entries, scales, request.get("ledger_code", ""))
    for name, by_arm in known.items():
        for arm, of in arms[name].items():
            for job in of:
                if job.id in jobs:  # its own run counts
                    by_arm.get(arm, {}).pop(dict(job.overrides)["seed"], None)
    return Sweep(folder, scales, arms, jobs, runs, looks, known)


def load_ledger(path: pathlib.Path) -> Sweep:
    """Returns a ledger as a sweep without runs, of every claim at the largest scale that it has.

    Raises UserError if there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise UserError(f"there is no ledger {path}")
    entries = ledger.read(path)
    scales: dict[str, str | None] = {}
    for name, claim in catalogue.all_claims().items():
        has = {entry.scale for entry in entries if entry.claim == name}
        scales[name] = next((scale for scale in reversed(claim.scales) if scale in has), None)
    known = ledger.known(entries, scales)
    arms = {}
    for name, scale in scales.items():
        if scale:
            seeds = sorted({seed for by_seed in known[name].values() for seed in by_seed})
            arms[name] = plan.jobs(catalogue.find(name), scale, seeds or [0])
    return Sweep(path.parent, scales, arms, {}, {}, (), known)


def load_run(folder: pathlib.Path, job_id: str) -> Finished | Unfinished:
    """Reads one run of the sweep in `folder`; UserError if one of its files is damaged."""
    record = read_record(folder, job_id)
    if record.outcome == NEW:
        return Unfinished(NOT_STARTED)
    if record.outcome not in FINISHED:
        why = UNDER_WAY if record.outcome == RUNNING else record.outcome
        return Unfinished(why, record.seconds, record.started)
    saved = read_saved_run(folder / job_id)
    return Finished(
        saved.config,
        rows.read_rows(folder / job_id / rows.METRICS),
        record.outcome,
        record.seconds,
        record.started,
        record.source,
        saved.machine or UNKNOWN,
        versions_text(saved.versions),
    )


def read_saved_run(run: pathlib.Path) -> workdir.SavedRun:
    """Reads `run.json` of a run's folder; UserError if it is missing or damaged."""
    saved = workdir.read_run(run)
    if saved is None:
        raise UserError(f"there is no {run / workdir.RUN}")
    if not saved.versions:
        raise UserError(f"{run / workdir.RUN} is damaged: it has no versions")
    return saved


def versions_text(versions: dict[str, str]) -> str:
    """Returns versions as "python 3.11.7, jax 0.10.2"."""
    return ", ".join(f"{name} {version}" for name, version in versions.items())


def _read_request(folder: pathlib.Path) -> dict[str, Any]:
    path = folder / SWEEP
    try:
        request = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(request, dict):
        raise UserError(f"{path} is damaged: it is no JSON object")
    return request
