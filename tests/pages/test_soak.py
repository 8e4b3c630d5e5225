"""A soak: after many minutes of faults a small run ends as an undisturbed one, in flat memory.

CNN_PAPERS_SOAK_MINUTES=3 python -m pytest -n 0 -s -m slow tests/pages/test_soak.py; by default 30
minutes, a third of which the undisturbed run takes.
"""

import collections
import os
import pathlib
import re
import signal
import subprocess
import time

import numpy as np
import pytest
from support import faults
from support.processes import TINY, assert_same_run, start

from cnn_papers.data.tfds import make_digits

MINUTES = float(os.environ.get("CNN_PAPERS_SOAK_MINUTES", "30"))
SEED = 0
STEPS_A_MINUTE = 700
FULL_DISK = "full disk"
FAULTS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGUSR1", FULL_DISK)
# Time for a process to notice a full disk. A signal has 30 s by promise, more on a busy machine.
PATIENCE_S = 120
# The factor and bytes by which memory in the last third of a run may exceed that in the second.
GROWTH = (1.05, 16 * 2**20)
FLAGS = [
    *TINY,
    f"--config.total_steps={round(MINUTES * STEPS_A_MINUTE)}",
    "--config.data.resident=never",  # its threads, queues and decoders too
    "--config.log_every_steps=20",
    "--config.eval.every_epochs=5",
    "--config.checkpoint.every_steps=50",
]


def _memory(child: subprocess.Popen) -> int:
    """The bytes of a process in memory; 0 once it is gone."""
    try:
        status = pathlib.Path(f"/proc/{child.pid}/status").read_text()
    except OSError:
        return 0
    match = re.search(r"VmRSS:\s+(\d+) kB", status)
    return 1024 * int(match[1]) if match else 0


def _watched(child: subprocess.Popen, seconds: float) -> list[int]:
    """Its memory every half second until it ends or the time is over."""
    until, seen = time.monotonic() + seconds, []
    while child.poll() is None and time.monotonic() < until:
        seen.append(_memory(child))
        time.sleep(0.5)
    return seen


def _struck(child: subprocess.Popen, fault: str, disk: pathlib.Path) -> int:
    """Does one of FAULTS to a process and returns its exit code."""
    if fault == FULL_DISK:
        with faults.filled(disk):
            return child.wait(PATIENCE_S)
    child.send_signal(signal.Signals[fault])
    return child.wait(PATIENCE_S)


def _check_exit(fault: str, code: int, said: str) -> None:
    """Exit codes are the documented ones; a traceback comes only from Ctrl-C during imports."""
    number = 0 if fault == FULL_DISK else signal.Signals[fault]
    allowed = {FULL_DISK: {2}, "SIGKILL": {-signal.SIGKILL}}.get(fault, {128 + number, -number})
    assert code in allowed | {0}, (fault, code, said)
    if code != -signal.SIGINT:
        assert "Traceback" not in said, (fault, code, said)
    if fault == FULL_DISK and code:
        assert said.count("error: ") == 1, said


def _assert_flat(memory: list[int]) -> None:
    third = len(memory) // 3
    middle, last = max(memory[third : 2 * third]), max(memory[2 * third :])
    factor, extra = GROWTH
    assert last <= factor * middle + extra, f"from {middle:,} to {last:,} bytes"


@pytest.mark.fault(
    "kill: and other faults drawn at random for half an hour", "as a run never stopped; memory flat"
)
@pytest.mark.fault(
    "full disk: again and again, at random for half an hour", "as a run never stopped, to the bit"
)
@pytest.mark.fault(
    "signal: SIGTERM, SIGINT, SIGUSR1 at random for half an hour",
    "as a run never stopped, to the bit",
)
@pytest.mark.slow
def test_a_run_soaked_in_faults_ends_bit_equal_in_flat_memory(tmp_path):
    home, disk, log = tmp_path / "home", tmp_path / "disk", tmp_path / "log.txt"
    make_digits("digits", str(home / "tfds"))
    golden = start(home, tmp_path / "golden", *FLAGS, log=tmp_path / "golden.txt")
    alone = _watched(golden, float("inf"))
    assert golden.returncode == 0, (tmp_path / "golden.txt").read_text()
    draw, counts, peak = np.random.default_rng(SEED), collections.Counter(), 0
    began = time.monotonic()
    with faults.disk(disk, "size=64m"):
        while True:
            said = log.stat().st_size if log.exists() else 0
            child = start(home, disk / "run", *FLAGS, log=log)
            calm = time.monotonic() - began > 60 * MINUTES
            peak = max([peak, *_watched(child, float("inf") if calm else draw.uniform(1, 25))])
            if child.poll() is not None:
                break
            fault = str(draw.choice(FAULTS))
            code = _struck(child, fault, disk)
            counts[fault] += 1
            _check_exit(fault, code, log.read_text()[said:])
            if code == 0:
                break
        assert child.returncode == 0, log.read_text()[said:]
        assert_same_run(disk / "run", tmp_path / "golden")
    minutes = (time.monotonic() - began) / 60
    memory = f"memory {alone[len(alone) // 2]:,} of one process, at most {peak:,}"
    print(f"\n{dict(counts)} in {minutes:.1f} minutes; {memory}")
    assert sum(counts.values()) >= MINUTES
    _assert_flat(alone)
    assert peak <= GROWTH[0] * max(alone) + GROWTH[1]
