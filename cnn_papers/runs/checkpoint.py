"""Saves and restores checkpoints by orbax, and refuses damaged ones by digests of their files.

orbax renames a step into place when it is complete, but restores a flipped bit without an error.
So each step folder also gets `digests.json`. A step without it was cut off between the two and
does not count. Of several processes each saves and restores its part of the arrays, and the first
writes and reads the digests.
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

# orbax warns of files that our checkpoints do not have, and logs the errors that it raises. The
# doors silence it too; a notebook does not come through them.
logging.getLogger("absl").setLevel(logging.CRITICAL)

DIGESTS = "digests.json"
# The fields of State that are saved as an item of their own, to be read without the optimiser.
MODEL_FIELDS = ("params", "batch_stats", "ema")
# orbax measures its time limit by the wall clock: setting the clock could end a save.
FOREVER_S = 10**9


class Checkpoints:
    """The saved steps of one folder. Saving runs in the background, one save at a time.

    Args:
      folder: created if missing; half-written steps of an earlier process are removed. The caller
        must hold the lock of the run.
      keep: the number of latest steps to keep, at least 2.
      read_only: changes nothing, for reading while a run writes to the folder.
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
            # `best` may be saved while `checkpoints` still is.
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                barrier_sync_key_prefix=self.folder.name
            ),
        )
        self._manager = ocp.CheckpointManager(self.folder, options=options)
        self._thread: threading.Thread | None = None
        self._error: Exception | None = None
        self._failed = False

    def save(self, step: int, state: State) -> None:
        """Saves `state` as `step` in the background.

        Raises:
          UserError: this save, or the one before, failed.
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
        """Returns whether a save is under way: its digests are not written yet."""
        return self._thread is not None and self._thread.is_alive()

    def finish(self) -> None:
        """Waits for the save under way; raises UserError if it failed, as on a full disk."""
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
                f"saving a checkpoint in {self.folder} failed, {free:,} bytes free, "
                f"last good step {good}: {_reason(error)}"
            ) from error

    def close(self) -> None:
        """Waits for the save under way and closes the folder."""
        try:
            self.finish()
        finally:
            if not self._failed:  # orbax would raise the same error again
                self._manager.close()

    def newest_good(self) -> int | None:
        """Returns the newest step whose files are unchanged since its save; None if there is none.

        Raises:
          UserError: there are steps, and all of them are damaged.
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
        # A single step without digests is a first save that was cut off.
        if len(steps) > 1 or any((self._path(step) / DIGESTS).exists() for step in steps):
            raise UserError(
                f"every checkpoint in {self.folder} is damaged; "
                "restore the folder or start in another workdir"
            )
        return None

    def remove_after(self, step: int) -> None:
        """Removes the steps after `step`: they are damaged or will be computed again."""
        self._manager.reload()
        later_steps = processes.broadcast(
            lambda: [other for other in self._manager.all_steps() if other > step]
        )
        for later in later_steps:
            self._manager.delete(later)

    def restore(self, step: int, state: State) -> State:
        """Returns the state saved as `step`, in the shapes and shardings of `state`."""
        values = state._asdict()
        model = {name: values.pop(name) for name in MODEL_FIELDS}
        restored = self.restore_items(step, model=model, training=values)
        return State(**restored["model"], **restored["training"])

    def restore_items(self, step: int, **items: Any) -> Any:
        """Returns items of `step`, each in the shapes and shardings of the tree given for it.

        Raises:
          UserError: an item cannot be read, or is of another network.
        """
        try:
            for name, tree in items.items():
                metadata: Any = (
                    ocp.PyTreeCheckpointer().metadata(self._path(step) / name).item_metadata
                )
                self._check_shapes(step, _shapes(metadata.tree), _shapes(tree))
            arguments = {name: ocp.args.StandardRestore(tree) for name, tree in items.items()}
            return self._manager.restore(step, args=ocp.args.Composite(**arguments))
        except Exception as error:  # orbax may raise anything on malicious files with good digests
            if isinstance(error, UserError) or processes.is_loss(error):
                raise
            raise UserError(
                f"checkpoint {self._path(step)} cannot be restored: {_reason(error)}"
            ) from error

    def _check_shapes(self, step: int, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
        for path in sorted(stored | wanted):
            saved, configured = stored.get(path, "missing"), wanted.get(path, "missing")
            if saved != configured:
                raise UserError(
                    f"checkpoint {self._path(step)} is of another network than the config's "
                    f"({path}: {saved} there, {configured} now)"
                )

    def _path(self, step: int) -> pathlib.Path:
        return self.folder / f"{step:08d}"

    def _commit(self, step: int) -> None:
        """Waits until orbax has renamed the step into place, then writes its digests."""
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
    """Returns the newest good step in `folder` and its variables to evaluate with.

    A run may write to the folder at the same time.

    Args:
      folder: of checkpoints.
      state: gives shapes and shardings; its optimiser state is not read.

    Raises:
      UserError: there is no good step, or it is of another network.
    """
    checkpoints = Checkpoints(folder, read_only=True)
    try:
        step = checkpoints.newest_good()
        if step is None:
            raise UserError(f"there is no checkpoint in {folder} yet")
        model = {name: getattr(state, name) for name in MODEL_FIELDS}
        model = checkpoints.restore_items(step, model=model)["model"]
        return step, evaluation_variables(state._replace(**model))
    finally:
        checkpoints.close()


def evaluation_variables(state: State) -> dict[str, Any]:
    """Returns the variables of `state` to evaluate with: the running average where there is one."""
    params = state.params if state.ema is None else state.ema
    return {"params": params, "batch_stats": state.batch_stats}


def _shapes(tree: Any) -> dict[str, tuple[int, ...]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/"): tuple(leaf.shape)
        for path, leaf in leaves
    }


def _reason(error: Exception) -> str:
    """Returns the last parts of orbax's nested message, which are the operating system's."""
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
    """Describes the damage to the step in `folder`; returns None if there is none."""
    for path in sorted(folder.rglob("*")):
        if path.is_symlink() or not (path.is_file() or path.is_dir()):
            return f"{path.relative_to(folder)} is neither a file nor a folder"
    try:
        expected = json.loads((folder / DIGESTS).read_text())
        actual = _digests(folder)
        if not isinstance(expected, dict):
            raise ValueError("not a dictionary")
    except FileNotFoundError:
        return "its save was cut off"
    except (OSError, ValueError) as error:
        return f"{DIGESTS} cannot be read: {error}"
    for name in sorted(set(expected) | set(actual)):
        if name not in actual:
            return f"file {name} is missing"
        if name not in expected:
            return f"file {name} was added"
        if expected[name] != actual[name]:
            return f"file {name} was changed"
    return None
