"""Whether runs bear a claim out: the statistics of readings by arm and seed, and nothing else.

Each seed gives one figure: the second arm minus the first, the slope along a series, or the one arm
itself (of logarithms where a claim compares by ratio). The interval is Student's, over seeds, so
that what a seed does to every arm alike drops out. A censored reading is a bound, and opens the
interval at the side where the truth may lie further out. Its other end supposes that the readings
cut short vary no more than the others; of one arm by itself, whose spread the cut itself lessens,
simulation then has up to one in twenty-five agree by chance, instead of one in forty.
"""

import math
import sys
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from cnn_papers.claims.metrics import Reading
from cnn_papers.facts import Claim

LEVEL = 0.95  # of intervals
EQUIVALENCE_LEVEL = 0.90  # two one-sided tests at 5 % are an interval of 90 % within the bounds
AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "undecided"
SUPPOSED = "the interval supposes that readings cut short vary no more than the others"
LARGEST = math.log(sys.float_info.max)

Interval = tuple[float, float]


class Arm(NamedTuple):
    """Mean (geometric of a ratio) and standard deviation of the readings of seeds that count; how
    many are censored.
    """

    mean: float
    sd: float
    censored: int


class Verdict(NamedTuple):
    """What the readings say of a claim.

    Attributes:
      word: agrees, disagrees or undecided.
      estimate: the mean over seeds of the figure (see above) in the metric's unit; of a ratio the
      geometric mean.
      low: lower end of the interval, minus infinity (0 of a ratio) where it is open.
      high: upper end, infinity where it is open.
      n: seeds that every arm has.
      level: of the interval: 0.95, but 0.9 where equivalence is asked and not refuted.
      relation: of the true figure to the estimate: "=", or "≥", "≤", "?" where readings are
      censored.
      note: what limits the verdict, in words.
      arms: by name.
    """

    word: str
    estimate: float
    low: float
    high: float
    n: int
    level: float
    relation: str
    note: str
    arms: dict[str, Arm]


def judge(
    claim: Claim, readings: Mapping[str, Mapping[int, Reading]], *, exact: bool = False
) -> Verdict:
    """The verdict on `claim` from readings by arm, in its order, and seed.

    Args:
      claim: what is claimed.
      readings: of the claim's metric; seeds that an arm lacks are left out of all.
      exact: whether readings have no chance in them, so that one seed decides.
    """
    seeds = sorted(set.intersection(*(set(arm) for arm in readings.values())))
    table = [[arm[seed] for arm in readings.values()] for seed in seeds]
    values = np.array([[reading.value for reading in row] for row in table], float).reshape(
        -1, len(readings)
    )
    censored = np.array([[reading.censored for reading in row] for row in table], bool).reshape(
        values.shape
    )
    arms = {
        name: Arm((_geometric_mean if claim.ratio else _mean)(column), _sd(column), int(cut.sum()))
        for name, column, cut in zip(readings, values.T, censored.T, strict=True)
    }
    unusable = _unusable(values, ratio=claim.ratio)
    figures = np.zeros(0) if unusable else _figures(np.log(values) if claim.ratio else values)
    relation = "=" if unusable else _relation(censored)
    bound = math.log(claim.bound) if claim.bound is not None and claim.ratio else claim.bound
    word, level, (low, high), why = _decide(claim.expect, figures, relation, bound, exact)
    bent = word == AGREES and not _every_step(claim.expect, [arm.mean for arm in arms.values()])
    if bent and exact:
        word, why = DISAGREES, "exact; the trend, but not every step"
    left_out = len(set().union(*readings.values())) - len(seeds)
    notes = [
        f"{left_out} of {left_out + len(seeds)} seeds are not in every arm" if left_out else "",
        *(
            f"{arm.censored} of {len(seeds)} censored in {name}"
            for name, arm in arms.items()
            if arm.censored
        ),
        SUPPOSED if relation in "≥≤" else "",
        "not every step goes that way" if bent and not exact else "",
        unusable or why,
    ]
    estimate, low, high = (_exp(x) if claim.ratio else x for x in (_mean(figures), low, high))
    return Verdict(
        word, estimate, low, high, len(seeds), level, relation, "; ".join(filter(None, notes)), arms
    )


def weights(arms: int) -> np.ndarray:
    """What the arms' readings are multiplied with to give one figure: least squares' slope over
    arms 0, 1, 2, ….

    Of two arms that is the second minus the first; one arm is itself.
    """
    if arms == 1:
        return np.ones(1)
    places = np.arange(arms) - (arms - 1) / 2
    return places / (places @ places)


def interval(figures: np.ndarray, level: float) -> Interval:
    """Student's interval of the mean of `figures` [n] at `level`; (-inf, inf) of fewer than two.

    Figures that are all the same have no spread to go by. They are then the interval of the median
    from the smallest to the largest, which needs no distribution and covers it at 1 - 2^(1 - n):
    six for 95 %, five for 90 %.
    """
    n = len(figures)
    if n < 2:
        return -math.inf, math.inf
    mean = _mean(figures)
    if _all_same(figures):
        return (mean, mean) if 1 - 2.0 ** (1 - n) >= level else (-math.inf, math.inf)
    half = float(special.stdtrit(n - 1, (1 + level) / 2)) * _sd(figures) / math.sqrt(n)
    return mean - half, mean + half


def _decide(
    expect: str, figures: np.ndarray, relation: str, bound: float | None, exact: bool
) -> tuple[str, float, Interval, str]:
    """The word, the level and the interval it rests on, and a note."""
    if not len(figures):
        return UNDECIDED, LEVEL, (-math.inf, math.inf), "no reading of every arm"
    if exact:
        at = (_mean(figures), _mean(figures))
        return AGREES if _word(expect, at, bound) == AGREES else DISAGREES, LEVEL, at, "exact"
    wide, narrow = (
        _opened(interval(figures, level), relation) for level in (LEVEL, EQUIVALENCE_LEVEL)
    )
    note = (
        "all seeds give the same figure, and the interval is of their median"
        if _all_same(figures)
        else ""
    )
    note = "fewer than two seeds" if len(figures) < 2 else note
    word = _word(expect, wide, bound)
    if expect != "same" or word == DISAGREES:
        return word, LEVEL, wide, note
    return (
        AGREES if _word(expect, narrow, bound) == AGREES else UNDECIDED,
        EQUIVALENCE_LEVEL,
        narrow,
        note,
    )


def _every_step(expect: str, means: Sequence[float]) -> bool:
    """Whether a series goes the way it is expected to from each arm to the next; True of what is no
    series.
    """
    steps = np.diff(means)
    return bool({"falling": steps < 0, "rising": steps > 0}.get(expect, np.array(True)).all())


def _word(expect: str, within: Interval, bound: float | None) -> str:
    """Whether the whole interval is as expected, none of it, or some."""
    (low, high), limit = within, bound or 0.0
    inside, outside = {
        "lower": (high < 0, low > 0),
        "falling": (high < 0, low > 0),
        "higher": (low > 0, high < 0),
        "rising": (low > 0, high < 0),
        "at_most": (high <= limit, low > limit),
        "at_least": (low >= limit, high < limit),
        "same": (-limit <= low and high <= limit, low > limit or high < -limit),
    }[expect]
    return AGREES if inside else DISAGREES if outside else UNDECIDED


def _figures(values: np.ndarray) -> np.ndarray:
    """The figure of each seed from `values` [seeds, arms]; zero where it is but rounding."""
    weight = weights(values.shape[1])
    figures = values @ weight
    return np.where(np.abs(figures) <= 1e-12 * (np.abs(values) @ np.abs(weight)), 0.0, figures)


def _relation(censored: np.ndarray) -> str:
    """How the true figures relate to those computed from `censored` [seeds, arms] readings, which
    are at least so.
    """
    weight = weights(censored.shape[1])
    up, down = bool(censored[:, weight > 0].any()), bool(censored[:, weight < 0].any())
    return {(False, False): "=", (True, False): "≥", (False, True): "≤", (True, True): "?"}[
        up, down
    ]


def _opened(within: Interval, relation: str) -> Interval:
    low, high = within
    return -math.inf if relation in "≤?" else low, math.inf if relation in "≥?" else high


def _unusable(values: np.ndarray, *, ratio: bool) -> str:
    """Why `values` [seeds, arms] give no figures; "" where they do."""
    if missing := int((~np.isfinite(values)).any(1).sum()):
        return f"{missing} of {len(values)} seeds have a reading that is not a number"
    if ratio and (values <= 0).any():
        return "a ratio of readings that are not positive"
    return ""


def _all_same(figures: np.ndarray) -> bool:
    """Whether figures differ by no more than rounding."""
    return float(np.ptp(figures)) <= 1e-9 * float(np.abs(figures).max())


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _geometric_mean(values: np.ndarray) -> float:
    if not len(values) or not (np.isfinite(values) & (values > 0)).all():
        return math.nan
    return float(
        values[0] * np.exp(np.log(values / values[0]).mean())
    )  # of one value, that value exactly


def _exp(x: float) -> float:
    return math.inf if x > LARGEST else math.exp(x)


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 and np.isfinite(values).all() else math.nan
