"""What saving costs a run: how long a step waits for it, what runs on meanwhile, what digests and
the lock add.
"""

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


def results(work: Workload, disk: pathlib.Path, every_steps: int) -> dict[str, Any]:
    """Times, in seconds, of saving the state of `work` to the disk of the folder `disk`, by a run's
    own code.

    The state is the real one: parameters, statistics, optimiser, average. Medians over SAVES saves.

    - step: a step while nothing is saved.
    - blocked: `Checkpoints.save` as the train loop calls it, the state being computed: the time
      that no step begins.
    - step_meanwhile: a step while the save is written in the background, which takes cores and
      memory from it.
    - written: from the call until the digests lie on the disk, to the end of a step.
    - digests: checking those of a saved step, as a start that resumes does: its files are read and
      hashed, which is also how they are made, as a part of `written`.
    - lock: taking and releasing the workdir, once a run.

    Shares: `blocked_share` is blocked / step, of the one step before which a save comes;
    `added_share` is (digests + lock) / (every_steps · step): as if the hashing stopped the training
    and a run saved once, so an upper bound.

    Raises:
      UserError: packages that are missing, a disk that cannot be written to.
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
    """Medians of `results` and the bytes of a saved step."""
    step, key = workload.make_step(work), jax.random.key(0)
    state = step.init(key)
    batch = processes.put(workload.synthetic_batch(work), meshes.data_sharding(step.mesh))

    def take() -> None:
        nonlocal state
        state, _ = step.train(state, batch, key)
        jax.block_until_ready(state)

    take()  # compiles
    times: dict[str, list[float]] = {
        "step": [],
        "blocked": [],
        "step_meanwhile": [],
        "written": [],
        "digests": [],
    }
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
            if number == 0:  # orbax's own start
                times = {name: [] for name in times}
        saved = root / "checkpoints" / f"{SAVES:08d}"
        size = sum(path.stat().st_size for path in saved.rglob("*") if path.is_file())
    finally:
        checkpoints.close()
    return {name: statistics.median(values) for name, values in times.items() if values}, size


def _lock(workdir: Any, root: pathlib.Path) -> None:
    with workdir.hold(root / "run"):
        pass


def _timed(do: Callable[[], Any]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began
