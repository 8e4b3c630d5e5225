"""Tells what a claim asks, so that a verdict holds for as long as the question stays the same."""

import hashlib
import json
from typing import Any

from cnn_papers import tasks
from cnn_papers.claims import plan
from cnn_papers.claims.plan import EXACT
from cnn_papers.facts import Claim
from cnn_papers.runs import inputs, workdir

DIGITS = 12  # of a digest

# The keys, and beginnings of keys, that say where and how a run computes, not what is asked of it.
# The run that `init_from` names is asked of with the job that starts from it.
UNASKED = (
    *("checkpoint", "data.data_dir", "data.resident", "init_from"),
    *("mesh", "paper_recipe", "seed"),
)


def asked_of(config: Any, scale: str) -> dict[str, Any]:
    """Returns the values of a run's config, by dotted key, that a claim depends on at `scale`.

    A value that is off (0, empty, False, None) counts as absent, since a new key that is off
    changes no question; so does the task that all claims had before it was a key. Where nothing is
    trained, a claim depends on the network and the size of its input.
    """
    values = {key: value for key, value in workdir.flat(config.to_dict()).items() if value}
    if config.task == tasks.BEFORE:
        del values["task"]
    if scale == EXACT:
        network = {key: value for key, value in values.items() if key.startswith("model")}
        return network | {"input": inputs.configured_input(config)}
    return {key: value for key, value in values.items() if not key.startswith(UNASKED)}


def digest(claim: Claim, scale: str) -> str:
    """Returns hexadecimal digits of what `claim` asks at `scale`.

    They change with the config of an arm, the order of arms, the metric and the expectation; not
    with words and names.

    Raises UserError if the claim has no such scale, a config file is missing or a key unknown.
    """
    arms = plan.jobs(claim, scale, [0]).values()
    configs = [_asked_of_job(job, scale) for (job,) in arms]
    asked = [configs, claim.metric, claim.expect, claim.bound, claim.ratio]
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()[:DIGITS]


def _asked_of_job(job: plan.Job, scale: str) -> dict[str, Any]:
    values = asked_of(plan.load(job), scale)
    return values | {"start": _asked_of_job(job.start, scale)} if job.start else values
