"""What came of a sweep, or of single runs: everything that a report shows, small enough to commit,
as JSON.
"""

import json
import math
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cnn_papers.claims import catalogue, plan, verdicts
from cnn_papers.claims.plan import SWEEP, Job
from cnn_papers.claims.readings import read_claim
from cnn_papers.claims.records import FINISHED
from cnn_papers.claims.verdicts import Verdict
from cnn_papers.errors import UserError
from cnn_papers.facts import Claim
from cnn_papers.reporting import figure_data, single_runs, wording
from cnn_papers.runs import workdir

FORMAT = 2  # of the file
KINDS = {
    "sweep": ("claims", "others", "outcomes", "seconds"),
    "runs": ("outcomes", "singles"),
}  # and what each has
ELEMENTS = {  # and what each element of its lists has
    "claims": {*Claim._fields, "name", "scale", "title", "label", "runs", "seconds", "word"},
    "others": {"id", "overrides"},
    "singles": {
        "id",
        "name",
        "config",
        "data",
        "steps",
        "total_steps",
        "same",
        "changed",
        "reported",
        "tests",
    },
    "figures": {"title", "text", "panels"},
}
DIGITS = 12  # of a digest
Results = dict[str, Any]


def gather(folder: pathlib.Path, out: pathlib.Path) -> Results:
    """The results of `folder`: of a sweep, of one run, or of a folder of runs; `out` is where they
    will be written.

    Raises:
      UserError: nothing of the kind is there, or a file is damaged.
    """
    if not folder.is_dir():
        raise UserError(
            f"there is no folder {folder}: give that of a sweep or of a run, or a results.json"
        )
    if (folder / SWEEP).is_file():
        found = _of_sweep(folder)
    else:
        runs = (
            [folder]
            if (folder / workdir.RUN).is_file()
            else sorted(p.parent for p in folder.glob("*/run.json"))
        )
        if not runs:
            raise UserError(f"there is no sweep and no run in {folder}: give the folder of one")
        found = single_runs.of_runs(folder, runs)
    return _plain({"format": FORMAT, "runs": os.path.relpath(folder, out), **found})


def read(path: pathlib.Path) -> Results:
    """The results in a file of `text`; UserError for one that cannot be read or is something else."""
    try:
        found = json.loads(path.read_text())
        if found["format"] != FORMAT:
            raise UserError(
                f"{path} is of format {found['format']}, this version reads {FORMAT}: run the report again"
            )
        if (
            gone := {"runs", "figures", "machines", "versions", *KINDS[found["kind"]]}
            - found.keys()
        ):
            raise KeyError(min(gone))
        for key in ELEMENTS.keys() & found.keys():
            for element in found[key]:
                judged = Verdict._fields if element.get("word") in wording.WORDS else ()
                if gone := ELEMENTS[key].union(judged) - element.keys():
                    raise KeyError(f"{min(gone)} of {key}")
        return found
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path} holds no results of a report: {error!r}") from error


def text(found: Results) -> str:
    """The results as JSON: an element of a list a line, so that a change shows and the file stays
    small.
    """
    lines = []
    for key, value in found.items():
        if isinstance(value, list):
            elements = ",\n ".join(json.dumps(each, ensure_ascii=False) for each in value)
            lines.append(
                f"{json.dumps(key)}: [\n {elements}\n]" if value else f"{json.dumps(key)}: []"
            )
        else:
            lines.append(f"{json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


# --- a sweep --------------------------------------------------------------------------------------


def _of_sweep(folder: pathlib.Path) -> Results:
    asked = _json(folder / SWEEP)
    try:
        seeds = range(asked["seeds"])
        scales = {name: asked["claims"].get(name) for name in catalogue.all_claims()}
        jobs = {each["id"]: each for each in asked["jobs"]}
    except (KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{folder / SWEEP} is damaged: {error!r}; remove it and start the sweep again"
        ) from error
    if unknown := asked["claims"].keys() - scales.keys():
        raise UserError(
            f"{folder} holds a sweep of a claim that there is no longer: {min(unknown)}"
        )
    records = _records(folder, jobs)
    outcomes = {name: _outcome(records.get(name)) for name in jobs}
    rows = []
    for file, known in catalogue.claims_of().items():
        rows += [
            _claim(file, name, claim, scales[name], seeds, folder, records)
            for name, claim in known.items()
        ]
    of_claims = {run for row in rows for runs in row["runs"].values() for run in runs}
    done = [name for name, outcome in outcomes.items() if outcome in FINISHED]
    here = (
        [workdir.versions()] if plan.EXACT in scales.values() else []
    )  # such claims are computed by this process
    return {
        "kind": "sweep",
        **single_runs.made_with(folder, done, *here),
        "code": _code(records[name] for name in done),
        "started": min(
            (record["started"] for record in records.values() if record.get("started")), default=""
        ),
        "seconds": sum(record.get("seconds", 0.0) for record in records.values()),
        "outcomes": outcomes,
        "claims": rows,
        "others": [_other(folder, jobs[name]) for name in done if name not in of_claims],
        "figures": figure_data.of_claims(scales, seeds, folder),
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
    about |= {"title": figure_data.title_of(file), "label": figure_data.label_of(file, name)}
    del about["arms"]
    planned: dict[str, list[Job]] = (
        plan.jobs(claim, scale, seeds) if scale and scale != plan.EXACT else {}
    )
    ran = {job.id for jobs in planned.values() for job in jobs}
    about |= {
        "runs": {
            arm: {job.id: dict(job.overrides)["seed"] for job in jobs}
            for arm, jobs in planned.items()
        },
        "seconds": sum(records[each].get("seconds", 0.0) for each in ran if each in records),
        "word": wording.NOT_RUN,
        "arms": {},
    }
    try:
        readings = read_claim(claim, scale, seeds, folder) if scale else {}
    except UserError as error:
        raise UserError(f"claim {name}: {error}") from error
    if not any(readings.values()):
        return about
    verdict = verdicts.judge(claim, readings, exact=scale == plan.EXACT)
    values = {
        arm: {seed: each._asdict() for seed, each in of.items()} for arm, of in readings.items()
    }
    arms = {
        arm: figures._asdict() | {"readings": values[arm]} for arm, figures in verdict.arms.items()
    }
    return about | verdict._asdict() | {"arms": arms}


def _records(folder: pathlib.Path, jobs: Iterable[str]) -> dict[str, dict[str, Any]]:
    """The records of the runs that were started; not those of finished ones whose folder was
    removed since.
    """
    found = {
        name: _json(folder / f"{name}.json") for name in jobs if (folder / f"{name}.json").is_file()
    }
    return {
        name: record
        for name, record in found.items()
        if record.get("outcome") not in FINISHED or (folder / name / workdir.RUN).is_file()
    }


def _outcome(record: Mapping[str, Any] | None) -> str:
    """In words; the sweep's command goes on with one that is under way or was killed."""
    if record is None:
        return wording.NEW
    return wording.UNDER_WAY if record.get("outcome", "running") == "running" else record["outcome"]


def _other(folder: pathlib.Path, job: Mapping[str, Any]) -> dict[str, Any]:
    """A run that belongs to no claim: one of a grid."""
    return {
        "id": job["id"],
        "config": job["config"],
        "overrides": job["overrides"],
        **single_runs.errors(folder / job["id"]),
    }


def _code(records: Iterable[Mapping[str, Any]]) -> dict[str, int]:
    """How many runs were of which source, by its digest; "" where the sweep did not note it."""
    return Counter(record.get("source", "")[:DIGITS] for record in records)


# --- pieces ---------------------------------------------------------------------------------------


def _json(path: pathlib.Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise UserError(f"{path} cannot be read: {error}") from error
    if not isinstance(found, dict):
        raise UserError(f"{path} is damaged: it is no JSON object")
    return found


def _plain(value: Any) -> Any:
    """`value` as JSON has it: whole numbers whole, others in six significant digits, None where one
    is not finite.
    """
    if isinstance(value, float):
        if not math.isfinite(value):
            return None
        return value if value.is_integer() else float(f"{value:.6g}")
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    return [_plain(each) for each in value] if isinstance(value, list | tuple | range) else value
