"""Decides whether runs bear a claim out: statistics of readings by arm and seed.

Each seed gives one effect: the second arm minus the first, the slope along a series, or the one arm
itself (of logarithms if a claim compares by ratio). The interval of their mean is Student's, over
seeds, so that what a seed does to every arm alike cancels.

A censored reading is a bound: it opens the interval on the side where the truth may lie further
out. The other end supposes that readings cut short vary no more than the others. For one arm, whose
spread the cut itself lessens, simulation then has up to one in twenty-five agree by chance, instead
of one in forty.
"""

import math
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import special

from cnn_papers.claims.metrics import Reading
from cnn_papers.facts import Claim

ERROR_RATE = 0.05  # of wrong decisions about a claim, whatever the truth is
LEVEL = 1 - ERROR_RATE  # of intervals
AGREES, DISAGREES, UNDECIDED = "agrees", "disagrees", "undecided"
SUPPOSED = "the interval supposes that readings cut short vary no more than the others"
LARGEST = math.log(sys.float_info.max)

Interval = tuple[float, float]


class Arm(NamedTuple):
    """Mean (geometric of a ratio) and standard deviation of the readings that count.

    `censored` is the number of censored ones.
    """

    mean: float
    sd: float
    censored: int


class Verdict(NamedTuple):
    """The verdict of the readings on a claim.

    Attributes:
      word: agrees, disagrees or undecided.
      estimate: mean effect over seeds in the metric's unit; of a ratio the geometric mean.
      low: lower end of the interval, minus infinity (0 of a ratio) if it is open.
      high: upper end, infinity if it is open.
      n: number of seeds that every arm has.
      level: of the interval: 0.95, but 0.9 if equivalence is claimed and not refuted.
      relation: of the true effect to the estimate: "=", or "≥", "≤", "?" if readings are censored.
      note: what limits the verdict, in words.
      arms: by name.
      look: number of the look at which it fell (see `sequential`); 0 of seeds fixed beforehand.
      looks: number of looks that were planned; 0 of seeds fixed beforehand.
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
    look: int = 0
    looks: int = 0


class Open(NamedTuple):
    """The sides of the estimate on which the truth may lie further out, because of censoring."""

    below: bool = False
    above: bool = False


class Decision(NamedTuple):
    """A word, the interval that it rests on with its level, and a note."""

    word: str
    level: float
    interval: Interval
    note: str


def judge(
    claim: Claim,
    readings: Mapping[str, Mapping[int, Reading]],
    *,
    exact: bool = False,
    error_rate: float = ERROR_RATE,
) -> Verdict:
    """Returns the verdict on `claim` from readings by arm, in its order, and seed.

    Args:
      claim: the claim.
      readings: of the claim's metric; seeds that an arm lacks are left out of all.
      exact: whether readings have no chance in them, so that one seed decides.
      error_rate: of wrong decisions; intervals have the level that belongs to it.
    """
    seeds = sorted(set.intersection(*(set(by_seed) for by_seed in readings.values())))
    table = [[by_seed[seed] for by_seed in readings.values()] for seed in seeds]
    shape = (len(seeds), len(readings))
    values = np.array([[reading.value for reading in row] for row in table], float).reshape(shape)
    censored = np.array([[reading.censored for reading in row] for row in table], bool)
    censored = censored.reshape(shape)
    mean = _geometric_mean if claim.ratio else _mean
    arms = {
        name: Arm(mean(column), _sd(column), int(cut.sum()))
        for name, column, cut in zip(readings, values.T, censored.T, strict=True)
    }
    unusable = _unusable(values, ratio=claim.ratio)
    if unusable:
        effects, is_open = np.zeros(0), Open()
    else:
        effects = _effects(np.log(values) if claim.ratio else values)
        is_open = _open_sides(censored)
    bound = math.log(claim.bound) if claim.bound is not None and claim.ratio else claim.bound
    decision = _decide(claim.expect, effects, is_open, bound, exact, error_rate)
    word, why = decision.word, decision.note
    bent = word == AGREES and not _every_step(claim.expect, [arm.mean for arm in arms.values()])
    if bent and exact:
        word, why = DISAGREES, "exact; the trend, but not every step"

    notes = []
    if left_out := len(set().union(*readings.values())) - len(seeds):
        notes.append(f"{left_out} of {left_out + len(seeds)} seeds are not in every arm")
    for name, arm in arms.items():
        if arm.censored:
            notes.append(f"{arm.censored} of {len(seeds)} censored in {name}")
    if is_open.below != is_open.above:
        notes.append(SUPPOSED)
    if bent and not exact:
        notes.append("not every step goes that way")
    if unusable or why:
        notes.append(unusable or why)

    estimate, (low, high) = _mean(effects), decision.interval
    if claim.ratio:
        estimate, low, high = _exp(estimate), _exp(low), _exp(high)
    relation, note = _relation(is_open), "; ".join(notes)
    return Verdict(word, estimate, low, high, len(seeds), decision.level, relation, note, arms)


def weights(arms: int) -> np.ndarray:
    """Returns the weights [arms] by which readings make an effect: the slope of least squares.

    The slope is over arms 0, 1, 2, …. Of two arms that is the second minus the first; one arm is
    itself.
    """
    if arms == 1:
        return np.ones(1)
    places = np.arange(arms) - (arms - 1) / 2
    return places / (places @ places)


def interval(effects: np.ndarray, level: float) -> Interval:
    """Returns Student's interval of the mean of `effects` [n]; (-inf, inf) of fewer than two."""
    n = len(effects)
    if n < 2:
        return -math.inf, math.inf
    mean = _mean(effects)
    if _all_same(effects):
        return interval_of_equals(mean, n, level)
    half = float(special.stdtrit(n - 1, (1 + level) / 2)) * _sd(effects) / math.sqrt(n)
    return mean - half, mean + half


def interval_of_equals(value: float, n: int, level: float) -> Interval:
    """Returns the interval of `n` effects that are all `value`, which have no spread to go by.

    It is that of the median from the smallest to the largest effect, which needs no distribution
    and covers it at 1 - 2^(1 - n): six seeds for 95 %, five for 90 %.
    """
    return (value, value) if 1 - 2.0 ** (1 - n) >= level else (-math.inf, math.inf)


def decide(
    expect: str,
    interval_at: Callable[[float], Interval],
    bound: float | None,
    error_rate: float = ERROR_RATE,
) -> tuple[str, float, Interval]:
    """Returns the word on an effect, and the level and interval that it rests on.

    Args:
      expect: of the claim.
      interval_at: returns the interval of the effect at a level.
      bound: of the claim, as a logarithm if it compares by ratio.
      error_rate: of wrong decisions. Equivalence is two one-sided tests, an interval of 90 % for
        5 %.
    """
    wide = interval_at(1 - error_rate)
    word = _word(expect, wide, bound)
    if expect != "same" or word == DISAGREES:
        return word, 1 - error_rate, wide
    narrow = interval_at(1 - 2 * error_rate)
    word = AGREES if _word(expect, narrow, bound) == AGREES else UNDECIDED
    return word, 1 - 2 * error_rate, narrow


# --- the decision ---------------------------------------------------------------------------------


def _decide(
    expect: str,
    effects: np.ndarray,
    is_open: Open,
    bound: float | None,
    exact: bool,
    error_rate: float,
) -> Decision:
    level = 1 - error_rate
    if not len(effects):
        return Decision(UNDECIDED, level, (-math.inf, math.inf), "no reading of every arm")
    if exact:
        point = (_mean(effects), _mean(effects))
        word = AGREES if _word(expect, point, bound) == AGREES else DISAGREES
        return Decision(word, level, point, "exact")
    note = ""
    if len(effects) < 2:
        note = "fewer than two seeds"
    elif _all_same(effects):
        note = "all seeds give the same value, and the interval is of their median"

    def interval_at(level: float) -> Interval:
        return _opened(interval(effects, level), is_open)

    return Decision(*decide(expect, interval_at, bound, error_rate), note)


def _word(expect: str, within: Interval, bound: float | None) -> str:
    """Returns whether the whole interval is as expected, none of it, or a part."""
    (low, high), limit = within, bound or 0.0
    if expect in ("lower", "falling"):
        inside, outside = high < 0, low > 0
    elif expect in ("higher", "rising"):
        inside, outside = low > 0, high < 0
    elif expect == "at_most":
        inside, outside = high <= limit, low > limit
    elif expect == "at_least":
        inside, outside = low >= limit, high < limit
    elif expect == "same":
        inside = -limit <= low and high <= limit
        outside = low > limit or high < -limit
    else:
        raise ValueError(f"a claim cannot expect {expect!r}")
    if inside:
        return AGREES
    return DISAGREES if outside else UNDECIDED


def _every_step(expect: str, means: Sequence[float]) -> bool:
    """Returns whether each step of a series goes the expected way; True if there is no series."""
    steps = np.diff(means)
    if expect == "falling":
        return bool((steps < 0).all())
    if expect == "rising":
        return bool((steps > 0).all())
    return True


# --- censoring ------------------------------------------------------------------------------------


def _open_sides(censored: np.ndarray) -> Open:
    """Returns where the truth may lie, if `censored` [seeds, arms] readings are lower bounds."""
    weight = weights(censored.shape[1])
    return Open(
        below=bool(censored[:, weight < 0].any()), above=bool(censored[:, weight > 0].any())
    )


def _opened(within: Interval, is_open: Open) -> Interval:
    low, high = within
    return -math.inf if is_open.below else low, math.inf if is_open.above else high


def _relation(is_open: Open) -> str:
    """Returns the sign of the true effect's relation to the estimate."""
    if is_open.below and is_open.above:
        return "?"
    if is_open.above:
        return "≥"
    return "≤" if is_open.below else "="


# --- numbers --------------------------------------------------------------------------------------


def _effects(values: np.ndarray) -> np.ndarray:
    """Returns the effect [seeds] of `values` [seeds, arms]; zero where it is only rounding."""
    weight = weights(values.shape[1])
    effects = values @ weight
    return np.where(np.abs(effects) <= 1e-12 * (np.abs(values) @ np.abs(weight)), 0.0, effects)


def _unusable(values: np.ndarray, *, ratio: bool) -> str:
    """Returns why `values` [seeds, arms] give no effects; "" if they do."""
    if missing := int((~np.isfinite(values)).any(1).sum()):
        return f"{missing} of {len(values)} seeds have a reading that is not a number"
    if ratio and (values <= 0).any():
        return "a ratio of readings that are not positive"
    return ""


def _all_same(effects: np.ndarray) -> bool:
    """Returns whether effects differ by no more than rounding."""
    return float(np.ptp(effects)) <= 1e-9 * float(np.abs(effects).max())


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else math.nan


def _geometric_mean(values: np.ndarray) -> float:
    if not len(values) or not (np.isfinite(values) & (values > 0)).all():
        return math.nan
    # Relative to the first value, so that one value is returned exactly.
    return float(values[0] * np.exp(np.log(values / values[0]).mean()))


def _exp(x: float) -> float:
    return math.inf if x > LARGEST else math.exp(x)


def _sd(values: np.ndarray) -> float:
    return float(values.std(ddof=1)) if len(values) > 1 and np.isfinite(values).all() else math.nan
