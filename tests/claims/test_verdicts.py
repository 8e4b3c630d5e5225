"""Verdicts against SciPy, against what simulation says they should do, and on awkward readings."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from scipy import stats

from cnn_papers.claims.metrics import Reading
from cnn_papers.claims.verdicts import (
    AGREES,
    DISAGREES,
    UNDECIDED,
    Verdict,
    interval,
    judge,
    weights,
)
from cnn_papers.facts import Claim

ROUNDS = 2000
INF = math.inf


def claim(expect: str, *, ratio: bool = False, bound: float | None = None) -> Claim:
    return Claim("", "", {}, "", expect, "", {}, ratio=ratio, bound=bound)


def readings(*arms: Sequence[Any]) -> dict[str, dict[int, Reading]]:
    """One reading a seed; a value in a list is censored, None is missing."""
    return {
        f"arm{i}": {
            seed: Reading(float(*value), True) if isinstance(value, list) else Reading(float(value))
            for seed, value in enumerate(arm)
            if value is not None
        }
        for i, arm in enumerate(arms)
    }


def simulate(of: Claim, tables: np.ndarray, censored: np.ndarray | None = None) -> list[Verdict]:
    """Verdicts on `tables` [rounds, arms, seeds]."""
    cut = np.zeros(tables.shape, bool) if censored is None else censored
    return [
        judge(
            of,
            {
                str(i): dict(enumerate(map(Reading, *arm)))
                for i, arm in enumerate(zip(table, marks, strict=True))
            },
        )
        for table, marks in zip(tables.tolist(), cut.tolist(), strict=True)
    ]


def share(verdicts: list[Verdict], word: str) -> float:
    return sum(verdict.word == word for verdict in verdicts) / len(verdicts)


def error_of(probability: float) -> float:
    """The standard error of a share found in so many rounds."""
    return math.sqrt(probability * (1 - probability) / ROUNDS)


def test_an_exact_series_goes_its_way_at_every_step():
    by_trend = readings([1], [99], [4])
    assert judge(claim("rising"), by_trend).estimate == 1.5
    verdict = judge(claim("rising", ratio=True), by_trend, exact=True)
    assert (verdict.word, verdict.note) == (DISAGREES, "exact; the trend, but not every step")
    assert judge(claim("rising", ratio=True), readings([1], [3], [4]), exact=True).word == AGREES


# --- against SciPy --------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 3, 5, 20])
@pytest.mark.parametrize("level", [0.90, 0.95])
def test_the_interval_is_students(n, level):
    effects = np.random.default_rng(n).normal(3, 2, n)
    expected = stats.ttest_1samp(effects, 0).confidence_interval(level)
    np.testing.assert_allclose(interval(effects, level), (expected.low, expected.high), rtol=1e-12)


def test_a_difference_is_paired_by_seed():
    rng = np.random.default_rng(0)
    first, second = rng.normal(20, 3, 5), rng.normal(18, 3, 5)
    verdict = judge(claim("lower"), readings(first, second))
    test = stats.ttest_rel(second, first)
    low, high = test.confidence_interval(0.95)
    np.testing.assert_allclose(
        (verdict.estimate, verdict.low, verdict.high),
        ((second - first).mean(), low, high),
        rtol=1e-12,
    )
    assert (verdict.n, verdict.level, verdict.relation, verdict.note) == (5, 0.95, "=", "")
    for arm, values in zip(verdict.arms.values(), (first, second), strict=True):
        np.testing.assert_allclose(arm[:2], (values.mean(), values.std(ddof=1)))
    assert (verdict.word == AGREES) == (test.pvalue < 0.05 and test.statistic < 0)


def test_a_ratio_is_of_geometric_means():
    first, second = [4.0, 8.0, 16.0], [1.0, 4.0, 4.0]
    verdict = judge(claim("lower", ratio=True), readings(first, second))
    test = stats.ttest_rel(np.log(second), np.log(first))
    np.testing.assert_allclose(verdict.estimate, stats.gmean(second) / stats.gmean(first))
    np.testing.assert_allclose((verdict.low, verdict.high), np.exp(test.confidence_interval(0.95)))
    assert [arm.mean for arm in verdict.arms.values()] == pytest.approx([8.0, stats.gmean(second)])


def test_a_trend_is_the_mean_of_the_slopes():
    table = np.random.default_rng(1).normal(0, 1, (4, 5)) - np.arange(4)[:, None]
    verdict = judge(claim("falling"), readings(*table))
    slopes = np.array([stats.linregress(np.arange(4), column).slope for column in table.T])
    low, high = stats.ttest_1samp(slopes, 0).confidence_interval(0.95)
    np.testing.assert_allclose(
        (verdict.estimate, verdict.low, verdict.high), (slopes.mean(), low, high)
    )


def test_the_slope_over_two_arms_is_their_difference():
    np.testing.assert_array_equal(weights(2), [-1, 1])
    np.testing.assert_array_equal(weights(1), [1])


@pytest.mark.parametrize("true", [0.0, 0.4, 0.8, 1.2, 2.0])
def test_equivalence_is_two_one_sided_tests(true):
    rng, bound, words = np.random.default_rng(int(10 * true)), 1.0, set()
    for _ in range(100):
        first = rng.normal(50, 5, 6)
        second = first + rng.normal(true, 0.6, 6)
        verdict = judge(claim("same", bound=bound), readings(first, second))
        d = second - first
        above = stats.ttest_1samp(d, -bound, alternative="greater").pvalue
        below = stats.ttest_1samp(d, bound, alternative="less").pvalue
        low, high = stats.ttest_1samp(d, 0).confidence_interval(0.95)
        expected = (
            AGREES
            if max(above, below) <= 0.05
            else DISAGREES
            if low > bound or high < -bound
            else UNDECIDED
        )
        assert verdict.word == expected and verdict.level == (
            0.95 if expected == DISAGREES else 0.90
        )
        words.add(expected)
    assert (
        UNDECIDED in words
        and (AGREES in words or true > bound)
        and (DISAGREES in words or true < bound)
    )


# --- simulation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("n", [2, 5])
@pytest.mark.parametrize("kind", ["difference", "ratio", "slope"])
def test_the_interval_covers_the_truth_as_often_as_it_says(kind, n):
    rng = np.random.default_rng(n)
    seeds = rng.normal(0, 2, (ROUNDS, 1, n))  # what a seed does to every arm
    arms = np.arange(4 if kind == "slope" else 2)[:, None]
    tables = 10 - 0.3 * arms + seeds + rng.normal(0, 1, (ROUNDS, len(arms), n)) * (1 + arms)
    truth = math.exp(-0.3) if kind == "ratio" else -0.3
    of = claim("falling" if kind == "slope" else "lower", ratio=kind == "ratio")
    verdicts = simulate(of, np.exp(tables) if kind == "ratio" else tables)
    covered = sum(verdict.low <= truth <= verdict.high for verdict in verdicts) / ROUNDS
    assert abs(covered - 0.95) < 3 * error_of(0.95)


@pytest.mark.parametrize(("expect", "arms"), [("lower", 2), ("rising", 3), ("at_least", 1)])
def test_without_an_effect_one_round_in_forty_agrees_and_as_many_disagree(expect, arms):
    tables = np.random.default_rng(0).normal(5, 1, (ROUNDS, arms, 4))
    verdicts = simulate(claim(expect, bound=5.0 if arms == 1 else None), tables)
    for word in (AGREES, DISAGREES):
        assert abs(share(verdicts, word) - 0.025) < 3 * error_of(0.025)


@pytest.mark.parametrize("ratio", [False, True])
def test_at_the_bound_one_round_in_twenty_agrees_that_it_is_the_same(ratio):
    """With an interval much shorter than the bounds; with a longer one, fewer do."""
    bound = 1.5 if ratio else 1.0
    edge = math.log(bound) if ratio else bound
    for spread, least in ((0.05, 0.05), (1.0, 0.0)):
        tables = np.random.default_rng(3).normal(0, spread, (ROUNDS, 2, 5)) + [[0.0], [edge]]
        found = share(
            simulate(claim("same", ratio=ratio, bound=bound), np.exp(tables) if ratio else tables),
            AGREES,
        )
        assert least - 3 * error_of(least) < found + 1e-9 and found < 0.05 + 3 * error_of(0.05)


def test_a_clear_effect_is_found():
    tables = np.random.default_rng(0).normal(0, 1, (300, 2, 5)) + [[6.0], [0.0]]
    assert share(simulate(claim("lower"), tables), AGREES) > 0.99
    assert share(simulate(claim("higher"), tables), DISAGREES) > 0.99


@pytest.mark.parametrize("n", [3, pytest.param(5, marks=pytest.mark.process)])
@pytest.mark.parametrize("expect", ["lower", "at_most", "same"])
@pytest.mark.parametrize("limit", [1.5, 3.0])
def test_censoring_never_makes_false_agreement_likelier_than_it_should_be(expect, limit, n):
    """The truth is at the edge of what is claimed, on the wrong side; readings of equal spread stop
    at `limit`.
    """
    bound = {"at_most": 1.4, "same": 1.4}.get(expect)
    rng = np.random.default_rng(int(10 * limit))
    times = np.exp(rng.normal(0, 0.4, (ROUNDS, 2, n)) + [[0.5], [0.5 + math.log(bound or 1.0)]])
    verdicts = simulate(
        claim(expect, ratio=True, bound=bound), np.minimum(times, limit), times > limit
    )
    most = 0.05 if expect == "same" else 0.025
    assert share(verdicts, AGREES) < most + 3 * error_of(most)
    assert any(verdict.relation != "=" for verdict in verdicts)


@pytest.mark.parametrize("n", [3, 5])
@pytest.mark.parametrize(
    ("expect", "most"), [("at_most", 0.025), ("at_least", 0.04)]
)  # as the module says
def test_censoring_makes_false_agreement_of_one_arm_a_little_likelier(expect, most, n):
    times = np.exp(np.random.default_rng(0).normal(math.log(1.4), 0.4, (ROUNDS, 1, n)))
    verdicts = simulate(
        claim(expect, ratio=True, bound=1.4), np.minimum(times, 2.0), times > 2.0
    )  # the worst limit
    assert share(verdicts, AGREES) < most + 3 * error_of(most)
    assert any(verdict.relation == "≥" for verdict in verdicts)


@pytest.mark.parametrize("limit", [1.5, 3.0])
def test_an_interval_of_censored_readings_covers_the_truth(limit):
    rng = np.random.default_rng(0)
    times = np.exp(rng.normal(0, 0.4, (ROUNDS, 2, 5)) + [[1.0], [0.0]])
    verdicts = simulate(claim("lower", ratio=True), np.minimum(times, limit), times > limit)
    covered = sum(verdict.low <= math.exp(-1) <= verdict.high for verdict in verdicts) / ROUNDS
    assert covered > 0.95 - 3 * error_of(0.95)


# --- censored readings ----------------------------------------------------------------------------

SLOW, FAST = [90, 95, 99, 93, 96], [10, 12, 11, 13, 12]
NEVER = [[100], [100], 97, [100], 99]


@pytest.mark.parametrize(
    ("first", "second", "relation", "lower", "higher"),
    [
        (SLOW, FAST, "=", AGREES, DISAGREES),
        (NEVER, FAST, "≤", AGREES, DISAGREES),
        (FAST, NEVER, "≥", DISAGREES, AGREES),
        (
            SLOW,
            [96, 94, [97], 95, 97],
            "≥",
            UNDECIDED,
            UNDECIDED,
        ),  # the second is higher by the bound, not for sure
        (NEVER, NEVER, "?", UNDECIDED, UNDECIDED),
        (
            [[100], 90, 95, 92, 94],
            [10, 12, [100], 13, 12],
            "?",
            UNDECIDED,
            UNDECIDED,
        ),  # in different pairs
    ],
)
def test_a_verdict_rests_on_censored_readings_only_where_the_truth_would_strengthen_it(
    first, second, relation, lower, higher
):
    for expect, word in (("lower", lower), ("higher", higher)):
        verdict = judge(claim(expect), readings(first, second))
        assert (verdict.word, verdict.relation) == (word, relation)


@pytest.mark.parametrize("expect", ["lower", "higher"])
def test_what_the_truth_would_weaken_stays_undecided(expect):
    """Of the readings as they stand each verdict is clear; the truth could be the opposite."""
    cut, other = [[20], [21], [22], [20], [23]], SLOW
    first, second = (cut, other) if expect == "higher" else (other, cut)
    bare = [value[0] for value in cut]
    first_bare, second_bare = (bare, other) if expect == "higher" else (other, bare)
    assert judge(claim(expect), readings(first_bare, second_bare)).word == AGREES
    assert judge(claim(expect), readings(first, second)).word == UNDECIDED


def test_the_interval_is_open_where_the_truth_may_lie():
    verdict = judge(claim("lower"), readings(NEVER, FAST))
    d = np.array(FAST) - [100, 100, 97, 100, 99]
    assert verdict.low == -INF and verdict.estimate == pytest.approx(d.mean())
    assert verdict.high == pytest.approx(stats.ttest_1samp(d, 0).confidence_interval(0.95).high)
    assert [arm.censored for arm in verdict.arms.values()] == [3, 0]
    supposed = "the interval supposes that readings cut short vary no more than the others"
    assert verdict.note == f"3 of 5 censored in arm0; {supposed}"
    assert (
        supposed not in judge(claim("lower"), readings(NEVER, NEVER)).note
    )  # which leaves no interval
    assert judge(claim("lower", ratio=True), readings(NEVER, FAST)).low == 0.0


@pytest.mark.parametrize(("second", "word"), [(NEVER, DISAGREES), (FAST, UNDECIDED)])
def test_censored_readings_never_show_that_arms_are_the_same(second, word):
    first = [10, 11, [12], 12, 11] if second is FAST else FAST
    assert judge(claim("same", bound=20.0), readings(first, second)).word == word


@pytest.mark.parametrize(("expect", "word"), [("at_most", DISAGREES), ("at_least", AGREES)])
def test_one_arm_of_which_the_readings_are_at_least_so(expect, word):
    verdict = judge(claim(expect, bound=50.0), readings(NEVER))
    assert (verdict.word, verdict.relation, verdict.high) == (word, "≥", INF)
    other = judge(claim(expect, bound=1000.0), readings(NEVER))
    assert other.word == UNDECIDED


@pytest.mark.parametrize(("place", "relation"), [(0, "≤"), (1, "="), (2, "≥")])
def test_the_middle_of_a_series_does_not_bear_on_its_slope(place, relation):
    table: list[Any] = [SLOW, FAST, SLOW]
    table[place] = NEVER
    assert judge(claim("falling"), readings(*table)).relation == relation


# --- awkward readings -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arms", "n", "estimate", "note"),
    [
        (([5.0], [3.0]), 1, -2.0, "fewer than two seeds"),
        (([], []), 0, math.nan, "no reading of every arm"),
        (
            ([5.0, None], [None, 3.0]),
            0,
            math.nan,
            "2 of 2 seeds are not in every arm; no reading of every arm",
        ),
        (
            ([5.0, 6.0, 7.0], [3.0, math.nan, 5.0]),
            3,
            math.nan,
            "1 of 3 seeds have a reading that is not a number",
        ),
        (
            ([5.0, 6.0], [math.inf, 5.0]),
            2,
            math.nan,
            "1 of 2 seeds have a reading that is not a number",
        ),
    ],
)
def test_too_little_to_decide(arms, n, estimate, note):
    verdict = judge(claim("lower"), readings(*arms))
    assert (verdict.word, verdict.n, verdict.low, verdict.high, verdict.note) == (
        UNDECIDED,
        n,
        -INF,
        INF,
        note,
    )
    assert verdict.estimate == pytest.approx(estimate, nan_ok=True)


def test_only_seeds_that_every_arm_has_count():
    verdict = judge(claim("lower"), readings([50, 52, None, 51, 99], [40, 43, 47, 42, None]))
    assert verdict.n == 3 and verdict.note == "2 of 5 seeds are not in every arm"
    assert verdict.estimate == pytest.approx((40 + 43 + 42) / 3 - 51) and verdict.word == AGREES
    assert verdict.arms["arm0"].mean == pytest.approx(51)


@pytest.mark.parametrize(
    ("seeds", "expect", "word"),
    [
        (2, "lower", UNDECIDED),
        (5, "lower", UNDECIDED),
        (6, "lower", AGREES),  # by a sign test: 2 / 2⁶ < 5 %
        (6, "higher", DISAGREES),
        (4, "same", UNDECIDED),
        (5, "same", AGREES),
    ],
)
def test_differences_without_any_spread_need_six_seeds(seeds, expect, word):
    first = np.linspace(10, 20, seeds)
    verdict = judge(
        claim(expect, bound=2.0 if expect == "same" else None), readings(first, first - 1)
    )
    assert (verdict.word, verdict.note) == (
        word,
        "all seeds give the same value, and the interval is of their median",
    )
    assert (verdict.low, verdict.high) == (
        pytest.approx((-1, -1)) if word != UNDECIDED else (-INF, INF)
    )


def test_rounding_is_no_spread_and_no_effect():
    first = [0.1 + 0.2, 0.7 + 0.1, 1.1, 5.3, 0.3, 0.9]
    verdict = judge(claim("lower"), readings(first, [0.3, 0.8, 1.1, 5.3, 0.3, 0.9]))
    assert (verdict.estimate, verdict.low, verdict.high, verdict.word) == (0.0, 0.0, 0.0, UNDECIDED)


def test_an_interval_beyond_what_a_float_holds_is_open():
    verdict = judge(claim("higher", ratio=True), readings([1.0, 1e60], [1e60, 1e-60]))
    assert (verdict.word, verdict.low, verdict.high) == (UNDECIDED, 0.0, INF)
    assert verdict.estimate == pytest.approx(1e-30)


def test_a_series_by_its_trend_says_where_a_step_goes_the_other_way():
    bent = judge(
        claim("falling"), readings([9, 9.1, 9.2], [5, 5.1, 5.2], [5.5, 5.6, 5.7], [1, 1.1, 1.3])
    )
    assert (bent.word, bent.note) == (AGREES, "not every step goes that way")
    assert judge(claim("falling"), readings([9, 9.1, 9.2], [5, 5.1, 5.2], [1, 1.1, 1.3])).note == ""


@pytest.mark.parametrize("bad", [0.0, -1.0])
def test_a_ratio_of_what_is_not_positive(bad):
    verdict = judge(claim("lower", ratio=True), readings([1.0, 2.0, 3.0], [0.5, bad, 1.0]))
    assert (verdict.word, verdict.note) == (UNDECIDED, "a ratio of readings that are not positive")


@pytest.mark.parametrize(
    ("expect", "arms", "options", "word"),
    [
        ("lower", (5, 4), {}, AGREES),
        ("lower", (5, 5), {}, DISAGREES),
        ("higher", (5, 4), {}, DISAGREES),
        ("same", (5, 6), {"bound": 1.0}, AGREES),
        ("same", (5, 6.1), {"bound": 1.0}, DISAGREES),
        ("same", (4, 6), {"bound": 1.6, "ratio": True}, AGREES),
        ("at_most", (5,), {"bound": 5.0}, AGREES),
        ("at_most", (5.1,), {"bound": 5.0}, DISAGREES),
        ("at_least", (5,), {"bound": 5.0}, AGREES),
        ("at_most", (60, 7), {"bound": 1 / 8, "ratio": True}, AGREES),
        ("at_most", (60, 8), {"bound": 1 / 8, "ratio": True}, DISAGREES),
        ("falling", (5, 4, 1), {}, AGREES),
        ("rising", (5, 4, 1), {}, DISAGREES),
    ],
)
def test_an_exact_claim_holds_or_does_not(expect, arms, options, word):
    verdict = judge(claim(expect, **options), readings(*[[value] for value in arms]), exact=True)
    assert (verdict.word, verdict.n, verdict.note) == (word, 1, "exact")
    assert verdict.low == verdict.estimate == verdict.high
