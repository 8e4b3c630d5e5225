"""What came of a sweep, or of single runs: everything that a report shows, small enough to commit, as JSON."""

import hashlib
import importlib
import importlib.util
import json
import math
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cnn_papers import claims, verdicts
from cnn_papers.claims import Job
from cnn_papers.errors import UserError
from cnn_papers.facts import Claim
from cnn_papers.reporting import illustrations
from cnn_papers.training import workdir, writer

FORMAT = 1  # of the file
SWEEP = "sweep.json"
KINDS = {"sweep": ("claims", "others", "outcomes", "seconds"), "runs": ("singles",)}  # and what each has
NOT_RUN = "not run"
NEW, STOPPED = "not started", "stopped"
Results = dict[str, Any]


def gather(folder: pathlib.Path, out: pathlib.Path) -> Results:
    """The results of `folder`: of a sweep, of one run, or of a folder of runs; `out` is where they will be written.

    Raises:
      UserError: nothing of the kind is there, or a file is damaged.
    """
    if not folder.is_dir():
        raise UserError(f"there is no folder {folder}: give that of a sweep or of a run, or a results.json")
    if (folder / SWEEP).is_file():
        found = _of_sweep(folder)
    else:
        runs = [folder] if (folder / workdir.RUN).is_file() else sorted(p.parent for p in folder.glob("*/run.json"))
        if not runs:
            raise UserError(f"there is no sweep and no run in {folder}: give the folder of one")
        found = _of_runs(folder, runs)
    return _plain({"format": FORMAT, "runs": os.path.relpath(folder, out), **found})


def read(path: pathlib.Path) -> Results:
    """The results in a file of `text`; UserError for one that cannot be read or is something else."""
    try:
        found = json.loads(path.read_text())
        if found["format"] != FORMAT:
            raise UserError(f"{path} is of format {found['format']}, this version reads {FORMAT}: run the report again")
        if gone := {"runs", "figures", "machines", "versions", *KINDS[found["kind"]]} - found.keys():
            raise KeyError(min(gone))
        return found
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path} holds no results of a report: {error!r}") from error


def text(found: Results) -> str:
    """The results as JSON: an element of a list a line, so that a change shows and the file stays small."""
    lines = []
    for key, value in found.items():
        if isinstance(value, list):
            elements = ",\n ".join(json.dumps(each, ensure_ascii=False) for each in value)
            lines.append(f"{json.dumps(key)}: [\n {elements}\n]" if value else f"{json.dumps(key)}: []")
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


# --- a sweep ---------------------------------------------------------------------------------------------------------


def _of_sweep(folder: pathlib.Path) -> Results:
    asked = _json(folder / SWEEP)
    try:
        seeds = range(asked["seeds"])
        scales = {name: asked["claims"].get(name) for name in claims.all_claims()}
        jobs = {each["id"]: each for each in asked["jobs"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{folder / SWEEP} is damaged: {error!r}; remove it and start the sweep again") from error
    if unknown := asked["claims"].keys() - scales.keys():
        raise UserError(f"{folder} holds a sweep of a claim that there is no longer: {min(unknown)}")
    records = {name: _json(folder / f"{name}.json") for name in jobs if (folder / f"{name}.json").is_file()}
    outcomes = {name: _outcome(records.get(name)) for name in jobs}
    rows = []
    for file, known in claims.claims_of().items():
        rows += [_claim(file, name, claim, scales[name], seeds, folder, records) for name, claim in known.items()]
    of_claims = {run for row in rows for runs in row["runs"].values() for run in runs}
    done = [name for name, outcome in outcomes.items() if outcome in claims.OUTCOMES.values()]
    return {
        "kind": "sweep",
        **_made_with(folder, done),
        "code": _digest(records),
        "started": min((record["started"] for record in records.values() if record.get("started")), default=""),
        "seconds": sum(record.get("seconds", 0.0) for record in records.values()),
        "outcomes": outcomes,
        "claims": rows,
        "others": [_other(folder, jobs[name]) for name in done if name not in of_claims],
        "figures": illustrations.of_claims(scales, seeds, folder),
    }


def _claim(
    file: str,
    name: str,
    claim: Claim,
    scale: str | None,
    seeds: Sequence[int],
    folder: pathlib.Path,
    records: Mapping[str, Mapping[str, Any]],
) -> dict[str, Any]:
    """One claim with its verdict; `scale` is None where it was not asked."""
    about = claim._asdict() | {"name": name, "scale": scale, "scales": list(claim.scales)}
    if scale and (delta := claim.scales[scale].paper_delta) is not None:
        about["paper_delta"] = delta
    about |= {"title": illustrations.title_of(file), "label": illustrations.label_of(file, name)}
    del about["arms"]
    planned: dict[str, list[Job]] = claims.jobs(claim, scale, seeds) if scale and scale != claims.EXACT else {}
    ran = {job.id for jobs in planned.values() for job in jobs}
    about |= {
        "runs": {arm: {job.id: dict(job.overrides)["seed"] for job in jobs} for arm, jobs in planned.items()},
        "seconds": sum(records[each].get("seconds", 0.0) for each in ran if each in records),
        "word": NOT_RUN,
        "arms": {},
    }
    readings = claims.readings(claim, scale, seeds, folder) if scale else {}
    if not any(readings.values()):
        return about
    verdict = verdicts.judge(claim, readings, exact=scale == claims.EXACT)
    values = {arm: {seed: each._asdict() for seed, each in of.items()} for arm, of in readings.items()}
    arms = {arm: figures._asdict() | {"readings": values[arm]} for arm, figures in verdict.arms.items()}
    return about | verdict._asdict() | {"arms": arms}


def _outcome(record: Mapping[str, Any] | None) -> str:
    """In words; one that is under way or was killed has not ended, and the sweep's command goes on with it."""
    outcome = NEW if record is None else record.get("outcome", STOPPED)
    return STOPPED if outcome == "running" else outcome


def _other(folder: pathlib.Path, job: Mapping[str, Any]) -> dict[str, Any]:
    """A run that belongs to no claim: one of a grid."""
    return {"id": job["id"], "config": job["config"], "overrides": job["overrides"], **_errors(folder / job["id"])}


def _digest(records: Mapping[str, Mapping[str, Any]]) -> str:
    """Of the code and settings of every run, which the sweep notes with it."""
    codes = sorted(record.get("code", "") for record in records.values())
    return hashlib.sha256("".join(codes).encode()).hexdigest()[:12] if any(codes) else ""


# --- single runs -----------------------------------------------------------------------------------------------------


def _of_runs(folder: pathlib.Path, runs: Iterable[pathlib.Path]) -> Results:
    runs = list(runs)
    return {
        "kind": "runs",
        **_made_with(folder, [os.path.relpath(run, folder) for run in runs]),
        "singles": [_single(folder, run) for run in runs],
        "figures": illustrations.of_runs(runs),
    }


def _single(folder: pathlib.Path, run: pathlib.Path) -> dict[str, Any]:
    """A run against what its paper reports."""
    config = _run(run)["config"]
    paper = config["paper_recipe"]
    same = config["recipe"] == config["data"]["name"] == paper
    errors = _errors(run)
    reported = [
        result._asdict() | {"ours": errors.get("best", {}).get(result.metric) if same else None}
        for result in _reported(config["name"])
        if result.recipe == (config["recipe"] if same else paper) and result.variant == config["model"]["variant"]
    ]
    names = {"config": f"configs/{config['name']}.py:{config['recipe']}", "data": config["data"]["name"]}
    place = os.path.relpath(run, folder)
    return {"id": place, "name": run.resolve().name, **names, "same": same, "reported": reported, **errors}


def _reported(name: str) -> Sequence[Any]:
    """What the paper of the config file `name` reports; nothing of a config file that lies elsewhere."""
    known = importlib.util.find_spec(f"configs.{name}")
    return importlib.import_module(known.name).REPORTED if known else ()


def _errors(run: pathlib.Path) -> dict[str, Any]:
    """The last evaluation of a run, its best, and its final tests."""
    rows = writer.read_rows(run / writer.METRICS)
    shown = [{key: value for key, value in row.items() if not key.startswith("analysis/")} for row in rows]
    evaluations = [row for row in shown if "val/top1_error" in row]
    tests = [row for row in shown if "test/protocol" in row]
    if not evaluations:
        return {"tests": tests}
    best = min(evaluations, key=lambda row: row["val/top1_error"])
    return {"last": evaluations[-1], "best": best, "tests": tests}


# --- what both share -------------------------------------------------------------------------------------------------


def _made_with(folder: pathlib.Path, runs: Iterable[str]) -> dict[str, Any]:
    """Machines and versions, each once, and of how many runs."""
    found = [_run(folder / run) for run in runs if (folder / run / workdir.RUN).is_file()]
    texts = (", ".join(f"{name} {version}" for name, version in run["versions"].items()) for run in found)
    return {
        "machines": list(dict.fromkeys(run.get("machine", "unknown") for run in found)),
        "versions": list(dict.fromkeys(texts)),
    }


def _run(folder: pathlib.Path) -> dict[str, Any]:
    run = workdir.read_run(folder)
    if run is None or "versions" not in run:
        raise UserError(f"{folder / workdir.RUN} is damaged: it says nothing of the run's versions")
    return run


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it is no JSON object")
    return found


def _plain(value: Any) -> Any:
    """`value` as JSON has it: whole numbers whole, others in six significant digits, None where one is not finite."""
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if value.is_integer() else float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple | range) else value
