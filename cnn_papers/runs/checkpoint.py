"""Checkpoints by orbax, with a digest of every file: what was damaged is refused, the newest good
step is used.

orbax renames a step into place once it is whole, but restores a flipped bit without a word; so each
step folder also gets `digests.json`. A step without it was cut off between the two and does not
count.

Several processes all save and restore, each its part of the arrays; the first one writes and reads
the digests.
"""

import hashlib
import json
import logging
import os
import pathlib
import shutil
import threading
from typing import Any

import jax
import orbax.checkpoint as ocp
from orbax.checkpoint import checkpoint_managers as policies

from cnn_papers.errors import UserError
from cnn_papers.parallel import processes
from cnn_papers.training.step import State

DIGESTS = "digests.json"
MODEL_FIELDS = (
    "params",
    "batch_stats",
    "ema",
)  # kept apart, so that they can be read without the optimiser
FOREVER_S = 10**9  # orbax reads the wall clock: one set right in the midst of a save would end that


class Checkpoints:
    """The steps kept in one folder. Saving runs in the background, one save at a time.

    Args:
      folder: made if missing; half-written steps of an earlier process are removed. Its owner must
      hold the run's lock.
      keep: how many of the latest steps stay.
      read_only: for readers beside a running training.
    """

    def __init__(self, folder: pathlib.Path, *, keep: int = 2, read_only: bool = False):
        self.folder = folder.resolve()
        if read_only and not self.folder.is_dir():
            raise UserError(f"there is no checkpoint in {folder}")
        options = ocp.CheckpointManagerOptions(
            preservation_policy=policies.LatestN(max(2, keep)),
            step_format_fixed_length=8,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            async_options=ocp.AsyncOptions(timeout_secs=FOREVER_S),
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                # `best` is saved while `checkpoints` still may be
                barrier_sync_key_prefix=self.folder.name
            ),
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._failed = False

    def save(self, step: int, state: State) -> None:
        """Saves `state` as `step` in the background; raises UserError if that, or the save before,
        fails.
        """
        self.finish()
        values = state._asdict()
        model = {name: values.pop(name) for name in MODEL_FIELDS}
        arguments = ocp.args.Composite(
            model=ocp.args.StandardSave(model), training=ocp.args.StandardSave(values)
        )
        try:
            saved = self._manager.save(step, args=arguments)
        except Exception as error:
            self._error = error
            return self.finish()
        assert saved, f"orbax left out step {step} of {self.folder}"
        self._thread = threading.Thread(target=self._commit, args=(step,))
        self._thread.start()

    def is_saving(self) -> bool:
        """Whether a save is under way, its digests not yet written."""
        return self._thread is not None and self._thread.is_alive()

    def finish(self) -> None:
        """Waits for the save under way; raises UserError if it failed (a full disk, say)."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error, self._failed = self._error, None, True
            if processes.is_loss(error):
                raise error
            free = shutil.disk_usage(self.folder).free
            good = self._newest_good()
            raise UserError(
                f"saving a checkpoint in {self.folder} failed, {free:,} bytes free, last good step {good}: "
                f"{_reason(error)}"
            ) from error

    def close(self) -> None:
        """Waits for the save under way and lets go of the folder."""
        try:
            self.finish()
        finally:
            if not self._failed:  # orbax would raise the same error again
                self._manager.close()

    def newest_good(self) -> int | None:
        """The newest step whose files are all as they were written; None where there is no step at
        all.

        Raises:
          UserError: steps are there, and every one is damaged.
        """
        return processes.broadcast(self._newest_good)

    def _newest_good(self) -> int | None:
        self._manager.reload()
        steps = sorted(self._manager.all_steps(), reverse=True)
        for step in steps:
            problem = _problem(self._path(step))
            if problem is None:
                return step
            logging.getLogger(__name__).warning(
                "checkpoint %s refused: %s", self._path(step), problem
            )
        if len(steps) > 1 or any(
            (self._path(step) / DIGESTS).exists() for step in steps
        ):  # not a first save cut off
            raise UserError(
                f"every checkpoint in {self.folder} is damaged; restore the folder or start in another workdir"
            )
        return None

    def remove_after(self, step: int) -> None:
        """Removes the steps beyond `step`: damaged ones, and those of a future that will be
        computed again.
        """
        self._manager.reload()
        for later in processes.broadcast(
            lambda: [other for other in self._manager.all_steps() if other > step]
        ):
            self._manager.delete(later)

    def restore(self, step: int, state: State) -> State:
        """The state saved as `step`, in the shapes and shardings of `state`."""
        values = state._asdict()
        model = {name: values.pop(name) for name in MODEL_FIELDS}
        restored = self.restore_items(step, model=model, training=values)
        return State(**restored["model"], **restored["training"])

    def restore_items(self, step: int, **items: Any) -> Any:
        """Items of `step`, each in the shapes and shardings of the tree given for it."""
        try:
            for name, tree in items.items():
                metadata: Any = (
                    ocp.PyTreeCheckpointer().metadata(self._path(step) / name).item_metadata
                )
                self._check_shapes(step, _shapes(metadata.tree), _shapes(tree))
            arguments = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
            return self._manager.restore(step, args=ocp.args.Composite(**arguments))
        except Exception as error:  # whatever orbax meets in files made to harm, whose digests fit
            if isinstance(error, UserError) or processes.is_loss(error):
                raise
            raise UserError(
                f"checkpoint {self._path(step)} cannot be restored: {_reason(error)}"
            ) from error

    def _check_shapes(self, step: int, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
        if different := sorted(
            key for key in stored | wanted if stored.get(key) != wanted.get(key)
        ):
            there, now = (shapes.get(different[0], "missing") for shapes in (stored, wanted))
            raise UserError(
                f"checkpoint {self._path(step)} is of another network than the config's "
                f"({different[0]}: {there} there, {now} now)"
            )

    def _path(self, step: int) -> pathlib.Path:
        return self.folder / f"{step:08d}"

    def _commit(self, step: int) -> None:
        """Waits until orbax has the step in place, then writes its digests."""
        try:
            self._manager.wait_until_finished()
            self._manager.check_for_errors()
            if not processes.is_first():
                return
            text = json.dumps(_digests(self._path(step)), indent=1)
            part = self._path(step) / (DIGESTS + ".tmp")
            part.write_text(text)
            os.replace(part, self._path(step) / DIGESTS)
        except Exception as error:  # the training thread raises it at the next save
            self._error = error


def read_model(folder: pathlib.Path, state: State) -> tuple[int, dict[str, Any]]:
    """The newest good step in `folder` and its variables to evaluate with, in the shapes and
    shardings of `state`.

    Reads beside a running training.
    """
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        step = checkpoints.newest_good()
        if step is None:
            raise UserError(f"there is no checkpoint in {folder} yet")
        model = {name: value for name, value in state._asdict().items() if name in MODEL_FIELDS}
        return step, evaluated(**checkpoints.restore_items(step, model=model)["model"])
    finally:
        checkpoints.close()


def evaluated(params: Any, batch_stats: Any, ema: Any) -> dict[str, Any]:
    """The variables to evaluate with."""
    return {"params": params if ema is None else ema, "batch_stats": batch_stats}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _reason(error: Exception) -> str:
    """The end of what orbax's nested errors say, where the operating system speaks."""
    return ": ".join(str(error).splitlines()[0].split(": ")[-2:])


def _digests(folder: pathlib.Path) -> dict[str, str]:
    files = sorted(
        path for path in folder.rglob("*") if path.is_file() and not path.name.startswith(DIGESTS)
    )
    return {str(path.relative_to(folder)): _sha256(path) for path in files}


def _sha256(path: pathlib.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _problem(folder: pathlib.Path) -> str | None:
    """What is wrong with the step in `folder`, or None."""
    if odd := [
        path
        for path in folder.rglob("*")
        if path.is_symlink() or not (path.is_file() or path.is_dir())
    ]:
        return f"{min(odd).relative_to(folder)} is neither a file nor a folder"
    try:
        expected = json.loads((folder / DIGESTS).read_text())
        found = _digests(folder)
        if not isinstance(expected, dict):
            raise ValueError("not a dictionary")
    except FileNotFoundError:
        return "its save was cut off"
    except (OSError, ValueError) as error:
        return f"{DIGESTS} cannot be read: {error}"
    for name in sorted(set(expected) | set(found)):
        if expected.get(name) != found.get(name):
            state = (
                "is missing"
                if name not in found
                else "was added"
                if name not in expected
                else "was changed"
            )
            return f"file {name} {state}"
    return None
