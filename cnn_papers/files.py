"""Writes files atomically, and locks folders for one process."""

import contextlib
import datetime
import fcntl
import logging
import os
import pathlib
import re
import socket
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

import numpy as np

from cnn_papers.errors import UserError

LOCK = ".lock"


def expand(path: str, before: str = "") -> str:
    """Returns a path that a person wrote, with `~` and `~user` replaced by their home folders.

    A file or folder that is called `~name` is itself, unless there is a user of that name.

    Args:
      path: of a file or folder, which need not exist.
      before: precedes the path in the error, such as `--out=`.

    Raises:
      UserError: there is no such user, or `path` is an address, such as gs://bucket/run.
    """
    if re.match(r"[A-Za-z][A-Za-z0-9+.-]*://", path):
        raise UserError(f"{before}{path} is an address: give a path on this machine")
    expanded = os.path.expanduser(path)
    if not expanded.startswith("~") or os.path.lexists(path):
        return expanded
    user = path.partition("/")[0][1:]
    reason = f"there is no user '{user}'" if user else "your home folder is not known, set HOME"
    raise UserError(f"{before}{path}: {reason}; a name that begins with ~ is written ./~name")


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path, which replaces `path` when the block ends without an error.

    Otherwise the temporary file is removed. The folder of `path` is created.

    Raises:
      OSError: nothing can be written there.
    """
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield part
        os.replace(part, path)
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_write(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Does the same as `replacing` for a file that the user names; keeps a link a link.

    Raises:
      UserError: `path` cannot be written, or exists and is not a file.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it exists and is not a file")
        with replacing(path.resolve()) as part:
            yield part
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error


def refuse_bomb(path: pathlib.Path) -> None:
    """Raises ValueError if a zip file (`.npz` and `.pth` are) unpacks to more bytes than it has."""
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            unpacked = sum(entry.file_size for entry in archive.infolist())
        if unpacked > path.stat().st_size:
            raise ValueError(f"it would unpack to {unpacked:,} bytes")


def read_npz(path: pathlib.Path) -> dict[str, np.ndarray]:
    """Returns the arrays of a `.npz` file by name.

    Raises:
      ValueError: the file is missing or damaged, is compressed or has pickled objects; the message
        says why.
    """
    try:
        refuse_bomb(path)
        with path.open("rb") as data, np.load(data, allow_pickle=False) as file:
            return dict(file)
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise ValueError(getattr(error, "strerror", None) or str(error)) from error


@contextlib.contextmanager
def one_at_a_time(path: pathlib.Path) -> Iterator[None]:
    """Waits until no other process is in a block of the same `path`, a file that the block writes.

    The folder of `path` is created.

    Raises:
      OSError: nothing can be written or locked there.
    """
    lock = path.with_name(path.name + LOCK)
    lock.parent.mkdir(parents=True, exist_ok=True)
    with _hold(lock, f"waiting for the process that writes {path}"):
        try:
            yield
        finally:
            lock.unlink(missing_ok=True)


def _hold(lock: pathlib.Path, waiting: str) -> IO[str]:
    """Returns the file `lock`, open and locked; logs `waiting` where another process has it."""
    while True:
        file = lock.open("a")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            logging.getLogger(__name__).info(waiting)
            fcntl.flock(file, fcntl.LOCK_EX)
        # The process that was waited for has removed the file; another may be there by now.
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(file.fileno()), lock.stat()):
                return file
        file.close()


@contextlib.contextmanager
def locked(folder: pathlib.Path, flag: str = "workdir") -> Iterator[None]:
    """Locks `folder` (created if missing), which `--flag` names, for this process.

    Raises:
      UserError: another process has locked it, it cannot be written to, or its path is not UTF-8,
        which checkpoints need.
    """
    try:
        str(folder.absolute()).encode()
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except (OSError, UnicodeEncodeError) as error:
        reason = (
            error.strerror if isinstance(error, OSError) else "its path is not UTF-8 in this locale"
        )
        raise UserError(
            f"{flag} {folder} cannot be written to: {reason}; give another with --{flag}"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise UserError(
                f"{flag} {folder} is in use by {file.read().strip()}; wait or give another"
            ) from error
        file.truncate(0)
        now = datetime.datetime.now().isoformat(" ", "seconds")
        file.write(f"process {os.getpid()} on {socket.gethostname()} since {now}")
        file.flush()
        yield
