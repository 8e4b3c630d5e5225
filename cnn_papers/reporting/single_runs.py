"""What came of runs by themselves: their errors, against their papers' where they may be compared."""

import importlib
import importlib.util
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cnn_papers.errors import UserError
from cnn_papers.reporting import figure_data, wording
from cnn_papers.runs import config_files, workdir
from cnn_papers.runs.rows import METRICS, read_rows

# What a run may change and still be its recipe: where and how it computes, how often it looks, its
# final test.
FREE_KEYS = (
    *(key for key in workdir.FREE_KEYS if not key.startswith("total_")),
    "data.max_skips",
    "eval",
    "seed",
)


def of_runs(folder: pathlib.Path, runs: Sequence[pathlib.Path]) -> dict[str, Any]:
    """The results of `runs` in `folder`; UserError for one that is damaged."""
    singles = [_single(folder, run) for run in runs]
    return {
        "kind": "runs",
        **made_with(folder, [run["id"] for run in singles]),
        "outcomes": {run["id"]: _outcome(run) for run in singles},
        "singles": singles,
        "figures": figure_data.of_runs(runs),
    }


def errors(run: pathlib.Path) -> dict[str, Any]:
    """The last evaluation of a run, its best, and its final tests."""
    rows = read_rows(run / METRICS)
    shown = [
        {key: value for key, value in row.items() if not key.startswith("analysis/")}
        for row in rows
    ]
    evaluations = [row for row in shown if "val/top1_error" in row]
    tests = [row for row in shown if "test/protocol" in row]
    if not evaluations:
        return {"tests": tests}
    best = min(evaluations, key=lambda row: row["val/top1_error"])
    return {"last": evaluations[-1], "best": best, "tests": tests}


def made_with(
    folder: pathlib.Path, runs: Iterable[str], *others: Mapping[str, str]
) -> dict[str, Any]:
    """Machines and versions of `runs`, and `others`, each once."""
    found = [_read(folder / run) for run in runs]
    texts = (
        ", ".join(f"{name} {version}" for name, version in versions.items())
        for versions in (*(run.versions for run in found), *others)
    )
    return {
        "machines": list(dict.fromkeys(run.machine or "unknown" for run in found)),
        "versions": list(dict.fromkeys(texts)),
    }


def _single(folder: pathlib.Path, path: pathlib.Path) -> dict[str, Any]:
    """A run against what its paper reports."""
    run = _read(path)
    config, found = run.config, errors(path)
    paper = config.paper_recipe
    same = config.recipe == config.data.name == paper
    reported = [
        result
        for result in _reported(config.name)
        if result.recipe == paper and result.variant == config.model.variant
    ]
    changed = _changed(config) if same and reported else []
    ours = found.get("best", {}) if same and not changed else {}
    return {
        "id": os.path.relpath(path, folder),
        "name": path.resolve().name,
        "config": _recipe(config),
        "data": config.data.name,
        "steps": max((row["step"] for row in read_rows(path / METRICS)), default=0),
        "total_steps": run.total_steps or config.total_steps or None,
        "same": same,
        "changed": changed,
        "reported": [result._asdict() | {"ours": ours.get(result.metric)} for result in reported],
        **found,
    }


def _outcome(run: Mapping[str, Any]) -> str:
    """Whether a run came to its end, which is evaluated; runs of older versions may not say how
    long they are.
    """
    if run["total_steps"] is None:
        return wording.UNSAID
    return (
        "done" if run.get("last", {"step": 0})["step"] >= run["total_steps"] else wording.UNFINISHED
    )


def _changed(config: Any) -> list[str]:
    """The keys in which a run differs from its recipe as it stands, other than in FREE_KEYS."""
    recipe = config_files.read(_recipe(config))
    return [key for key in workdir.differences(recipe, config) if not key.startswith(FREE_KEYS)]


def _recipe(config: Any) -> str:
    return f"configs/{config.name}.py:{config.recipe}"


def _reported(name: str) -> Sequence[Any]:
    """What the paper of the config file `name` reports; nothing of a config file that lies
    elsewhere.
    """
    known = importlib.util.find_spec(f"configs.{name}")
    return importlib.import_module(known.name).REPORTED if known else ()


def _read(folder: pathlib.Path) -> workdir.SavedRun:
    run = workdir.read_run(folder)
    if run is None or not run.versions:
        raise UserError(f"{folder / workdir.RUN} is damaged: it says nothing of the run's versions")
    return run
