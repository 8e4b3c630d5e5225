"""What papers state, as data: exact figures of a network and reported results."""

from collections.abc import Mapping
from typing import NamedTuple


class Facts(NamedTuple):
    """The exact figures of one variant of a network; tests recompute every one.

    Attributes:
      input: (height, width, channels) that the figures hold for.
      params: trainable parameters; batch statistics are not counted.
      macs: multiply-adds of convolutions and fully connected layers for one image, in evaluation.
      shapes: (height, width, channels) of named endpoints.
      source: where the figures are stated or how they were obtained.
      stated: what the paper itself prints, of parameters ("60M") or of multiply-adds ("1.5G"), or of both.
    """

    input: tuple[int, int, int]
    params: int
    macs: int
    shapes: dict[str, tuple[int, ...]]
    source: str
    stated: str = ""


class Reported(NamedTuple):
    """One result as a paper prints it.

    Attributes:
      recipe: the recipe of the config file that aims at it.
      variant: of the network.
      metric: the name of our metric, such as `val/top1_error`.
      value: the figure, errors in percent.
      protocol: how the paper measured it.
      source: table or section.
    """

    recipe: str
    variant: str
    metric: str
    value: float
    protocol: str
    source: str


def top1_and_top5(
    recipe: str, errors: Mapping[str, tuple[float, float]], protocol: str, source: str
) -> tuple[Reported, ...]:
    """Top-1 and top-5 errors in percent by variant, as tables print them."""
    metrics = ("val/top1_error", "val/top5_error")
    return tuple(
        Reported(recipe, variant, metric, error, protocol, source)
        for variant, pair in errors.items()
        for metric, error in zip(metrics, pair, strict=True)
    )
