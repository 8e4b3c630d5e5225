"""Several runs of a sweep on one machine: their parts of it, signals, and the time left."""

import errno
import os
import shutil
import signal
import subprocess
import time

import pytest

from cnn_papers.claims import plan
from cnn_papers.claims.records import Record
from cnn_papers.errors import UserError
from cnn_papers.sweeps import local, progress
from cnn_papers.sweeps.process import Place, Running, start


@pytest.mark.parametrize(
    "cores, gpus, jobs, expected",
    [
        ([0, 1], "", 1, [((), {})]),
        ([0, 1], "", 2, [((0,), {}), ((1,), {})]),
        ([2, 3, 5, 7, 8], "", 2, [((2, 3), {}), ((5, 7, 8), {})]),
        (
            [0, 1],
            "4,6",
            2,
            [((0,), {"CUDA_VISIBLE_DEVICES": "4"}), ((1,), {"CUDA_VISIBLE_DEVICES": "6"})],
        ),
        (
            [0, 1],
            "3",
            2,
            [
                ((core,), {"CUDA_VISIBLE_DEVICES": "3", "XLA_PYTHON_CLIENT_MEM_FRACTION": "0.450"})
                for core in (0, 1)
            ],
        ),
    ],
)
def test_cores_and_gpus_are_shared_out(cores, gpus, jobs, expected, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(cores))
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    monkeypatch.setenv("JAX_PLATFORMS", "" if gpus else "cpu")
    assert [(place.cores, dict(place.environment)) for place in local.places(jobs)] == expected


def test_the_users_settings_of_gpus_hold(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setenv("JAX_PLATFORMS", "")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    monkeypatch.setenv("XLA_PYTHON_CLIENT_MEM_FRACTION", "0.8")
    assert [
        dict(place.environment)["XLA_PYTHON_CLIENT_MEM_FRACTION"] for place in local.places(2)
    ] == ["0.400"] * 2
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")  # hidden
    monkeypatch.setattr(shutil, "which", lambda name: pytest.fail("asked for GPUs that are hidden"))
    assert [place.environment for place in local.places(2)] == [(), ()]


@pytest.mark.parametrize(
    "jobs, message",
    [
        (3, "--jobs=3 must be from 1 to 2, the number of CPU cores"),
        (2, "3 GPUs do not divide evenly over 2 runs"),
    ],
)
def test_what_does_not_divide_is_refused(jobs, message, monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1,2")
    monkeypatch.setenv("JAX_PLATFORMS", "")
    with pytest.raises(UserError, match=message):
        local.places(jobs)


class Pool:
    """`run_all` over stand-ins of runs: one-line programs of bash instead of a training each."""

    def __init__(self, grace_s: float = 25.0, **programs: str) -> None:
        self.grace_s, self.programs, self.codes, self.seen = grace_s, programs, {}, []

    def begin(self, job: plan.Job, place: Place) -> Running:
        self.seen.append((job.id, place.cores))
        process = subprocess.Popen(["bash", "-c", self.programs[job.id]], process_group=0)
        return Running(job, place, process, Record(), time.monotonic())

    def run(self, at_once: int, tick=lambda running, waiting: None) -> int:
        jobs = [plan.Job(name, "", ()) for name in self.programs]
        places = [Place((core,)) for core in range(at_once)]
        return local.run_all(jobs, places, self.begin, self.ended, tick, self.grace_s)

    def ended(self, run: Running, running, waiting) -> None:
        self.codes[run.job.id] = run.process.returncode


def test_each_place_runs_one_at_a_time():
    pool = Pool(a="sleep 0.3", b="exit 3", c="exit 1", d="true")
    assert pool.run(2) == 0
    assert pool.codes == {"a": 0, "b": 3, "c": 1, "d": 0}
    assert pool.seen == [("a", (0,)), ("b", (1,)), ("c", (1,)), ("d", (1,))]


def test_a_run_waits_for_the_one_that_it_starts_from():
    """The third waits while the fourth goes first; the last never may begin."""
    pool = Pool(a="sleep 0.3", b="sleep 0.5", c="exit 1", d="true", e="true")
    starts = {"c": "a", "e": "c"}

    def may_begin(job: plan.Job) -> bool:
        return job.id not in starts or pool.codes.get(starts[job.id]) == 0

    jobs = [plan.Job(name, "", ()) for name in pool.programs]
    places = [Place((core,)) for core in range(3)]
    tick = lambda running, waiting: None  # noqa: E731
    assert local.run_all(jobs, places, pool.begin, pool.ended, tick, 9.0, may_begin) == 0
    assert [name for name, _ in pool.seen] == ["a", "b", "d", "c"]
    assert pool.codes == {"a": 0, "b": 0, "c": 1, "d": 0}


WAITS = (
    "trap 'echo {name} >> {log}; exit 143' TERM USR1; touch {log}.{name}; "
    "while true; do sleep 0.02; done"
)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_reaches_each_run_once_and_starts_no_other(number, tmp_path, capfd):
    log = tmp_path / "log"
    pool = Pool(**{name: WAITS.format(name=name, log=log) for name in "ab"}, c="true")
    sent = []

    def tick(running, waiting):
        if not sent and all((tmp_path / f"log.{name}").exists() for name in "ab"):
            sent.append(number)
            for _ in range(3):  # launchers repeat themselves
                signal.raise_signal(number)

    before = signal.getsignal(number)
    assert pool.run(2, tick) == number
    assert signal.getsignal(number) == before
    assert sorted(log.read_text().split()) == ["a", "b"] and pool.codes == {"a": 143, "b": 143}
    assert capfd.readouterr().out == f"\n{number.name}: runs under way save and stop\n"


@pytest.mark.parametrize("second_ctrl_c", [False, True])
def test_what_does_not_stop_is_killed(second_ctrl_c, tmp_path, monkeypatch):
    monkeypatch.setattr(local, "SECOND_THOUGHT_S", 0.2)
    grace_s = 1000.0 if second_ctrl_c else 0.5
    pool = Pool(grace_s, a=f"trap '' TERM; touch {tmp_path}/up; while true; do sleep 0.02; done")
    sent = []

    def tick(running, waiting):
        now = time.monotonic()
        if (tmp_path / "up").exists() and (not sent or (second_ctrl_c and now > sent[-1] + 0.3)):
            sent.append(now)
            signal.raise_signal(signal.SIGINT)

    assert pool.run(1, tick) == signal.SIGINT
    assert pool.codes == {"a": -signal.SIGKILL} and len(sent) >= 1 + second_ctrl_c


def test_a_full_disk_is_one_line_and_starts_nothing(tmp_path, monkeypatch):
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(
        UserError, match=f"runs {tmp_path} cannot be written to: No space left on device; repeat"
    ):
        start(tmp_path, plan.make_job("configs/lenet.py", {"seed": 0}), "", "", Place())


def test_an_error_leaves_no_run_behind(tmp_path):
    pool = Pool(a=WAITS.format(name="a", log=tmp_path / "log"))
    process = []

    def tick(running, waiting):
        process.append(running[0].process)
        if (tmp_path / "log.a").exists():
            raise OSError("the disk is full")

    with pytest.raises(OSError, match="full"):
        pool.run(1, tick)
    assert process[0].wait(timeout=20) == 143


def test_the_time_left_goes_by_what_the_recipe_took(tmp_path, capsys):
    jobs = [
        plan.make_job(f"configs/{name}.py", {"seed": seed})
        for name in ("a", "b")
        for seed in (0, 1, 2)
    ]
    records = {job.id: Record() for job in jobs}
    shown = progress.Progress(tmp_path, records, {job.id: job.config for job in jobs}, 2)
    shown.ended(jobs[0], Record("done", 0, seconds=100.0), [], jobs[1:])
    shown.ended(
        jobs[3], Record("done", 0, seconds=7200.0), [], [jobs[1], jobs[2], jobs[4], jobs[5]]
    )
    shown.ended(jobs[1], Record("diverged", 3, seconds=60.4), [], [])
    assert capsys.readouterr().out.splitlines() == [
        f"[1/6] {jobs[0].id} done after 2 min; about 4 min left",
        f"[2/6] {jobs[3].id} done after 2.0 h; about 2.0 h left",
        f"[3/6] {jobs[1].id} diverged after 60 s",
    ]
