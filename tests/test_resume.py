"""Whole runs: killed, stopped, damaged or diverging, and what the same command makes of them."""

import contextlib
import json
import os
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
import orbax.checkpoint as ocp
import pytest
from compiling import hasty_compiler
from jax.experimental.compilation_cache import compilation_cache

from cnn_papers import train
from cnn_papers.data.sources import make_digits
from cnn_papers.training import stop as stops
from cnn_papers.training.writer import METRICS, read_rows
from configs import resnet

ROOT = pathlib.Path(__file__).parents[1]
STEPS = 60
NETWORK = {"blocks": (1,), "widths": (8,)}  # one stage of one block compiles in seconds
TINY = [
    "--config=configs/resnet.py",
    *(f"--config.model.{field}={value}" for field, value in NETWORK.items()),
    "--config.batch_size=32",
]
SMALL = [  # evaluations after steps 20, 40 and 60
    *TINY,
    f"--config.total_steps={STEPS}",
    "--config.log_every_steps=3",
    "--config.eval.every_epochs=0.45",
    "--config.checkpoint.every_steps=5",
]


@pytest.fixture(scope="module")
def home(tmp_path_factory) -> pathlib.Path:
    """Where data, statistics and compiled programs of these tests stand."""
    folder = tmp_path_factory.mktemp("home")
    make_digits("digits", str(folder / "tfds"))
    return folder


def _start(home: pathlib.Path, workdir: pathlib.Path, *flags: str, quick: bool = True) -> subprocess.Popen:
    """Starts the command line; `quick` compiles without optimising, which halves the time of a fresh program."""
    command = [sys.executable, "-m", "cnn_papers.main", f"--workdir={workdir}", *flags]
    env = {**os.environ, "TFDS_DATA_DIR": str(home / "tfds"), "XDG_CACHE_HOME": str(home / "cache")}
    env |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": str(int(quick)), "JAX_PLATFORMS": "cpu"}
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=ROOT, env=env, stdout=pipe, stderr=pipe, text=True)


def _run(home: pathlib.Path, workdir: pathlib.Path, *flags: str, quick: bool = True) -> tuple[int, str, str]:
    child = _start(home, workdir, *flags, quick=quick)
    out, err = child.communicate()
    return child.returncode, out, err


def _wait_for(child: subprocess.Popen, start: str) -> None:
    """Reads the lines of `child` up to one that begins with `start`."""
    assert child.stdout
    for line in child.stdout:
        if line.startswith(start):
            return
    raise AssertionError(f"no line '{start}…'; stderr: {child.stderr and child.stderr.read()}")


def _arrays(folder: pathlib.Path) -> dict[str, np.ndarray]:
    """Every array of every checkpoint in `folder`, by step, item and path."""
    arrays = {}
    for item in sorted(folder.glob("*/model")) + sorted(folder.glob("*/training")):
        reader = ocp.PyTreeCheckpointer()
        as_numpy = jax.tree.map(
            lambda _: ocp.RestoreArgs(restore_type=np.ndarray), reader.metadata(item).item_metadata.tree
        )
        tree = reader.restore(item, restore_args=as_numpy)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
            arrays[f"{item.relative_to(folder)}{jax.tree_util.keystr(path)}"] = np.asarray(leaf)
    return arrays


def _assert_same_run(ours: pathlib.Path, golden: pathlib.Path) -> None:
    """Metrics byte for byte, checkpoints bit for bit."""
    assert (ours / METRICS).read_bytes() == (golden / METRICS).read_bytes()
    for kind in ("checkpoints", "best"):
        a, b = _arrays(ours / kind), _arrays(golden / kind)
        newest = max(name[:8] for name in b)
        a, b = ({name: value for name, value in x.items() if name.startswith(newest)} for x in (a, b))
        assert a.keys() == b.keys() and len(a) > 30
        for name, value in a.items():
            assert value.dtype == b[name].dtype and value.tobytes() == b[name].tobytes(), name


@pytest.fixture(scope="module")
def golden(home) -> pathlib.Path:
    """A run that was never stopped."""
    code, out, err = _run(home, home / "golden", *SMALL)
    assert code == 0, err
    assert f"step {STEPS}/{STEPS}" in out and "going on" not in out
    rows = read_rows(home / "golden" / METRICS)
    assert [row["step"] for row in rows if "train/loss" in row] == list(range(3, STEPS + 1, 3))
    assert [row["step"] for row in rows if "val/loss" in row] == [20, 40, 60]
    return home / "golden"


# --- killed and stopped ----------------------------------------------------------------------------------------------


def test_a_run_killed_twice_and_stopped_once_ends_bit_equal(home, golden, tmp_path):
    draw = np.random.default_rng(0)
    for first, last in ((2, 6), (8, 12)):
        child = _start(home, tmp_path, *SMALL)
        with contextlib.closing(child.stdout), contextlib.closing(child.stderr):
            _wait_for(child, f"step {3 * draw.integers(first, last + 1)}/{STEPS}")
            time.sleep(draw.uniform(0, 0.1))  # any moment will do
            child.kill()
            assert child.wait() == -signal.SIGKILL
    child = _start(home, tmp_path, *SMALL)
    _wait_for(child, f"step 45/{STEPS}")
    child.terminate()
    child.terminate()  # schedulers repeat themselves
    out, err = child.communicate()
    assert child.returncode == 128 + signal.SIGTERM == 143, err
    assert out.count("SIGTERM: saving, then stopping") == 1 and "Traceback" not in err
    stopped = max(int(path.name) for path in (tmp_path / "checkpoints").iterdir())
    assert 45 <= stopped < STEPS
    code, out, err = _run(home, tmp_path, *SMALL)
    assert code == 0, err
    assert f"going on from step {stopped} of {STEPS}\n" in out
    _assert_same_run(tmp_path, golden)


def test_a_finished_run_says_so_and_changes_nothing(home, golden):
    before = {path: path.read_bytes() for path in golden.rglob("*") if path.is_file() and path.name == METRICS}
    steps = sorted(path.name for path in golden.glob("*/0*"))
    code, out, err = _run(home, golden, *SMALL)
    assert (code, err) == (0, "")
    assert f"this run is finished: {STEPS} steps in {golden}\n" in out
    assert {path: path.read_bytes() for path in before} == before
    assert sorted(path.name for path in golden.glob("*/0*")) == steps


def test_another_configuration_does_not_touch_the_run(home, golden):
    before = sorted((path, path.stat().st_mtime_ns) for path in golden.rglob("*") if path.name != ".lock")
    code, out, err = _run(home, golden, *SMALL, "--config.seed=7")
    assert (code, out) == (2, "")
    assert err == (
        f"error: workdir {golden} holds a run of another configuration (seed: 0 there, 7 now); "
        "give another with --workdir, or remove it\n"
    )
    assert sorted((path, path.stat().st_mtime_ns) for path in golden.rglob("*") if path.name != ".lock") == before


def test_evaluation_gives_the_best_rows_errors(home, golden, tmp_path):
    rows = [row for row in read_rows(golden / METRICS) if "val/top1_error" in row]
    best = min(rows, key=lambda row: row["val/top1_error"])
    run = shutil.copytree(golden, tmp_path / "run")
    code, out, err = _run(home, run, *SMALL, "--mode=eval")
    assert (code, err) == (0, "")
    *_, description, tested, _, line = out.splitlines()
    assert description.endswith(f"trained on digits, step {best['step']} in {run}/best")
    assert tested.startswith("tested on digits[test") and line.split()[:3] == [
        *("single_view", f"{best['val/top1_error']:.2f}%", f"{best['val/top5_error']:.2f}%")
    ]


def test_a_damaged_newest_checkpoint_is_named_and_the_one_before_goes_on(home, golden, tmp_path):
    ours = shutil.copytree(golden, tmp_path / "run")
    array = max((ours / "checkpoints" / f"{STEPS:08d}" / "model").rglob("*"), key=lambda path: path.stat().st_size)
    data = bytearray(array.read_bytes())
    data[len(data) // 2] ^= 16
    array.write_bytes(bytes(data))
    code, out, err = _run(home, ours, *SMALL)
    assert code == 0, err
    assert re.search(rf"WARNING: checkpoint {ours}/checkpoints/{STEPS:08d} refused: file model/\S+ was changed\n", err)
    assert f"going on from step {STEPS - 5} of {STEPS}\n" in out
    _assert_same_run(ours, golden)


# --- diverging -------------------------------------------------------------------------------------------------------


def test_a_run_that_diverges_says_so_and_keeps_the_last_good_state(home, tmp_path):
    flags = [
        "--config.optim.lr=1e6",
        "--config.optim.max_skipped_in_a_row=5",
        "--config.total_steps=1000",
        "--config.log_every_steps=2",
        "--config.eval.every_epochs=0.02",  # after every step
    ]
    code, out, err = _run(home, tmp_path, *TINY, *flags)
    assert code == 3, err
    assert "diverged: loss or gradient not finite for 5 steps in a row; lower config.optim.lr\n" in out
    assert "Traceback" not in err
    rows = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / METRICS).read_text().splitlines()]
    (newest,) = {max(name[:8] for name in _arrays(tmp_path / "checkpoints"))}
    saved = {name[9:]: value for name, value in _arrays(tmp_path / "checkpoints").items() if name[:8] == newest}
    assert all(np.isfinite(value).all() for name, value in saved.items() if name.startswith("model"))
    skipped = [row["train/skipped_steps"] for row in rows if "train/lr" in row]
    assert skipped[-1] >= 4 and "train/loss" not in [row for row in rows if "train/lr" in row][-1]
    assert saved["training['skipped_in_a_row']"] >= 5
    for name, value in _arrays(tmp_path / "best").items():
        assert np.isfinite(value).all() or "best_error" in name
    finite = [row for row in rows if "val/loss" in row]
    best = sorted(path.name for path in (tmp_path / "best").glob("0*"))
    assert len(finite) < len([row for row in rows if "val/top1_error" in row]) or finite
    if finite:
        lowest = min(finite, key=lambda row: row["val/top1_error"])
        assert best[-1] == f"{lowest['step']:08d}"
    else:
        assert best == []


# --- seeds -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def compiled_programs(tmp_path):
    """Keeps what this process compiles, in haste, so that compiling it again takes no time."""
    jax.config.update("jax_compilation_cache_dir", str(tmp_path / "xla"))
    compilation_cache.reset_cache()
    with hasty_compiler():
        yield
    jax.config.update("jax_compilation_cache_dir", None)
    compilation_cache.reset_cache()


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
    a, b, c = (_arrays(folder / "checkpoints") for folder in (one, two, other))
    assert a.keys() == b.keys() == c.keys()
    for name, value in a.items():
        assert value.tobytes() == b[name].tobytes(), name
    assert (one / METRICS).read_bytes() != (other / METRICS).read_bytes()
    kernels = [name for name in a if name.endswith("['kernel']")]
    assert len(kernels) >= 6 and all((a[name] != c[name]).any() for name in kernels)


# --- signals ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number, code", [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGUSR1, 138)])
def test_a_signal_is_a_request_while_the_run_lasts(number, code, capsys):
    before = signal.getsignal(number)
    with stops.stop_on_signal() as stop:
        assert not stop.requested
        for _ in range(3):  # launchers repeat themselves
            signal.raise_signal(number)
        assert stop.requested and stop.code == code
    assert signal.getsignal(number) == before
    assert capsys.readouterr().out == (
        f"\n{signal.Signals(number).name}: saving, then stopping (Ctrl-C again leaves at once)\n"
    )


def test_a_second_ctrl_c_leaves_at_once_if_it_is_meant(monkeypatch):
    now, left = [100.0], []
    monkeypatch.setattr(stops.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(stops.os, "_exit", left.append)
    with stops.stop_on_signal() as stop:
        for now[0], number in ((100.0, signal.SIGINT), (100.5, signal.SIGINT), (200.0, signal.SIGTERM)):
            signal.raise_signal(number)
        assert left == [] and stop.code == 130
        signal.raise_signal(signal.SIGINT)
        assert left == [130]


def test_a_signal_in_the_midst_of_a_line_or_without_a_terminal_is_still_a_request(monkeypatch):
    for error in (RuntimeError("reentrant call"), BrokenPipeError()):

        class Broken:
            def write(self, text, error=error):
                raise error

        with stops.stop_on_signal() as stop, monkeypatch.context() as patch:
            patch.setattr(sys, "stdout", Broken())
            signal.raise_signal(signal.SIGTERM)
        assert stop.code == 143


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


# --- the long one ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_googlenet_killed_ten_times_ends_bit_equal(home, tmp_path):
    """Every third kill comes at any moment of the start (imports, data, compiling), the others while it steps."""
    flags = [
        "--config=configs/googlenet.py",
        "--config.model.width=0.25",
        "--config.batch_size=32",
        "--config.total_steps=80",
        "--config.log_every_steps=1",
        "--config.eval.every_epochs=0.25",
        "--config.checkpoint.every_steps=3",
        "--config.optim.ema_decay=0.9",
    ]
    began = time.monotonic()
    code, _, err = _run(home, tmp_path / "golden", *flags, quick=False)
    assert code == 0, err
    draw = np.random.default_rng(0)
    for kill in range(10):
        child = _start(home, tmp_path / "run", *flags, quick=False)
        with contextlib.closing(child.stdout), contextlib.closing(child.stderr):
            if kill % 3:
                _wait_for(child, "first step after")
                for _ in range(draw.integers(1, 8)):
                    child.stdout.readline()
                time.sleep(draw.uniform(0, 0.3))
            else:
                time.sleep(draw.uniform(0, 0.1 * (time.monotonic() - began)))
            child.kill()
            assert child.wait() == -signal.SIGKILL
    code, out, err = _run(home, tmp_path / "run", *flags, quick=False)
    assert code == 0 and "going on from step" in out, err
    _assert_same_run(tmp_path / "run", tmp_path / "golden")
