"""A file that is whole or not there."""

import contextlib
import os
import pathlib
from collections.abc import Iterator

from cnn_papers.errors import UserError


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """A path to write to, which becomes `path` when the block ends well and vanishes when it does not.

    The folder is made. Raises an OSError where nothing can be written there.
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
def whole(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """As `replacing`, for a file that the user asked for; a link stays one.

    Raises a UserError where it cannot be written, or where something else than a file stands there.
    """
    try:
        if path.exists() and not path.is_file():
            raise UserError(f"cannot write {path}: it is there already and no file")
        with replacing(path.resolve()) as part:
            yield part
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror or error}") from error
