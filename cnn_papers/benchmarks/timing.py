"""Measures speeds in turns, time and memory of the first step of a process, and peak memory."""

import functools
import itertools
import os
import pathlib
import platform
import re
import resource
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from cnn_papers.benchmarks import workload
from cnn_papers.benchmarks.workload import Workload
from cnn_papers.errors import UserError
from cnn_papers.parallel import processes
from cnn_papers.runs import compile_cache, host_memory

WINDOWS = 5
Contender = Callable[[int], None]  # works through a number of batches, returns when they are done
FIRST_STEP = """
import sys
from cnn_papers.benchmarks import timing
timing.take_first_step(sys.argv[1])
"""


class Speed(NamedTuple):
    """Images a second: the median of the windows, and each window."""

    images_per_second: float
    windows: list[float]


def matmul_rate(dtype: str) -> float:
    """Returns the operations a second of the product of two matrices of noise on one device.

    They are large enough to fill it; it is the median of WINDOWS.
    """
    side = 1024 if jax.default_backend() == "cpu" else 8192
    products = 1 if jax.default_backend() == "cpu" else 20
    x = jax.random.normal(jax.random.key(0), (side, side), dtype)
    multiply = jax.jit(jnp.matmul)

    def run(batches: int) -> None:
        for _ in range(batches):
            product = multiply(x, x)
        jax.block_until_ready(product)

    run(2)  # compiles
    rates = []
    for _ in range(WINDOWS):
        began = time.perf_counter()
        run(products)
        rates.append(products * 2 * side**3 / (time.perf_counter() - began))
    return statistics.median(rates)


class Memory(NamedTuple):
    """A number of bytes, and whose they are."""

    bytes: int
    of: str


def measure(
    contenders: dict[str, Contender], batch_size: int, seconds: float, *, cpu_time: bool = False
) -> dict[str, Speed]:
    """Returns the speed of every contender, each measured for about `seconds`.

    The contenders run in turns, a window each, so that all see the same machine. With `cpu_time`
    the seconds are those of this process on all cores, so that other processes count little.

    Raises:
      UserError: `cpu_time` where the CPU does not compute.
    """
    if cpu_time and jax.default_backend() != "cpu":
        raise UserError(f"--cpu_time: JAX runs on {jax.default_backend()}, use the wall clock")
    now = time.process_time if cpu_time else time.perf_counter

    def timed(run: Contender, batches: int) -> float:
        began = now()
        run(batches)
        return now() - began

    batches = {}  # of a window
    for name, run in contenders.items():
        run(2)  # compiles, fills caches
        count = round(2 * seconds / WINDOWS / timed(run, 2))
        batches[name] = processes.broadcast(functools.partial(max, 1, count))
    windows: dict[str, list[float]] = {name: [] for name in contenders}
    for _, (name, run) in itertools.product(range(WINDOWS), contenders.items()):
        windows[name].append(batches[name] * batch_size / timed(run, batches[name]))
    return {name: Speed(statistics.median(speeds), speeds) for name, speeds in windows.items()}


def ratio(speed: Speed, other: Speed) -> dict[str, Any]:
    """Returns the median `ratio` of windows side by side, and the smallest and largest `ratios`."""
    ratios = [ours / theirs for ours, theirs in zip(speed.windows, other.windows, strict=True)]
    return {"ratio": statistics.median(ratios), "ratios": [min(ratios), max(ratios)]}


def peak_memory() -> Memory:
    """Returns the peak memory of the fullest device so far.

    Where the backend does not count it, it returns that of this process.
    """
    stats = [device.memory_stats() or {} for device in jax.local_devices()]
    if all("peak_bytes_in_use" in stat for stat in stats):
        return Memory(max(stat["peak_bytes_in_use"] for stat in stats), "of the fullest device")
    return Memory(process_peak(), "of the whole process, compiling included")


def process_peak() -> int:
    """Returns the peak memory of this process in bytes.

    `getrusage` would count, on Linux, what the process that started this one held at that moment.
    """
    status = pathlib.Path("/proc/self/status")
    if status.exists() and (match := re.search(r"VmHWM:\s*(\d+) kB", status.read_text())):
        return int(match[1]) * 1024
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def cpu_threads() -> int:
    """Returns the number of CPU cores that this process may use, as XLA counts them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def cpu_name() -> str:
    """Returns the model of the CPU, as the system tells it."""
    path = pathlib.Path("/proc/cpuinfo")
    if path.exists() and (match := re.search(r"model name\s*: (.+)", path.read_text())):
        return match[1]
    return platform.processor() or platform.machine()


def in_a_process(code: str, *arguments: str, **environment: str) -> str:
    """Returns what Python code prints in a process of its own.

    Raises:
      UserError: it failed; the message is its last line, or the signal that ended it.
    """
    command = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | environment)
    if done.returncode < 0:
        raise UserError(f"its process was ended by {signal.Signals(-done.returncode).name}")
    if done.returncode:
        raise UserError((done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1])
    return done.stdout


class FirstStep(NamedTuple):
    """Seconds from the start of a process to the end of its first step, and its peak memory."""

    seconds: float
    peak_bytes: int


def first_step(work: Workload) -> dict[str, FirstStep]:
    """Returns time and memory of fresh processes that take one step.

    The first has an empty compilation cache ("cold"), the second what that left ("warm"): the
    memory of the second is that of running, of the first that of compiling if it is larger.
    """
    steps = {}
    with tempfile.TemporaryDirectory() as cache:
        for name in ("cold", "warm"):
            began = time.time()
            try:
                output = in_a_process(FIRST_STEP, work.as_text(), JAX_COMPILATION_CACHE_DIR=cache)
            except UserError as error:
                raise UserError(f"the process that takes one step failed: {error}") from error
            ended, peak_bytes = output.split()[-2:]
            steps[name] = FirstStep(float(ended) - began, int(peak_bytes))
    return steps


def take_first_step(text: str) -> None:
    """Takes one step of the workload in `text`.

    Prints when it ended, in seconds since 1970, and the peak memory of this process in bytes.
    """
    host_memory.keep_freed()
    compile_cache.enable()
    workload.make_trainer(workload.from_text(text))(1)
    print(time.time(), process_peak())
