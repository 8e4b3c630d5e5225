"""Measures what saving costs a run: the steps that wait for it, its digests and the lock."""

import pathlib
import statistics
import tempfile
import time
from collections.abc import Callable
from typing import Any

import jax

from cnn_papers.benchmarks import workload
from cnn_papers.benchmarks.workload import Workload
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes

SAVES, LOCKS = 3, 20


def measure(work: Workload, disk: pathlib.Path, every_steps: int) -> dict[str, Any]:
    """Returns the cost of saving the state of `work` to the disk of the folder `disk`.

    It is measured by the code that a run uses, on the whole state: parameters, statistics,
    optimiser, average. The values are medians over SAVES saves, in seconds:

    - step: a step while nothing is saved.
    - blocked: `Checkpoints.save` as the train loop calls it, on a computed state. No step begins
      during this time.
    - step_meanwhile: a step while the save is written in the background, which takes cores and
      memory from it.
    - written: from the call until the digests are on the disk, rounded up to the end of a step.
    - digests: checking those of a saved step, as a resuming run does. The files are read and
      hashed; making the digests does the same, as a part of `written`.
    - lock: taking and releasing the workdir, once a run.

    `blocked_share` is blocked / step: the share of the one step that follows a save. `added_share`
    is (digests + lock) / (every_steps · step), an upper bound: as if hashing stopped the training
    and a run saved only once.

    Raises:
      UserError: packages are missing, or the disk cannot be written to.
    """
    try:
        from cnn_papers.runs import checkpoint, workdir
    except ImportError as error:
        raise UserError(f"--measure=saving needs {error.name}, which is not installed") from error
    try:
        folder = tempfile.TemporaryDirectory(prefix="saving-", dir=disk)
    except OSError as error:
        raise UserError(f"--workdir={disk} cannot be written to: {error.strerror}") from error
    with folder as name:
        root = pathlib.Path(name)
        locks = [_timed(lambda: _lock(workdir, root)) for _ in range(LOCKS)]
        times, size = _saves(work, checkpoint, root)
    times |= {"lock": statistics.median(locks)}
    return {
        "seconds": times,
        "bytes": size,
        "every_steps": every_steps,
        "disk": str(disk.resolve()),
        "blocked_share": times["blocked"] / times["step"],
        "added_share": (times["digests"] + times["lock"]) / (every_steps * times["step"]),
    }


def _saves(work: Workload, checkpoint: Any, root: pathlib.Path) -> tuple[dict[str, float], int]:
    """Returns the medians of `measure`, without the lock, and the bytes of a saved step."""
    step, key = workload.make_step(work), jax.random.key(0)
    state = step.init(key)
    batch = processes.put(workload.synthetic_batch(work), meshes.data_sharding(step.mesh))

    def take() -> None:
        nonlocal state
        state, _ = step.train(state, batch, key)
        jax.block_until_ready(state)

    take()  # compiles
    names = ("step", "blocked", "step_meanwhile", "written", "digests")
    times: dict[str, list[float]] = {name: [] for name in names}
    checkpoints = checkpoint.Checkpoints(root / "checkpoints")
    try:
        for number in range(SAVES + 1):
            times["step"] += [_timed(take) for _ in range(2)]
            began = time.perf_counter()
            times["blocked"].append(_timed(lambda number=number: checkpoints.save(number, state)))
            while checkpoints.is_saving():
                times["step_meanwhile"].append(_timed(take))
            checkpoints.finish()
            times["written"].append(time.perf_counter() - began)
            times["digests"].append(_timed(checkpoints.newest_good))
            if number == 0:  # the first save starts Orbax
                times = {name: [] for name in names}
        saved = root / "checkpoints" / f"{SAVES:08d}"
        size = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())
    finally:
        checkpoints.close()
    return {name: statistics.median(values) for name, values in times.items() if values}, size


def _lock(workdir: Any, root: pathlib.Path) -> None:
    with workdir.hold(root / "run"):
        pass


def _timed(action: Callable[[], Any]) -> float:
    began = time.perf_counter()
    action()
    return time.perf_counter() - began
