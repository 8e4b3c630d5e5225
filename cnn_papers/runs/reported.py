"""Sets a run beside what its paper reports, like with like."""

import importlib
import importlib.util
from collections.abc import Sequence
from typing import Any

from cnn_papers import tasks
from cnn_papers.facts import Reported
from cnn_papers.runs import config_files, workdir
from cnn_papers.runs.rows import Row, evaluations

# The keys that a run may change and still follow its recipe: where and how it computes, how often
# it is evaluated, its final test.
FREE_KEYS = (
    *(key for key in workdir.FREE_KEYS if not key.startswith("total_")),
    "data.max_bad_boxes",
    "data.max_skips",
    "eval",
    "seed",
)


def all_of(name: str) -> Sequence[Reported]:
    """Returns the results in the config file `name`; none if it is not one of the package's own."""
    spec = importlib.util.find_spec(f"configs.{name}")
    return importlib.import_module(spec.name).REPORTED if spec else ()


def of_run(config: Any) -> list[Reported]:
    """Returns the results for the recipe, the network, the data set and the task of a run."""
    return [
        result
        for result in all_of(config.name)
        if (result.recipe, result.variant) == (config.recipe, config.model.variant)
        and result.metric in tasks.measures(config.task)
        and result.data.partition("[")[0] == config.data.name
    ]


def changes(config: Any) -> list[str]:
    """Returns the keys, except FREE_KEYS, in which a run differs from its recipe.

    A key that the run is older than does not count where it is off.
    """
    different = workdir.differences(config, _recipe(config))
    return [
        key
        for key, (run, recipe) in different.items()
        if not key.startswith(FREE_KEYS) and (run != workdir.UNSET or recipe)
    ]


def ours(result: Reported, config: Any, rows: Sequence[Row]) -> float | None:
    """Returns the value of a run that was measured as the paper's was; None if there is none.

    It is of the run's final test by `result.measured_by`, as the recipe sets it up. A recipe that
    has no final test gives the last evaluation in training, which is of single views: the best
    would be chosen by the images that it is of.

    Args:
      result: of the recipe, the network and the data set of the run.
      config: of the run; see `changes`.
      rows: its metrics.jsonl.
    """
    settings = _recipe(config).eval
    tests = [row for row in rows if row.get("test/protocol") == result.measured_by]
    tests = [
        row
        for row in tests
        if row["test/split"] == result.data
        and "test/ensemble" not in row
        # a row may be older than a key
        and row.get("test/mirror", settings.mirror) == settings.mirror
        and row.get("test/precise_bn", settings.precise_bn) == settings.precise_bn
    ]
    if tests:
        # The final test is the first at its step; --mode=eval may have added others.
        return max(tests, key=lambda row: row["step"])[f"test/{result.metric}"]
    evaluated = evaluations(rows, tasks.task_module(config.task).HEADLINE)
    if not evaluated or result.measured_by != "single_view" or settings.precise_bn:
        return None
    return evaluated[-1][f"val/{result.metric}"]


def _recipe(config: Any) -> Any:
    return config_files.read(f"configs/{config.name}.py:{config.recipe}")
