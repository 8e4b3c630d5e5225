"""A run's folder: one process at a time, one configuration for good."""

import contextlib
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import re
import shutil
import socket
import sys
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
from ml_collections import ConfigDict

from cnn_papers import files
from cnn_papers.errors import UserError
from cnn_papers.files import LOCK, locked
from cnn_papers.parallel import processes

RUN = "run.json"
SEEN_WITHIN_S = 30.0  # by all hosts
# What may differ when a run is taken up again: where things lie, how long and how loudly it runs,
# its final test.
FREE_KEYS = (
    *(
        "checkpoint",
        "data.data_dir",
        "data.resident",
        "eval.mirror",
        "eval.precise_bn",
        "eval.protocol",
    ),
    *("log_every_steps", "mesh", "total_epochs", "total_steps"),
)


class SavedRun(NamedTuple):
    """A run as its `run.json` records it; values that older versions did not record are empty.

    Attributes:
      config: a locked ConfigDict.
      class_names: of the training split, by label.
      train_image, eval_image: (h, w, c) of the images of training and of evaluation.
      total_steps: length of the run.
      machine: processor and accelerators, from `describe_machine`.
      versions: of Python and packages, from `versions`.
    """

    config: Any
    class_names: tuple[str, ...]
    train_image: tuple[int, ...]
    eval_image: tuple[int, ...]
    total_steps: int
    machine: str
    versions: dict[str, str]


@contextlib.contextmanager
def hold(workdir: pathlib.Path) -> Iterator[None]:
    """Holds `workdir` for the run, of all its processes; folders made for a run that never came
    about go again.

    Raises:
      UserError: another run holds it, it cannot be written to, or not every process sees the same
      folder.
    """
    with contextlib.ExitStack() as stack:
        processes.broadcast(lambda: stack.enter_context(_hold_here(workdir)))
        owner = processes.broadcast((workdir / LOCK).read_text)
        processes.raise_on_all(lambda: _check_shared(workdir, owner))
        yield


@contextlib.contextmanager
def _hold_here(workdir: pathlib.Path) -> Iterator[None]:
    """Holds `workdir` (made if missing) for this process, and removes what it made if it then holds
    nothing.
    """
    new = [path for path in (workdir, *workdir.parents) if not path.exists()]
    with locked(workdir):
        try:
            yield
        finally:
            if new and [entry.name for entry in workdir.iterdir()] == [LOCK]:
                (workdir / LOCK).unlink()
                with contextlib.suppress(OSError):  # another run lives beside it
                    for path in new:
                        path.rmdir()


def _check_shared(workdir: pathlib.Path, owner: str) -> None:
    """Raises UserError unless the lock that process 0 wrote is seen here; network file systems take
    their time.
    """
    deadline = time.monotonic() + SEEN_WITHIN_S
    while not (workdir / LOCK).is_file() or (workdir / LOCK).read_text() != owner:
        if time.monotonic() > deadline:
            raise UserError(
                f"workdir {workdir} is not the same folder on {socket.gethostname()} as for process 0: "
                "give one that all hosts share with --workdir"
            )
        time.sleep(0.1)


def write_run(workdir: pathlib.Path, config: Any, facts: dict[str, Any]) -> None:
    """Writes `run.json`: the configuration, the versions it runs with, and `facts` (recipe, class
    names, …).
    """
    with files.atomic_write(workdir / RUN) as part:
        run = {**facts, "versions": versions(), "config": config.to_dict()}
        part.write_text(json.dumps(run, indent=1))


def versions() -> dict[str, str]:
    """Of Python and of the packages that decide what this process computes."""
    found = {"python": sys.version.split()[0]}
    for package in ("cnn_papers", "jax", "flax", "optax", "orbax-checkpoint", "numpy"):
        with contextlib.suppress(
            importlib.metadata.PackageNotFoundError
        ):  # not installed, only on the path
            found[package] = importlib.metadata.version(package)
    return found


def read_run(workdir: pathlib.Path) -> SavedRun | None:
    """Reads `run.json`; returns None if `workdir` has none, raises UserError if it is damaged."""
    try:
        run = json.loads((workdir / RUN).read_text())
        return SavedRun(
            config=ConfigDict(_tuples(run["config"])).lock(),
            class_names=tuple(run.get("class_names", ())),
            train_image=tuple(run.get("train_image", ())),
            eval_image=tuple(run.get("eval_image", ())),
            total_steps=run.get("total_steps", 0),
            machine=run.get("machine", ""),
            versions=run.get("versions", {}),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{workdir / RUN} cannot be read: {error}") from error


def check_same_run(workdir: pathlib.Path, config: Any) -> None:
    """Raises UserError if `workdir` holds a run of another configuration, with the differences that
    matter.

    Also if the processes of this run have different ones.
    """
    text = json.dumps(config.to_dict(), sort_keys=True)
    processes.on_same(hashlib.sha256(text.encode()).hexdigest(), "configurations")
    run = read_run(workdir)
    if run is None:
        if any((workdir / "checkpoints").glob("[0-9]*")):
            raise UserError(
                f"workdir {workdir} holds checkpoints but no {RUN}; give another with --workdir, or remove it"
            )
        return
    different = [
        f"{key}: {there} there, {now} now"
        for key, (there, now) in differences(run.config, config).items()
        if not key.startswith(FREE_KEYS)
    ]
    if different:
        more = f" and {len(different) - 4} more" if len(different) > 4 else ""
        raise UserError(
            f"workdir {workdir} holds a run of another configuration ({'; '.join(different[:4])}{more}); "
            "give another with --workdir, or remove it"
        )


def differences(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """The dotted keys in which two configurations differ, sorted, with both values, 'unset' where
    there is none.
    """
    old, new = (_flat(_tuples(config.to_dict())) for config in (one, other))
    pairs = {
        key: (old.get(key, "unset"), new.get(key, "unset"))
        for key in sorted(old.keys() | new.keys())
    }
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def check_space(workdir: pathlib.Path, state_bytes: int, keep: int) -> None:
    """Raises UserError unless the checkpoints of a state of `state_bytes` fit on the disk of
    `workdir`.

    Of the latest and of the best at least two are kept and one is under way; those that lie there
    already count.
    """
    there = sum(path.stat().st_size for path in workdir.glob("*/*/**/*") if path.is_file())
    need, free = state_bytes * (max(2, keep) + 1 + 3) - there, shutil.disk_usage(workdir).free
    if free < need:
        raise UserError(
            f"workdir {workdir} has {free:,} bytes free; its checkpoints need {need:,}: "
            "free some space, lower config.checkpoint.keep or give another with --workdir"
        )


def _tuples(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _tuples(value) for key, value in tree.items()}
    return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree


def _flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in _flat(branch, f"{prefix}.{name}" if prefix else name).items()
    }


CPUINFO = pathlib.Path("/proc/cpuinfo")


def describe_machine() -> str:
    """Processor, cores and accelerators, such as "AMD EPYC, 2 cores, 1 × NVIDIA H200"."""
    named = re.search(r"model name\s*: (.+)", CPUINFO.read_text()) if CPUINFO.is_file() else None
    text = f"{named[1].strip() if named else platform.machine()}, {os.cpu_count()} cores"
    device = jax.devices()[0]
    return (
        text if device.platform == "cpu" else f"{text}, {jax.device_count()} × {device.device_kind}"
    )
