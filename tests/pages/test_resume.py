"""Whole runs: killed, stopped, damaged or diverging, and what the same command makes of them."""

import contextlib
import json
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import threading
import time

import jax
import numpy as np
import pytest
from jax.experimental.compilation_cache import compilation_cache
from support import faults
from support.processes import NETWORK, ROOT, TINY, arrays, assert_same_run, run, start, wait_for

from cnn_papers import train
from cnn_papers.data import pipeline
from cnn_papers.runs import signals as stops
from cnn_papers.runs.rows import METRICS, read_rows
from configs import resnet

STEPS = 60
SMALL = [  # evaluations after steps 20, 40 and 60
    *TINY,
    f"--config.total_steps={STEPS}",
    "--config.log_every_steps=3",
    "--config.eval.every_epochs=0.45",
    "--config.checkpoint.every_steps=5",
]


@pytest.fixture(scope="module")
def golden(home) -> pathlib.Path:
    """A run that was never stopped."""
    code, out, err = run(home, home / "golden", *SMALL)
    assert code == 0, err
    assert f"step {STEPS}/{STEPS}" in out and "going on" not in out
    rows = read_rows(home / "golden" / METRICS)
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(3, STEPS + 1, 3))
    assert [row["step"] for row in rows if "val/loss" in row] == [20, 40, 60]
    return home / "golden"


# --- killed and stopped ---------------------------------------------------------------------------


@pytest.mark.fault(
    "signal: SIGTERM twice at once while it steps, as SLURM sends it",
    "the step ends, state saved, exit code 143; goes on to the same bits",
)
@pytest.mark.fault(
    "kill: twice, while it steps", "the final state is that of a run never stopped, to the bit"
)
def test_a_run_killed_twice_and_stopped_once_ends_bit_equal(home, golden, tmp_path):
    draw = np.random.default_rng(0)
    for first, last in ((2, 6), (8, 12)):
        child = start(home, tmp_path, *SMALL)
        with contextlib.closing(child.stdout), contextlib.closing(child.stderr):
            wait_for(child, f"step {3 * draw.integers(first, last + 1)}/{STEPS}")
            time.sleep(draw.uniform(0, 0.1))  # any moment will do
            faults.kill(child)
    child = start(home, tmp_path, *SMALL)
    wait_for(child, f"step 45/{STEPS}")
    child.terminate()
    child.terminate()  # schedulers repeat themselves
    out, err = child.communicate()
    assert child.returncode == 128 + signal.SIGTERM == 143, err
    assert out.count("SIGTERM: saving, then stopping") == 1 and "Traceback" not in err
    stopped = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert 45 <= stopped < STEPS
    code, out, err = run(home, tmp_path, *SMALL)
    assert code == 0, err
    assert f"going on from step {stopped} of {STEPS}\n" in out
    assert_same_run(tmp_path, golden)


@pytest.mark.fault(
    "devices: one when it was killed, four when it goes on", "the same batches and losses; said"
)
@pytest.mark.process
def test_a_run_goes_on_with_other_devices(home, golden, tmp_path):
    child = start(home, tmp_path, *SMALL)
    with contextlib.closing(child.stdout), contextlib.closing(child.stderr):
        wait_for(child, f"step 9/{STEPS}")
        faults.kill(child)
    code, out, err = run(home, tmp_path, *SMALL, devices=4)
    assert code == 0 and "4 × cpu, " in out, err
    begun = int(re.search(r"going on from step (\d+) of", out)[1])
    ours, theirs = (read_rows(folder / METRICS) for folder in (tmp_path, golden))
    assert [(row["step"], sorted(row)) for row in ours] == [
        (row["step"], sorted(row)) for row in theirs
    ]
    together = [(a, b) for a, b in zip(ours, theirs, strict=True) if begun < a["step"] <= begun + 3]
    assert 0 < begun <= 10 and len(together) == 1
    for a, b in together:  # later, sums in another order grow apart
        assert a["train/loss"] == pytest.approx(b["train/loss"], rel=1e-4)


@pytest.mark.fault(
    "damage: every checkpoint is gone", "said; the run starts afresh, its metrics too"
)
@pytest.mark.process
def test_a_run_without_its_checkpoints_says_that_it_starts_afresh(home, golden, tmp_path):
    ours = shutil.copytree(golden, tmp_path / "run")
    shutil.rmtree(ours / "checkpoints")
    code, out, err = run(home, ours, *SMALL)
    assert code == 0, err
    assert (
        f"there is no checkpoint in {ours}/checkpoints: the run and metrics.jsonl start anew\n"
        in out
    )
    assert_same_run(ours, golden)


@pytest.mark.fault(
    "damage: a flipped bit in the newest step of a run",
    "named; the run goes on from the step before to the same bits",
)
def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_goes_on(home, golden, tmp_path):
    ours = shutil.copytree(golden, tmp_path / "run")
    faults.flip(faults.largest(ours / "checkpoints" / f"{STEPS:08d}" / "model"), bit=4)
    code, out, err = run(home, ours, *SMALL)
    assert code == 0, err
    assert re.search(
        rf"WARNING: checkpoint {ours}/checkpoints/{STEPS:08d} refused: "
        r"file model/\S+ was changed\n",
        err,
    )
    assert f"going on from step {STEPS - 5} of {STEPS}\n" in out
    assert_same_run(ours, golden)


# --- diverging ------------------------------------------------------------------------------------


@pytest.mark.fault(
    "not finite: so many steps in a row",
    "the run stops with exit code 3 and the last good state saved; `best` is a finite one",
)
def test_a_run_that_diverges_says_so_and_keeps_the_last_good_state(home, tmp_path):
    flags = [
        "--config.optim.lr=1e6",
        "--config.optim.max_skipped_in_a_row=5",
        "--config.total_steps=1000",
        "--config.log_every_steps=2",
        "--config.eval.every_epochs=0.02",  # after every step
    ]
    code, out, err = run(home, tmp_path, *TINY, *flags)
    assert code == 3, err
    assert (
        "diverged: 5 steps in a row left out (loss not finite or too large); "
        "lower config.optim.lr\n"
    ) in out
    assert "Traceback" not in err
    rows = [
        json.loads(line, parse_constant=pytest.fail)
        for line in (tmp_path / METRICS).read_text().splitlines()
    ]
    (newest,) = {max(name[:8] for name in arrays(tmp_path / "checkpoints"))}
    saved = {
        name[9:]: value
        for name, value in arrays(tmp_path / "checkpoints").items()
        if name[:8] == newest
    }
    assert all(
        np.isfinite(value).all() for name, value in saved.items() if name.startswith("model")
    )
    skipped = [row["train/skipped_steps"] for row in rows if "train/lr" in row]
    assert skipped[-1] >= 4 and "train/loss" not in [row for row in rows if "train/lr" in row][-1]
    assert saved["training['skipped_in_a_row']"] >= 5
    for name, value in arrays(tmp_path / "best").items():
        assert np.isfinite(value).all() or "best_error" in name
    finite = [row for row in rows if "val/loss" in row]
    best = sorted(path.name for path in (tmp_path / "best").glob("0*"))
    assert len(finite) < len([row for row in rows if "val/top1_error" in row]) or finite
    if finite:
        lowest = min(finite, key=lambda row: row["val/top1_error"])
        assert best[-1] == f"{lowest['step']:08d}"
    else:
        assert best == []


# --- seeds ----------------------------------------------------------------------------------------


@pytest.fixture
def compiled_programs(tmp_path):
    """Keeps what this process compiles, in haste, so that compiling it again takes no time."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "xla"))
    compilation_cache.reset_cache()
    yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


@pytest.mark.process
def test_the_seed_decides_everything(home, tmp_path, compiled_programs):
    def run(name: str, seed: int) -> pathlib.Path:
        config = resnet.get_config()
        config.model.update(NETWORK)
        config.seed, config.batch_size, config.total_steps, config.log_every_steps = seed, 32, 6, 2
        config.mesh.data, config.data.data_dir = 1, str(home / "tfds")
        assert train.train_and_evaluate(config, tmp_path / name) == train.DONE
        return tmp_path / name

    one, two, other = run("one", 0), run("two", 0), run("other", 1)
    assert (one / METRICS).read_bytes() == (two / METRICS).read_bytes()
    a, b, c = (arrays(folder / "checkpoints") for folder in (one, two, other))
    assert a.keys() == b.keys() == c.keys()
    for name, value in a.items():
        assert value.tobytes() == b[name].tobytes(), name
    assert (one / METRICS).read_bytes() != (other / METRICS).read_bytes()
    kernels = [name for name in a if name.endswith("['kernel']")]
    assert len(kernels) >= 6 and all((a[name] != c[name]).any() for name in kernels)


# --- while compiling, while evaluating ------------------------------------------------------------


@pytest.mark.fault(
    "signal: SIGTERM or SIGINT while compiling",
    "exit within 30 s with code 143 or 130: there is nothing to save",
)
@pytest.mark.parametrize(
    "number, code",
    [(signal.SIGTERM, 143), pytest.param(signal.SIGINT, 130, marks=pytest.mark.process)],
)
def test_a_signal_while_compiling_ends_the_process_and_the_same_command_starts_afresh(
    home, tmp_path, number, code
):
    child = start(
        home, tmp_path, "--config=configs/googlenet.py", "--config.model.width=1.0", quick=False
    )
    with contextlib.closing(child.stdout), contextlib.closing(child.stderr):
        wait_for(child, "       workdir")  # the last line before it
        time.sleep(2)
        began = time.monotonic()
        child.send_signal(number)
        child.send_signal(number)
        out, err = child.stdout.read(), child.stderr.read()
        assert child.wait() == code, err
    assert time.monotonic() - began < 30
    assert f"{signal.Signals(number).name}: stopping\n" in out and "Traceback" not in err
    assert not list(tmp_path.glob("checkpoints/*"))


@pytest.mark.fault(
    "signal: SIGTERM while evaluating",
    "the evaluation is left at once and comes first in the next start; the same bits",
)
@pytest.mark.parametrize("interrupted, step", [(1, 4), (5, 9)])
@pytest.mark.process
def test_an_evaluation_is_abandoned_and_comes_first_in_the_next_start(
    home, tmp_path, compiled_programs, monkeypatch, interrupted, step
):
    """The first evaluation, between two saves, and the last; an analysis follows each."""

    def run(name: str) -> int:
        config = resnet.get_config()
        config.model.update(NETWORK)
        config.batch_size, config.total_steps, config.log_every_steps = 32, 9, 3
        config.eval.every_epochs, config.eval.batch_size = 4 * 32 / 1437, 8
        config.checkpoint.every_steps = 3
        config.optim.schedule = "plateau(0.1, patience=0)"  # its state follows the evaluations
        config.eval.analyses = "response_std"
        config.mesh.data, config.data.data_dir = 1, str(home / "tfds")
        return train.train_and_evaluate(config, tmp_path / name).code

    assert run("golden") == 0
    evaluations, original = [], pipeline.Pipeline.eval_batches

    def eval_batches(self, batch_size):
        evaluations.append(0)
        for batch in original(self, batch_size):
            evaluations[-1] += 1
            if len(evaluations) == interrupted and evaluations[-1] == 5:
                signal.raise_signal(signal.SIGTERM)
            yield batch

    monkeypatch.setattr(pipeline.Pipeline, "eval_batches", eval_batches)
    assert run("ours") == 143
    assert len(evaluations) == interrupted and evaluations[-1] == 5  # of 45 batches
    rows = read_rows(tmp_path / "ours" / METRICS)
    assert step not in [row["step"] for row in rows if "val/loss" in row]
    assert step == max(int(path.name) for path in (tmp_path / "ours" / "checkpoints").iterdir())
    assert run("ours") == 0
    evaluated = [row for row in read_rows(tmp_path / "ours" / METRICS) if "val/loss" in row]
    assert [row["step"] for row in evaluated] == [4, 8, 9]
    assert all(row["analysis/response_std"] > 0 for row in evaluated)
    assert_same_run(tmp_path / "ours", tmp_path / "golden")


# --- signals --------------------------------------------------------------------------------------


@pytest.mark.fault(
    "signal: SIGTERM, SIGINT or SIGUSR1, repeated, while it steps",
    "one request to stop, exit code 128 + the signal's number",
)
@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)]
)
def test_a_signal_is_a_request_while_the_run_lasts(number, code, capsys):
    before = signal.getsignal(number)
    with stops.stop_on_signal() as stop:
        stop.save_first()
        assert not stop.requested
        for _ in range(3):  # launchers repeat themselves
            signal.raise_signal(number)
        assert stop.requested and stop.code == code
    assert signal.getsignal(number) == before
    assert capsys.readouterr().out == (
        f"\n{signal.Signals(number).name}: saving, then stopping (Ctrl-C again leaves at once)\n"
    )


@pytest.mark.fault("signal: a second Ctrl-C", "leaves at once")
def test_a_second_ctrl_c_leaves_at_once_if_it_is_meant(monkeypatch):
    now, left = [100.0], []
    monkeypatch.setattr(stops.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(stops.os, "_exit", left.append)
    with stops.stop_on_signal() as stop:
        stop.save_first()
        for now[0], number in (
            (100.0, signal.SIGINT),
            (100.5, signal.SIGINT),
            (200.0, signal.SIGTERM),
        ):
            signal.raise_signal(number)
        assert left == [] and stop.code == 130
        signal.raise_signal(signal.SIGINT)
        assert left == [130]


@pytest.mark.fault(
    "signal: in the midst of printing, or without a terminal", "still a request to stop"
)
def test_a_signal_in_the_midst_of_a_line_or_without_a_terminal_is_still_a_request(monkeypatch):
    for error in (RuntimeError("reentrant call"), BrokenPipeError()):

        class Broken:
            def write(self, text, error=error):
                raise error

        with stops.stop_on_signal() as stop, monkeypatch.context() as patch:
            stop.save_first()
            patch.setattr(sys, "stdout", Broken())
            signal.raise_signal(signal.SIGTERM)
        assert stop.code == 143


@pytest.mark.fault(
    "signal: SIGTERM, SIGINT or SIGUSR1 before the first step",
    "exit at once with code 128 + the signal's number",
)
@pytest.mark.parametrize(
    "number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)]
)
def test_while_there_is_nothing_to_save_a_signal_ends_the_process_in_order(number, code, capsys):
    with pytest.raises(SystemExit) as ended, stops.stop_on_signal():
        signal.raise_signal(number)
    assert ended.value.code == code
    assert capsys.readouterr().out == f"\n{signal.Signals(number).name}: stopping\n"


@pytest.mark.fault(
    "signal: before the first step, the main thread hangs", "exit all the same, seconds later"
)
def test_what_holds_up_the_exit_is_cut_short():
    code = """if True:
        import signal, time
        from cnn_papers.runs import signals
        signals.TIDY_UP_S = 0.5
        try:
            with signals.stop_on_signal():
                try:
                    signal.raise_signal(signal.SIGTERM)
                finally:
                    time.sleep(600)
        finally:
            print("never seen")
    """
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (143, "\nSIGTERM: stopping\n", "")


def test_in_another_thread_signals_are_left_alone():
    seen = []

    def run():
        with stops.stop_on_signal() as stop:
            seen.append((stop.requested, signal.getsignal(signal.SIGTERM)))

    before = signal.getsignal(signal.SIGTERM)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    assert seen == [(False, before)]


# --- the long one ---------------------------------------------------------------------------------


def _killed_at_any_moment(
    home: pathlib.Path, workdir: pathlib.Path, flags: list[str], kills: int
) -> None:
    """Kills a run `kills` times while it steps, each third time while it starts instead."""
    draw, began = np.random.default_rng(0), time.monotonic()
    for kill in range(kills):
        child = start(home, workdir, *flags, quick=False)
        with contextlib.closing(child.stdout), contextlib.closing(child.stderr):
            if kill % 3:
                wait_for(child, "first step after")
                for _ in range(draw.integers(1, 8)):
                    child.stdout.readline()
                time.sleep(draw.uniform(0, 0.3))
            else:
                time.sleep(draw.uniform(0, min(20, time.monotonic() - began + 1)))
            assert child.poll() is None, child.stderr.read()
            faults.kill(child)


@pytest.mark.fault(
    "kill: twenty times over one run, at any moment",
    "the final state is that of a run never stopped",
)
@pytest.mark.slow
def test_googlenet_killed_twenty_times_ends_bit_equal(home, tmp_path):
    flags = [
        "--config=configs/googlenet.py",
        "--config.model.width=0.25",
        "--config.batch_size=32",
        "--config.total_steps=120",
        "--config.log_every_steps=1",
        "--config.eval.every_epochs=0.25",
        "--config.checkpoint.every_steps=3",
        "--config.optim.ema_decay=0.9",
    ]
    code, _, err = run(home, tmp_path / "golden", *flags, quick=False)
    assert code == 0, err
    _killed_at_any_moment(home, tmp_path / "run", flags, kills=20)
    code, out, err = run(home, tmp_path / "run", *flags, quick=False)
    assert code == 0 and "going on from step" in out, err
    assert_same_run(tmp_path / "run", tmp_path / "golden")


@pytest.mark.fault(
    "kill: ten times over one run, each while it saves a large state",
    "as a run never stopped, to the bit",
)
@pytest.mark.slow
def test_a_large_state_killed_while_it_is_saved_ends_bit_equal(home, tmp_path):
    flags = [
        "--config=configs/alexnet.py",
        "--config.model.width=1.2",  # 29 million parameters: 230 MB with their momentum
        "--config.batch_size=4",
        "--config.total_steps=24",
        "--config.log_every_steps=1",
        "--config.eval.every_epochs=1",
        "--config.eval.batch_size=60",
        "--config.checkpoint.every_steps=2",
    ]
    code, _, err = run(home, tmp_path / "golden", *flags)
    assert code == 0, err
    draw, halves, ours = np.random.default_rng(0), 0, tmp_path / "run"
    for _ in range(10):
        child = start(home, ours, *flags)
        with contextlib.closing(child.stdout), contextlib.closing(child.stderr):
            wait_for(child, "first step after")
            saves = int(draw.integers(0, 3))  # that may end well before
            before = set(ours.glob("checkpoints/*-tmp"))
            seen: set[pathlib.Path] = set()
            while child.poll() is None and len(seen) <= saves:
                seen |= set(ours.glob("checkpoints/*-tmp")) - before
            time.sleep(draw.uniform(0, 0.5))
            assert child.poll() is None, child.stderr.read()
            faults.kill(child)
        halves += bool(list(ours.glob("checkpoints/*-tmp")))
    assert halves >= 5
    code, out, err = run(home, ours, *flags)
    assert code == 0 and "going on from step" in out, err
    assert_same_run(ours, tmp_path / "golden")
