"""Real runs over several processes of this machine: the same batches and losses as with one."""

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest
from support import faults, gathered_batches

from cnn_papers.runs.rows import METRICS, read_rows

ROOT = pathlib.Path(__file__).parents[2]
STEPS, HEARTBEAT_S = 30, 10
TINY = [  # evaluations after steps 10, 20 and 30
    "--config=configs/resnet.py",
    "--config.model.blocks=(1,)",
    "--config.model.widths=(8,)",
    "--config.batch_size=32",
    f"--config.total_steps={STEPS}",
    "--config.log_every_steps=2",
    "--config.eval.every_epochs=0.23",
    "--config.checkpoint.every_steps=4",
    "--config.optim.lr=0.01",  # a larger one makes much of the order in which devices add
]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def environment(home: pathlib.Path, devices: int) -> dict[str, str]:
    return {
        **os.environ,
        "TFDS_DATA_DIR": str(home / "tfds"),
        "XDG_CACHE_HOME": str(home / "cache"),
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "JAX_PLATFORMS": "cpu",
        "JAX_NUM_CPU_DEVICES": str(devices),
    }


class Run:
    """The processes of one run on this machine; their outputs are the files `logs`."""

    def __init__(
        self,
        home: pathlib.Path,
        workdir: pathlib.Path,
        *flags: str,
        processes: int,
        devices: int,
        last: tuple[str, ...] = (),  # more flags of the last process
    ):
        self.logs = [home / f"{workdir.name}{i}.txt" for i in range(processes)]
        self.children = []
        meeting = [f"--coordinator=127.0.0.1:{free_port()}", f"--num_processes={processes}"]
        meeting += [f"--heartbeat_timeout_s={HEARTBEAT_S}", "--join_timeout_s=60"]
        for i, log in enumerate(self.logs):
            command = [sys.executable, "-m", "cnn_papers.main", f"--workdir={workdir}"]
            command += [*(() if flags and flags[0].startswith("--config=") else TINY), *flags]
            command += [*meeting, f"--process_id={i}"] if processes > 1 else []
            command += last if i == processes - 1 else ()
            with log.open("w") as file:
                self.children.append(
                    subprocess.Popen(
                        command, cwd=ROOT, env=environment(home, devices), stdout=file, stderr=file
                    )
                )

    def wait_for(self, text: str) -> None:
        """Waits until process 0 prints `text`."""
        while text not in self.output(0):
            assert self.children[0].poll() is None, self.output(0)
            time.sleep(0.05)

    def wait(self) -> list[int]:
        """Returns the exit codes."""
        return [child.wait() for child in self.children]

    def output(self, i: int) -> str:
        return self.logs[i].read_text()


@contextlib.contextmanager
def started(*arguments, **keywords):
    """Starts a `Run` whose processes are killed afterwards."""
    run = Run(*arguments, **keywords)
    try:
        yield run
    finally:
        for child in run.children:
            child.kill()
            child.wait()


def finished(*arguments, **keywords) -> str:
    """Runs to the end, and returns the output of process 0."""
    with started(*arguments, **keywords) as run:
        codes = run.wait()
        outputs = [run.output(i) for i in range(len(codes))]
    assert set(codes) == {0}, outputs
    assert all(
        "error" not in text.replace("top-1 error", "").replace("top-5 error", "")
        for text in outputs
    ), outputs
    assert [text for text in outputs[1:] if text.replace("\n", "")] == []  # only process 0 prints
    return outputs[0]


def assert_same_losses(ours: pathlib.Path, alone: pathlib.Path) -> None:
    """Fails unless rows are of the same steps, with losses equal up to the order of sums."""
    a, b = read_rows(ours / METRICS), read_rows(alone / METRICS)
    assert [(row["step"], sorted(row)) for row in a] == [(row["step"], sorted(row)) for row in b]
    assert len(a) == STEPS // 2 + 3
    for our_row, their_row in zip(a, b, strict=True):
        for name in our_row:
            if name.endswith("loss"):
                assert our_row[name] == pytest.approx(their_row[name], rel=1e-5), (
                    our_row,
                    their_row,
                )


def saved(workdir: pathlib.Path) -> list[int]:
    return sorted(
        int(path.name) for path in (workdir / "checkpoints").iterdir() if path.name.isdigit()
    )


@pytest.fixture(scope="module")
def alone(home) -> pathlib.Path:
    """The run of one process with four devices."""
    out = finished(home, home / "alone", processes=1, devices=4)
    assert "4 × cpu, " in out
    return home / "alone"


# --- the same run ---------------------------------------------------------------------------------


@pytest.mark.fault(
    "signal: to one of two processes",
    "both save after the same step, exit code 143; going on gives the same losses",
)
@pytest.mark.process
def test_two_processes_stopped_and_taken_up_again_train_as_one(home, alone, tmp_path):
    with started(home, tmp_path, processes=2, devices=2) as run:
        run.wait_for("step 10/30")
        run.children[1].send_signal(signal.SIGTERM)  # to one that does not write
        assert run.wait() == [143, 143], (run.output(0), run.output(1))
        assert "4 × cpu of 2 processes, " in run.output(0)
        assert "SIGTERM at another process: saving, then stopping\n" in run.output(0)
    *_, before, stopped = saved(tmp_path)
    assert 10 <= stopped < STEPS
    assert max(row["step"] for row in read_rows(tmp_path / METRICS)) <= stopped
    model = tmp_path / "checkpoints" / f"{stopped:08d}" / "model"
    faults.flip(next(model.glob("*/d/*")))  # the file of an array
    again = finished(home, tmp_path, processes=2, devices=2)
    assert f"WARNING: checkpoint {tmp_path}/checkpoints/{stopped:08d} refused: file model/" in again
    assert f"going on from step {before} of {STEPS}\n" in again
    assert_same_losses(tmp_path, alone)
    assert saved(tmp_path)[-1] == STEPS
    assert (tmp_path / "curves.png").is_file() and len(
        list((tmp_path / "tensorboard").iterdir())
    ) == 2
    assert f"this run is finished: {STEPS} steps" in finished(
        home, tmp_path, processes=1, devices=4
    )


@pytest.mark.slow
@pytest.mark.parametrize("processes, devices", [(4, 1), (2, 1)])
def test_any_processes_and_devices_train_as_one(home, alone, tmp_path, processes, devices):
    out = finished(home, tmp_path, processes=processes, devices=devices)
    assert f"{processes * devices} × cpu of {processes} processes, " in out
    assert_same_losses(tmp_path, alone)


@pytest.mark.fault(
    "devices: from four processes to two", "the same batches and losses; the devices are in the log"
)
@pytest.mark.slow
def test_a_run_goes_on_with_other_processes(home, alone, tmp_path):
    with started(home, tmp_path, processes=4, devices=1) as run:
        run.wait_for("step 10/30")
        run.children[0].send_signal(signal.SIGUSR1)
        assert run.wait() == [138] * 4, run.output(0)
    assert "going on from step" in finished(home, tmp_path, processes=2, devices=2)
    assert_same_losses(tmp_path, alone)


@pytest.mark.fault(
    "signal: to one of two processes that hold half the parameters each",
    "both save, exit code 143; going on gives the same losses",
)
@pytest.mark.slow
def test_sharded_parameters_over_processes_train_as_one(home, alone, tmp_path):
    with started(home, tmp_path, "--config.mesh.shard_params=True", processes=2, devices=2) as run:
        run.wait_for("step 10/30")
        run.children[0].send_signal(signal.SIGTERM)
        assert run.wait() == [143, 143], (run.output(0), run.output(1))
    finished(home, tmp_path, "--config.mesh.shard_params=True", processes=2, devices=2)
    assert_same_losses(tmp_path, alone)


@pytest.mark.slow
def test_columns_on_two_processes_train_as_on_one(home, tmp_path):
    """AlexNet's halves, each a process of its own, as they were each a card of its own."""
    flags = ["--config=configs/alexnet.py", "--config.model.width=0.1", "--config.mesh.column=2"]
    flags += [
        "--config.total_steps=6",
        "--config.log_every_steps=2",
        "--config.checkpoint.every_steps=3",
    ]
    for name, processes, devices in (("one", 1, 2), ("two", 2, 1)):
        finished(home, tmp_path / name, *flags, processes=processes, devices=devices)
    one, two = (read_rows(tmp_path / name / METRICS) for name in ("one", "two"))
    assert len(one) == len(two) == 4
    for a, b in zip(one, two, strict=True):
        assert [a[name] for name in a if "loss" in name] == pytest.approx(
            [b[name] for name in b if "loss" in name]
        )


# --- the same batches -----------------------------------------------------------------------------

EACH = [
    (2, 2, 2, 2),
    pytest.param(2, 2, 4, 1, marks=pytest.mark.process),
    pytest.param(2, 1, 1, 2, marks=pytest.mark.process),
    pytest.param(4, 1, 4, 1, marks=pytest.mark.slow),
]


@pytest.mark.parametrize("resident", ["never", "always"])
@pytest.mark.parametrize("processes, devices, data, column", EACH)
def test_processes_hold_the_batches_of_one(
    home, tmp_path, resident, processes, devices, data, column
):
    """To the bit, on meshes where processes share the batch, the columns, or both."""
    script, port = pathlib.Path(gathered_batches.__file__), free_port()
    children = []
    for i in range(processes):
        arguments = [
            f"127.0.0.1:{port}",
            processes,
            i,
            tmp_path / "found.npz",
            resident,
            data,
            column,
        ]
        command = [sys.executable, str(script), *map(str, arguments)]
        children.append(subprocess.Popen(command, cwd=ROOT, env=environment(home, devices)))
    assert [child.wait() for child in children] == [0] * processes
    with np.load(tmp_path / "found.npz") as file:
        ours = {name.replace("|", "/"): file[name] for name in file.files}
    theirs = gathered_batches.batches(resident, data, column)
    assert ours.keys() == theirs.keys() and len(theirs) > 12
    for name in theirs.keys() - {"train/read", "eval/read"}:
        np.testing.assert_array_equal(ours[name], theirs[name])
    masks = np.concatenate([ours[f"eval{i}/mask"] for i in range(3)])
    assert masks.sum() == gathered_batches.IMAGES
    # A process reads its share only, unless the batch is not split over processes.
    if resident == "never":
        split = processes if column == 1 else processes if data > 1 else 1
        assert (ours["train/read"] <= -(-theirs["train/read"] // split) + 2).all()


# --- faults ---------------------------------------------------------------------------------------


@pytest.mark.fault(
    "host: kill -9 of either of two processes",
    "the other ends within the heartbeat, not with 0; a restart goes on with the same losses",
)
@pytest.mark.slow
@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_process_ends_all_and_a_restart_goes_on(home, alone, tmp_path, victim):
    with started(home, tmp_path, processes=2, devices=2) as run:
        run.wait_for("step 14/30")
        run.children[victim].kill()
        began = time.monotonic()
        codes = run.wait()
        assert time.monotonic() - began < 2 * HEARTBEAT_S + 10
        assert codes[victim] == -signal.SIGKILL
        code, output = codes[1 - victim], run.output(1 - victim)
        assert code in (1, -signal.SIGABRT), output  # JAX may be the first to notice
        if code == 1:
            assert "error: another process of this run is gone; start it again to go on" in output
    last = saved(tmp_path)[-1]
    assert "going on from step" in finished(home, tmp_path, processes=2, devices=2) and last >= 8
    assert_same_losses(tmp_path, alone)


@pytest.mark.fault(
    "two runs: a folder that the first of several processes cannot take", "all say so, exit code 2"
)
def test_a_mistake_of_one_process_is_said_by_all(home, tmp_path):
    """The mistake is in the folder, which only process 0 locks and writes."""
    (tmp_path / "file").write_text("")
    with started(home, tmp_path / "file", processes=2, devices=1) as run:
        assert run.wait() == [2, 2]
        for i in range(2):
            assert (
                f"error: workdir {tmp_path}/file cannot be written to: File exists" in run.output(i)
            )
            assert "Traceback" not in run.output(i)


@pytest.mark.fault(
    "config: processes of one run with different ones", "one line, exit code 2, nothing made"
)
def test_processes_of_different_configurations_do_not_start(home, tmp_path):
    with started(home, tmp_path / "run", processes=2, devices=1, last=("--config.seed=3",)) as run:
        assert run.wait() == [2, 2]
        for i in range(2):
            assert (
                "error: the processes of this run were started with different configurations\n"
                in run.output(i)
            )
    assert not (tmp_path / "run").exists()


# --- ports ----------------------------------------------------------------------------------------


@pytest.mark.fault(
    "network: a run of several processes on one machine",
    "loopback alone, also where the machine's name is an outer address",
)
def test_nothing_listens_beyond_loopback(home, tmp_path):
    """Also if the machine's name has an address that others can reach, which only root can try."""
    addresses = subprocess.run(["hostname", "-I"], capture_output=True, text=True).stdout.split()
    (tmp_path / "hosts").write_text(
        f"127.0.0.1 localhost\n{(addresses or ['127.0.0.1'])[0]} elsewhere\n"
    )
    rename = f'mount --bind {tmp_path}/hosts /etc/hosts && hostname elsewhere && exec "$@"'
    prefix = ["unshare", "--uts", "--mount", "sh", "-c", rename, "sh"]
    if subprocess.run([*prefix, "true"], capture_output=True).returncode:
        prefix = []
    script, port, seen = pathlib.Path(gathered_batches.__file__), free_port(), [set(), set()]
    arguments = [str(tmp_path / "found.npz"), "always", "2", "1"]
    children = []
    for i in range(2):
        command = [
            *prefix,
            sys.executable,
            str(script),
            f"127.0.0.1:{port}",
            "2",
            str(i),
            *arguments,
        ]
        children.append(subprocess.Popen(command, cwd=ROOT, env=environment(home, 1)))
    while any(child.poll() is None for child in children):
        for child, places in zip(children, seen, strict=True):
            places |= faults.listening(child.pid)
        time.sleep(0.01)
    assert [child.wait() for child in children] == [0, 0]
    mapped = "0000000000000000FFFF00000100007F"  # 127.0.0.1 as IPv6 writes it
    assert "0100007F" in seen[1] and seen[0] <= {"0100007F", mapped} and seen[1] == {"0100007F"}
    assert mapped in seen[0]  # the coordinator
