"""A sweep's folder is loaded once: its runs, finished or not, and the readings of claims."""

import json
import pathlib

import numpy as np
import pytest
from support.example_claims import EXAMPLE, EXAMPLES

from cnn_papers.claims import catalogue, plan, verdicts
from cnn_papers.claims.loading import NOT_STARTED, UNDER_WAY, Unfinished, load_run, load_sweep
from cnn_papers.claims.metrics import Finished
from cnn_papers.claims.plan import EXACT, Job, make_job
from cnn_papers.claims.readings import exact_runs, read_claim
from cnn_papers.claims.records import Record
from cnn_papers.errors import UserError
from cnn_papers.runs import workdir

JOB = make_job("configs/alexnet.py", {"model.pool": (2, 2), "seed": 1})


def leave(folder: pathlib.Path, job: Job, outcome: str, errors: tuple[float, ...] = ()) -> None:
    """Writes what a sweep and its run leave in `folder`."""
    (folder / job.id).mkdir()
    record = Record(outcome, source="c0de", started="2026-01-01 10:00:00", seconds=30.0)
    about = {"config": job.config, "overrides": dict(job.overrides), **record._asdict()}
    (folder / f"{job.id}.json").write_text(json.dumps(about))
    workdir.write_run(folder / job.id, plan.load(job), {"machine": "a machine"})
    rows = [{"step": step, "val/top1_error": error} for step, error in enumerate(errors)]
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (folder / job.id / "metrics.jsonl").write_text(text)


@pytest.mark.parametrize("outcome", ["done", "diverged"])
def test_a_finished_run_is_read(tmp_path, outcome):
    leave(tmp_path, JOB, outcome, (50.0, 20.0))
    run = load_run(tmp_path, JOB.id)
    assert isinstance(run, Finished) and run.outcome == outcome
    assert run.rows == [{"step": 0, "val/top1_error": 50.0}, {"step": 1, "val/top1_error": 20.0}]
    assert run.config.model.pool == (2, 2) and run.config.seed == 1
    assert (run.seconds, run.started, run.source) == (30.0, "2026-01-01 10:00:00", "c0de")
    assert run.machine == "a machine" and run.versions.startswith("python 3.")


@pytest.mark.parametrize(
    ("outcome", "why"), [("failed", "failed"), ("stopped", "stopped"), ("running", UNDER_WAY)]
)
def test_a_run_that_is_not_finished_says_why(tmp_path, outcome, why):
    leave(tmp_path, JOB, outcome)
    assert load_run(tmp_path, JOB.id) == Unfinished(why, 30.0, "2026-01-01 10:00:00")


def test_a_run_without_a_record_or_a_folder_was_not_started(tmp_path):
    assert load_run(tmp_path, JOB.id) == Unfinished(NOT_STARTED)
    leave(tmp_path, JOB, "done")
    (tmp_path / JOB.id / "run.json").unlink()
    assert load_run(tmp_path, JOB.id) == Unfinished(NOT_STARTED)


def test_a_record_of_an_older_sweep_has_no_source(tmp_path):
    leave(tmp_path, JOB, "done")
    record = json.loads((tmp_path / f"{JOB.id}.json").read_text())
    del record["source"]
    (tmp_path / f"{JOB.id}.json").write_text(json.dumps(record))
    run = load_run(tmp_path, JOB.id)
    assert isinstance(run, Finished) and run.source == ""


@pytest.mark.parametrize("content", ["{", "[]", '{"outcome": "done"}'])
def test_a_damaged_record_is_named(tmp_path, content):
    (tmp_path / f"{JOB.id}.json").write_text(content)
    with pytest.raises(UserError, match=rf"{JOB.id}.json cannot be read"):
        load_run(tmp_path, JOB.id)


def test_a_run_without_versions_is_damaged(tmp_path):
    leave(tmp_path, JOB, "done")
    (tmp_path / JOB.id / "run.json").write_text('{"config": {"data": {}}}')
    with pytest.raises(UserError, match=rf"{JOB.id}/run.json is damaged: it has no versions"):
        load_run(tmp_path, JOB.id)


def test_a_sweep_has_its_claims_jobs_and_runs(tmp_path, monkeypatch):
    monkeypatch.setattr(catalogue, "claims_of", lambda: {"alexnet": EXAMPLES})
    arms = plan.jobs(EXAMPLE, "desk", [0, 1])
    jobs = [job for jobs in arms.values() for job in jobs]
    leave(tmp_path, jobs[0], "done", (50.0,))
    request = {
        "claims": {"example": "desk"},
        "seeds": 2,
        "jobs": [job._asdict() | {"overrides": dict(job.overrides)} for job in jobs],
    }
    (tmp_path / "sweep.json").write_text(json.dumps(request))
    sweep = load_sweep(tmp_path)
    assert sweep.scales == {"example": "desk", "exact_example": None}
    assert sweep.arms == {"example": arms}
    assert [*sweep.jobs] == [*sweep.runs] == [job.id for job in jobs]
    first, *others = sweep.runs.values()
    assert isinstance(first, Finished) and set(others) == {Unfinished(NOT_STARTED)}


# --- readings -------------------------------------------------------------------------------------


def test_readings_of_the_runs_that_are_finished(tmp_path):
    arms = plan.jobs(EXAMPLE, "desk", [0, 1])
    leave(tmp_path, arms["apart"][0], "done", (50.0, 20.0))
    leave(tmp_path, arms["apart"][1], "diverged", (50.0,))
    leave(tmp_path, arms["overlapping"][0], "done", (30.0, 10.0))
    leave(tmp_path, arms["overlapping"][1], "stopped", (30.0,))
    runs = {job.id: load_run(tmp_path, job.id) for jobs in arms.values() for job in jobs}
    readings = read_claim(EXAMPLE, arms, runs)
    values = {
        arm: {seed: reading.value for seed, reading in by_seed.items()}
        for arm, by_seed in readings.items()
    }
    assert values == {"apart": {0: 20.0, 1: 90.0}, "overlapping": {0: 10.0}}


def test_readings_of_an_exact_claim_need_no_runs():
    claim = EXAMPLES["exact_example"]
    arms = plan.jobs(claim, EXACT, range(3))
    readings = read_claim(claim, arms, exact_runs(arms))
    values = {arm: [r.value for r in by_seed.values()] for arm, by_seed in readings.items()}
    assert values == {"alexnet": [60965224.0], "googlenet": [6998552.0]}
    assert np.isclose(verdicts.judge(claim, readings, exact=True).estimate, 6998552 / 60965224)
