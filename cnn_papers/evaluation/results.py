"""The outcome of a pass over images, and the result of a test: of one network or of several."""

from typing import NamedTuple

import numpy as np

from cnn_papers.evaluation.class_values import ClassValues


class Outcome(NamedTuple):
    """The result of a pass: class probabilities, or other scores.

    Attributes:
      scores: float32 [images, classes], in the split's order; higher where a class is more likely.
      labels: int32 [images], or int8 [images, classes] where an image has several.
      programs: number of programs that were used.
      seconds: of the pass, without `compiling`.
      compiling: seconds that it took to compile the programs.
      enlarged: number of images that are smaller than the protocol's largest scale.
    """

    scores: np.ndarray
    labels: np.ndarray
    programs: int
    seconds: float
    compiling: float
    enlarged: int


class Result(NamedTuple):
    """One line of the table.

    Attributes:
      who: the name of the member, or "mean of 3".
      values: of the task's measures by name, over `images` images.
      by_class: one value of each class.
      programs: number of programs that were compiled, in `compiling` seconds.
      seconds: of the test, without `compiling`; of an ensemble the sum over its members, as
        `programs` and `compiling` are.
      notes: lines on how images or objects were counted, for the terminal.
    """

    who: str
    protocol: str
    values: dict[str, float]
    by_class: ClassValues
    images: int
    programs: int
    seconds: float
    compiling: float
    notes: tuple[str, ...] = ()

    @property
    def images_per_second(self) -> float:
        """The speed of the test, without compiling."""
        return self.images / self.seconds
