"""A small sweep for tests of reports: five claims of ResNet, and files as its runs leave them."""

import json
import pathlib
from typing import Any

from cnn_papers.claims import plan, verdicts
from cnn_papers.claims.metrics import Reading
from cnn_papers.facts import Claim, Scale
from cnn_papers.reporting import results_file
from cnn_papers.reporting.results import ClaimResult, Results
from cnn_papers.runs import workdir

DESK = {"desk": Scale({"config": "configs/resnet.py"})}
CLAIMS = {
    "resnet": {
        "resnet_sooner": Claim(
            "B & C reach 25 % <sooner>.",
            "ResNet §4",
            {"A": {"optim.lr": 0.01}, "B": {"optim.lr": 0.02}},
            "images_to('train/top1_error', 25.0)",
            "lower",
            "six times sooner",
            DESK,
            paper_delta=1 / 6,
            paper_data="digits",
            ratio=True,
        ),
        "resnet_lower": Claim(
            "The error is lower.",
            "ResNet Table 6",
            {"A": {"optim.lr": 0.01}, "B": {"optim.lr": 0.02}},
            "last('val/top1_error')",
            "lower",
            "8.75 and 6.97 %",
            DESK,
            paper_delta=-1.78,
            paper_data="digits",
        ),
        "resnet_responses": Claim(
            "Responses are alike.",
            "ResNet Figure 7",
            {"A": {"optim.lr": 0.01}, "B": {"optim.lr": 0.02}},
            "analysis('response_std')",
            "same",
            "curves",
            DESK,
            bound=0.5,
        ),
        "resnet_small": Claim(
            "A budget.",
            "ResNet §4.2",
            {"20": {}},
            "parameters()",
            "at_most",
            "0.27 million",
            {"exact": Scale({"config": "configs/resnet.py:cifar10"})},
            bound=1e9,
        ),
        "resnet_large": Claim(
            "Not asked.",
            "ResNet §4.1",
            {"A": {}},
            "last('val/top1_error')",
            "at_most",
            "",
            {"paper": DESK["desk"]},
        ),
    }
}


def rows(arm: int, seed: int) -> list[dict[str, Any]]:
    """A run whose training error falls linearly, in arm 1 twice as fast, and whose test error ends
    at 8 or 6 + seed.
    """
    found = []
    for i in range(1, 11):
        train = {
            "step": 10 * i,
            "train/loss": 1.0,
            "train/top1_error": max(0.0, 90.0 - (7 + seed / 2) * (1 + arm) * i),
        }
        layers = {f"analysis/response_std/conv{n}": 1.0 + 0.1 * n for n in (2, 10, 1)}
        test = {"step": 10 * i, "val/top1_error": 8.0 - 2 * arm + seed + seed * arm / 10 + 10 - i}
        found += [train, test | {"analysis/response_std": 1.0 + seed * arm / 100} | layers]
    return found


def write_job(
    folder: pathlib.Path, job: plan.Job, lines: list[dict[str, Any]], outcome: str = "done"
) -> None:
    code = {"done": 0, "diverged": 3, "failed": 1, "stopped": 143}[outcome]
    record = {"outcome": outcome, "exit_code": code, "source": "c0de" * 16, "code": "c0de"}
    record |= {"started": "2026-01-01 10:00:00", "seconds": 30.0}
    about = {"config": job.config, "overrides": dict(job.overrides), **record, "attempts": 1}
    (folder / f"{job.id}.json").write_text(json.dumps(about))
    (folder / job.id).mkdir()
    facts = {"machine": "a machine, 2 cores"}
    workdir.write_run(folder / job.id, plan.load(job), facts)
    (folder / job.id / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in lines))


def write_sweep(
    folder: pathlib.Path, outcomes: dict[tuple[str, int], str] | None = None
) -> list[plan.Job]:
    """A sweep of the claims above with three seeds; returns its jobs, arm by arm."""
    folder.mkdir()
    planned = plan.jobs(CLAIMS["resnet"]["resnet_lower"], "desk", range(3))
    for i, (arm, jobs) in enumerate(planned.items()):
        for seed, job in enumerate(jobs):
            write_job(folder, job, rows(i, seed), (outcomes or {}).get((arm, seed), "done"))
    jobs = [job for of in planned.values() for job in of]
    asked = {
        "resnet_sooner": "desk",
        "resnet_lower": "desk",
        "resnet_responses": "desk",
        "resnet_small": "exact",
    }
    listed = [
        {"id": job.id, "config": job.config, "overrides": dict(job.overrides)} for job in jobs
    ]
    (folder / "sweep.json").write_text(
        json.dumps({"claims": asked, "config": "", "grid": {}, "seeds": 3, "jobs": listed})
    )
    return jobs


def change(path: pathlib.Path, **values: Any) -> None:
    """Changes values of a JSON file."""
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def read(sweep: pathlib.Path) -> Results:
    """The results that a report wrote to the folder of its sweep."""
    return results_file.read(sweep / "results.json")


def claim_of(found: Results, name: str) -> ClaimResult:
    return next(claim for claim in found.claims if claim.name == name)


def judged(claim: Claim, *arms: list[Any]) -> ClaimResult:
    """The result of a claim at scale desk from readings by arm and seed; lists are censored."""
    readings = {
        name: {
            seed: Reading(value[0], True) if isinstance(value, list) else Reading(value)
            for seed, value in enumerate(arm)
            if value is not None
        }
        for name, arm in zip(claim.arms, arms, strict=True)
    }
    verdict = verdicts.judge(claim, readings)
    by_arm = {
        name: arm._asdict() | {"readings": {str(seed): r for seed, r in readings[name].items()}}
        for name, arm in verdict.arms.items()
    }
    about: dict[str, Any] = {
        "name": "c",
        "label": "c",
        "title": "t",
        "scale": "desk",
        "asked": "",
        "runs": {},
    }
    about |= {"seconds": 0, "paper_data": ""}
    fields = claim._asdict() | about | verdict._asdict() | {"arms": by_arm}
    fields["scales"] = list(claim.scales)
    return only(ClaimResult(**fields)).claims[0]


def only(*claims: ClaimResult) -> Results:
    """Results of these claims, as read from a file."""
    found = Results("sweep", ".", [], [], {}, [], claims=claims)
    return results_file.from_json(results_file.to_json(found))
