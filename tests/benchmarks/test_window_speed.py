"""Features of windows, of SPP-net and R-CNN: both do the whole work, and each part is timed."""

import json

import numpy as np
import pytest
from support.commands import exit_code

from cnn_papers import benchmark
from cnn_papers.benchmarks import windows as window_speed
from cnn_papers.benchmarks import wording, workload
from cnn_papers.detection import crops, windows
from cnn_papers.errors import UserError

FIELDS = {"width": 0.03, "num_classes": 4, "levels": (2, 1), "conv1_stride": 1}


def tiny() -> workload.Workload:
    work = workload.from_paper("spp", "zf5", 1, 32, "float32")
    return work._replace(model=work.model | FIELDS, devices=1)


def test_both_take_the_same_windows_and_every_stage_is_timed(monkeypatch):
    calls = []

    def recorded(name, features):
        def record(stages, image, boxes, **arguments):
            calls.append((name, image, boxes, arguments))
            return features(stages, image, boxes, **arguments)

        return record

    monkeypatch.setattr(windows, "features", recorded("spp", windows.features))
    monkeypatch.setattr(crops, "features", recorded("rcnn", crops.features))
    monkeypatch.setattr(window_speed, "COUNTS", (40, 10))
    monkeypatch.setattr(window_speed, "SCALES", ((688,), (480, 688)))
    monkeypatch.setattr(window_speed, "PAPER", {1: {"conv": 270}, 2: {"conv": 49}})
    results = window_speed.measure(tiny())

    assert (results["image"], results["side"]) == ((54, 71), 32)
    rows = results["rows"]
    assert [(row["windows"], row["scales"]) for row in rows] == [
        (40, (98,)),
        (40, (69, 98)),
        (10, (98,)),
        (10, (69, 98)),
    ]
    for row in rows:
        for seconds in (row["spp"], row["rcnn"]):
            assert set(seconds) == {"conv", "pooling", "fc", "total"}
            assert min(seconds.values()) > 0
        assert row["ratios"]["conv"] == row["rcnn"]["conv"] / row["spp"]["conv"]
    assert rows[0]["rcnn"] == rows[1]["rcnn"] != rows[2]["rcnn"]
    # once to compile; then R-CNN once a number of windows, SPP-net each time
    counts = [(name, len(boxes)) for name, _, boxes, _ in calls]
    of_both = [("spp", 40)] * 4 * 2 + [("spp", 10)] * 4 * 2
    assert sorted(counts) == sorted(
        [*of_both, ("rcnn", 32), ("rcnn", 40), ("rcnn", 10), ("rcnn", 10)]
    )
    images = {image.tobytes() for _, image, _, _ in calls}
    assert len(images) == 1
    whole = [boxes for name, _, boxes, _ in calls if len(boxes) == 40]
    assert all(np.array_equal(boxes, whole[0]) for boxes in whole)
    assert calls[0][3] == {"side": 32, "context": 2}
    assert calls[2][3] == {"scales": (98,), "side": 32}


def test_windows_lie_on_the_image():
    boxes = window_speed._random_boxes(1000, 375, 500, np.random.default_rng(0))
    sides = boxes[:, 2:] - boxes[:, :2]
    assert boxes.min() >= 0 and (boxes[:, 2:] <= [375, 500]).all()
    assert sides.min() > 36 and sides[:, 0].max() > 350 and sides[:, 1].max() > 470


@pytest.mark.parametrize("work", [("resnet", "cifar-8", 8), ("spp", "zf5-no-spp", 224)])
def test_a_network_without_a_pyramid_is_refused(work):
    name, variant, size = work
    with pytest.raises(UserError, match="--measure=windows takes a network with a spatial pyramid"):
        window_speed.measure(workload.from_paper(name, variant, 1, size, "float32"))


def test_lines_have_seconds_and_ratios_beside_the_papers():
    seconds = {"conv": 1.0, "pooling": 0.5, "fc": 0.25, "total": 2.0}
    row = {
        "windows": 2000,
        "scales": (688,),
        "spp": seconds,
        "rcnn": {part: 100 * value for part, value in seconds.items()},
        "ratios": dict.fromkeys(seconds, 100.0),
        "paper": {"conv": 270, "total": 102},
    }
    rows = [row, {**row, "windows": 500, "scales": (480, 688), "paper": {"conv": 49, "total": 38}}]
    results = {"image": (375, 500), "side": 224, "rows": rows, "measured_on": "a GPU"}
    assert wording._windows(results) == {
        "windows": "of a 375×500 image; seconds of R-CNN / SPP-net = ratio",
        "2,000, 1 scale": "conv 100 / 1 = 100.0; pooling 50 / 0.5 = 100.0; fc 25 / 0.25 = 100.0; "
        "total 200 / 2 = 100.0 (paper: conv 270, total 102)",
        "500, 2 scales": "conv 100 / 1 = 100.0; pooling 50 / 0.5 = 100.0; fc 25 / 0.25 = 100.0; "
        "total 200 / 2 = 100.0 (paper: conv 49, total 38)",
        "paper": "a GPU",
    }


def test_the_command(capfd, monkeypatch):
    monkeypatch.setattr(window_speed, "COUNTS", (4,))
    monkeypatch.setattr(benchmark, "_workload", lambda: (None, tiny()))
    assert exit_code(benchmark.cli, "--model=spp", "--measure=windows", "--json") in (0, None)
    out, err = capfd.readouterr()
    rows = json.loads(out)["windows"]["rows"]
    assert [len(row["scales"]) for row in rows] == [1, 5]
    assert rows[1]["paper"] == {"conv": 49, "total": 38}
    assert err.startswith("measuring features of windows")
