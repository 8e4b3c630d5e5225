"""The ledger of readings: what sweeps add, skip and refuse, and what a report draws from it."""

import errno
import json
import os

import pytest
from support.asked_sweeps import CLAIMS, Killed
from support.commands import exit_code
from support.reports import claims_table

from cnn_papers import files, report
from cnn_papers.claims import ledger
from launch import sweep

ANY = "--accept_other_code"  # the runs are of no code


def test_a_ledger_has_one_line_for_each_reading(written, tmp_path):
    path = tmp_path / "ledger.jsonl"
    assert written.ask(tmp_path / "sweep", ANY, "--until_decided", f"--ledger={path}") == 0
    entries = ledger.read(path)
    seeds = {name: 6 if name == "slight" else 3 for name in CLAIMS}
    assert len(entries) == 2 * sum(seeds.values())
    lines = path.read_text().splitlines()
    assert lines == sorted(lines) and len(lines) == len(entries)
    (entry,) = [e for e in entries if (e.claim, e.arm, e.seed) == ("slight", "after", 4)]
    assert (entry.value, entry.censored, entry.looks) == (50.0 + 4 - 3.0, False, [3, 6, 12])
    assert entry.config == "configs/resnet.py" and entry.overrides == {"optim.lr": 0.3}
    assert (entry.machine, entry.seconds) == ("a machine, 2 cores", 30.0)
    assert entry.versions.startswith("python ") and entry.started == "2026-01-01 10:00:00"


def test_a_reading_of_several_sweeps_has_the_looks_of_all(written, tmp_path):
    """So that a claim that was looked at more often is judged by all its looks."""
    fixed, path = tmp_path / "fixed.jsonl", tmp_path / "ledger.jsonl"
    written.ask(tmp_path / "fixed", ANY, f"--ledger={fixed}")
    written.ask(tmp_path / "looked", ANY, "--until_decided", f"--ledger={path}")
    looked = ledger.read(path)
    path.write_text(fixed.read_text() + path.read_text())  # as git merges them
    assert {tuple(entry.looks) for entry in ledger.read(path)} == {(3, 6, 12)}
    ledger.add(path, ledger.read(fixed))
    assert ledger.read(path) == looked and len(path.read_text().splitlines()) == len(looked)


def test_another_checkout_with_the_ledger_runs_nothing_and_gives_the_same_table(
    written, tmp_path, capsys
):
    path = tmp_path / "ledger.jsonl"
    written.ask(tmp_path / "here", ANY, "--until_decided", f"--ledger={path}")
    before, runs = path.read_text(), [*written.ids]
    written.ids.clear()
    assert written.ask(tmp_path / "there", ANY, "--until_decided", f"--ledger={path}") == 0
    assert not written.ids and path.read_text() == before
    here = claims_table(tmp_path / "here", tmp_path / "a")
    there = claims_table(tmp_path / "there", tmp_path / "b")
    assert here == there == claims_table(path, tmp_path / "c")
    assert len(here) == 3 and len(runs) == 18
    found = json.loads((tmp_path / "b" / "results.json").read_text())
    assert found["seconds"] == 18 * 30.0 and found["outcomes"] == {}
    expected = "Runs of other folders, from the ledger: 9 min in all; from 2026-01-01 10:00:00 on."
    assert expected in (tmp_path / "b" / "report.html").read_text()
    assert json.loads((tmp_path / "a" / "results.json").read_text())["seconds"] == 18 * 30.0


def test_a_sweep_killed_between_runs_leaves_what_it_knows(written, tmp_path):
    whole, path = tmp_path / "whole.jsonl", tmp_path / "ledger.jsonl"
    written.ask(tmp_path / "whole", ANY, "--until_decided", f"--ledger={whole}")
    written.ids.clear()
    written.stop_after = 5
    with pytest.raises(Killed):
        written.ask(tmp_path / "killed", ANY, "--until_decided", f"--ledger={path}")
    assert len({(entry.overrides["optim.lr"], entry.seed) for entry in ledger.read(path)}) == 5
    written.stop_after = None
    assert written.ask(tmp_path / "fresh", ANY, "--until_decided", f"--ledger={path}") == 0
    assert len(written.ids) == 18
    assert claims_table(path, tmp_path / "a") == claims_table(whole, tmp_path / "b")


def test_lines_of_other_code_count_only_if_that_is_accepted(written, tmp_path):
    path = tmp_path / "ledger.jsonl"
    written.ask(tmp_path / "before", ANY, "--seeds=3", f"--ledger={path}")
    written.ids.clear()
    assert written.ask(tmp_path / "after", "--seeds=3", f"--ledger={path}") == 0
    assert len(written.ids) == 12
    written.ids.clear()
    assert written.ask(tmp_path / "any", ANY, "--seeds=3", f"--ledger={path}") == 0
    assert not written.ids


def test_a_claim_that_asks_something_else_now_is_not_answered(written, tmp_path, monkeypatch):
    path = tmp_path / "ledger.jsonl"
    written.ask(tmp_path / "sweep", ANY, "--seeds=3", f"--ledger={path}")
    assert len(claims_table(path, tmp_path / "a")) == 3
    changed = CLAIMS["clear"]._replace(metric="best('val/top1_error')")
    monkeypatch.setitem(CLAIMS, "clear", changed)
    assert len(claims_table(path, tmp_path / "b")) == 2


def test_two_ledgers_are_merged_by_concatenating_them(written, tmp_path):
    one, two, both = (tmp_path / f"{name}.jsonl" for name in ("one", "two", "both"))
    written.ask(tmp_path / "a", ANY, "--seeds=2", f"--ledger={one}")
    written.ask(tmp_path / "b", ANY, "--seeds=3", f"--ledger={two}")
    both.write_text(two.read_text() + one.read_text())
    assert sorted(ledger.read(both)) == sorted(ledger.read(two))
    ledger.add(both, [])
    assert both.read_text() == two.read_text()


@pytest.mark.fault("config: two lines of a ledger that contradict each other", "refused by name")
def test_lines_that_contradict_each_other_are_named(written, tmp_path, capsys):
    path = tmp_path / "ledger.jsonl"
    written.ask(tmp_path / "sweep", ANY, "--seeds=2", f"--ledger={path}")
    lines = path.read_text().splitlines()
    other = json.loads(lines[2])
    other["value"] += 1
    path.write_text("\n".join([*lines, json.dumps(other)]))
    capsys.readouterr()
    assert exit_code(report.cli, str(path)) == 2
    error = capsys.readouterr().err
    assert f"{path}: lines 3 and {len(lines) + 1} contradict each other: {other['claim']}" in error
    assert written.ask(tmp_path / "other", ANY, "--seeds=2", f"--ledger={path}") == 2


@pytest.mark.fault("config: two lines of a ledger that contradict each other", "refused by name")
def test_a_reading_that_is_no_number_contradicts_one_that_is(written, tmp_path, capsys):
    path = tmp_path / "ledger.jsonl"
    written.ask(tmp_path / "sweep", ANY, "--seeds=1", f"--ledger={path}")
    line = json.loads(path.read_text().splitlines()[0])
    path.write_text(f"{path.read_text()}{json.dumps(line | {'value': None})}\n")
    capsys.readouterr()
    assert exit_code(report.cli, str(path)) == 2
    assert f"is {line['value']:g} and nan with the same code" in capsys.readouterr().err


@pytest.mark.fault("full disk: a ledger that cannot be written", "said; the sweep goes on")
def test_a_ledger_that_cannot_be_written_is_said(written, tmp_path, monkeypatch, capsys):
    path = tmp_path / "ledger.jsonl"

    def full(path):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(files, "one_at_a_time", full)
    assert written.ask(tmp_path / "sweep", ANY, "--seeds=1", f"--ledger={path}") == 0
    assert len(written.ids) == 4
    expected = f"not in the ledger: cannot write {path}: No space left on device"
    assert expected in capsys.readouterr().out


@pytest.mark.fault("config: a damaged line of a ledger", "refused with its number")
@pytest.mark.parametrize("line", ["{", "{}", "[1]", '{"claim": "clear"}', "seconds"])
def test_a_damaged_line_is_named(line, written, tmp_path, capsys):
    path = tmp_path / "ledger.jsonl"
    written.ask(tmp_path / "sweep", ANY, "--seeds=1", f"--ledger={path}")
    if line == "seconds":  # of the wrong kind
        line = json.dumps(json.loads(path.read_text().splitlines()[0]) | {line: "long"})
    path.write_text(path.read_text() + line)
    places = len(path.read_text().splitlines())
    capsys.readouterr()
    assert exit_code(report.cli, str(path)) == 2
    assert f"error: {path}:{places} is no reading of a claim" in capsys.readouterr().err


def test_a_ledger_that_is_not_there_is_begun_by_a_sweep_and_refused_by_a_report(tmp_path, capsys):
    assert exit_code(report.cli, str(tmp_path / "none.jsonl")) == 2
    assert f"there is no ledger {tmp_path / 'none.jsonl'}" in capsys.readouterr().err
    assert exit_code(sweep.cli, "--all_claims", "--ledger=readings.txt") == 2
    assert "--ledger=readings.txt must be a file .jsonl" in capsys.readouterr().err
