"""Finds the papers' claims and turns them into runs: which commands a claim needs, and what they left in a folder.

A sweep's folder holds, for every job, `ID/` (the run's own folder), `ID.json` (what ran and its `exit_code`) and
`ID.log`.
"""

import difflib
import functools
import hashlib
import importlib
import json
import pathlib
import pkgutil
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import configs.claims
from cnn_papers import metrics
from cnn_papers.errors import UserError
from cnn_papers.facts import Claim
from cnn_papers.metrics import Finished, Reading
from cnn_papers.opstrings import parse
from cnn_papers.runs import config_files

EXACT = "exact"  # the scale at which nothing is trained
SWEEP = "sweep.json"  # in a sweep's folder: what it was asked for
OUTCOMES = {0: "done", 3: "diverged"}  # exit codes of runs that are finished
FINISHED = tuple(OUTCOMES.values())
SHARED = "common"  # the file of settings that claims share

Arms = dict[str, dict[str, Any]]


class Job(NamedTuple):
    """One run: a config file with its recipe, and what the command line overrides, sorted by key, `seed` among them.

    `id` is the config's name and ten hexadecimal digits of (config, overrides), the same in every process.
    """

    id: str
    config: str
    overrides: tuple[tuple[str, Any], ...]


@functools.cache
def claims_of() -> dict[str, dict[str, Claim]]:
    """The claims by name, by the name of the config file they belong to ("alexnet" of `configs/claims/alexnet.py`)."""
    names = sorted(module.name for module in pkgutil.iter_modules(configs.claims.__path__) if module.name != SHARED)
    return {name: importlib.import_module(f"configs.claims.{name}").CLAIMS for name in names}


def all_claims() -> dict[str, Claim]:
    """Every claim by its name, in the order of the files; UserError where two have the same name."""
    found: dict[str, Claim] = {}
    for file, claims in claims_of().items():
        if twice := found.keys() & claims.keys():
            raise UserError(f"configs/claims/{file}.py: another file has a claim '{min(twice)}' too; rename one")
        found |= claims
    return found


def find(name: str) -> Claim:
    """The claim `name`; a UserError with the name and statement of each claim there is."""
    known = all_claims()
    if name not in known:
        near = difflib.get_close_matches(name, known, 1)
        hint = f"did you mean '{near[0]}'? " if near else ""
        width = max(map(len, known), default=0)
        choices = [f"{each:<{width}}  {claim.statement}" for each, claim in known.items()]
        raise UserError(f"there is no claim '{name}'; {hint}there are {len(known)}:", choices)
    return known[name]


def make_job(config: str, changes: Mapping[str, Any]) -> Job:
    """The job of a config ("configs/alexnet.py:cifar10") and overrides by dotted key, in whatever order they come."""
    config = config.removesuffix(":desk")  # which is the recipe without a name
    pairs = tuple(sorted(changes.items()))
    digest = hashlib.sha256(json.dumps([config, pairs]).encode()).hexdigest()
    return Job(f"{pathlib.PurePath(config.partition(':')[0]).stem}-{digest[:10]}", config, pairs)


def flags_of(job: Job) -> list[str]:
    """The flags of `python -m cnn_papers.main` for `job`."""
    return [f"--config={job.config}", *(f"--config.{key}={value}" for key, value in job.overrides)]


def arms_of(claim: Claim, scale: str) -> Arms:
    """What each arm overrides at `scale`, the key "config" naming the config file and recipe."""
    if scale not in claim.scales:
        raise UserError(f"this claim is not asked at scale '{scale}'; it is at: {', '.join(claim.scales)}")
    at = claim.scales[scale]
    return {name: {**at.overrides, **own} for name, own in (at.arms or claim.arms).items()}


def jobs(claim: Claim, scale: str, seeds: Iterable[int]) -> dict[str, list[Job]]:
    """The jobs of `claim` by arm, one for each seed; at scale `exact` the first seed alone, since nothing is drawn.

    Overrides that say what the recipe says anyway are left out, so that arms that are alike are one job.
    Raises a UserError for a config that is not there and for an unknown key.
    """
    seeds, found = list(seeds)[: 1 if scale == EXACT else None], {}
    for name, arm in arms_of(claim, scale).items():
        config = arm["config"]
        changes = config_files.changes(config, {key: value for key, value in arm.items() if key != "config"})
        found[name] = [make_job(config, changes | {"seed": seed}) for seed in seeds]
    return found


def load(job: Job) -> Any:
    """The locked ConfigDict of `job`; UserError for no such recipe, an unknown key or a value of the wrong type."""
    return config_files.read(job.config, job.overrides)


def finished(folder: pathlib.Path, job: Job) -> Finished | None:
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


def readings(
    claim: Claim, scale: str, seeds: Sequence[int], folder: pathlib.Path | None
) -> dict[str, dict[int, Reading]]:
    """What the metric of `claim` reads off its finished runs in `folder`, by arm and seed; others are left out.

    At scale `exact` it is read off the configurations alone. Raises a UserError that names the run where it lacks what
    the metric reads.
    """
    (op,) = parse(claim.metric, metrics, leading=1, key="metric")
    found: dict[str, dict[int, Reading]] = {}
    for arm, planned in jobs(claim, scale, seeds).items():
        found[arm] = {}
        for seed, job in zip(seeds, planned, strict=False):  # exact claims have one job
            if scale == EXACT:
                run: Finished | None = Finished(load(job).to_dict(), [], "done")
            else:
                run = finished(folder, job) if folder else None
            if run is None:
                continue
            try:
                found[arm][seed] = op(run)
            except UserError as error:
                raise UserError(f"run {job.id}: {error}") from error
    return found
