"""Tables the final tests of a grid's runs: means over seeds, with their deviations."""

import statistics
from collections.abc import Sequence

from cnn_papers import tasks
from cnn_papers.facts import Measure
from cnn_papers.reporting.results import GridRun, Row

CAPTION = "Final tests: the mean over seeds ± the standard deviation."


def table(runs: Sequence[GridRun]) -> list[tuple[str, ...]]:
    """Returns the table of final tests, means over seeds: a header and rows; [] without a test.

    A row is of the runs that differ by nothing but their seed. Beside each mean stands the standard
    deviation of the runs. Settings are those that differ between rows.
    """
    tested = [run for run in runs if run.tests]
    if not tested:
        return []
    measures: dict[str, Measure] = {}
    for task in {run.task: tasks.task_module(run.task) for run in tested}.values():
        measures |= {measure.name: measure for measure in task.MEASURES}
        if by_class := getattr(task, "BY_CLASS", None):
            words = f"{by_class.words}, mean of classes"
            measures[by_class.name] = by_class._replace(words=words)
    keys = dict.fromkeys(key for run in tested for key in run.overrides if key != "seed")
    varied = [key for key in keys if len({repr(run.overrides.get(key)) for run in tested}) > 1]
    rows: dict[tuple[str, str], list[Row]] = {}
    for run in tested:
        settings = ", ".join(f"{key}={run.overrides.get(key)}" for key in varied)
        for row in run.tests:
            rows.setdefault((settings, row["test/protocol"]), []).append(row)
    header = ("settings", "protocol", "runs", *(measure.words for measure in measures.values()))
    cells = [
        (*names, str(len(of_row)), *(_mean(measure, of_row) for measure in measures.values()))
        for names, of_row in rows.items()
    ]
    return [header, *cells]


def _mean(measure: Measure, rows: Sequence[Row]) -> str:
    """Returns the mean of a measure over rows and its standard deviation; "–" of no value."""
    values = [row.get(f"test/{measure.name}") for row in rows]
    present = [value for value in values if value is not None]
    if not present:
        return "–"
    spread = f" ± {statistics.stdev(present):.2f}" if len(present) > 1 else ""
    return f"{statistics.mean(present):.2f}{spread} {measure.unit}".rstrip()
