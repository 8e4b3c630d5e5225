"""Checkpoints and the folder they stand in: bit-equal, refused when damaged, held by one process, clear when full."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers.errors import UserError
from cnn_papers.training import checkpoint, workdir
from cnn_papers.training.checkpoint import DIGESTS, Checkpoints, read_model
from cnn_papers.training.mesh import make_mesh, over_data, replicated
from cnn_papers.training.step import State, zero_totals


def _state(step: int, size: int = 24, ema: bool = True) -> State:
    draw = np.random.default_rng(step)

    def array(*shape):
        return jnp.asarray(draw.normal(size=shape).astype(np.float32))

    params = {"conv1": {"kernel": array(3, size), "bias": array(size)}}
    stats = {"bn1": {"mean": array(size)}}
    zero = jnp.int32(0)
    average = {"conv1": {"kernel": array(3, size), "bias": array(size)}} if ema else None
    return State(jnp.int32(step), params, stats, ({"v": array(size)}, ()), average, zero, zero + step, zero_totals())


def _like(state: State) -> State:
    return jax.eval_shape(lambda: state)


def _assert_equal(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(np.asarray(x).view(np.uint32), np.asarray(y).view(np.uint32))


@contextlib.contextmanager
def _opened(folder: pathlib.Path, **options):
    checkpoints = Checkpoints(folder, **options)
    try:
        yield checkpoints
    finally:
        checkpoints.close()


def _save(folder: pathlib.Path, *steps: int, keep: int = 3) -> None:
    with _opened(folder, keep=keep) as checkpoints:
        for step in steps:
            checkpoints.save(step, _state(step))


def _steps(folder: pathlib.Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@contextlib.contextmanager
def _tmpfs(folder: pathlib.Path, options: str):
    """A small or read-only file system at `folder`; skips where it may not be mounted (root ignores permissions)."""
    mount = shutil.which("mount")
    folder.mkdir()
    if (
        not mount
        or subprocess.run([mount, "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("no permission to mount a tmpfs")
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


# --- save and restore ------------------------------------------------------------------------------------------------


def test_what_is_saved_comes_back_bit_for_bit(tmp_path):
    state = _state(7)
    odd = np.float32([np.nan, -0.0, 1e-42, np.inf])  # a NaN's bits, a signed zero, a denormal
    state = state._replace(batch_stats={"bn1": {"mean": jnp.asarray(odd)}})
    with _opened(tmp_path / "run" / "checkpoints") as checkpoints:
        assert checkpoints.newest_good() is None
        checkpoints.save(7, state)
    with _opened(tmp_path / "run" / "checkpoints") as checkpoints:
        assert checkpoints.newest_good() == 7
        _assert_equal(checkpoints.restore(7, _like(state)), state)


def test_a_state_without_an_average_comes_back_without(tmp_path):
    state = _state(1, ema=False)
    with _opened(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        checkpoints.finish()
        assert checkpoints.restore(1, _like(state)).ema is None
    variables = read_model(tmp_path, _like(state))[1]
    _assert_equal(variables, {"params": state.params, "batch_stats": state.batch_stats})


def test_saving_does_not_hold_up_or_follow_what_comes_after(tmp_path):
    """The arrays saved are those of the call, though the next step may overwrite (donate) them at once."""
    state = _state(1)
    expected = jax.device_get(state)
    advance = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    with _opened(tmp_path) as checkpoints:
        checkpoints.save(1, state)
        advance(state)
        checkpoints.finish()
        _assert_equal(checkpoints.restore(1, _like(_state(1))), expected)


def test_the_latest_are_kept(tmp_path):
    _save(tmp_path, 1, 2, 3, 4, 5, keep=3)
    assert _steps(tmp_path) == ["00000003", "00000004", "00000005"]
    _save(tmp_path, 6, keep=1)  # never fewer than two: the newest may be cut off before its digests are written
    assert _steps(tmp_path) == ["00000005", "00000006"]


def test_what_lies_beyond_a_step_is_removed(tmp_path):
    _save(tmp_path, 1, 2, 3)
    with _opened(tmp_path, keep=3) as checkpoints:
        checkpoints.remove_after(1)
        assert checkpoints.newest_good() == 1
        checkpoints.save(2, _state(20))
        checkpoints.finish()
        _assert_equal(checkpoints.restore(2, _like(_state(20))), _state(20))
    assert _steps(tmp_path) == ["00000001", "00000002"]


@pytest.mark.parametrize("devices", [1, 2, 8])
def test_restores_onto_another_number_of_devices(tmp_path, devices):
    four = make_mesh(4)
    state = jax.device_put(_state(3), replicated(four))
    split = jax.device_put(_state(3).params, over_data(make_mesh(1)))
    with _opened(tmp_path) as checkpoints:
        checkpoints.save(3, state)
    mesh = make_mesh(devices)
    like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), state)
    with _opened(tmp_path) as checkpoints:
        restored = checkpoints.restore(3, like)
    _assert_equal(jax.device_get(restored), jax.device_get(_state(3)))
    _assert_equal(jax.device_get(restored.params), jax.device_get(split))
    assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {replicated(mesh)}
    assert all(len(leaf.sharding.device_set) == devices for leaf in jax.tree.leaves(restored))


@pytest.mark.parametrize(
    "other, difference",
    [
        (_state(1, size=25), r"batch_stats/bn1/mean: \(24,\) there, \(25,\) now"),
        (_state(1, ema=False), r"ema/conv1/bias: \(24,\) there, missing now"),
        (_state(1)._replace(params=_state(1).params | {"fc": jnp.zeros(3)}), r"params/fc: missing there, \(3,\) now"),
        (_state(1)._replace(batch_stats={}), r"batch_stats/bn1/mean: \(24,\) there, missing now"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_with_the_difference(tmp_path, other, difference):
    _save(tmp_path, 1)
    message = rf"checkpoint {tmp_path}/00000001 is of another network than the config's \({difference}\)"
    with _opened(tmp_path) as checkpoints, pytest.raises(UserError, match=message):
        checkpoints.restore(1, _like(other))
    with pytest.raises(UserError, match=message):
        read_model(tmp_path, _like(other))


def test_a_checkpoint_of_another_optimiser_is_refused_but_its_model_can_be_read(tmp_path):
    _save(tmp_path, 1)
    other = _state(1)._replace(opt_state=({"v": jnp.zeros(24), "m": jnp.zeros(24)}, ()))
    with (
        _opened(tmp_path) as checkpoints,
        pytest.raises(UserError, match=r"\(opt_state/0/m: missing there, \(24,\) now"),
    ):
        checkpoints.restore(1, _like(other))
    assert read_model(tmp_path, _like(other))[0] == 1


# --- damage ----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    _save(folder, 1, 2, 3)
    return folder


def _largest(step: pathlib.Path) -> pathlib.Path:
    return max(
        (path for path in step.rglob("*") if path.is_file() and path.name != DIGESTS),
        key=lambda path: path.stat().st_size,
    )


def _flip(path: pathlib.Path, at: int) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


DAMAGE = {
    "a flipped bit": (lambda step: _flip(_largest(step), 100), "was changed"),
    "a file cut short": (lambda step: os.truncate(_largest(step), 100), "was changed"),
    "an empty file": (lambda step: _largest(step).write_bytes(b""), "was changed"),
    "a missing file": (lambda step: _largest(step).unlink(), "is missing"),
    "a missing item": (lambda step: shutil.rmtree(step / "training"), r"training/.* is missing"),
    "another file": (lambda step: (step / "model" / "more").write_bytes(b"x"), "file model/more was added"),
    "no digests": (lambda step: (step / DIGESTS).unlink(), "its save was cut off"),
    "digests half written": (lambda step: os.truncate(step / DIGESTS, 50), "digests.json cannot be read: "),
    "wrong digests": (lambda step: _flip(step / DIGESTS, 40), "is missing|was changed"),
    "an empty folder": (lambda step: [shutil.rmtree(step), step.mkdir()], "its save was cut off"),
}


@pytest.mark.parametrize("damage, problem", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_step_is_refused_by_name_and_the_one_before_is_used(three_steps, tmp_path, caplog, damage, problem):
    folder = shutil.copytree(three_steps, tmp_path / "checkpoints")
    damage(folder / "00000003")
    with _opened(folder, keep=3) as checkpoints:
        assert checkpoints.newest_good() == 2
        message = caplog.messages[-1]
        assert message.startswith(f"checkpoint {folder}/00000003 refused: ")
        assert re.search(problem, message)
        _assert_equal(checkpoints.restore(2, _like(_state(2))), _state(2))
        checkpoints.remove_after(2)
        assert checkpoints.newest_good() == 2
    assert _steps(folder) == ["00000001", "00000002"]


def test_a_flipped_bit_in_any_file_is_found(three_steps, tmp_path, caplog):
    folder = shutil.copytree(three_steps, tmp_path / "checkpoints")
    files = [path for path in (folder / "00000003").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 15
    for path in files:
        size = path.stat().st_size
        for at in {0, size // 2, size - 1}:
            _flip(path, at)
            with _opened(folder, keep=3) as checkpoints:
                assert checkpoints.newest_good() == 2, path
            _flip(path, at)
    with _opened(folder, keep=3) as checkpoints:
        caplog.clear()
        assert checkpoints.newest_good() == 3 and caplog.messages == []


def test_the_newest_good_one_is_found_behind_several_damaged_ones(three_steps, tmp_path, caplog):
    folder = shutil.copytree(three_steps, tmp_path / "checkpoints")
    for step in ("00000003", "00000002"):
        _flip(_largest(folder / step), 0)
    with _opened(folder, keep=3) as checkpoints:
        assert checkpoints.newest_good() == 1
    assert [message.split()[1] for message in caplog.messages] == [f"{folder}/0000000{n}" for n in (3, 2)]


def test_where_all_are_damaged_nothing_starts_over(three_steps, tmp_path):
    folder = shutil.copytree(three_steps, tmp_path / "checkpoints")
    for step in folder.iterdir():
        _flip(_largest(step), 0)
    before = _steps(folder)
    with (
        _opened(folder, keep=3) as checkpoints,
        pytest.raises(UserError, match=f"every checkpoint in {folder} is damaged; restore the folder or start in ano"),
    ):
        checkpoints.newest_good()
    assert _steps(folder) == before
    with pytest.raises(UserError, match="every checkpoint"):
        read_model(folder, _like(_state(3)))


def test_a_first_save_cut_off_before_its_digests_does_not_count(tmp_path, caplog):
    _save(tmp_path, 1)
    (tmp_path / "00000001" / DIGESTS).unlink()
    with _opened(tmp_path) as checkpoints:
        assert checkpoints.newest_good() is None
    assert "its save was cut off" in caplog.text


# --- killed and failing saves ----------------------------------------------------------------------------------------

SAVING = """
import sys, pathlib
import jax, jax.numpy as jnp
from cnn_papers.training.checkpoint import Checkpoints
from cnn_papers.training.step import State, zero_totals
zero = jnp.int32(0)
state = State(zero, {"w": jnp.arange(4_000_000.0)}, {}, (), None, zero, zero, zero_totals())
checkpoints = Checkpoints(pathlib.Path(sys.argv[1]))
checkpoints.save(1, state)
checkpoints.finish()
print("saved", flush=True)
checkpoints.save(2, state._replace(params={"w": jnp.arange(64_000_000.0)}))
print("saving", flush=True)
checkpoints.finish()
print("too late", flush=True)
"""


def test_a_process_killed_while_saving_leaves_the_step_before(tmp_path):
    with subprocess.Popen([sys.executable, "-c", SAVING, tmp_path], stdout=subprocess.PIPE, text=True) as child:
        assert [child.stdout.readline() for _ in range(2)] == ["saved\n", "saving\n"]
        while not list(tmp_path.glob("00000002*")):  # orbax makes the folder in the background
            assert child.poll() is None
        child.kill()
        assert child.stdout.read() == "" and child.wait() == -signal.SIGKILL
    halves = [name for name in _steps(tmp_path) if name != "00000001"]
    assert halves == ["00000002.orbax-checkpoint-tmp"]
    zero = jnp.int32(0)
    like = _like(State(zero, {"w": jnp.zeros(4_000_000)}, {}, (), None, zero, zero, zero_totals()))
    assert read_model(tmp_path, like)[0] == 1
    assert _steps(tmp_path) == ["00000001", *halves]  # a reader touches nothing
    with _opened(tmp_path) as checkpoints:
        assert checkpoints.newest_good() == 1
        np.testing.assert_array_equal(checkpoints.restore(1, like).params["w"], np.arange(4e6, dtype=np.float32))
        checkpoints.save(2, jax.tree.map(jnp.zeros_like, like))
    assert _steps(tmp_path) == ["00000001", "00000002"]


FILLING = """
import sys, pathlib
import jax.numpy as jnp
from cnn_papers.errors import UserError
from cnn_papers.training.checkpoint import Checkpoints
from cnn_papers.training.step import State, zero_totals
zero = jnp.int32(0)
checkpoints = Checkpoints(pathlib.Path(sys.argv[1]))
try:
    for step, size in ((1, 1_000), (2, 1_000_000), (3, 1_000)):
        checkpoints.save(step, State(zero, {"w": jnp.arange(float(size))}, {}, (), None, zero, zero, zero_totals()))
except UserError as error:
    print(step, error)
finally:
    checkpoints.close()
"""


def test_a_full_disk_is_one_line_and_the_step_before_stays(tmp_path):
    """In a process of its own: what orbax's threads leave behind when a write fails disturbs other tests."""
    folder = tmp_path / "small"
    with _tmpfs(folder, "size=2m"):
        command = [sys.executable, "-c", FILLING, folder / "checkpoints"]
        child = subprocess.run(command, capture_output=True, text=True)
        assert child.returncode == 0, child.stderr
        assert child.stdout.startswith(f"3 saving a checkpoint in {folder}/checkpoints failed, ")
        assert "bytes free, last good step 1: " in child.stdout and child.stdout.count("\n") == 1
        assert "No space left on device" in child.stdout.split("last good step 1: ")[1]
        assert "00000002" not in _steps(folder / "checkpoints")
        with _opened(folder / "checkpoints") as checkpoints:
            assert checkpoints.newest_good() == 1
            zero = jnp.int32(0)
            state = State(zero, {"w": jnp.arange(1000.0)}, {}, (), None, zero, zero, zero_totals())
            _assert_equal(checkpoints.restore(1, _like(state)), state)
            checkpoints.save(2, state)
            checkpoints.finish()
            assert checkpoints.newest_good() == 2


@pytest.mark.parametrize("fails", ["save", "wait_until_finished"])
def test_a_failed_save_is_raised_at_once_or_at_the_next(tmp_path, monkeypatch, fails):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, _state(1))
    checkpoints.finish()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, fails, fail)
        with pytest.raises(UserError, match=r"last good step 1: \[Errno 28\] No space left on device"):
            checkpoints.save(2, _state(2))
            checkpoints.finish()
    checkpoints.close()


def test_closing_raises_a_failed_save_too(tmp_path, monkeypatch):
    def fail(path):
        raise OSError(5, "Input/output error")

    checkpoints = Checkpoints(tmp_path)
    monkeypatch.setattr(checkpoint, "_sha256", fail)
    checkpoints.save(1, _state(1))
    with pytest.raises(UserError, match=r"last good step None: .*Input/output error"):
        checkpoints.close()


# --- reading beside a running training -------------------------------------------------------------------------------


def test_a_reader_sees_whole_steps_beside_a_writer(tmp_path):
    with _opened(tmp_path) as writer:
        with pytest.raises(UserError, match=f"there is no checkpoint in {tmp_path} yet"):
            read_model(tmp_path, _like(_state(1)))
        for step in (1, 2, 3):
            writer.save(step, _state(step))
            writer.finish()
            found, variables = read_model(tmp_path, _like(_state(step)))
            assert found == step
            _assert_equal(variables, {"params": _state(step).ema, "batch_stats": _state(step).batch_stats})
        (tmp_path / "00000004.orbax-checkpoint-tmp").mkdir()
        assert read_model(tmp_path, _like(_state(3)))[0] == 3
    assert _steps(tmp_path) == ["00000002", "00000003", "00000004.orbax-checkpoint-tmp"]


def test_a_reader_makes_no_folder(tmp_path):
    with pytest.raises(UserError, match=f"there is no checkpoint in {tmp_path}/best"):
        read_model(tmp_path / "best", _like(_state(1)))
    assert _steps(tmp_path) == []


# --- one process a folder --------------------------------------------------------------------------------------------

HOLDING = """
import pathlib, sys
from cnn_papers.training import workdir
with workdir.locked(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(tmp_path):
    """Another process that holds the lock of `tmp_path`/run until its stdin closes."""
    command = [sys.executable, "-c", HOLDING, tmp_path / "run"]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as child:
        assert child.stdout.readline() == "held\n"
        yield child
        child.kill()


def test_a_second_process_is_refused_with_the_first_ones_name(tmp_path, holder):
    message = rf"in use by process {holder.pid} on {socket.gethostname()} since 20\d\d-.*; wait or give another"
    for _ in range(2):  # and asking does not take it away
        with pytest.raises(UserError, match=message), workdir.locked(tmp_path / "run"):
            pass
    holder.communicate()
    with workdir.locked(tmp_path / "run"):
        assert (tmp_path / "run" / ".lock").read_text().startswith(f"process {os.getpid()} on ")


def test_the_lock_of_a_killed_process_is_free(tmp_path, holder):
    holder.kill()
    holder.wait()
    assert str(holder.pid) in (tmp_path / "run" / ".lock").read_text()
    with workdir.locked(tmp_path / "run"):
        pass


def test_the_lock_is_let_go_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), workdir.locked(tmp_path):
        raise ZeroDivisionError
    with workdir.locked(tmp_path):
        pass


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("mine")
    for folder in (tmp_path / "file", tmp_path / "file" / "run"):
        with (
            pytest.raises(UserError, match=f"workdir {folder} cannot be written to: .*; give another with --workdir"),
            workdir.locked(folder),
        ):
            pass
    assert (tmp_path / "file").read_text() == "mine"


def test_a_read_only_folder(tmp_path):
    folder = tmp_path / "fixed"
    with _tmpfs(folder, "ro,size=1m"):
        for run in (folder, folder / "run"):
            with pytest.raises(UserError, match=f"workdir {run} cannot be written to: Read-only"), workdir.locked(run):
                pass


# --- one configuration a folder --------------------------------------------------------------------------------------

CONFIG = {
    "seed": 0,
    "total_epochs": 2.0,
    "total_steps": 0,
    "log_every_steps": 50,
    "model": {"variant": "paper", "width": None},
    "data": {"data_dir": "", "name": "digits", "resident": "auto"},
    "optim": {"lr": 0.1, "lr_mults": (("fc8/.*", 10.0),), "wd_mults": ()},
    "checkpoint": {"every_steps": 50, "keep": 2},
    "mesh": {"data": -1},
}


def _changed(key: str, value):
    config = json.loads(json.dumps(CONFIG))
    *path, last = key.split(".")
    node = config
    for part in path:
        node = node[part]
    node[last] = value
    return config


def test_a_new_folder_and_the_same_configuration_pass(tmp_path):
    workdir.check_same_run(tmp_path, CONFIG)
    workdir.write_run(tmp_path, CONFIG, {"class_names": ("a", "b")})
    workdir.check_same_run(tmp_path, CONFIG)
    workdir.check_same_run(tmp_path, json.loads(json.dumps(CONFIG)))  # lists for tuples
    run = workdir.read_run(tmp_path)
    assert run["config"] == CONFIG and run["class_names"] == ["a", "b"]
    assert run["versions"]["jax"] == jax.__version__ and run["versions"]["python"] == sys.version.split()[0]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run.json"]


@pytest.mark.parametrize(
    "key, value, shown",
    [
        ("seed", 1, "seed: 0 there, 1 now"),
        ("optim.lr", 0.2, r"optim\.lr: 0\.1 there, 0\.2 now"),
        ("model.width", 0.5, r"model\.width: None there, 0\.5 now"),
        ("data.name", "mnist", r"data\.name: digits there, mnist now"),
        ("optim.lr_mults", (("fc8/.*", 20.0),), r"optim\.lr_mults: \(\('fc8/\.\*', 10\.0\),\) there, .* now"),
        ("model.depth", 3, r"model\.depth: unset there, 3 now"),
    ],
)
def test_another_configuration_is_refused_with_the_difference(tmp_path, key, value, shown):
    workdir.write_run(tmp_path, CONFIG, {})
    before = (tmp_path / "run.json").read_bytes()
    with pytest.raises(UserError, match=rf"holds a run of another configuration \({shown}\); give another with --work"):
        workdir.check_same_run(tmp_path, _changed(key, value))
    assert (tmp_path / "run.json").read_bytes() == before


@pytest.mark.parametrize(
    "key, value",
    [
        ("total_epochs", 3.0),
        ("total_steps", 10),
        ("log_every_steps", 1),
        ("data.data_dir", "/data"),
        ("data.resident", "never"),
        ("checkpoint.every_steps", 1),
        ("checkpoint.keep", 9),
        ("mesh.data", 1),
    ],
)
def test_what_does_not_change_a_run_may_differ(tmp_path, key, value):
    workdir.write_run(tmp_path, CONFIG, {})
    workdir.check_same_run(tmp_path, _changed(key, value))


def test_many_differences_are_counted(tmp_path):
    workdir.write_run(tmp_path, CONFIG, {})
    other = {
        **CONFIG,
        "seed": 1,
        "optim": {"lr": 1.0, "momentum": 0.5, "decay": 1.0},
        "model": {"variant": "x", "width": 1},
    }
    with pytest.raises(UserError, match=r"model.variant: .* and 4 more\)"):
        workdir.check_same_run(tmp_path, other)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"versions": {}}'])
def test_a_damaged_run_json_is_one_line(tmp_path, text):
    (tmp_path / "run.json").write_text(text)
    with pytest.raises(UserError, match=r"run.json cannot be read: "):
        workdir.check_same_run(tmp_path, CONFIG)


# --- space -----------------------------------------------------------------------------------------------------------


def test_space_is_checked_before_it_runs_out(tmp_path, monkeypatch):
    monkeypatch.setattr(workdir.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=600))
    workdir.check_space(tmp_path, 100, keep=2)  # two and one under way, as many for the best
    with pytest.raises(
        UserError,
        match=f"workdir {tmp_path} has 600 bytes free; .* need 606: free some space, lower config.checkpoint.keep",
    ):
        workdir.check_space(tmp_path, 101, keep=2)
    with pytest.raises(UserError, match="need 700"):
        workdir.check_space(tmp_path, 100, keep=3)
    with pytest.raises(UserError, match="need 606"):
        workdir.check_space(tmp_path, 101, keep=1)  # two are kept anyhow


def test_checkpoints_that_are_there_already_need_no_more_space(tmp_path, monkeypatch):
    (tmp_path / "checkpoints" / "00000001").mkdir(parents=True)
    (tmp_path / "checkpoints" / "00000001" / "array").write_bytes(bytes(150))
    monkeypatch.setattr(workdir.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=450))
    workdir.check_space(tmp_path, 100, keep=2)
    with pytest.raises(UserError, match=r"has 450 bytes free; .* need 456"):
        workdir.check_space(tmp_path, 101, keep=2)


def test_checkpoints_without_their_configuration_are_not_taken_up(tmp_path):
    (tmp_path / "checkpoints" / "00000005").mkdir(parents=True)
    with pytest.raises(UserError, match=r"holds checkpoints but no run\.json"):
        workdir.check_same_run(tmp_path, CONFIG)
