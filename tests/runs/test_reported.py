"""A run beside what its paper reports: like with like, or no difference."""

from typing import Any

import pytest

from cnn_papers.facts import Reported
from cnn_papers.runs import reported, summary
from cnn_papers.runs.rows import Row
from configs import alexnet, resnet

TEN_CROPS = "ten_crop(227, 256)"


def final_test(protocol: str = TEN_CROPS, top1: float = 41.0, **other: Any) -> Row:
    """A row of a final test as the recipe of AlexNet has it, except `other`."""
    row = {"step": 9, "test/protocol": protocol, "test/split": "imagenet2012[validation]"}
    row |= {"test/mirror": True, "test/precise_bn": 0}
    return row | {"test/top1_error": top1, "test/top5_error": 19.0} | other


def evaluation(step: int, top1: float, top5: float) -> Row:
    return {"step": step, "val/top1_error": top1, "val/top5_error": top5}


def result(measured_by: str, metric: str = "top1_error") -> Reported:
    data = "imagenet2012[validation]"
    return Reported("imagenet2012", "paper", metric, 40.7, data, "in words", measured_by, "Table 2")


@pytest.mark.parametrize(
    ("measured_by", "rows", "ours"),
    [
        (TEN_CROPS, [final_test("single_view", 43.0), final_test()], 41.0),
        (TEN_CROPS, [final_test("single_view"), evaluation(9, 42.0, 20.0)], None),
        # the final test comes first at its step, a longer run has another
        (TEN_CROPS, [final_test(), final_test(top1=1.0)], 41.0),
        (TEN_CROPS, [final_test(), final_test(top1=40.0, step=12)], 40.0),
        # set up in another way, on other data, of several networks
        (TEN_CROPS, [final_test(**{"test/mirror": False})], None),
        (TEN_CROPS, [final_test(**{"test/precise_bn": 5})], None),
        (TEN_CROPS, [final_test(**{"test/split": "imagenet2012[train]"})], None),
        (TEN_CROPS, [final_test(**{"test/ensemble": ["a", "b"]})], None),
        ("single_view", [final_test("single_view"), evaluation(9, 42.0, 20.0)], 41.0),
        ("single_view", [evaluation(3, 42.0, 20.0), evaluation(9, 43.0, 19.5)], 43.0),
        ("single_view", [], None),
        ("", [final_test(), evaluation(9, 42.0, 20.0)], None),
    ],
)
def test_our_value_is_measured_like_the_papers(measured_by, rows, ours):
    assert reported.ours(result(measured_by), alexnet.get_config("imagenet2012"), rows) == ours


def test_both_errors_are_of_the_last_evaluation():
    rows = [evaluation(3, 42.0, 19.0), evaluation(9, 43.0, 19.5)]
    config = alexnet.get_config("imagenet2012")
    assert reported.ours(result("single_view", "top5_error"), config, rows) == 19.5


def test_an_evaluation_with_moving_averages_is_no_precise_one():
    """ResNet's recipe recomputes batch statistics for its test."""
    config, rows = resnet.get_config("imagenet2012"), [evaluation(9, 25.0, 8.0)]
    of_single_views = [
        result for result in reported.of_run(config) if result.measured_by == "single_view"
    ]
    assert of_single_views
    assert [reported.ours(result, config, rows) for result in of_single_views] == [None, None]


def test_the_paper_is_printed_with_ours_where_it_compares(capsys):
    config = alexnet.get_config("imagenet2012")
    summary.print_reported(config, [final_test()])
    assert capsys.readouterr().out == (
        "         paper  top1_error 40.7%, ours 41.00% (+0.30) by ten_crop(227, 256) "
        "(paper, 1 network, 10 crops, Table 2)\n"
        "         paper  top5_error 18.2%, ours 19.00% (+0.80) by ten_crop(227, 256) "
        "(paper, 1 network, 10 crops, Table 2)\n"
    )
    config.model.width = 0.5
    summary.print_reported(config, [final_test()])
    assert "top1_error 40.7% (paper, 1" in (shown := capsys.readouterr().out)
    assert "ours" not in shown
    config.data.name = "folder:photos"
    summary.print_reported(config, [final_test()])
    assert capsys.readouterr().out == ""


def test_a_run_that_is_older_than_a_key_follows_its_recipe_where_the_key_is_off():
    config = alexnet.get_config("imagenet2012").unlock()
    del config.optim["max_loss"]
    assert reported.changes(config) == []
    del config.optim["weight_decay"]
    config.seed = 5  # free
    config.optim.lr = 0.5
    assert reported.changes(config) == ["optim.lr", "optim.weight_decay"]


def test_a_config_file_of_ones_own_reports_nothing(capsys):
    config = resnet.get_config("cifar10")
    summary.print_reported(config, [])
    assert "paper  top1_error 8.75% (cifar-20, trained on 50k" in capsys.readouterr().out
    config.name = "mine"
    summary.print_reported(config, [])
    assert capsys.readouterr().out == ""
