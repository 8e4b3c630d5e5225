"""The final test of a task that finds boxes: its table, its rows, and detections.npz."""

import pathlib
import shutil
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from cnn_papers import evaluate, tasks
from cnn_papers.detection import detections
from cnn_papers.errors import UserError
from cnn_papers.evaluation.average_precision import of_labels
from cnn_papers.parallel.mesh import make_mesh
from cnn_papers.runs.rows import METRICS, read_rows
from cnn_papers.weights import trained
from configs import resnet

FOLDER = pathlib.Path(__file__).parents[1] / "support" / "more_tasks"
PROTOCOLS = "single_view|ten_crop(32, 36)"


@pytest.fixture(scope="module", autouse=True)
def task() -> Iterator[Any]:
    """The task of `whole_images.py` is found by its name, as one in the package is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "__path__", [*tasks.__path__, str(FOLDER)])
        yield tasks.task_module("whole_images")
    del sys.modules["cnn_papers.tasks.whole_images"]
    del tasks.whole_images


@pytest.fixture
def run(tiny_run, tmp_path) -> pathlib.Path:
    """A copy of the tiny run, to be written to."""
    return shutil.copytree(tiny_run, tmp_path / "run")


def final_test(*folders: pathlib.Path, **overrides: Any) -> list[Any]:
    return evaluate.evaluate_runs(
        folders, resnet.get_config(), {"task": "whole_images", **overrides}
    )


def test_each_protocol_has_a_row_and_its_detections(run, capsys):
    results = final_test(run, **{"eval.protocol": PROTOCOLS})
    kept = detections.load(run / detections.FILE)
    rows = read_rows(run / METRICS)[-2:]
    for result, one, row in zip(results, kept, rows, strict=True):
        assert one[:3] == (result.protocol, "digits[test]", 3) and len(one.class_names) == 10
        found = detections.curves(one.detections, one.objects, 10)
        assert detections.mean_average_precisions(found) == result.values
        assert row == {
            "step": 3,
            "test/protocol": result.protocol,
            "test/split": "digits[test]",
            "test/mirror": False,
            "test/precise_bn": 0,
            "test/map": result.values["map"],
            "test/map_area": result.values["map_area"],
            "test/images": 360,
            "test/classes": 10,
        }
        # A box over every image makes the average precision of detection that of classification.
        labels = np.concatenate([image.classes for image in one.objects])
        scores = np.stack([image.scores[np.argsort(image.classes)] for image in one.detections])
        areas = [
            of_labels(scores[:, label], np.where(labels == label, 1, -1)).area
            for label in range(10)
        ]
        assert result.values["map_area"] == pytest.approx(100 * np.mean(areas))
    lines = capsys.readouterr().out.splitlines()
    header = next(line for line in lines if line.startswith("protocol"))
    assert header.split() == ["protocol", "mAP", "mAP", "by", "area", "images/s"]
    by_class = next(line for line in lines if line.startswith("AP by class"))
    assert by_class.split()[3:] == ["objects", "single_view", "ten_crop(32,", "36)"]
    means = [f"{result.values['map']:.2f}%" for result in results]
    assert lines[-1].split() == ["mean", "of", "10", "classes", "360", *means]


def test_a_test_again_replaces_its_detections_and_no_row(run):
    final_test(run, **{"eval.protocol": PROTOCOLS})
    rows, written = read_rows(run / METRICS), (run / detections.FILE).read_bytes()
    final_test(run, **{"eval.protocol": PROTOCOLS})
    assert read_rows(run / METRICS) == rows
    assert (run / detections.FILE).read_bytes() == written
    final_test(run, **{"data.eval_split": "test[:100]"})
    splits = [(one.split, one.protocol) for one in detections.load(run / detections.FILE)]
    assert splits == [
        ("digits[test]", "single_view"),
        ("digits[test]", "ten_crop(32, 36)"),
        ("digits[test[:100]]", "single_view"),
    ]


def test_detections_of_several_runs_have_no_mean(run, tmp_path):
    twin = shutil.copytree(run, tmp_path / "twin")
    with pytest.raises(
        UserError, match=r"^outcomes of the task 'whole_images' have no mean .*: test one run at a"
    ):
        final_test(run, twin)
    assert not (run / detections.FILE).exists()


def test_detections_that_cannot_be_kept_are_scored_all_the_same(run, monkeypatch, caplog):
    def full(path: pathlib.Path, kept: detections.Kept) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(detections, "save", full)
    (result,) = final_test(run)
    assert result.images == 360
    assert f"the detections are not kept in {run}: No space left on device" in caplog.text


def test_weights_of_a_file_are_tested_and_nothing_is_kept(tiny_run, monkeypatch):
    monkeypatch.setattr(detections, "save", lambda *args: pytest.fail("it was written"))
    network = trained.from_run(tiny_run, {"task": "whole_images"})
    (result,) = evaluate.evaluate([network], make_mesh(1), [None])
    assert result.values["map"] > 0


def test_a_test_can_open_the_images_that_the_network_was_trained_on(tiny_run):
    """Also where it is of another split or data set."""
    network = trained.from_run(tiny_run, {"data.eval_split": "train[:10]"})
    member = evaluate._open_member(network, make_mesh(1), tiny_run)
    split = member.open_train()
    assert (split.name, len(split.examples)) == ("digits[train]", 1437)
    assert split.class_names == network.class_names and split.proposals is None


def test_the_images_that_a_test_opens_have_the_proposals_of_the_run(
    tiny_run, digits_folder, tmp_path
):
    data = shutil.copytree(digits_folder, tmp_path / "data")
    overrides = {"data.data_dir": str(data), "data.train_split": "train[:3]"}
    network = trained.from_run(
        tiny_run, overrides | {"data.proposals": "selective_search(size=32)"}
    )
    proposals = trained.open_trained_on(network).proposals
    assert proposals and [boxes.shape[1:] for boxes in proposals] == [(4,)] * 3
