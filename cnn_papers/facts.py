"""What papers state, as data: exact figures of a network and reported results."""

from typing import NamedTuple


class Facts(NamedTuple):
    """The exact figures of one variant of a network; tests recompute every one.

    Attributes:
      input: (height, width, channels) that the figures hold for.
      params: trainable parameters; batch statistics are not counted.
      macs: multiply-adds of convolutions and fully connected layers for one image, in evaluation.
      shapes: (height, width, channels) of named endpoints.
      source: where the figures are stated or how they were obtained.
    """

    input: tuple[int, int, int]
    params: int
    macs: int
    shapes: dict[str, tuple[int, ...]]
    source: str


class Reported(NamedTuple):
    """One result as a paper prints it.

    Attributes:
      recipe: the recipe of the config file that aims at it.
      metric: the name of our metric, such as `val/top1_error`.
      value: the figure, errors in percent.
      protocol: how the paper measured it.
      source: table or section.
    """

    recipe: str
    metric: str
    value: float
    protocol: str
    source: str
