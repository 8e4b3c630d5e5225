"""Guards a run's folder: one process at a time, one configuration, enough space."""

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

from cnn_papers import files, tasks
from cnn_papers.errors import UserError, listed
from cnn_papers.files import LOCK, locked
from cnn_papers.parallel import processes
from cnn_papers.runs import config_files

RUN = "run.json"
UNSET = "unset"  # the value of a key that a config does not have
SEEN_WITHIN_S = 30.0  # network file systems show a new lock to the other hosts within this time
CPUINFO = pathlib.Path("/proc/cpuinfo")

# The keys, and beginnings of keys, that may differ when a run is continued.
FREE_KEYS = (
    "checkpoint",
    "data.data_dir",
    "data.resident",
    "eval.mirror",
    "eval.precise_bn",
    "eval.protocol",
    "log_every_steps",
    "mesh",
    "total_epochs",
    "total_steps",
)


class SavedRun(NamedTuple):
    """A run as its `run.json` records it; values that older versions did not record are empty.

    Attributes:
      config: a locked ConfigDict.
      class_names: of the training split, by label.
      train_image, eval_image: (h, w, c) of the images of training and of evaluation.
      images: number of images of the training and of the evaluation split.
      digests: of both: of their images, objects and proposals.
      total_steps: length of the run.
      machine: processor and accelerators, from `describe_machine`.
      versions: of Python and packages, from `versions`.
    """

    config: Any
    class_names: tuple[str, ...]
    train_image: tuple[int, ...]
    eval_image: tuple[int, ...]
    images: tuple[int, ...]
    digests: tuple[str, ...]
    total_steps: int
    machine: str
    versions: dict[str, str]


@contextlib.contextmanager
def hold(workdir: pathlib.Path) -> Iterator[None]:
    """Holds `workdir` (created if missing) for all processes of a run.

    Removes the folders it has created if the run fails to start.

    Raises:
      UserError: another run holds it, it cannot be written to, or the processes see different
        folders.
    """
    with contextlib.ExitStack() as stack:
        processes.broadcast(lambda: stack.enter_context(_hold_here(workdir)))
        owner = processes.broadcast((workdir / LOCK).read_text)
        processes.raise_on_all(lambda: _check_shared(workdir, owner))
        yield


@contextlib.contextmanager
def _hold_here(workdir: pathlib.Path) -> Iterator[None]:
    """Holds `workdir` for this process; removes the folders it has created if they stay empty."""
    created = [path for path in (workdir, *workdir.parents) if not path.exists()]
    with locked(workdir):
        try:
            yield
        finally:
            if created and [entry.name for entry in workdir.iterdir()] == [LOCK]:
                (workdir / LOCK).unlink()
                with contextlib.suppress(OSError):  # a parent may hold another run by now
                    for path in created:
                        path.rmdir()


def _check_shared(workdir: pathlib.Path, owner: str) -> None:
    """Raises UserError unless this process sees the lock `owner` of process 0 in `workdir`."""
    deadline = time.monotonic() + SEEN_WITHIN_S
    while not (workdir / LOCK).is_file() or (workdir / LOCK).read_text() != owner:
        if time.monotonic() > deadline:
            raise UserError(
                f"workdir {workdir} on {socket.gethostname()} is not the folder of process 0: "
                "give one that all hosts share with --workdir"
            )
        time.sleep(0.1)


def write_run(workdir: pathlib.Path, config: Any, facts: dict[str, Any]) -> None:
    """Writes `run.json`: `facts`, other fields of SavedRun by name, the versions and the config."""
    with files.atomic_write(workdir / RUN) as part:
        run = {**facts, "versions": versions(), "config": config.to_dict()}
        part.write_text(json.dumps(run, indent=1))


def write_place_of_data(workdir: pathlib.Path, data: Any) -> None:
    """Writes `data.name` and `data.data_dir` to an existing `run.json`, if they differ there."""
    run = json.loads((workdir / RUN).read_text())
    place = {"name": data.name, "data_dir": data.data_dir}
    if run["config"]["data"] != run["config"]["data"] | place:
        run["config"]["data"] |= place
        with files.atomic_write(workdir / RUN) as part:
            part.write_text(json.dumps(run, indent=1))


def versions() -> dict[str, str]:
    """Returns the versions of Python and of the packages that determine a run's results."""
    by_name = {"python": sys.version.split()[0]}
    for package in ("cnn_papers", "jax", "flax", "optax", "orbax-checkpoint", "numpy"):
        # A package that is only on the path, not installed, has no version.
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            by_name[package] = importlib.metadata.version(package)
    return by_name


def read_run(workdir: pathlib.Path) -> SavedRun | None:
    """Reads `run.json`; returns None if `workdir` has none, raises UserError if it is damaged."""
    try:
        run = json.loads((workdir / RUN).read_text())
        config = ConfigDict({"task": tasks.BEFORE} | _tuples(run["config"]))
        config_files.expand_paths(config)  # older versions kept `~`
        return SavedRun(
            config=config.lock(),
            class_names=tuple(run.get("class_names", ())),
            train_image=tuple(run.get("train_image", ())),
            eval_image=tuple(run.get("eval_image", ())),
            images=tuple(run.get("images", ())),
            digests=tuple(run.get("digests", ())),
            total_steps=run.get("total_steps", 0),
            machine=run.get("machine", ""),
            versions=run.get("versions", {}),
        )
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{workdir / RUN} cannot be read: {error}") from error


def check_same_run(workdir: pathlib.Path, config: Any) -> None:
    """Raises UserError if `workdir` holds a run whose config differs in other keys than FREE_KEYS.

    A key that the run is older than does not count where it is off: 0, empty, False or None. Two
    folders of images are compared by `check_same_data`, once they are open.
    Also raises UserError if the processes of this run have different configs, or if checkpoints
    have no `run.json`.
    """
    text = json.dumps(config.to_dict(), sort_keys=True)
    processes.on_same(hashlib.sha256(text.encode()).hexdigest(), "configurations")
    run = read_run(workdir)
    if run is None:
        if any((workdir / "checkpoints").glob("[0-9]*")):
            raise UserError(
                f"workdir {workdir} holds checkpoints but no {RUN}; "
                "give another with --workdir, or remove it"
            )
        return
    different = [
        f"{key}: {_shown(saved)} there, {_shown(now)} now"
        for key, (saved, now) in differences(run.config, config).items()
        if not key.startswith(FREE_KEYS) and (saved != UNSET or now)
        if key != "data.name" or not _is_folder(saved) or not _is_folder(now)
    ]
    if different:
        raise UserError(
            f"workdir {workdir} holds a run of another configuration "
            f"({listed(different, 4, '; ')}); give another with --workdir, or remove it"
        )


def _shown(value: Any) -> str:
    """Returns the value of a key as it is written in a message; nothing would look like a gap."""
    return "''" if value == "" else str(value)


def check_same_data(
    workdir: pathlib.Path,
    config: Any,
    class_names: tuple[str, ...],
    images: tuple[int, int],
    digests: tuple[str, str],
) -> None:
    """Checks the data of the run that `workdir` holds, if any, and prints what is new about it.

    Values that an older version did not record are not compared.

    Args:
      workdir: folder of the run.
      config: of the run that goes on.
      class_names: of its training split, by label.
      images: number of images of its training and of its evaluation split.
      digests: of both splits: of their images, objects and proposals.

    Raises:
      UserError: other classes, or the same in another order; another folder of images, unless
        they are the same.
    """
    run = read_run(workdir)
    if run is None:
        return
    then, now = run.config.data.name, config.data.name
    other_classes = difference(run.class_names, class_names) if run.class_names else ""
    other_images = bool(run.digests) and run.digests != digests
    what = other_classes
    if run.images != images:
        what = what or f"{_counted(run.images)} there, {_counted(images)} now"
    elif other_images:
        what = what or "as many images of the same classes, but other pixels or boxes"
    if what and not _same_place(then, now):
        raise UserError(
            f"workdir {workdir} holds a run of another configuration "
            f"(data.name: {then} there, {now} now; {what}); give another with --workdir, or "
            "remove it"
        )
    if other_classes:
        raise UserError(
            f"workdir {workdir} holds a run with other classes ({other_classes}); "
            "give another with --workdir, or remove it"
        )
    if then != now:
        print(f"the data has moved: {then} before, {now} now")
    if run.images and run.images != images:
        order = "; batches are others from here on" if run.images[0] != images[0] else ""
        print(f"the data has changed: {_counted(run.images)} before, {_counted(images)} now{order}")
    elif other_images:
        print("the data has changed: as many images of the same classes, but other pixels or boxes")


def difference(then: tuple[str, ...], now: tuple[str, ...]) -> str:
    """Returns which classes are new and which are gone; "" if they are the same in their order."""
    if then == now:
        return ""
    changes = {
        "new": [name for name in now if name not in then],
        "gone": [name for name in then if name not in now],
    }
    parts = [f"{change}: {listed(names)}" for change, names in changes.items() if names]
    if parts:
        return "; ".join(parts)
    label = next(i for i, names in enumerate(zip(then, now, strict=True)) if len({*names}) > 1)
    return f"the same in another order: class {label} was {then[label]} and is {now[label]}"


def _same_place(one: str, other: str) -> bool:
    """Tells whether two names of data sets are equal or, of folders of one form, lead to one."""
    if one == other or not _is_folder(one) or not _is_folder(other):
        return one == other
    places = [name.partition(":") for name in (one, other)]
    return len({(form, os.path.realpath(path)) for form, _, path in places}) == 1


def _is_folder(name: str) -> bool:
    return name.startswith(config_files.PATH_KEYS["data.name"])


def _counted(images: tuple[int, ...]) -> str:
    """Returns the numbers of images of both splits in words."""
    if not images:
        return "an unknown number of images"
    return "{:,} images to train on and {:,} to evaluate".format(*images)


def differences(one: Any, other: Any) -> dict[str, tuple[Any, Any]]:
    """Returns the dotted keys in which two configs differ, sorted, with both values.

    The value of a key that a config lacks is "unset".
    """
    old, new = (flat(_tuples(config.to_dict())) for config in (one, other))
    pairs = {
        key: (old.get(key, UNSET), new.get(key, UNSET)) for key in sorted(old.keys() | new.keys())
    }
    return {key: pair for key, pair in pairs.items() if pair[0] != pair[1]}


def check_space(workdir: pathlib.Path, state_bytes: int, keep: int) -> None:
    """Raises UserError unless the checkpoints of a run fit on the disk of `workdir`.

    `keep`, but at least 2, of the latest steps and 2 of the best are kept, and one more of each is
    being written. Existing files of the run count as space that it has.

    Args:
      workdir: folder of the run.
      state_bytes: size of one checkpoint.
      keep: `config.checkpoint.keep`.
    """
    written = sum(path.stat().st_size for path in workdir.glob("*/*/**/*") if path.is_file())
    need = state_bytes * (max(2, keep) + 1 + 3) - written
    free = shutil.disk_usage(workdir).free
    if free < need:
        raise UserError(
            f"workdir {workdir} has {free:,} bytes free; its checkpoints need {need:,}: "
            "free some space, lower config.checkpoint.keep or give another with --workdir"
        )


def _tuples(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _tuples(value) for key, value in tree.items()}
    return tuple(map(_tuples, tree)) if isinstance(tree, list) else tree


def flat(tree: Any, prefix: str = "") -> dict[str, Any]:
    """Returns the leaves of nested dictionaries by dotted key."""
    if not isinstance(tree, dict):
        return {prefix: tree}
    return {
        key: value
        for name, branch in tree.items()
        for key, value in flat(branch, f"{prefix}.{name}" if prefix else name).items()
    }


def describe_machine() -> str:
    """Returns processor, cores and accelerators, as in "AMD EPYC, 2 cores, 1 × NVIDIA H200"."""
    match = re.search(r"model name\s*: (.+)", CPUINFO.read_text()) if CPUINFO.is_file() else None
    text = f"{match[1].strip() if match else platform.machine()}, {os.cpu_count()} cores"
    device = jax.devices()[0]
    if device.platform != "cpu":
        text += f", {jax.device_count()} × {device.device_kind}"
    return text
