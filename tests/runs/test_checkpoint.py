"""Checkpoints: bit-equal, refused if damaged, cut off or hostile, one line about a full disk."""

import contextlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tensorstore
from support import faults

from cnn_papers.errors import UserError
from cnn_papers.parallel.mesh import data_sharding, make_mesh, replicated
from cnn_papers.runs import checkpoint
from cnn_papers.runs.checkpoint import DIGESTS, Checkpoints, read_model
from cnn_papers.tasks.classify import Totals
from cnn_papers.training.step import State, zero_totals


def _state(step: int, size: int = 24, ema: bool = True) -> State:
    draw = np.random.default_rng(step)

    def array(*shape):
        return jnp.asarray(draw.normal(size=shape).astype(np.float32))

    params = {"conv1": {"kernel": array(3, size), "bias": array(size)}}
    stats = {"bn1": {"mean": array(size)}}
    zero = jnp.int32(0)
    average = {"conv1": {"kernel": array(3, size), "bias": array(size)}} if ema else None
    return State(
        jnp.int32(step),
        params,
        stats,
        ({"v": array(size)}, ()),
        average,
        zero,
        zero + step,
        zero_totals(Totals),
    )


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


# --- save and restore -----------------------------------------------------------------------------


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
    """The arrays saved are those of the call, even if the next step donates them at once."""
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
    # Never fewer than two: the newest may be cut off before its digests are written.
    _save(tmp_path, 6, keep=1)
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


@pytest.mark.fault("devices: fewer or more of them", "the state is restored onto them to the bit")
@pytest.mark.parametrize("devices", [1, 2, 8])
def test_restores_onto_another_number_of_devices(tmp_path, devices):
    four = make_mesh(4)
    state = jax.device_put(_state(3), replicated(four))
    split = jax.device_put(_state(3).params, data_sharding(make_mesh(1)))
    with _opened(tmp_path) as checkpoints:
        checkpoints.save(3, state)
    mesh = make_mesh(devices)
    like = jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=replicated(mesh)), state
    )
    with _opened(tmp_path) as checkpoints:
        restored = checkpoints.restore(3, like)
    _assert_equal(jax.device_get(restored), jax.device_get(_state(3)))
    _assert_equal(jax.device_get(restored.params), jax.device_get(split))
    assert {leaf.sharding for leaf in jax.tree.leaves(restored)} == {replicated(mesh)}
    assert all(len(leaf.sharding.device_set) == devices for leaf in jax.tree.leaves(restored))


@pytest.mark.fault(
    "config: a checkpoint of another network", "refused, the first array that differs shown"
)
@pytest.mark.parametrize(
    "other, difference",
    [
        (_state(1, size=25), r"batch_stats/bn1/mean: \(24,\) there, \(25,\) now"),
        (_state(1, ema=False), r"ema/conv1/bias: \(24,\) there, missing now"),
        (
            _state(1)._replace(params=_state(1).params | {"fc": jnp.zeros(3)}),
            r"params/fc: missing there, \(3,\) now",
        ),
        (_state(1)._replace(batch_stats={}), r"batch_stats/bn1/mean: \(24,\) there, missing now"),
    ],
)
def test_a_checkpoint_of_another_network_is_refused_with_the_difference(
    tmp_path, other, difference
):
    _save(tmp_path, 1)
    message = (
        rf"checkpoint {tmp_path}/00000001 is of another network than the config's \({difference}\)"
    )
    with _opened(tmp_path) as checkpoints, pytest.raises(UserError, match=message):
        checkpoints.restore(1, _like(other))
    with pytest.raises(UserError, match=message):
        read_model(tmp_path, _like(other))


@pytest.mark.fault(
    "config: a checkpoint of another optimiser", "refused, the first array that differs shown"
)
def test_a_checkpoint_of_another_optimiser_is_refused_but_its_model_can_be_read(tmp_path):
    _save(tmp_path, 1)
    other = _state(1)._replace(opt_state=({"v": jnp.zeros(24), "m": jnp.zeros(24)}, ()))
    with (
        _opened(tmp_path) as checkpoints,
        pytest.raises(UserError, match=r"\(opt_state/0/m: missing there, \(24,\) now"),
    ):
        checkpoints.restore(1, _like(other))
    assert read_model(tmp_path, _like(other))[0] == 1


# --- damage ---------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def three_steps(tmp_path_factory) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("three") / "checkpoints"
    _save(folder, 1, 2, 3)
    return folder


DAMAGE = {
    "a missing item": (lambda step: shutil.rmtree(step / "training"), r"training/.* is missing"),
    "another file": (
        lambda step: (step / "model" / "more").write_bytes(b"x"),
        "file model/more was added",
    ),
    "no digests": (lambda step: (step / DIGESTS).unlink(), "its save was cut off"),
    "digests half written": (
        lambda step: faults.cut(step / DIGESTS),
        "digests.json cannot be read: ",
    ),
    "digests of nothing": (
        lambda step: (step / DIGESTS).write_text("[]"),
        "digests.json cannot be read: not a dict",
    ),
    "wrong digests": (lambda step: faults.flip(step / DIGESTS, 40), "is missing|was changed"),
    "an empty folder": (lambda step: [shutil.rmtree(step), step.mkdir()], "its save was cut off"),
    "a link": (
        lambda step: (step / "model" / "more").symlink_to("/etc/passwd"),
        "model/more is neither a file nor a fo",
    ),
    "a link to a folder": (
        lambda step: (step / "more").symlink_to("/etc"),
        "more is neither a file nor a folder",
    ),
    "a pipe": (lambda step: os.mkfifo(step / "more"), "more is neither a file nor a folder"),
}


@pytest.mark.fault(
    "damage: a step's folder lacks, gains or replaces something",
    "named and refused, the step before used",
)
@pytest.mark.parametrize("damage, problem", DAMAGE.values(), ids=DAMAGE)
def test_a_damaged_step_is_refused_by_name_and_the_one_before_is_used(
    three_steps, tmp_path, caplog, damage, problem
):
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


@pytest.mark.fault(
    "damage: any file of a step has a flipped bit, is cut off, emptied or removed",
    "named and refused",
)
@pytest.mark.parametrize("damage", [*faults.DAMAGE, "first bit", "last bit"])
def test_damage_to_any_file_is_found(three_steps, tmp_path, caplog, damage):
    ends = {
        "first bit": lambda path: faults.flip(path, 0),
        "last bit": lambda path: faults.flip(path, -1, bit=7),
    }
    folder = shutil.copytree(three_steps, tmp_path / "checkpoints")
    files = faults.files_of(folder / "00000003")
    assert len(files) > 15 and all(path.stat().st_size for path in files)
    for path in files:
        whole = path.read_bytes()
        (faults.DAMAGE | ends)[damage](path)
        caplog.clear()
        with _opened(folder, keep=3) as checkpoints:
            assert checkpoints.newest_good() == 2, path
        name = str(path.relative_to(folder / "00000003"))
        assert name in caplog.text or path.name == DIGESTS
        path.write_bytes(whole)
    with _opened(folder, keep=3) as checkpoints:
        caplog.clear()
        assert checkpoints.newest_good() == 3 and caplog.messages == []


@pytest.mark.fault(
    "damage: several of the newest steps are damaged", "each named; the newest good one is used"
)
def test_the_newest_good_one_is_found_behind_several_damaged_ones(three_steps, tmp_path, caplog):
    folder = shutil.copytree(three_steps, tmp_path / "checkpoints")
    for step in ("00000003", "00000002"):
        faults.flip(faults.largest(folder / step / "model"))
    with _opened(folder, keep=3) as checkpoints:
        assert checkpoints.newest_good() == 1
    assert [message.split()[1] for message in caplog.messages] == [
        f"{folder}/0000000{n}" for n in (3, 2)
    ]


@pytest.mark.fault(
    "damage: every step is damaged", "the run stops and says so; nothing is removed or started over"
)
@pytest.mark.parametrize("damage", [faults.flip, faults.cut, faults.empty, pathlib.Path.unlink])
@pytest.mark.parametrize("file", ["model", DIGESTS])
def test_where_all_are_damaged_nothing_starts_over(three_steps, tmp_path, damage, file):
    folder = shutil.copytree(three_steps, tmp_path / "checkpoints")
    for step in folder.iterdir():
        damage(step / DIGESTS if file == DIGESTS else faults.largest(step / file))
    before = _steps(folder)
    with (
        _opened(folder, keep=3) as checkpoints,
        pytest.raises(
            UserError,
            match=f"every checkpoint in {folder} is damaged; restore the folder or start in ano",
        ),
    ):
        checkpoints.newest_good()
    assert _steps(folder) == before
    with pytest.raises(UserError, match="every checkpoint"):
        read_model(folder, _like(_state(3)))


@pytest.mark.fault("kill: between the first save and its digests", "that step does not count; said")
def test_a_first_save_cut_off_before_its_digests_does_not_count(tmp_path, caplog):
    _save(tmp_path, 1)
    (tmp_path / "00000001" / DIGESTS).unlink()
    with _opened(tmp_path) as checkpoints:
        assert checkpoints.newest_good() is None
    assert "its save was cut off" in caplog.text


# --- killed and failing saves ---------------------------------------------------------------------

SAVING = """
import sys, pathlib
import jax, jax.numpy as jnp
from cnn_papers.runs.checkpoint import Checkpoints
from cnn_papers.tasks.classify import Totals
from cnn_papers.training.step import State, zero_totals
zero = jnp.int32(0)
state = State(zero, {"w": jnp.arange(4_000_000.0)}, {}, (), None, zero, zero, zero_totals(Totals))
checkpoints = Checkpoints(pathlib.Path(sys.argv[1]))
checkpoints.save(1, state)
checkpoints.finish()
print("saved", flush=True)
checkpoints.save(2, state._replace(params={"w": jnp.arange(64_000_000.0)}))
print("saving", flush=True)
checkpoints.finish()
print("too late", flush=True)
"""


@pytest.mark.fault(
    "kill: while a large state is saved",
    "the step before is whole and used; the half one is removed",
)
def test_a_process_killed_while_saving_leaves_the_step_before(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", SAVING, tmp_path], stdout=subprocess.PIPE, text=True
    ) as child:
        assert [child.stdout.readline() for _ in range(2)] == ["saved\n", "saving\n"]
        while not list(tmp_path.glob("00000002*")):  # orbax makes the folder in the background
            assert child.poll() is None
        faults.kill(child)
        assert child.stdout.read() == ""
    halves = [name for name in _steps(tmp_path) if name != "00000001"]
    assert halves == ["00000002.orbax-checkpoint-tmp"]
    zero = jnp.int32(0)
    like = _like(
        State(zero, {"w": jnp.zeros(4_000_000)}, {}, (), None, zero, zero, zero_totals(Totals))
    )
    assert read_model(tmp_path, like)[0] == 1
    assert _steps(tmp_path) == ["00000001", *halves]  # a reader touches nothing
    with _opened(tmp_path) as checkpoints:
        assert checkpoints.newest_good() == 1
        np.testing.assert_array_equal(
            checkpoints.restore(1, like).params["w"], np.arange(4e6, dtype=np.float32)
        )
        checkpoints.save(2, jax.tree.map(jnp.zeros_like, like))
    assert _steps(tmp_path) == ["00000001", "00000002"]


FILLING = """
import sys, pathlib
import jax.numpy as jnp
from cnn_papers.errors import UserError
from cnn_papers.runs.checkpoint import Checkpoints
from cnn_papers.tasks.classify import Totals
from cnn_papers.training.step import State, zero_totals
zero = jnp.int32(0)
checkpoints = Checkpoints(pathlib.Path(sys.argv[1]))
try:
    for step, size in ((1, 1_000), (2, 1_000_000), (3, 1_000)):
        params = {"w": jnp.arange(float(size))}
        checkpoints.save(step, State(zero, params, {}, (), None, zero, zero, zero_totals(Totals)))
except UserError as error:
    print(step, error)
finally:
    checkpoints.close()
"""


@pytest.mark.fault(
    "full disk: while saving", "one line with path, bytes free and last good step; that step stays"
)
def test_a_full_disk_is_one_line_and_the_step_before_stays(tmp_path):
    """In a process of its own: orbax's threads would disturb other tests after a failed write."""
    folder = tmp_path / "small"
    with faults.disk(folder, "size=2m"):
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
            state = State(
                zero, {"w": jnp.arange(1000.0)}, {}, (), None, zero, zero, zero_totals(Totals)
            )
            _assert_equal(checkpoints.restore(1, _like(state)), state)
            checkpoints.save(2, state)
            checkpoints.finish()
            assert checkpoints.newest_good() == 2


@pytest.mark.fault(
    "beside: the clock is set right by years in the midst of a save", "the save ends well"
)
def test_a_clock_that_jumps_while_saving_does_not_end_the_save(tmp_path, monkeypatch):
    real, long = time.time, jnp.arange(32_000_000.0)
    # Two items, for which orbax waits in turn.
    large = _state(1)._replace(params={"w": long}, opt_state={"v": long})
    with _opened(tmp_path) as checkpoints:
        for step, ahead in ((1, 3e8), (2, -3e8)):
            checkpoints.save(step, large)
            written = f"*{step}.orbax-checkpoint-tmp/*/*/d/*"
            while not list(tmp_path.glob(written)):
                assert checkpoints._thread.is_alive()
            monkeypatch.setattr(time, "time", lambda ahead=ahead: real() + ahead)
            checkpoints.finish()
            monkeypatch.undo()
        assert checkpoints.newest_good() == 2


@pytest.mark.fault(
    "full disk: found late, by the background thread", "raised at the next save or at the end"
)
@pytest.mark.parametrize("fails", ["save", "wait_until_finished"])
def test_a_failed_save_is_raised_at_once_or_at_the_next(tmp_path, monkeypatch, fails):
    def fail(*args, **kwargs):
        raise OSError(28, "No space left on device")

    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, _state(1))
    checkpoints.finish()
    with monkeypatch.context() as patch:
        patch.setattr(checkpoints._manager, fails, fail)
        with pytest.raises(
            UserError, match=r"last good step 1: \[Errno 28\] No space left on device"
        ):
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


# --- made to harm ---------------------------------------------------------------------------------


def _resigned(step: pathlib.Path) -> None:
    """Makes the digests fit, as whoever hands a checkpoint on can."""
    (step / DIGESTS).write_text(json.dumps(checkpoint._digests(step)))


def _array(step: pathlib.Path) -> dict:
    """The place of one array as TensorStore names it."""
    base = {"driver": "ocdbt", "base": f"file://{step}/model/", "path": "params.conv1.bias/"}
    return {"driver": "zarr", "kvstore": base}


def _huge_shape(step: pathlib.Path) -> None:
    tensorstore.open(_array(step), open=True).result().resize(exclusive_max=[10**12]).result()


def _huge_chunks(step: pathlib.Path) -> None:
    store = tensorstore.KvStore.open(_array(step)["kvstore"]).result()
    metadata = json.loads(store.read(".zarray").result().value)
    store.write(".zarray", json.dumps(metadata | {"chunks": [10**12]}).encode()).result()


def _restore_newest(folder: pathlib.Path, state: State) -> State:
    with _opened(folder, keep=3) as checkpoints:
        return checkpoints.restore(checkpoints.newest_good(), state)


RESTORING = """
import pathlib, sys
from test_checkpoint import _like, _restore_newest, _state
from cnn_papers.errors import UserError
for folder in sys.argv[1:]:
    try:
        _restore_newest(pathlib.Path(folder), _like(_state(3)))
        print("restored")
    except UserError as error:
        print(error)
"""


def _said_of(*folders: pathlib.Path, path: str = "") -> list[str]:
    """Restores each of the folders and returns the lines about them.

    In a process of its own, since orbax's threads do not end after an error.
    """
    tests = pathlib.Path(__file__).parents[1]
    environment = {**os.environ, "PYTHONPATH": f"{tests}:{tests / 'runs'}:{tests.parent}:{path}"}
    command = [sys.executable, "-c", RESTORING, *folders]
    child = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert child.returncode == 0, child.stderr
    assert child.stdout.count("\n") == len(folders), child.stdout
    return child.stdout.splitlines()


@pytest.mark.fault(
    "hostile: a checkpoint that declares terabytes, its digests right",
    "refused before they are taken",
)
def test_a_checkpoint_that_declares_terabytes_is_refused(three_steps, tmp_path):
    shape, chunks = (shutil.copytree(three_steps, tmp_path / name) for name in ("shape", "chunks"))
    for folder, harm in ((shape, _huge_shape), (chunks, _huge_chunks)):
        harm(folder / "00000003")
        _resigned(folder / "00000003")
    of_shape, of_chunks = _said_of(shape, chunks)
    assert of_shape.endswith(
        "of another network than the config's "
        "(params/conv1/bias: (1000000000000,) there, (24,) now)"
    )
    assert (
        of_chunks.startswith(f"checkpoint {chunks}/00000003 cannot be restored: ")
        and "4000000000000" in of_chunks
    )


@pytest.mark.fault(
    "hostile: pickles in place of a checkpoint's files, its digests right", "nothing in them runs"
)
def test_nothing_in_a_checkpoint_is_unpickled(three_steps, tmp_path):
    names = [
        str(path.relative_to(three_steps)) for path in faults.files_of(three_steps / "00000003")
    ]
    folders = [shutil.copytree(three_steps, tmp_path / f"run{i}") for i, _ in enumerate(names)]
    for folder, name in zip(folders, names, strict=True):
        faults.write_pickle(folder / name, tmp_path / "touched")
        _resigned(folder / "00000003")
    said = dict(zip(names, _said_of(*folders), strict=True))
    assert "cannot be restored" in said["00000003/model/_METADATA"], said
    assert "cannot be restored" in said["00000003/model/manifest.ocdbt"], said
    assert not (tmp_path / "touched").exists()


@pytest.mark.fault(
    "hostile: a checkpoint that names code to read it with", "that code is not even imported"
)
def test_a_checkpoint_cannot_name_code(three_steps, tmp_path):
    folder = shutil.copytree(three_steps, tmp_path / "checkpoints")
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'touched')!r}, 'w')")
    for metadata in (
        folder / "00000003" / "_CHECKPOINT_METADATA",
        folder / "00000003" / "model" / "_METADATA",
    ):
        text = re.sub(r"orbax[\w.]+Handler|jax.Array", "evil.Handler", metadata.read_text())
        assert "evil" in text
        metadata.write_text(text)
    _resigned(folder / "00000003")
    assert len(_said_of(folder, path=str(tmp_path))) == 1
    assert not (tmp_path / "touched").exists()


# --- reading beside a running training ------------------------------------------------------------


def test_a_reader_sees_whole_steps_beside_a_writer(tmp_path):
    with _opened(tmp_path) as writer:
        with pytest.raises(UserError, match=f"there is no checkpoint in {tmp_path} yet"):
            read_model(tmp_path, _like(_state(1)))
        for step in (1, 2, 3):
            writer.save(step, _state(step))
            writer.finish()
            found, variables = read_model(tmp_path, _like(_state(step)))
            assert found == step
            _assert_equal(
                variables, {"params": _state(step).ema, "batch_stats": _state(step).batch_stats}
            )
        (tmp_path / "00000004.orbax-checkpoint-tmp").mkdir()
        assert read_model(tmp_path, _like(_state(3)))[0] == 3
    assert _steps(tmp_path) == ["00000002", "00000003", "00000004.orbax-checkpoint-tmp"]


def test_a_reader_makes_no_folder(tmp_path):
    with pytest.raises(UserError, match=f"there is no checkpoint in {tmp_path}/best"):
        read_model(tmp_path / "best", _like(_state(1)))
    assert _steps(tmp_path) == []
