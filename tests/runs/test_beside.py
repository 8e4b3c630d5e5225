"""Failures beside a run (compilation cache, TensorBoard, clock): one warning, and it goes on."""

import contextlib
import pathlib
import subprocess
import sys
import time

import pytest
from support import faults
from support.processes import TINY, arrays, assert_same_run, run, start, wait_for
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cnn_papers.runs.rows import METRICS, read_rows

FLAGS = [  # evaluations after steps 10 and 20
    *TINY,
    "--config.total_steps=20",
    "--config.log_every_steps=1",
    "--config.eval.every_epochs=0.23",
    "--config.checkpoint.every_steps=5",
]


DAMAGE = [faults.flip, faults.cut, faults.empty]


@pytest.fixture(scope="module")
def golden(home) -> pathlib.Path:
    """An undisturbed run."""
    code, _, err = run(home, home / "golden", *FLAGS)
    assert code == 0 and "WARNING" not in err, err
    return home / "golden"


# --- the compilation cache ------------------------------------------------------------------------


@pytest.mark.fault(
    "beside: every entry of the compilation cache is damaged",
    "one warning; compiled anew and replaced",
)
@pytest.mark.process
@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_compilation_cache_is_said_once_and_mended(home, tmp_path, damage):
    # A cache of its own, of programs that take long enough to be kept.
    cache, undisturbed = home / "xla", home / "fills the cache"
    if not cache.exists():
        assert run(home, undisturbed, *FLAGS, cache=cache, quick=False)[0] == 0
    before = {path.name: path.read_bytes() for path in cache.glob("*-cache")}
    for name in before:
        damage(cache / name)
    damaged = {name: (cache / name).read_bytes() for name in before}
    code, _, err = run(home, tmp_path / "one", *FLAGS, cache=cache, quick=False)
    assert code == 0, err
    assert err.count(f"WARNING: compilation cache {cache}: ") == 1 and "UserWarning" not in err, err
    assert_same_run(tmp_path / "one", undisturbed)
    after = {path.name: path.read_bytes() for path in cache.glob("*-cache")}
    # Programs that compile quickly are only kept on a slow machine.
    slow = {name for name in before if "train_step" in name}
    assert slow and after.keys() >= slow
    assert all(after.get(name) != damaged[name] for name in before)
    code, _, err = run(home, tmp_path / "two", *FLAGS, cache=cache, quick=False)
    assert code == 0 and "compilation cache" not in err, err


@pytest.mark.fault(
    "beside: the compilation cache cannot be written to", "one warning; compiled for this run alone"
)
@pytest.mark.process
def test_a_compilation_cache_that_cannot_be_written_is_said_once(home, golden, tmp_path):
    (tmp_path / "file").write_text("mine")
    code, _, err = run(home, tmp_path / "run", *FLAGS, cache=tmp_path / "file")
    assert code == 0, err
    assert (
        err.count(f"WARNING: compilation cache {tmp_path}/file: ") == 1 and "UserWarning" not in err
    ), err
    assert (tmp_path / "file").read_text() == "mine"
    assert_same_run(tmp_path / "run", golden)


# --- TensorBoard ----------------------------------------------------------------------------------


@pytest.mark.fault(
    "beside: TensorBoard's disk fills up in the midst of a run", "one warning; the run is the same"
)
@pytest.mark.process
def test_tensorboard_that_dies_in_the_midst_is_said_once(home, golden, tmp_path):
    (tmp_path / "run").mkdir()
    with faults.disk(tmp_path / "run" / "tensorboard", "size=4k"):
        code, out, err = run(home, tmp_path / "run", *FLAGS)
    assert code == 0 and "step 20/20" in out, err
    assert (
        err.count("WARNING: TensorBoard events stop here: [Errno 28] No space left on device\n")
        == 1
    )
    assert "Traceback" not in err and "Exception" not in err
    assert_same_run(tmp_path / "run", golden)


@pytest.mark.fault(
    "beside: TensorBoard's folder cannot be written to", "one warning; the run is the same"
)
@pytest.mark.process
def test_tensorboard_that_cannot_begin_is_said_once(home, golden, tmp_path):
    (tmp_path / "run").mkdir()
    with faults.disk(tmp_path / "run" / "tensorboard", "size=1m,ro"):
        code, _, err = run(home, tmp_path / "run", *FLAGS)
    assert (
        code == 0 and err.count("WARNING: no TensorBoard events: ") == 1 and "Traceback" not in err
    ), err
    assert_same_run(tmp_path / "run", golden)


# --- the clock ------------------------------------------------------------------------------------


@pytest.mark.fault("beside: the clock jumps by years, to and fro", "the run is the same")
@pytest.mark.process
def test_a_clock_that_jumps_changes_nothing(home, golden, tmp_path):
    program = ("-c", faults.JUMPING_CLOCK)
    child = start(home, tmp_path / "run", *FLAGS, program=program)
    with contextlib.closing(child.stdout), contextlib.closing(child.stderr):
        wait_for(child, "step 12/20")
        faults.kill(child)
    code, out, err = run(home, tmp_path / "run", *FLAGS, program=program)
    assert code == 0 and "going on from step" in out and "WARNING" not in err, err
    assert_same_run(tmp_path / "run", golden)
    assert all(
        row.get("images_per_second", 1) > 0 for row in read_rows(tmp_path / "run" / "timing.jsonl")
    )
    events = EventAccumulator(str(tmp_path / "run" / "tensorboard"))
    events.Reload()
    assert [event.step for event in events.Scalars("train/loss")] == list(range(1, 21))


# --- the network ----------------------------------------------------------------------------------


@pytest.mark.fault("network: a run of one process", "nothing listens at all")
@pytest.mark.process
def test_nothing_listens(home, golden, tmp_path):
    child, seen = start(home, tmp_path / "run", *FLAGS), set()
    while child.poll() is None:
        seen |= faults.listening(child.pid)
        time.sleep(0.01)
    _, err = child.communicate()
    assert child.returncode == 0 and seen == set(), err


# --- a full disk ----------------------------------------------------------------------------------


def test_tasks_that_orbax_leaves_behind_print_nothing():
    code = """if True:
        import asyncio, sys
        from cnn_papers import doors

        async def write():
            raise OSError(28, "No space left on device")

        async def save():
            asyncio.ensure_future(write())
            await asyncio.sleep(0)

        doors.run(lambda argv: asyncio.run(save()), lambda: None)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.fault(
    "full disk: from any moment of a run on", "one line, exit code 2; with space again, it goes on"
)
@pytest.mark.process
def test_a_disk_that_fills_up_ends_a_run_in_one_line_and_it_goes_on(home, golden, tmp_path):
    with faults.disk(tmp_path / "disk", "size=16m"):
        for step in ("       workdir", "first step after", "step 9/20", "step 13/20"):
            child = start(home, tmp_path / "disk" / "run", *FLAGS)
            with contextlib.closing(child.stdout), contextlib.closing(child.stderr):
                wait_for(child, step)
                with faults.filled(tmp_path / "disk"):
                    child.stdout.read()
                    err = child.stderr.read()
                    assert child.wait() == 2, err
            assert err.count("error: ") == 1 and "Traceback" not in err, err
        code, out, err = run(home, tmp_path / "disk" / "run", *FLAGS)
        assert code == 0 and "going on from step" in out, err
        assert_same_run(tmp_path / "disk" / "run", golden)
    assert len(read_rows(golden / METRICS)) == 22 and len(arrays(golden / "checkpoints")) > 20
