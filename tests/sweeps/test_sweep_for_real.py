"""Sweeps of real runs, which end, fail, are stopped and killed; and on a real SLURM."""

import ast
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from support.reports import claims_table

from cnn_papers.claims import loading, plan
from cnn_papers.claims.metrics import Finished
from cnn_papers.runs.rows import METRICS, read_rows
from cnn_papers.sweeps import code_digest, process

ROOT = pathlib.Path(__file__).parents[2]
TINY = [  # one stage of one block compiles in seconds; evaluations after steps 20, 40 and 60
    *("--config=configs/resnet.py", "--config.model.blocks=(1,)", "--config.model.widths=(8,)"),
    *("--config.batch_size=32", "--config.total_steps=60", "--config.log_every_steps=3"),
    *("--config.eval.every_epochs=0.45", "--config.checkpoint.every_steps=5"),
]


def environment(home: pathlib.Path) -> dict[str, str]:
    folders = {"TFDS_DATA_DIR": str(home / "tfds"), "XDG_CACHE_HOME": str(home / "cache")}
    settings = {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1", "JAX_PLATFORMS": "cpu"}
    return {**os.environ, **folders, **settings}


def start(
    home: pathlib.Path, folder: pathlib.Path, *flags: str, checkout: pathlib.Path = ROOT
) -> subprocess.Popen:
    command = [sys.executable, "-m", "launch.sweep", f"--runs={folder}", *flags]
    pipe = subprocess.PIPE
    return subprocess.Popen(
        command, cwd=checkout, env=environment(home), stdout=pipe, stderr=pipe, text=True
    )


def finish(
    home: pathlib.Path, folder: pathlib.Path, *flags: str, checkout: pathlib.Path = ROOT
) -> tuple[int, str, str]:
    child = start(home, folder, *flags, checkout=checkout)
    out, err = child.communicate()
    return child.returncode, out, err


def wait_for(sign: str, path: pathlib.Path, of: subprocess.Popen) -> None:
    """Waits until `sign` stands in the file `path`, while the sweep lives."""
    while not path.exists() or sign not in path.read_text():
        assert of.poll() is None, of.communicate()
        time.sleep(0.02)


def outcomes(folder: pathlib.Path) -> dict[str, tuple[str, int | None, int]]:
    """Outcome, exit code and attempts of every run of a sweep, by id."""
    found = {path.stem: json.loads(path.read_text()) for path in folder.glob("resnet-*.json")}
    return {
        name: (ran["outcome"], ran["exit_code"], ran["attempts"]) for name, ran in found.items()
    }


def metrics_of(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.parent.name: path.read_bytes() for path in folder.glob(f"*/{METRICS}")}


def job_of(flags: list[str], **more: object) -> plan.Job:
    """The run of seed 0 that `flags` ask for."""
    found = (
        flag.removeprefix("--config.").split("=") for flag in flags if flag.startswith("--config.")
    )
    overrides = {key: ast.literal_eval(value) for key, value in found}
    return plan.make_job("configs/resnet.py", {**overrides, "seed": 0, **more})


@pytest.mark.process
def test_what_is_finished_is_skipped_and_what_failed_is_reported_and_retried_on_demand(
    home, tmp_path
):
    flags = [*TINY, "--config.optim.max_skipped_in_a_row=5", "--seeds=1"]
    axes = ["--grid=data.name=digits,nothing", "--grid=optim.lr=0.01,1e6"]
    good, wild, bad, worse = (
        job_of(flags, **{"data.name": data, "optim.lr": lr})
        for data in ("digits", "nothing")
        for lr in (0.01, 1e6)
    )
    at_once = min(2, len(os.sched_getaffinity(0)))
    code, out, err = finish(home, tmp_path, *flags, *axes, f"--jobs={at_once}")
    assert (code, err) == (1, "")
    first = {
        good.id: ("done", 0, 1),
        wild.id: ("diverged", 3, 1),
        bad.id: ("failed", 2, 1),
        worse.id: ("failed", 2, 1),
    }
    assert outcomes(tmp_path) == first
    loaded = [loading.load_run(tmp_path, job.id) for job in (good, wild, bad)]
    assert [isinstance(run, Finished) and run.outcome for run in loaded] == [
        "done",
        "diverged",
        False,
    ]
    assert f"runs in {tmp_path}: 1 done, 1 diverged, 2 failed" in out
    said = rf"^failed: {tmp_path}/{bad.id}.log \(exit code 2\): error: .*nothing.*$"
    assert re.search(said, out, re.M) and out.endswith("--retry_failed starts failed runs again\n")

    before = metrics_of(tmp_path)
    code, out, err = finish(home, tmp_path, *flags, *axes)
    assert (code, err, outcomes(tmp_path)) == (1, "", first) and re.search(said, out, re.M)
    code, out, err = finish(home, tmp_path, *flags, *axes, "--retry_failed")
    assert code == 1 and outcomes(tmp_path) == {
        **first,
        bad.id: ("failed", 2, 2),
        worse.id: ("failed", 2, 2),
    }
    assert metrics_of(tmp_path) == before and before.keys() >= {good.id, wild.id}


@pytest.mark.process
def test_a_sweep_stopped_and_killed_goes_on(home, tmp_path):
    flags = [*TINY, "--config.total_steps=400", "--seeds=1"]
    job = job_of(flags)
    log = tmp_path / f"{job.id}.log"

    child = start(home, tmp_path, *flags)
    wait_for("step 9/400", log, child)
    code, out, err = finish(home, tmp_path, *flags)  # a second sweep meanwhile
    assert (code, out) == (2, "")
    assert re.fullmatch(
        rf"error: runs {tmp_path} is in use by process {child.pid} on \S+ since .*; "
        r"wait or give another\n",
        err,
    )
    began = time.monotonic()
    child.send_signal(signal.SIGINT)
    out, err = child.communicate()
    assert (child.returncode, err) == (130, "") and time.monotonic() - began < 30
    assert "SIGINT: runs under way save and stop" in out and out.endswith(
        "stopped; repeat the command to continue\n"
    )
    assert outcomes(tmp_path) == {job.id: ("stopped", 143, 1)}
    assert log.read_text().count("saving, then stopping") == 1

    child = start(home, tmp_path, *flags)
    wait_for("going on from step", log, child)
    child.kill()
    child.communicate()
    deadline = time.monotonic() + 60
    while process.is_taken(tmp_path, job):  # its run hears of it, saves and stops
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert log.read_text().count("SIGTERM: ") == 2
    assert (
        outcomes(tmp_path) == {job.id: ("running", None, 2)}
        and process.read(tmp_path, job).outcome == "stopped"
    )

    code, out, err = finish(home, tmp_path, *flags)
    assert (code, err) == (0, "") and f"runs in {tmp_path}: 1 done" in out
    assert outcomes(tmp_path) == {job.id: ("done", 0, 3)}
    assert log.read_text().count("$ ") == 3 and "Traceback" not in log.read_text()
    steps = [row["step"] for row in read_rows(tmp_path / job.id / METRICS) if "val/loss" in row]
    assert steps == sorted(set(steps)) and steps[-1] == 400


def test_a_sweep_whose_terminal_is_gone_stops_in_order(home, tmp_path):
    """As with `| tee`, which dies of the same Ctrl-C."""
    flags = [*TINY, "--config.total_steps=400", "--seeds=1"]
    job = job_of(flags)
    child = start(home, tmp_path, *flags)
    wait_for("step 9/400", tmp_path / f"{job.id}.log", child)
    assert child.stdout is not None and child.stderr is not None
    child.stdout.close()
    child.send_signal(signal.SIGINT)
    with child.stderr as err:
        assert (child.wait(), err.read()) == (130, "")
    assert outcomes(tmp_path) == {job.id: ("stopped", 143, 1)}


@pytest.mark.process
def test_the_digest_of_the_code_covers_all_that_a_run_imports(home, tmp_path):
    code = "import sys; from cnn_papers import main; import atexit\n"
    code += "atexit.register(lambda: print(*[m.__file__ for m in [*sys.modules.values()] if"
    code += " m.__name__.startswith('cnn_papers.') and m.__file__], sep='\\n'))\n"
    code += "main.cli()"
    flags = [*TINY, "--config.total_steps=1", f"--workdir={tmp_path}"]
    done = subprocess.run(
        [sys.executable, "-c", code, *flags],
        cwd=ROOT,
        env=environment(home),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    package = str(code_digest.ROOT)
    imported = {line for line in done.stdout.splitlines() if line.startswith(package)}
    files = {file for file in imported if not file.endswith("__init__.py")}
    assert f"{package}/models/resnet.py" in files
    assert files <= {str(path) for path in code_digest.sources()}


@pytest.mark.slow
def test_a_sweep_killed_three_times_at_random_leaves_the_same_metrics(home, tmp_path):
    flags = [*TINY, "--config.total_steps=200", "--grid=optim.lr=0.01,0.02,0.05", "--seeds=2"]
    flags.append(f"--jobs={min(2, len(os.sched_getaffinity(0)))}")
    began = time.monotonic()
    code, out, err = finish(home, tmp_path / "golden", *flags)
    assert (code, err) == (0, ""), out
    took = time.monotonic() - began
    golden = metrics_of(tmp_path / "golden")
    assert len(golden) == 6
    draw = np.random.default_rng(0)
    for number in (signal.SIGKILL, signal.SIGINT, signal.SIGKILL):
        child = start(home, tmp_path / "runs", *flags)
        time.sleep(draw.uniform(2, 0.4 * took))
        child.send_signal(number)
        _, err = child.communicate()
        assert child.returncode == (130 if number == signal.SIGINT else -number), err
    code, out, err = finish(
        home, tmp_path / "runs", *flags
    )  # at once, though runs may still be saving
    assert (code, err) == (0, ""), out
    assert metrics_of(tmp_path / "runs") == golden


@pytest.mark.slow
def test_a_sweep_killed_at_random_goes_on_from_its_ledger_in_another_checkout(home, tmp_path):
    flags = ["--claim=cnn_fms_unit_length", "--seeds=3"]
    whole, ledger = tmp_path / "whole.jsonl", tmp_path / "ledger.jsonl"
    began = time.monotonic()
    code, out, err = finish(home, tmp_path / "whole", *flags, f"--ledger={whole}")
    assert (code, err) == (0, ""), out
    took = time.monotonic() - began

    child = start(home, tmp_path / "killed", *flags, f"--ledger={ledger}")
    wait_for("\n", ledger, child)  # something is known
    time.sleep(np.random.default_rng().uniform(0, 0.3 * took))
    child.kill()
    child.communicate()
    known = ledger.read_text().splitlines()
    assert 0 < len(known) < len(whole.read_text().splitlines())

    checkout = tmp_path / "checkout"
    for name in ("cnn_papers", "configs", "launch"):
        shutil.copytree(ROOT / name, checkout / name)
    code, out, err = finish(
        home, tmp_path / "fresh", *flags, f"--ledger={ledger}", checkout=checkout
    )
    assert (code, err) == (0, ""), out
    assert set(known) < set(ledger.read_text().splitlines())
    assert claims_table(ledger, tmp_path / "a") == claims_table(whole, tmp_path / "b")


@pytest.mark.slow
def test_a_sweep_as_an_array_of_slurm(slurm, home, tmp_path, monkeypatch):
    for name, value in slurm.items():
        monkeypatch.setenv(name, value)
    flags = [*TINY, "--seeds=1", "--grid=data.name=digits,nothing", "--grid=optim.lr=0.01,0.02"]
    code, out, err = finish(
        home, tmp_path, *flags, "--executor=slurm", "--jobs=2", "--sbatch=--time=5"
    )
    assert (code, err) == (0, "") and re.search("submitted to SLURM: 4, as job [0-9]+;", out)
    code, out, err = finish(home, tmp_path, *flags, "--executor=slurm")
    assert (
        (code, err) == (0, "")
        and "running or waiting in SLURM: 4" in out
        and "submitted" not in out
    )
    deadline = time.monotonic() + 300
    while subprocess.run(["squeue", "--noheader"], capture_output=True, text=True).stdout.strip():
        assert time.monotonic() < deadline
        time.sleep(0.2)
    code, out, err = finish(home, tmp_path, *flags, "--executor=slurm")
    assert (
        (code, err) == (1, "")
        and f"runs in {tmp_path}: 2 done, 2 failed" in out
        and "submitted" not in out
    )
    assert sorted(outcomes(tmp_path).values()) == [("done", 0, 1)] * 2 + [("failed", 2, 1)] * 2
    assert len(metrics_of(tmp_path)) >= 2
    said = [path.read_text() for path in tmp_path.glob("slurm-*.out")]
    assert (
        len(said) == 4
        and sum(" done: " in text for text in said)
        == sum(" failed: " in text for text in said)
        == 2
    )
