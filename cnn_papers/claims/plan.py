"""Finds the papers' claims and turns them into runs: which commands a claim needs, and what they
left in a folder.

A sweep's folder holds, for every job, `ID/` (the run's own folder), `ID.json` (what ran and its
`exit_code`) and `ID.log`.
"""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cnn_papers.errors import UserError
from cnn_papers.facts import Claim
from cnn_papers.runs import config_files

EXACT = "exact"  # the scale at which nothing is trained
SWEEP = "sweep.json"  # in a sweep's folder: what it was asked for

Arms = dict[str, dict[str, Any]]


class Job(NamedTuple):
    """One run: a config file with its recipe, and what the command line overrides, sorted by key,
    `seed` among them.

    `id` is the config's name and ten hexadecimal digits of (config, overrides), the same in every
    process.
    """

    id: str
    config: str
    overrides: tuple[tuple[str, Any], ...]


def make_job(config: str, changes: Mapping[str, Any]) -> Job:
    """The job of a config ("configs/alexnet.py:cifar10") and overrides by dotted key, in whatever
    order they come.
    """
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
        raise UserError(
            f"this claim is not asked at scale '{scale}'; it is at: {', '.join(claim.scales)}"
        )
    at = claim.scales[scale]
    return {name: {**at.overrides, **own} for name, own in (at.arms or claim.arms).items()}


def jobs(claim: Claim, scale: str, seeds: Iterable[int]) -> dict[str, list[Job]]:
    """The jobs of `claim` by arm, one for each seed; at scale `exact` the first seed alone, since
    nothing is drawn.

    Overrides that say what the recipe says anyway are left out, so that arms that are alike are one
    job. Raises a UserError for a config that is not there and for an unknown key.
    """
    seeds, found = list(seeds)[: 1 if scale == EXACT else None], {}
    for name, arm in arms_of(claim, scale).items():
        config = arm["config"]
        changes = config_files.changes(
            config, {key: value for key, value in arm.items() if key != "config"}
        )
        found[name] = [make_job(config, changes | {"seed": seed}) for seed in seeds]
    return found


def load(job: Job) -> Any:
    """The locked ConfigDict of `job`; UserError for no such recipe, an unknown key or a value of
    the wrong type.
    """
    return config_files.read(job.config, job.overrides)
