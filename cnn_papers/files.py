"""Writes files atomically, and locks folders for one process."""

import contextlib
import datetime
import fcntl
import os
import pathlib
import socket
import zipfile
from collections.abc import Iterator

from cnn_papers.errors import UserError

LOCK = ".lock"


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


@contextlib.contextmanager
def locked(folder: pathlib.Path, flag: str = "workdir") -> Iterator[None]:
    """Locks `folder` (created if missing), which `--flag` names, for this process.

    Raises:
      UserError: another process has locked it, or it cannot be written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = (folder / LOCK).open("a+")
    except OSError as error:
        raise UserError(
            f"{flag} {folder} cannot be written to: {error.strerror}; give another with --{flag}"
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
