"""Types for what papers state: exact numbers of a network, reported results, claims."""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Facts(NamedTuple):
    """The exact numbers of one variant of a network, all recomputed by tests.

    Attributes:
      input: (height, width, channels) for which the numbers hold.
      params: trainable parameters; batch statistics are not counted.
      macs: multiply-adds of convolutions and fully connected layers for one image, in evaluation.
      shapes: (height, width, channels) of named endpoints.
      source: where the numbers are stated or how they were obtained.
      stated: the paper's own number of parameters ("60M"), of multiply-adds ("1.5G"), or both.
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
      recipe: the recipe of the config file that trains such a network.
      variant: of the network.
      metric: a measure of the recipe's task, such as `top1_error`.
      value: in the unit of the measure.
      data: the data set and split that it is of, such as "cifar10[test]".
      protocol: the paper's way of measuring it; after a semicolon, why no run of ours measures it.
      measured_by: the protocol of the recipe's `config.eval.protocol` that measures it in the same
        way; "" if none does.
      source: table or section.
    """

    recipe: str
    variant: str
    metric: str
    value: float
    data: str
    protocol: str
    measured_by: str
    source: str


class Measure(NamedTuple):
    """A value that tells how well a network does its task.

    Attributes:
      name: of its rows in metrics.jsonl, after `train/`, `val/` or `test/`.
      words: the name in words.
      unit: "%", or "" if it has none.
      lower_is_better: as of an error.
    """

    name: str
    words: str
    unit: str = ""
    lower_is_better: bool = True

    @property
    def label(self) -> str:
        """The words with the unit, as in "top-1 error (%)"."""
        return f"{self.words} ({self.unit})" if self.unit else self.words

    def number(self, value: float) -> str:
        """Returns a value with its unit, as in "4.25%"."""
        return f"{value:.2f}{self.unit}"

    def text(self, value: float) -> str:
        """Returns the words with a value, as in "top-1 error 4.25%"."""
        return f"{self.words} {self.number(value)}"

    def cost(self, value: float) -> float:
        """Returns a value that is lower for better networks: `value`, or its negative."""
        return value if self.lower_is_better else -value


class Scale(NamedTuple):
    """The experiment for a claim at one scale.

    Attributes:
      overrides: of every arm, by flag without its `--config.`; the key "config" names the config
        file and recipe, the key "start" has the same of a run that is made first and whose weights
        the arm starts from (or is None).
      arms: replace the claim's own, if the scale needs others (for example, a shallower net).
      paper_delta: the paper's on the data set of the scale, if that is not the claim's own.
    """

    overrides: dict[str, Any]
    arms: dict[str, dict[str, Any]] | None = None
    paper_delta: float | None = None


class Claim(NamedTuple):
    """A claim of a paper as an experiment that can be repeated.

    Attributes:
      statement: the claim in our words.
      source: paper and section, table or figure.
      arms: overrides by the name of the arm, applied after those of the `Scale`. Two arms, of which
        the second is compared with the first; or an ordered series; or one arm, compared with
        `bound` or, if the metric is a change, with zero.
      metric: the value of a finished run that is compared, an op string of
        `cnn_papers.claims.metrics`.
      expect: the expected result. `lower` or `higher`: in the second arm, or than zero in a single
        one. `same`: within ±`bound`. `falling` or `rising`: along the series, in its trend if the
        metric is random, else at every step. `at_most` or `at_least`: `bound`, for the value of a
        single arm, or the difference or ratio of two.
      paper: the paper's own numbers, in words.
      paper_delta: the paper's difference (or ratio) of the second arm to the first, in the metric's
        unit; None if it gives none.
      paper_data: the data set that `paper_delta` is of. Results on another are shown without it.
      scales: by name: `exact` (nothing is trained), `desk` (two CPU cores, minutes), `gpu` (one
        accelerator), `paper` (ImageNet).
      ratio: compare by ratio instead of difference.
      bound: see `expect`; with `ratio`, a ratio (for `same`, above 1).
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
    paper_data: str = "imagenet2012"


def top1_and_top5(
    recipe: str,
    errors: Mapping[str, tuple[float, float]],
    *,
    protocol: str,
    measured_by: str,
    source: str,
    data: str = "imagenet2012[validation]",
) -> tuple[Reported, ...]:
    """Returns the results of a table that gives (top-1, top-5) errors in percent by variant."""
    return tuple(
        Reported(recipe, variant, metric, error, data, protocol, measured_by, source)
        for variant, pair in errors.items()
        for metric, error in zip(("top1_error", "top5_error"), pair, strict=True)
    )
