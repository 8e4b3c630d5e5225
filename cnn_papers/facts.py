"""What papers state, as data: exact figures of a network, reported results, claims."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Facts(NamedTuple):
    """The exact figures of one variant of a network; tests recompute every one.

    Attributes:
      input: (height, width, channels) that the figures hold for.
      params: trainable parameters; batch statistics are not counted.
      macs: multiply-adds of convolutions and fully connected layers for one image, in evaluation.
      shapes: (height, width, channels) of named endpoints.
      source: where the figures are stated or how they were obtained.
      stated: what the paper itself prints, of parameters ("60M") or of multiply-adds ("1.5G"), or
        of both.
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


class Scale(NamedTuple):
    """How a claim is asked at one scale.

    Attributes:
      overrides: of every arm, by flag without its `--config.`; the key "config" names the config
      file and recipe.
      arms: instead of the claim's own, where the scale needs others (a shallower net, say).
      paper_delta: instead of the claim's own, where the paper has another on the data of the scale.
    """

    overrides: dict[str, Any]
    arms: dict[str, dict[str, Any]] | None = None
    paper_delta: float | None = None


class Claim(NamedTuple):
    """A claim of a paper as an experiment that can be run again.

    Attributes:
      statement: the claim in our words.
      source: paper and section, table or figure.
      arms: overrides by the name of the arm, as in `Scale`, whose own they follow. Two arms, the
        second against the first; or an ordered series; or one arm against `bound` or, where the
        metric is a change, against none.
      metric: what is read off a finished run, an op string of `cnn_papers.claims.metrics`.
      expect: of the metric, `lower` or `higher` in the second arm, or than zero in the one arm;
        `same` within ±`bound`; `falling` or `rising` along the series, by its trend where chance
        has a part, else at every step; `at_most` or `at_least` `bound` in the one arm, or of two in
        their difference or ratio.
      paper: the paper's own figures, in words.
      paper_delta: the paper's difference (or ratio) of the second arm to the first, in the metric's
        unit; None if it gives none.
      scales: by name: `exact` (nothing is trained), `desk` (two CPU cores, minutes), `gpu` (one
        accelerator), `paper` (ImageNet).
      ratio: compare by ratio instead of difference.
      bound: see `expect`; with `ratio`, a ratio (of `same`, above 1).
    """

    statement: str
    source: str
    arms: dict[str, dict[str, Any]]
    metric: str
    expect: str
    paper: str
    scales: dict[str, Scale]
    paper_delta: float | None = None
    ratio: bool = False
    bound: float | None = None


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
