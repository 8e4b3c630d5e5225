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
      id: the config's name and ten hexadecimal digits of the rest, the same in every process.
      config: such as "configs/alexnet.py:cifar10".
      overrides: sorted by key, `seed` among them.
      start: the run whose weights this one starts from; None if it is no run of the sweep.
    """

    id: str
    config: str
    overrides: tuple[tuple[str, Any], ...]
    start: "Job | None" = None

    @property
    def chain(self) -> "list[Job]":
        """The run before all others, that which starts from it, and so on to this one."""
        return [*(self.start.chain if self.start else ()), self]


def make_job(config: str, changes: Mapping[str, Any], start: Job | None = None) -> Job:
    """Returns the job of a config and of overrides by dotted key, in any order."""
    config = config.removesuffix(":desk")  # the recipe without a name
    pairs = tuple(sorted(changes.items()))
    all_of_it = [config, pairs, *([start.id] if start else [])]
    digest = hashlib.sha256(json.dumps(all_of_it).encode()).hexdigest()
    name = pathlib.PurePath(config.partition(":")[0]).stem
    return Job(f"{name}-{digest[:10]}", config, pairs, start)


def flags_of(job: Job, folder: pathlib.Path | None = None) -> list[str]:
    """Returns the flags of `python -m cnn_papers.main` for `job`.

    A run that starts from another finds it in `folder`, the sweep's.
    """
    flags = [f"--config={job.config}", *(f"--config.{key}={value}" for key, value in job.overrides)]
    return (
        [*flags, f"--config.init_from={folder / job.start.id}"] if folder and job.start else flags
    )


def arms_of(claim: Claim, scale: str) -> Arms:
    """Returns what each arm overrides at `scale`; for the other keys see `facts.Scale`.

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
        jobs_by_arm[name] = [_job(arm, seed) for seed in seeds]
    return jobs_by_arm


def _job(arm: Mapping[str, Any], seed: int) -> Job:
    """Returns the job of what an arm overrides, and of the run that it starts from."""
    overrides = {key: value for key, value in arm.items() if key not in ("config", "start")}
    changes = config_files.changes(arm["config"], overrides)
    start = _job(arm["start"], seed) if arm.get("start") else None
    return make_job(arm["config"], changes | {"seed": seed}, start)


def load(job: Job) -> Any:
    """Returns the locked ConfigDict of `job`.

    Raises UserError for a missing recipe, an unknown key or a value of the wrong type.
    """
    return config_files.read(job.config, job.overrides)
