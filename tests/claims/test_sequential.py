"""Claims asked until they are decided: the looks, their error rate, the seeds that it takes."""

import math

import numpy as np
import pytest
from scipy import stats

from cnn_papers.claims import multiple_testing, sequential, verdicts
from cnn_papers.claims.metrics import Reading
from cnn_papers.claims.verdicts import AGREES, DISAGREES, UNDECIDED, Verdict
from cnn_papers.facts import Claim

ROUNDS = 2000
LOOKS = (3, 6, 12)


def claim(expect: str, *, ratio: bool = False, bound: float | None = None) -> Claim:
    return Claim("", "", {}, "", expect, "", {}, ratio=ratio, bound=bound)


def readings(table: np.ndarray, limit: float = math.inf) -> dict[str, dict[int, Reading]]:
    """Readings of a table [arms, seeds], cut at `limit`."""
    return {
        f"arm{i}": {
            seed: Reading(min(value, limit), value > limit) for seed, value in enumerate(arm)
        }
        for i, arm in enumerate(table.tolist())
    }


def with_effects(effects: list[float]) -> dict[str, dict[int, Reading]]:
    """Readings of two arms that differ by these effects."""
    return readings(np.array([[1.0] * len(effects), [1.0 + effect for effect in effects]]))


def students(mean: float, sd: float, n: int) -> list[float]:
    """`n` effects of this mean and standard deviation."""
    spread = np.linspace(-1, 1, n)
    return (mean + sd * spread / spread.std(ddof=1)).tolist()


@pytest.mark.parametrize(
    ("most", "looks"), [(3, (3,)), (5, (3, 5)), (12, LOOKS), (20, (3, 6, 12, 20))]
)
def test_each_look_has_twice_the_seeds_and_the_last_the_most(most, looks):
    assert sequential.looks_up_to(most) == looks


def test_the_first_look_that_decides_is_the_last():
    effects = [1.0, 1.2, 0.8, 1.1, 0.9, 1.0, *[-5.0] * 6]
    early = sequential.judge(claim("higher"), with_effects(effects), LOOKS)
    assert (early.word, early.n, early.look, early.looks) == (AGREES, 3, 1, 3)
    assert early.level == pytest.approx(1 - 0.05 / 3)
    assert early.low == pytest.approx(1.0 - stats.t.ppf(1 - 0.05 / 6, 2) * 0.2 / math.sqrt(3))
    later = sequential.judge(claim("higher"), with_effects([1, 3, 2, 1, 3, 2, *[-5.0] * 6]), LOOKS)
    assert (later.word, later.n, later.look) == (AGREES, 6, 2)


def test_a_look_counts_once_every_arm_has_its_seeds():
    effects = [1.0, 3.0, 2.0, 1.0, 3.0]
    two = sequential.judge(claim("higher"), with_effects(effects[:2]), LOOKS)
    assert (two.word, two.n, two.look) == (UNDECIDED, 2, 1)
    assert two.note == "the first look is at 3 seeds"
    five = sequential.judge(claim("higher"), with_effects(effects), LOOKS)
    assert (five.word, five.n, five.look) == (UNDECIDED, 3, 1)


@pytest.mark.parametrize(
    ("of", "arms", "shift"),
    [
        (claim("lower"), 2, 0.0),
        (claim("at_least", bound=5.0), 1, 0.0),
        (claim("same", ratio=True, bound=1.5), 2, math.log(1.5)),
        pytest.param(claim("rising"), 3, 0.0, marks=pytest.mark.process),
        pytest.param(
            claim("at_most", ratio=True, bound=1.5), 2, math.log(1.5), marks=pytest.mark.process
        ),
        pytest.param(claim("same", bound=1.0), 2, 1.0, marks=pytest.mark.process),
    ],
    ids=lambda value: f"{value.expect}-{value.ratio}" if isinstance(value, Claim) else str(value),
)
def test_all_looks_together_decide_wrongly_no_oftener_than_one(of, arms, shift):
    """The truth is at the edge, where both words are wrong."""
    noise = 0.3 if of.expect == "same" else 1.0
    tables = np.random.default_rng(1).normal(5, noise, (ROUNDS, arms, LOOKS[-1]))
    tables += shift * np.arange(arms)[:, None]
    tables = np.exp(tables) if of.ratio else tables
    words = [sequential.judge(of, readings(table), LOOKS).word for table in tables]
    most = 0.05 if of.expect == "same" else 0.025
    for word in (AGREES, DISAGREES):
        found = words.count(word) / ROUNDS
        assert found < most + 3 * math.sqrt(most * (1 - most) / ROUNDS)


def test_looks_at_censored_readings_agree_wrongly_no_oftener_than_one():
    times = np.random.default_rng(2).normal(0.5, 0.4, (ROUNDS, 2, LOOKS[-1]))
    words = [
        sequential.judge(claim("lower", ratio=True), readings(table, 3.0), LOOKS).word
        for table in np.exp(times)
    ]
    assert words.count(AGREES) / ROUNDS < 0.025 + 3 * math.sqrt(0.025 * 0.975 / ROUNDS)


def test_a_clear_effect_takes_fewer_seeds_than_the_last_look():
    tables = np.random.default_rng(0).normal(0, 1, (300, 2, LOOKS[-1])) + [[0.0], [3.0]]
    found = [sequential.judge(claim("higher"), readings(table), LOOKS) for table in tables]
    assert sum(verdict.word == AGREES for verdict in found) / 300 > 0.99
    assert np.mean([verdict.n for verdict in found]) < 7


@pytest.mark.parametrize(
    ("of", "effects"),
    [
        (claim("higher"), students(1.0, 2.0, 3)),
        (claim("lower"), students(1.0, 2.0, 3)),  # will be refuted
        (claim("at_most", bound=2.0), students(1.5, 1.0, 4)),
        (claim("same", bound=2.0), students(1.0, 1.5, 3)),
        (claim("same", bound=2.0), students(3.0, 2.0, 3)),
    ],
)
@pytest.mark.parametrize("looks", [None, LOOKS])
def test_the_seeds_that_it_takes_are_the_fewest_that_decide(of, effects, looks):
    error_rate = 0.05 if looks is None else 0.05 / len(looks)
    if looks is None:
        verdict = verdicts.judge(of, with_effects(effects))
    else:
        verdict = sequential.judge(of, with_effects(effects), looks)
    assert verdict.word == UNDECIDED
    takes = sequential.seeds_needed(of, verdict)
    mean, sd = float(np.mean(effects[: verdict.n])), float(np.std(effects[: verdict.n], ddof=1))
    words = [
        verdicts.judge(of, with_effects(students(mean, sd, n)), error_rate=error_rate).word
        for n in range(verdict.n + 1, takes + 1)
    ]
    assert words[-1] != UNDECIDED and set(words[:-1]) <= {UNDECIDED}
    assert sequential.seeds_needed(of, verdict, most=takes - 1) is None


def test_effects_that_are_all_the_same_take_as_many_as_their_median_does():
    verdict = verdicts.judge(claim("higher"), with_effects([1.0, 1.0, 1.0]))
    assert sequential.seeds_needed(claim("higher"), verdict) == 6
    looked = sequential.judge(claim("higher"), with_effects([1.0, 1.0, 1.0]), LOOKS)
    assert sequential.seeds_needed(claim("higher"), looked) == 7


def test_what_censoring_leaves_open_no_number_of_seeds_decides():
    of = claim("lower", ratio=True)
    table = np.exp([[0.5, 0.4, 0.6], [0.8, 0.9, 0.7]])
    slower = verdicts.judge(of, readings(table, 2.0))  # the second arm is later than that
    assert slower.relation == "≥" and sequential.seeds_needed(of, slower) is not None
    both = verdicts.judge(of, readings(np.exp([[1.0, 0.4, 0.6], [0.8, 0.9, 0.7]]), 1.5))
    assert both.relation == "?" and sequential.seeds_needed(of, both) is None
    alone = verdicts.judge(of, readings(table[:, :1]))
    assert sequential.seeds_needed(of, alone) is None


def test_the_error_rate_of_a_verdict_is_its_p_value():
    rng = np.random.default_rng(0)
    effects = rng.normal(1.0, 0.8, 6)
    of = claim("higher")
    verdict = verdicts.judge(of, with_effects(effects.tolist()))
    expected = stats.ttest_1samp(effects, 0.0).pvalue
    assert sequential.error_rate_of(of, verdict) == pytest.approx(expected, rel=1e-3)
    looked = sequential.judge(of, with_effects(effects.tolist()), (6, 12))
    assert sequential.error_rate_of(of, looked) == pytest.approx(2 * expected, rel=1e-3)
    same = claim("same", bound=2.5)
    verdict = verdicts.judge(same, with_effects(effects.tolist()))
    upper = stats.ttest_1samp(effects, 2.5, alternative="less").pvalue
    assert sequential.error_rate_of(same, verdict) == pytest.approx(upper, rel=1e-3)


def test_the_error_rate_without_a_spread():
    of = claim("higher")
    eight = verdicts.judge(of, with_effects([1.0] * 8))
    assert sequential.error_rate_of(of, eight) == pytest.approx(2.0**-7, rel=1e-3)
    one = verdicts.judge(of, with_effects([1.0]))
    assert sequential.error_rate_of(of, one) == 1.0
    missing = Verdict(UNDECIDED, math.nan, -math.inf, math.inf, 3, 0.95, "=", "", {})
    assert sequential.error_rate_of(of, missing) == 1.0


@pytest.mark.parametrize(
    ("rates", "decided"),
    [
        ({"a": 0.01, "b": 0.04, "c": 0.02}, ["a", "c", "b"]),  # 0.05/3, 0.05/2, 0.05
        ({"a": 0.01, "b": 0.04, "c": 0.03}, ["a"]),  # c fails, and b with it
        ({"a": 0.02, "b": 0.02, "c": 0.02}, []),
        ({}, []),
    ],
)
def test_holms_procedure(rates, decided):
    assert multiple_testing.holm(rates) == decided
