"""Finds the task of a run, `config.task`: a module of this folder, by its name. Needs no JAX.

A task says what is learnt and how it is measured. Its module has

- `MEASURES`: what an evaluation and a test report, as `facts.Measure`s. `HEADLINE`, the first of
  them, chooses the best state and tells a plateau; evaluations need its value and `loss`.
- `Totals`: a NamedTuple of what a train step adds up for a report: `steps`, `loss`, the scalars of
  the task, `grad_norm`.
- `prepare`, `loss`, `scalars`: the network's arguments in a step beside the images, and what its
  outputs are compared with; the loss of a step; its scalars.
- `make_eval_step`, `evaluate`: the evaluation during training.
- `parse_protocols`, `protocols`: the protocols that `config.eval.protocol` names, and the same,
  checked to be ones that the network can serve.
- `test`, `result_of`: the outcome of a protocol over the images of a final test, and its values.
- `reordered`: an outcome with its classes in another order. A task whose outcomes have no mean over
  several networks has none, and its `result_of` gets one outcome.
- `NEEDS`: what an example must have: "label", "labels" (several, or one) or "boxes".
- `BACKGROUND`: the number of outputs of the network beside those of the classes, 1 for a
  background.
- `guessing`: the values that a run that diverged is taken to have.
"""

import importlib
import pkgutil
from typing import Any

from cnn_papers.errors import UserError
from cnn_papers.facts import Measure

BEFORE = "classify"  # the task of every run that is older than `config.task`


def task_names() -> list[str]:
    """Returns the names of the files of this folder, one for each task."""
    return [module.name for module in pkgutil.iter_modules(__path__)]


def task_module(name: str) -> Any:
    """Returns the module `cnn_papers.tasks.<name>`.

    Raises:
      UserError: an unknown name (with the list).
    """
    if name not in task_names():
        raise UserError(f"unknown config.task '{name}'; there are: {', '.join(task_names())}")
    return importlib.import_module(f"cnn_papers.tasks.{name}")


def measures(name: str) -> dict[str, Measure]:
    """Returns the measures of the task `name` by the names of their rows."""
    return {measure.name: measure for measure in task_module(name).MEASURES}
