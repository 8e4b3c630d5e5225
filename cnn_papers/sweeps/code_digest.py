"""Digests of what decides the numbers of a run: the source it computes with, its configuration."""

import ast
import functools
import hashlib
import json
import os
import pathlib
from collections.abc import Iterable

import cnn_papers
from cnn_papers.claims import plan
from cnn_papers.claims.plan import Job
from cnn_papers.runs.config_files import place_of

ROOT = pathlib.Path(cnn_papers.__file__).parent
ROOMS = ("data", "evaluation", "models", "tasks", "training")  # modules that a run may find by name


def sources() -> list[pathlib.Path]:
    """Returns the files of the package that a run may import.

    These are `main`, the rooms whose modules a run finds by name, and all that they import.
    """
    rooms = [path for room in ROOMS for path in (ROOT / room).rglob("*.py")]
    return _with_imports([ROOT / "main.py", *rooms], ROOT)


def config_files(jobs: Iterable[Job]) -> list[pathlib.Path]:
    """Returns the config files of `jobs` and what they import of `configs`."""
    files = {place_of(job.config)[0] for job in jobs}
    return _with_imports(map(pathlib.Path, files), ROOT.parent / "configs")


def source_digest(paths: Iterable[pathlib.Path]) -> str:
    """Returns the digest of these files as they are now, 64 hexadecimal digits."""
    total = hashlib.sha256()
    for path in paths:
        content = path.read_bytes() if path.exists() else b"gone"
        total.update(f"{os.path.relpath(path, ROOT)}\n".encode() + content)
    return total.hexdigest()


def digest(source: str, job: Job) -> str:
    """Returns the digest of the source and of the configuration of `job`, 16 hexadecimal digits.

    Raises UserError for an unknown key and for a value of the wrong type.
    """
    config = json.dumps(plan.load(job).to_dict(), sort_keys=True, default=str)
    return hashlib.sha256((source + config).encode()).hexdigest()[:16]


def _with_imports(paths: Iterable[pathlib.Path], folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns these files and all that they import of `folder`, sorted."""
    todo, files = [*paths], set[pathlib.Path]()
    while todo:
        path = todo.pop()
        if path not in files:
            files.add(path)
            todo += _imported(path, folder)
    return sorted(files)


def _imported(path: pathlib.Path, folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the modules of `folder` that a file imports, within functions too."""
    names = _imported_names(path.read_bytes())
    paths = [(ROOT.parent / name.replace(".", "/")).with_suffix(".py") for name in names]
    return [path for path in paths if path.is_relative_to(folder) and path.is_file()]


@functools.cache  # every round of a sweep reads the same source
def _imported_names(source: bytes) -> tuple[str, ...]:
    names: list[str] = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
    return tuple(names)
