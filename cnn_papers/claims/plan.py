"""Turns claims into jobs: the runs that a claim needs, and their command lines."""

import hashlib
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

from cnn_papers.errors import UserError
from cnn_papers.facts import Claim
from cnn_papers.runs import config_files

EXACT = "exact"  # the scale at which nothing is trained
SWEEP = "sweep.json"  # in a sweep's folder: its request

Arms = dict[str, dict[str, Any]]


class Job(NamedTuple):
    """One run: a config file with its recipe, and overrides on the command line.

    Attributes:
      id: the config's name and ten hexadecimal digits of (config, overrides), the same in every
        process.
      config: such as "configs/alexnet.py:cifar10".
      overrides: sorted by key, `seed` among them.
    """

    id: str
    config: str
    overrides: tuple[tuple[str, Any], ...]


def make_job(config: str, changes: Mapping[str, Any]) -> Job:
    """Returns the job of a config and of overrides by dotted key, in any order."""
    config = config.removesuffix(":desk")  # the recipe without a name
    pairs = tuple(sorted(changes.items()))
    digest = hashlib.sha256(json.dumps([config, pairs]).encode()).hexdigest()
    return Job(f"{pathlib.PurePath(config.partition(':')[0]).stem}-{digest[:10]}", config, pairs)


def flags_of(job: Job) -> list[str]:
    """Returns the flags of `python -m cnn_papers.main` for `job`."""
    return [f"--config={job.config}", *(f"--config.{key}={value}" for key, value in job.overrides)]


def arms_of(claim: Claim, scale: str) -> Arms:
    """Returns what each arm overrides at `scale`; the key "config" is the config file and recipe.

    Raises UserError if the claim has no such scale.
    """
    if scale not in claim.scales:
        raise UserError(
            f"this claim has no runs at scale '{scale}'; it has runs at: {', '.join(claim.scales)}"
        )
    at = claim.scales[scale]
    return {name: {**at.overrides, **own} for name, own in (at.arms or claim.arms).items()}


def jobs(claim: Claim, scale: str, seeds: Iterable[int]) -> dict[str, list[Job]]:
    """Returns the jobs of `claim` by arm, one for each seed.

    At scale `exact` nothing is drawn, and the first seed is the only one. Overrides that repeat the
    recipe are left out, so that equal arms are one job. Raises UserError for a missing config file
    and for an unknown key.
    """
    seeds = list(seeds)[:1] if scale == EXACT else list(seeds)
    jobs_by_arm = {}
    for name, arm in arms_of(claim, scale).items():
        config = arm["config"]
        overrides = {key: value for key, value in arm.items() if key != "config"}
        changes = config_files.changes(config, overrides)
        jobs_by_arm[name] = [make_job(config, changes | {"seed": seed}) for seed in seeds]
    return jobs_by_arm


def load(job: Job) -> Any:
    """Returns the locked ConfigDict of `job`.

    Raises UserError for a missing recipe, an unknown key or a value of the wrong type.
    """
    return config_files.read(job.config, job.overrides)
