"""Asks a claim with more and more seeds until it is decided.

The numbers of seeds at which the readings are looked at, the looks, are declared before the first
run. The error rate of 5 % is divided equally over them (Bonferroni), so that all looks together
decide wrongly no oftener than one look at a fixed number of seeds. A look counts once every arm has
a reading of each of its seeds; the first look that decides is the last.
"""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple, Protocol

from scipy import special

from cnn_papers.claims import verdicts
from cnn_papers.claims.metrics import Reading
from cnn_papers.claims.verdicts import ERROR_RATE, UNDECIDED, Verdict
from cnn_papers.facts import Claim

FIRST_LOOK = 3  # seeds; each later look has twice as many
MOST = 1000  # seeds that a prediction considers
LOWEST_RATE, HIGHEST_RATE, PRECISION = 1e-12, 0.4999, 1.0001  # of the search for an error rate


class Question(Protocol):
    """What decides how an effect is judged; a `facts.Claim` has it."""

    @property
    def expect(self) -> str: ...

    @property
    def ratio(self) -> bool: ...

    @property
    def bound(self) -> float | None: ...


def looks_up_to(max_seeds: int) -> tuple[int, ...]:
    """Returns the numbers of seeds at which readings are looked at: 3, 6, 12, … and `max_seeds`."""
    looks = []
    seeds = FIRST_LOOK
    while seeds < max_seeds:
        looks.append(seeds)
        seeds *= 2
    return (*looks, max_seeds)


def judge(
    claim: Claim, readings: Mapping[str, Mapping[int, Reading]], looks: Sequence[int]
) -> Verdict:
    """Returns the verdict at the first look that decides, else at the last one that counts.

    Args:
      claim: the claim.
      readings: of the claim's metric, by arm and seed.
      looks: numbers of seeds, rising. Seed s counts from the first look of more than s seeds on.
    """
    found = None
    for place, seeds in enumerate(looks, 1):
        seen = {
            arm: {seed: reading for seed, reading in by_seed.items() if seed < seeds}
            for arm, by_seed in readings.items()
        }
        verdict = verdicts.judge(claim, seen, error_rate=ERROR_RATE / len(looks))
        verdict = verdict._replace(look=place, looks=len(looks))
        if verdict.n < seeds:
            return found or _too_early(verdict, seeds)
        if verdict.word != UNDECIDED:
            return verdict
        found = verdict
    assert found is not None, "there is no look"
    return found


def _too_early(verdict: Verdict, seeds: int) -> Verdict:
    notes = filter(None, (verdict.note, f"the first look is at {seeds} seeds"))
    return verdict._replace(word=UNDECIDED, note="; ".join(notes))


def seeds_needed(question: Question, verdict: Verdict, most: int = MOST) -> int | None:
    """Returns how many seeds would decide if the mean and the spread of effects stayed the same.

    Returns None if the verdict has no spread to go by, or if not even `most` seeds would decide.
    """
    spread = _spread(question, verdict)
    if spread is None:
        return None
    error_rate = ERROR_RATE / max(verdict.looks, 1)
    more = range(verdict.n + 1, most + 1)
    return next((n for n in more if _decides(question, spread, n, error_rate)), None)


def error_rate_of(question: Question, verdict: Verdict) -> float:
    """Returns the lowest error rate at which the readings still decide; 1 if it is above a half.

    This is the p-value: two-sided, but one-sided of equivalence. Of a claim that was looked at
    several times it is that of the look times their number (Bonferroni), and at most 1.
    """
    spread = _spread(question, verdict)
    low, high = LOWEST_RATE, HIGHEST_RATE
    if spread is None or not _decides(question, spread, verdict.n, high):
        return 1.0
    while high / low > PRECISION:
        middle = math.sqrt(low * high)
        if _decides(question, spread, verdict.n, middle):
            high = middle
        else:
            low = middle
    return min(1.0, max(verdict.looks, 1) * high)


class _Spread(NamedTuple):
    """The mean effect (a logarithm if it is a ratio) and its standard deviation over seeds.

    `is_open` says on which sides, below and above, censored readings leave the interval open.
    """

    mean: float
    sd: float
    is_open: tuple[bool, bool]


def _spread(question: Question, verdict: Verdict) -> _Spread | None:
    """Reads the spread off a verdict's interval; None if it has none."""
    if verdict.n < 2 or not math.isfinite(verdict.estimate):
        return None
    mean, low, high = verdict.estimate, verdict.low, verdict.high
    if question.ratio:
        mean, low, high = (math.log(value) if value else -math.inf for value in (mean, low, high))
    halves = [abs(end - mean) for end in (low, high) if math.isfinite(end)]
    if not halves:  # open on both sides: by censoring, or because all effects are the same
        return _Spread(mean, 0.0, (False, False)) if verdict.relation == "=" else None
    sd = halves[0] * math.sqrt(verdict.n) / _quantile(verdict.level, verdict.n)
    return _Spread(mean, sd, (math.isinf(low), math.isinf(high)))


def _decides(question: Question, spread: _Spread, seeds: int, error_rate: float) -> bool:
    """Tells whether `seeds` seeds of this spread decide at `error_rate`."""

    def interval_at(level: float) -> verdicts.Interval:
        if not spread.sd:
            return verdicts.interval_of_equals(spread.mean, seeds, level)
        half = _quantile(level, seeds) * spread.sd / math.sqrt(seeds)
        below, above = spread.is_open
        low = -math.inf if below else spread.mean - half
        return low, math.inf if above else spread.mean + half

    bound = question.bound
    if bound is not None and question.ratio:
        bound = math.log(bound)
    return verdicts.decide(question.expect, interval_at, bound, error_rate)[0] != UNDECIDED


def _quantile(level: float, seeds: int) -> float:
    """Returns Student's quantile that an interval of `level` has with so many seeds."""
    return float(special.stdtrit(seeds - 1, (1 + level) / 2))
