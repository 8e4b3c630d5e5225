"""What is read off runs, from rows written by hand."""

import math
from typing import Any

import pytest
from ml_collections import ConfigDict

from cnn_papers import opstrings
from cnn_papers.claims import metrics
from cnn_papers.claims.metrics import Finished, Reading
from cnn_papers.errors import UserError

ROWS = [
    {"step": 10, "train/top1_error": 60.0, "train/loss": 1.5},
    {
        "step": 10,
        "val/top1_error": 50.0,
        "val/loss": 1.4,
        "analysis/dead_units": 0.1,
        "analysis/input/median": 2.0,
    },
    {"step": 20, "train/top1_error": 25.0, "train/loss": 0.7},
    {
        "step": 20,
        "val/top1_error": 20.0,
        "val/loss": 0.6,
        "analysis/dead_units": 0.3,
        "analysis/input/median": -1.0,
    },
    {"step": 30, "train/top1_error": 10.0, "train/loss": 0.4},
    {
        "step": 30,
        "val/top1_error": 30.0,
        "val/loss": 0.8,
        "analysis/dead_units": 0.2,
        "analysis/input/median": 0.5,
    },
    {"step": 20, "test/protocol": "single_view", "test/top1_error": 20.0, "test/top5_error": 2.0},
    {
        "step": 20,
        "test/protocol": "ten_crop(67, 72)",
        "test/top1_error": 18.5,
        "test/top5_error": 1.5,
    },
    {
        "step": 20,
        "test/protocol": "ten_crop(67, 72)",
        "test/top1_error": 9.0,
        "test/ensemble": ["a", "b"],
    },
]
CONFIG = ConfigDict({"task": "classify", "batch_size": 64, "model": {"num_classes": 10}})


def read(metric: str, rows: list[dict[str, Any]] = ROWS, outcome: str = "done") -> Reading:
    (op,) = opstrings.parse(metric, metrics, leading=1, key="metric")
    return op(Finished(CONFIG, rows, outcome))


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("last('val/top1_error')", 30.0),
        ("last('train/loss')", 0.4),
        ("mean_last('val/top1_error', 2)", 25.0),
        ("best('val/top1_error')", 20.0),
        ("gap('val/top1_error', 'train/top1_error')", 20.0),
        ("images_to('train/top1_error', 25.0)", 20 * 64.0),
        ("images_to('train/top1_error', 59)", 20 * 64.0),
        ("images_to('val/top1_error', 25)", 20 * 64.0),
        ("images_to('train/top1_error', 99.0)", 10 * 64.0),
        ("tested('ten_crop', 'top1_error')", 18.5),
        ("tested('ten_crop(67, 72)', 'top5_error')", 1.5),
        ("tested_change('single_view', 'ten_crop', 'top1_error')", -1.5),
        ("analysis('dead_units')", 0.2),
        ("analysis('input/median')", 0.5),
        ("drift('input/median')", 3.0),
    ],
)
def test_a_metric_of_a_run(metric, value):
    assert read(metric) == Reading(value, censored=False)


def test_the_drift_of_numbered_parts_is_the_mean_of_theirs():
    rows = [
        {"analysis/input/median/0": 1.0, "analysis/input/median/1": x, "analysis/input/median": 9.0}
        for x in (2, 7)
    ]
    assert read("drift('input/median')", rows) == Reading(2.5)


def test_a_drift_relative_to_a_spread_is_divided_by_its_mean():
    rows = [{"step": i, "analysis/m/0": m, "analysis/w": w} for i, m, w in ((1, 1, 2), (2, 4, 4))]
    assert read("drift('m')", rows) == Reading(3.0)
    assert read("drift('m', 'w')", rows) == Reading(1.0)  # 3 by the mean of 2 and 4
    with pytest.raises(UserError, match="needs 1 values of 'analysis/v', the run has 0"):
        read("drift('m', 'v')", rows)


def test_what_is_not_finite_at_the_end_is_not_read_from_before():
    """The rows leave out what is not a finite number."""
    rows = [
        *ROWS[:6],
        {"step": 40, "train/loss": 0.1},
        {"step": 40, "val/top1_error": 90.0, "analysis/dead_units": 0.2},
    ]
    for metric in (
        "last('val/loss')",
        "mean_last('train/top1_error', 2)",
        "analysis('input/median')",
    ):
        assert math.isnan(read(metric, rows).value)
    assert (
        read("best('val/loss')", rows).value == 0.6
        and read("last('val/top1_error')", rows).value == 90.0
    )


def test_a_level_that_is_never_reached_is_censored_at_the_whole_run():
    assert read("images_to('train/top1_error', 5.0)") == Reading(30 * 64.0, censored=True)


@pytest.mark.parametrize(
    ("metric", "value"),
    [
        ("last('val/top1_error')", 90.0),
        ("last('train/top5_error')", 50.0),
        ("last('val/loss')", math.log(10)),
        ("mean_last('val/top1_error', 7)", 90.0),
        ("best('val/top1_error')", 90.0),
        ("tested('ten_crop', 'top1_error')", 90.0),
    ],
)
def test_a_run_that_diverged_guesses(metric, value):
    assert read(metric, ROWS[:2], "diverged") == Reading(pytest.approx(value))


@pytest.mark.parametrize(
    "metric",
    [
        "gap('val/top1_error', 'train/top1_error')",
        "analysis('dead_units')",
        "drift('dead_units')",
        "last('train/lr')",
        "tested_change('single_view', 'ten_crop', 'top1_error')",
    ],
)
def test_what_a_run_that_diverged_does_not_have_is_not_a_number(metric):
    assert math.isnan(read(metric, ROWS, "diverged").value)


def test_a_run_that_diverged_reaches_what_it_reached_before():
    assert read("images_to('train/top1_error', 25.0)", ROWS[:3], "diverged") == Reading(1280.0)
    assert read("images_to('train/top1_error', 20.0)", ROWS[:3], "diverged") == Reading(
        1280.0, censored=True
    )
    assert read("images_to('train/top1_error', 20.0)", [], "diverged") == Reading(
        0.0, censored=True
    )


@pytest.mark.parametrize("classes", [2, 5, 1000])
def test_guessing_depends_on_the_classes(classes):
    run = Finished(
        ConfigDict({"task": "classify", "model": {"num_classes": classes}}), [], "diverged"
    )
    assert metrics.last(run, "val/top1_error").value == pytest.approx(100 * (classes - 1) / classes)
    assert metrics.last(run, "val/top5_error").value == pytest.approx(
        max(0.0, 100 * (classes - 5) / classes)
    )


@pytest.mark.parametrize(
    ("metric", "message"),
    [
        (
            "last('val/top1')",
            r"needs 1 values of 'val/top1', the run has 0; it has: \['analysis/dead_units'",
        ),
        ("mean_last('val/top1_error', 4)", "needs 4 values of 'val/top1_error', the run has 3"),
        ("mean_last('val/top1_error', 0)", "needs 0 values of 'val/top1_error'"),
        (
            "images_to('train/top2_error', 25.0)",
            "needs 1 values of 'train/top2_error', the run has 0",
        ),
        ("analysis('live_units')", "needs 1 values of 'analysis/live_units'"),
        (
            "tested('crops_144', 'top1_error')",
            r"finds 0 tests; there are: single_view, ten_crop\(67, 72\); config.eval",
        ),
        ("tested(2, 'top1_error')", r"metric tested\(2, …\) finds 0 tests; there are: single_view"),
        ("tested('ten_crop', 'loss')", "a test has top1_error and top5_error"),
        ("last(val)", "config.metric: cannot read"),
        ("lastt('val/loss')", r"there is no 'lastt' \(did you mean 'last'\?\)"),
        ("images_to('val/loss')", "does not fit images_to"),
    ],
)
def test_a_metric_that_the_run_does_not_have(metric, message):
    with pytest.raises(UserError, match=message):
        read(metric)


def test_a_protocol_that_was_tested_twice_is_named_by_its_whole_text_or_place():
    rows = [
        {"step": 9, "test/protocol": text, "test/top1_error": error}
        for text, error in (("vgg_dense(64)", 3.0), ("vgg_dense((48, 64))", 2.0))
    ]
    assert read("tested('vgg_dense((48, 64))', 'top1_error')", rows).value == 2.0
    assert read("tested(1, 'top1_error')", rows).value == 2.0
    assert read("tested_change(0, 1, 'top1_error')", rows).value == -1.0
    with pytest.raises(
        UserError, match=r"finds 2 tests; there are: vgg_dense\(64\), vgg_dense\(\(48, 64\)\)"
    ):
        read("tested('vgg_dense', 'top1_error')", rows)


def test_the_size_of_a_network_needs_only_its_configuration():
    from cnn_papers.models.alexnet import FACTS
    from configs import alexnet

    run = Finished(alexnet.get_config("imagenet2012"), [], "done")
    assert metrics.parameters(run).value == FACTS["paper"].params == 60965224
    assert metrics.multiply_adds(run).value == FACTS["paper"].macs
