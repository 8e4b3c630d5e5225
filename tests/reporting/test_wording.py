"""The words and digits of a report: intervals, signs of censored values, what is expected."""

import pathlib

import pytest
from support.written_sweeps import CLAIMS, claim_of, judged, only

from cnn_papers import tasks
from cnn_papers.claims import catalogue
from cnn_papers.reporting import gather, wording

BOX_TASKS = pathlib.Path(__file__).parents[1] / "support" / "box_tasks"


@pytest.mark.parametrize(
    ("name", "arms", "interval"),
    [
        ("resnet_responses", ([1.0, 1.1, 1.2], [1.0, 1.11, 1.22]), "[−0.00686, +0.0269] (90 %)"),
        (
            "resnet_responses",
            ([1.0, 1.1, 1.2], [9.0, 9.11, 9.22]),
            "[+7.99, +8.03]",
        ),  # disagrees, by 95 %
        ("resnet_lower", ([5.0], [3.0]), "(one seed)"),
        ("resnet_lower", ([5.0, 6.0], [3.0, 4.0]), "[−∞, ∞]"),  # two that are equal say nothing
        ("resnet_lower", ([5.0] * 6, [3.0] * 6), "[−2.00, −2.00]"),
        ("resnet_sooner", ([[100.0], [110.0], 90.0], [10.0, 11.0, 9.5]), "[×0, ×0.110]"),
        ("resnet_sooner", ([10.0, 11.0, 9.5], [[100.0], [110.0], 90.0]), "[×9.09, ∞]"),
        ("resnet_lower", ([5.0, None], [None, 3.0]), ""),
    ],
)
def test_an_interval_says_what_it_rests_on(name, arms, interval):
    assert wording.interval(judged(CLAIMS["resnet"][name], *arms)) == interval


def test_an_exact_claim_has_no_interval(sweep):
    small = claim_of(gather.gather(sweep, sweep), "resnet_small")
    assert small.low == small.high == small.estimate and wording.interval(small) == ""


def test_the_signs_of_censored_values_are_explained_where_they_stand():
    of = CLAIMS["resnet"]["resnet_sooner"]
    none, below = judged(of, [100.0, 90.0], [10.0, 11.0]), judged(of, [[100.0], 90.0], [10.0, 11.0])
    both = judged(of, [[100.0], 90.0], [10.0, [11.0]])
    start = "Some runs never reached the level asked for; the true value is "
    assert wording.legend(only(none), arms=True) == []
    assert wording.legend(only(none, below), arms=False) == [f"{start}at most this (≤)."]
    assert wording.legend(only(both), arms=True) == [
        f"{start}at least this (≥), on either side of this (?)."
    ]


def test_what_is_expected_of_two_arms_says_so():
    known = catalogue.all_claims()
    dropout = judged(known["dropout_between_mlpconvs"], [3.0, 3.1], [2.0, 2.1])
    assert wording.expected(dropout) == "with : without at most ×0.8"
    assert wording.expected(judged(known["densenet_feature_reuse"], [0.3, 0.4])) == "at least 0.1"
    difference = judged(
        known["dropout_between_mlpconvs"]._replace(ratio=False, bound=-0.5), [3.0, 3.1], [2.0, 2.2]
    )
    assert (
        wording.expected(difference) == "with − without at most −0.5"
        and wording.ours(difference) == "−0.950 points"
    )


@pytest.mark.parametrize(
    ("value", "text"),
    [(999.6, "1,000"), (999.4, "999"), (-999.6, "−1,000"), (12345.6, "12,346"), (0.12345, "0.123")],
)
def test_numbers_have_three_digits(value, text):
    assert wording.number(value) == text


@pytest.mark.parametrize(
    ("metric", "unit"),
    [
        ("last('val/top1_error')", " points"),
        ("tested(0, 'top5_error')", " points"),
        ("tested('suppress', 'map')", " points"),
        ("last('val/loss')", ""),
        ("parameters()", ""),
    ],
)
def test_differences_of_measures_in_percent_are_points(metric, unit, monkeypatch):
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(BOX_TASKS)])
    claim = judged(CLAIMS["resnet"]["resnet_lower"]._replace(metric=metric), [5.0, 6.0], [3.0, 5.0])
    assert wording.unit(claim) == unit
