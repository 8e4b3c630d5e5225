"""Results of runs that belong to no sweep, against those of their papers if comparable."""

import os
import pathlib
from collections.abc import Sequence
from typing import NamedTuple

from cnn_papers.claims import loading
from cnn_papers.reporting import average_precisions, figure_data, wording
from cnn_papers.reporting.results import ReportedResult, Results, Row, SingleRun
from cnn_papers.runs import reported, workdir
from cnn_papers.runs.rows import METRICS, best_evaluation, evaluations, read_rows
from cnn_papers.tasks import task_module


class LoadedRun(NamedTuple):
    """A run's folder, its run.json, and the rows of its metrics.jsonl."""

    path: pathlib.Path
    saved: workdir.SavedRun
    rows: list[Row]


class Evaluated(NamedTuple):
    """Rows of a run: its last evaluation, its best, None if there is none; its final tests."""

    last: Row | None
    best: Row | None
    tests: list[Row]


def of_runs(folder: pathlib.Path, paths: Sequence[pathlib.Path], address: str) -> Results:
    """Returns the results of the runs at `paths` in `folder`; UserError if one is damaged."""
    runs = [
        LoadedRun(path, loading.read_saved_run(path), read_rows(path / METRICS)) for path in paths
    ]
    singles = [_single(folder, run) for run in runs]
    versions = [loading.versions_text(run.saved.versions) for run in runs]
    figures = []
    for run in runs:
        figures += figure_data.of_run(run.path, run.saved.config, run.rows)
    return Results(
        kind="runs",
        runs=address,
        machines=list(dict.fromkeys(run.saved.machine or loading.UNKNOWN for run in runs)),
        versions=list(dict.fromkeys(versions)),
        outcomes={run.id: _outcome(run) for run in singles},
        figures=figures,
        singles=singles,
    )


def evaluated(rows: Sequence[Row], task: str) -> Evaluated:
    """Returns the evaluations that a report shows of a run of `task`, without their analyses."""
    shown = [
        {key: value for key, value in row.items() if not key.startswith("analysis/")}
        for row in rows
    ]
    tests = [row for row in shown if "test/protocol" in row]
    headline = task_module(task).HEADLINE
    last = next(reversed(evaluations(shown, headline)), None)
    return Evaluated(last, best_evaluation(shown, headline), tests)


def _single(folder: pathlib.Path, run: LoadedRun) -> SingleRun:
    """Returns a run with the results that its paper reports.

    They are those for its own recipe on its data; if there are none, those for the paper's recipe.
    """
    config = run.saved.config
    found = evaluated(run.rows, config.task)
    own = reported.of_run(config)
    changed = reported.changes(config) if own else []
    papers = own or [
        result
        for result in reported.all_of(config.name)
        if (result.recipe, result.variant) == (config.paper_recipe, config.model.variant)
    ]
    follows = bool(own) and not changed
    return SingleRun(
        id=os.path.relpath(run.path, folder),
        name=run.path.resolve().name,
        config=f"configs/{config.name}.py:{config.recipe}",
        data=config.data.name,
        steps=max((row["step"] for row in run.rows), default=0),
        total_steps=run.saved.total_steps or config.total_steps or None,
        same=bool(own),
        changed=changed,
        reported=[
            ReportedResult(
                *result, ours=reported.ours(result, config, run.rows) if follows else None
            )
            for result in papers
        ],
        last=found.last,
        best=found.best,
        tests=found.tests,
        task=config.task,
        precisions=average_precisions.of_run(run.path, config),
    )


def _outcome(run: SingleRun) -> str:
    """A run has finished if its last step, which is always evaluated, was evaluated."""
    if run.total_steps is None:
        return wording.UNSAID
    last_step = run.last["step"] if run.last else 0
    return "done" if last_step >= run.total_steps else wording.UNFINISHED
