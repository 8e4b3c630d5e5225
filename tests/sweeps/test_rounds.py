"""Sweeps that ask claims until they are decided, with runs that are written instead of trained."""

import json
import re

import pytest
from support.asked_sweeps import CLAIMS, WrittenRuns
from support.commands import exit_code

from cnn_papers.claims import plan
from cnn_papers.sweeps import local
from cnn_papers.sweeps.request import Request, jobs_of
from launch import sweep

ANY = "--accept_other_code"  # the runs are of no code


def seeds(written: WrittenRuns) -> dict[float, list[int]]:
    """The seeds that were run of each rate."""
    jobs = {
        job.id: dict(job.overrides)
        for of in CLAIMS.values()
        for jobs in plan.jobs(of, "desk", range(12)).values()
        for job in jobs
    }
    found: dict[float, list[int]] = {}
    for job_id in written.ids:
        found.setdefault(jobs[job_id]["optim.lr"], []).append(jobs[job_id]["seed"])
    return found


def test_claims_go_on_while_seeds_may_decide_them(written, tmp_path, capsys):
    folder = tmp_path / "sweep"
    assert written.ask(folder, ANY, "--until_decided") == 0
    out = capsys.readouterr().out
    assert "slight: undecided at 3 seeds; 5 seeds may decide, goes on to 6" in out
    assert "not expected to be decided by 12 seeds: none" in out
    assert seeds(written) == {0.1: [*range(6)], 0.2: [0, 1, 2], 0.3: [*range(6)], 0.4: [0, 1, 2]}
    asked = json.loads((folder / "sweep.json").read_text())
    assert (asked["looks"], asked["reached"]) == ([3, 6, 12], {"slight": 6})

    written.ids.clear()
    assert written.ask(folder, ANY, "--until_decided") == 0  # everything is known
    assert not written.ids and "18 done" in capsys.readouterr().out


@pytest.mark.usefixtures("written")
def test_the_most_promising_claim_goes_on_first():
    reached = {"none": 6, "slight": 6}
    asked = Request(dict.fromkeys(CLAIMS, "desk"), "", {}, 12, looks=(3, 6, 12), reached=reached)
    found = [(job.overrides[0][1], job.overrides[1][1]) for job in jobs_of(asked)]
    rates = (0.1, 0.2, 0.3, 0.4)  # of "before" and of "after" of each claim
    assert found[:12] == [(rate, seed) for seed in (0, 1, 2) for rate in rates]
    none = [(rate, seed) for seed in (3, 4, 5) for rate in (0.1, 0.4)]
    assert found[12:] == none + [(0.3, seed) for seed in (3, 4, 5)]


def test_the_report_says_at_which_look_a_verdict_fell(written, tmp_path, capsys):
    from cnn_papers import report

    folder = tmp_path / "sweep"
    written.ask(folder, ANY, "--until_decided")
    capsys.readouterr()
    assert not exit_code(report.cli, str(folder))
    found = {
        claim["name"]: claim
        for claim in json.loads((folder / "results.json").read_text())["claims"]
    }
    told = {name: (of["word"], of["n"], of["look"], of["looks"]) for name, of in found.items()}
    assert told == {
        "clear": ("agrees", 3, 1, 3),
        "slight": ("agrees", 6, 2, 3),
        "none": ("undecided", 3, 1, 3),
    }
    page = (folder / "report.html").read_text()
    assert "6; look 2 of 3" in page and "3; look 1 of 3; more than 1,000 may decide" in page


def test_a_sweep_that_was_stopped_goes_on_where_it_was(written, tmp_path, monkeypatch, capsys):
    whole, stopped = tmp_path / "whole", tmp_path / "stopped"
    written.ask(whole, ANY, "--until_decided")
    ended, reached = [*written.ids], json.loads((whole / "sweep.json").read_text())["reached"]
    written.ids.clear()

    def some(todo, *others):
        return written.run_all(todo[: (len(todo) + 1) // 2], *others)

    monkeypatch.setattr(local, "run_all", some)  # each attempt runs half of what is left
    while written.ask(stopped, ANY, "--until_decided"):
        pass
    assert sorted(written.ids) == sorted(ended)
    assert json.loads((stopped / "sweep.json").read_text())["reached"] == reached


def test_no_run_starts_beyond_the_budget(written, tmp_path, capsys):
    """A run takes 30 seconds here."""
    folder = tmp_path / "sweep"
    assert written.ask(folder, ANY, "--until_decided", "--budget=2min") == 1
    assert len(written.ids) == 4
    assert "the runs have taken 2 min, which is the budget" in capsys.readouterr().out
    assert written.ask(folder, ANY, "--until_decided", "--budget=7min") == 0
    assert len(written.ids) == 12
    out = capsys.readouterr().out
    assert "which the budget does not allow: 3 min to 6 seeds" in out
    assert written.ask(folder, ANY, "--until_decided", "--budget=0.2h") == 0
    assert len(written.ids) == 18


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.fault(
    "config: a sweep until claims are decided, with flags that do not fit it", "refused"
)
@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--all_claims", "--until_decided", "--seeds=5"], "give --seeds, or --until_decided with"),
        (["--config=configs/lenet.py", "--until_decided"], "--until_decided is for claims"),
        (["--all_claims", "--until_decided", "--budget=3"], "--budget=3 must be a time such as"),
        (["--all_claims", "--until_decided", "--budget=0h"], "--budget=0h must be a time such as"),
    ],
)
def test_flags_that_do_not_fit_are_one_line(flags, message, capsys):
    assert exit_code(sweep.cli, *flags) == 2
    assert re.fullmatch(rf"error: {re.escape(message)}.*\n", capsys.readouterr().err)


def test_looks_cannot_be_declared_afterwards(written, tmp_path, capsys):
    folder = tmp_path / "sweep"
    written.ask(folder, ANY, "--until_decided")
    capsys.readouterr()
    assert written.ask(folder, ANY, "--until_decided", "--max_seeds=24") == 2
    assert "looks at seeds 3, 6, 12 there, 3, 6, 12, 24 now" in capsys.readouterr().err
    assert written.ask(folder, ANY, "--seeds=12") == 2
    assert "looks at seeds 3, 6, 12 there, unset now" in capsys.readouterr().err
