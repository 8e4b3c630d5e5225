"""The place of a process in a multi-host run, and the rendezvous of all: flags, SLURM, mistakes."""

import concurrent.futures
import os
import pathlib
import re
import socket
import subprocess
import sys

import pytest

from cnn_papers.errors import UserError
from cnn_papers.parallel import hosts, rendezvous
from cnn_papers.parallel.hosts import Place

ROOT = pathlib.Path(__file__).parents[2]
SLURM = {
    "SLURM_JOB_ID": "70",
    "SLURM_STEP_ID": "1",
    "SLURM_STEP_NUM_TASKS": "4",
    "SLURM_STEP_NUM_NODES": "2",
    "SLURM_PROCID": "3",
    "SLURM_STEP_NODELIST": "node[001-003,7],other",
}
JAX = {"JAX_COORDINATOR_ADDRESS": "first:99", "JAX_NUM_PROCESSES": "3", "JAX_PROCESS_ID": "2"}


# --- which process this is ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "flags, environment, place",
    [
        (("", None, None), {}, None),
        (("host:1234", 2, 1), {}, Place("host:1234", 2, 1)),
        (("host:1234", 1, 0), {}, None),  # alone after all
        (("", None, None), JAX, Place("first:99", 3, 2)),
        (("", None, 0), JAX, Place("first:99", 3, 0)),  # a flag wins
        (("host:1", 2, 1), {**JAX, **SLURM}, Place("host:1", 2, 1)),
        (("", None, None), SLURM, Place("node001:61511", 4, 3)),
        (("", None, None), {**SLURM, "SLURM_STEP_NODELIST": "a1,b2"}, Place("a1:61511", 4, 3)),
        (("", None, None), {**SLURM, "SLURM_STEP_NODELIST": "n[7,9]"}, Place("n7:61511", 4, 3)),
        (("", None, None), {**SLURM, "SLURM_STEP_NUM_NODES": "1"}, Place("127.0.0.1:61511", 4, 3)),
        (("", None, None), {**SLURM, "SLURM_STEP_NUM_TASKS": "1"}, None),
        # in no step of srun
        (("", None, None), {key: SLURM[key] for key in ("SLURM_JOB_ID", "SLURM_PROCID")}, None),
        (("auto", None, None), {}, Place("auto", 0, 0)),
        (("", None, None), {"TPU_WORKER_HOSTNAMES": "a,b"}, Place("auto", 0, 0)),
        (("", None, None), {"TPU_WORKER_HOSTNAMES": "localhost"}, None),
    ],
)
def test_flags_go_before_the_environment_of_a_launcher(flags, environment, place):
    assert hosts.find_place(*flags, environment) == place


@pytest.mark.parametrize(
    "flags, environment, message",
    [
        (("host:1", None, None), {}, "needs --num_processes and --process_id as well"),
        (("", 2, 0), {}, "needs --coordinator=HOST:PORT as well"),
        (("host:1", 2, 2), {}, "--process_id=2 must be from 0 to 1: there are --num_processes=2"),
        (("host:1", 2, -1), {}, "--process_id=-1 must be from 0 to 1"),
        (("host:1", 0, 0), {}, "--num_processes=0 must be positive"),
        (("host", 2, 0), {}, "--coordinator=host must be HOST:PORT"),
        (("host:99999", 2, 0), {}, "--coordinator=host:99999 must be HOST:PORT"),
        (
            ("", None, None),
            {**JAX, "JAX_PROCESS_ID": "two"},
            "$JAX_PROCESS_ID=two must be a number",
        ),
        (
            ("", None, None),
            {"JAX_PROCESS_ID": "0"},
            "needs --coordinator=HOST:PORT and --num_processes as well",
        ),
        (
            ("", None, None),
            {**SLURM, "SLURM_STEP_NODELIST": ""},
            "$SLURM_STEP_NODELIST is empty: give --coordinator, --num_processes and --process_id",
        ),
    ],
)
def test_half_a_description_is_refused(flags, environment, message):
    with pytest.raises(UserError, match=re.escape(message)):
        hosts.find_place(*flags, environment)


# --- how they meet --------------------------------------------------------------------------------


def meet(calls: list[tuple[int, int]], timeout_s: float = 20) -> list[str]:
    """Returns the result or error of `rendezvous.meet` for each process, a (count, index)."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        coordinator = f"127.0.0.1:{probe.getsockname()[1]}"

    def attempt(call: tuple[int, int]) -> str:
        try:
            bound = rendezvous.meet(coordinator, *call, timeout_s=timeout_s)
            return bound.replace(coordinator, "HERE")
        except UserError as error:
            return "error: " + str(error).replace(coordinator, "HERE")

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        return list(pool.map(attempt, calls))


@pytest.mark.parametrize("count", [2, 3, 8])
def test_all_meet_and_process_0_knows_where_to_listen(count):
    assert meet([(count, i) for i in range(count)]) == ["HERE"] + [""] * (count - 1)
    assert meet([(count, i) for i in reversed(range(count))]) == [""] * (count - 1) + ["HERE"]


@pytest.mark.parametrize(
    "calls, message",
    [
        ([(3, 0), (3, 1), (3, 1)], "two processes were started as number 1 of 3 (--process_id)"),
        (
            [(2, 0), (3, 1)],
            "process 1 was started as one of 3 (--num_processes), process 0 as one of 2",
        ),
    ],
)
def test_processes_that_do_not_agree_all_say_so(calls, message):
    assert meet(calls) == [f"error: {message}"] * len(calls)


@pytest.mark.fault("host: one does not come at the start", "all who came say which, exit code 2")
def test_who_is_missing_is_said_by_all_who_came():
    message = "error: only 2 of 4 processes joined within 1 s; missing: 1, 3"
    assert meet([(4, 0), (4, 2)], timeout_s=1) == [message] * 2


@pytest.mark.fault("host: process 0 does not come", "named")
def test_process_0_that_does_not_come_is_named():
    (message,) = meet([(2, 1)], timeout_s=0.5)
    assert message == (
        "error: process 0 cannot be reached at --coordinator=HERE within 0.5 s: Connection refused"
    )


@pytest.mark.fault("hostile: a stranger at the coordinator's door", "ignored")
def test_strangers_are_ignored():
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        first = pool.submit(rendezvous.meet, f"127.0.0.1:{port}", 2, 0, timeout_s=20)
        for words in (b"GET / HTTP/1.1\r\n\r\n", b'{"process": "x"}\n', b"[1]\n", b"\xff\n", b""):
            while True:
                try:
                    with socket.create_connection(("127.0.0.1", port)) as stranger:
                        stranger.sendall(words)
                    break
                except ConnectionRefusedError:
                    assert not first.done()
        second = pool.submit(rendezvous.meet, f"127.0.0.1:{port}", 2, 1, timeout_s=20)
        assert (first.result(), second.result()) == (f"127.0.0.1:{port}", "")


def test_a_port_in_use_is_said():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(
            UserError,
            match=f"process 0 cannot listen at --coordinator={place}: Address already in use",
        ):
            rendezvous.meet(place, 2, 0, timeout_s=1)


@pytest.mark.parametrize(
    "flags, message",
    [
        (
            ["--coordinator=127.0.0.1:1"],
            "a run over several processes needs --num_processes and --process_id as well",
        ),
        (
            [
                "--coordinator=127.0.0.1:1",
                "--num_processes=2",
                "--process_id=1",
                "--join_timeout_s=1",
            ],
            "process 0 cannot be reached at --coordinator=127.0.0.1:1 within 1 s: "
            "Connection refused",
        ),
        (["--join_timeout_s=0"], "flag --join_timeout_s=0: 0 is not a positive integer"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, flags, message):
    command = [
        sys.executable,
        "-m",
        "cnn_papers.main",
        "--config=configs/resnet.py",
        f"--workdir={tmp_path}/run",
    ]
    env = {**os.environ, "JAX_PLATFORMS": "cpu", "JAX_COMPILATION_CACHE_DIR": ""}
    done = subprocess.run([*command, *flags], cwd=ROOT, env=env, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (2, "", f"error: {message}\n")
    assert not (tmp_path / "run").exists()
