"""The outcome of a pass over images, and the result of a test: of one network or of several."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers.errors import UserError
from cnn_papers.evaluation.class_errors import ClassErrors, by_class
from cnn_papers.training.losses import errors


class Outcome(NamedTuple):
    """The result of a pass.

    Attributes:
      probabilities: float32 [images, classes], in the split's order.
      label: int32 [images].
      programs: number of programs that were used.
      seconds: of the pass, without `compiling`.
      compiling: seconds that it took to compile the programs.
      enlarged: number of images that are smaller than the protocol's largest scale.
    """

    probabilities: np.ndarray
    label: np.ndarray
    programs: int
    seconds: float
    compiling: float
    enlarged: int


class Result(NamedTuple):
    """One line of the table.

    Attributes:
      who: the name of the member, or "mean of 3".
      values: of the task's measures by name, over `images` images.
      by_class: the top-1 error of each class.
      programs: number of programs that were compiled, in `compiling` seconds.
      seconds: of the test, without `compiling`; of an ensemble the sum over its members, as
        `programs` and `compiling` are.
    """

    who: str
    protocol: str
    values: dict[str, float]
    by_class: ClassErrors
    images: int
    programs: int
    seconds: float
    compiling: float

    @property
    def images_per_second(self) -> float:
        """The speed of the test, without compiling."""
        return self.images / self.seconds


def result_of(
    who: str, protocol: str, outcomes: Sequence[Outcome], class_names: Sequence[str]
) -> Result:
    """Counts the errors of the mean of the outcomes' class probabilities.

    Args:
      who, protocol: as in Result.
      outcomes: one for each network, of the same images.
      class_names: in the order of the labels.

    Raises:
      UserError: the outcomes are of different images.
    """
    label = outcomes[0].label
    if any(not np.array_equal(outcome.label, label) for outcome in outcomes):
        raise UserError(
            "these runs are evaluated on different data: "
            "set --config.data.name and --config.data.eval_split"
        )
    probabilities = jnp.asarray(np.mean([outcome.probabilities for outcome in outcomes], 0))

    def wrong(k: int) -> jax.Array:
        return errors(probabilities, jnp.asarray(label), k)

    def percent(wrong: jax.Array) -> float:
        return 100 * float(wrong.sum()) / len(label)

    return Result(
        who=who,
        protocol=protocol,
        values={"top1_error": percent(wrong(1)), "top5_error": percent(wrong(5))},
        by_class=by_class(np.asarray(wrong(1)), label, class_names),
        images=len(label),
        programs=sum(outcome.programs for outcome in outcomes),
        seconds=sum(outcome.seconds for outcome in outcomes),
        compiling=sum(outcome.compiling for outcome in outcomes),
    )
