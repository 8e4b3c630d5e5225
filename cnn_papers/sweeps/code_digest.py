"""What decides the figures of a run, as a digest: the source it computes with and its
configuration.
"""

import ast
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
ROOMS = ("data", "evaluation", "models", "training")


def sources() -> list[pathlib.Path]:
    """The files of the package that a run may import: `main`, the rooms it finds by name, and
    whatever those name.
    """
    return _with_imports(
        [ROOT / "main.py", *(path for room in ROOMS for path in (ROOT / room).glob("*.py"))], ROOT
    )


def config_files(jobs: Iterable[Job]) -> list[pathlib.Path]:
    """The config files of `jobs` and what they import of `configs`."""
    found = {place_of(job.config)[0] for job in jobs}
    return _with_imports(map(pathlib.Path, found), ROOT.parent / "configs")


def source_digest(paths: Iterable[pathlib.Path]) -> str:
    """Of those files as they are now."""
    whole = hashlib.sha256()
    for path in paths:
        whole.update(
            f"{os.path.relpath(path, ROOT)}\n".encode()
            + (path.read_bytes() if path.exists() else b"gone")
        )
    return whole.hexdigest()


def digest(source: str, job: Job) -> str:
    """Of the source and of the configuration of `job`.

    Raises a UserError for a key that there is not and for a value of the wrong type.
    """
    config = json.dumps(plan.load(job).to_dict(), sort_keys=True, default=str)
    return hashlib.sha256((source + config).encode()).hexdigest()[:16]


def _with_imports(paths: Iterable[pathlib.Path], room: pathlib.Path) -> list[pathlib.Path]:
    """These files and whatever they import of `room`, and so on."""
    todo, found = [*paths], set[pathlib.Path]()
    while todo:
        if (path := todo.pop()) not in found:
            found.add(path)
            todo += _imported(path, room)
    return sorted(found)


def _imported(path: pathlib.Path, room: pathlib.Path) -> list[pathlib.Path]:
    """The modules of `room` that a file imports, within functions too."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names] + [str(node.module)]
    paths = [(ROOT.parent / name.replace(".", "/")).with_suffix(".py") for name in names]
    return [path for path in paths if path.is_relative_to(room) and path.is_file()]
