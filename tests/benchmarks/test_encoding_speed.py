"""Descriptors, encoding and fits of the shallow baseline: each is done and timed."""

import json

import numpy as np
import pytest
from support.commands import exit_code

from cnn_papers import benchmark
from cnn_papers.benchmarks import encoding, wording, workload
from cnn_papers.data import descriptors
from cnn_papers.errors import UserError
from cnn_papers.models import ifv

PARTS = ("descriptors", "encoding", "fit", "svms")


def tiny(variant):
    work = workload.from_paper("ifv", variant, 1, None, "float32")
    return work._replace(model=work.model | {"words": 4, "dims": 6, "num_classes": 3}, devices=1)


@pytest.fixture(autouse=True)
def small(monkeypatch):
    for name, value in {
        "IMAGE": (50, 60), "GRAINS": (4, 8), "SAMPLE": 700, "IMAGES": 30, "CLASSES": 3, "REPEATS": 2
    }.items():  # fmt: skip
        monkeypatch.setattr(encoding, name, value)


@pytest.mark.parametrize(
    ("variant", "columns", "size"), [("256", 130, 48), ("512-xy-colours", 226, 4 * 2 * (8 + 6))]
)
def test_each_part_is_done_and_timed(variant, columns, size):
    calls = []
    results = encoding.measure(tiny(variant), lambda *given: calls.append(given))
    count = descriptors.count((50, 60), 3, 8, encoding.SCALES)
    assert results["descriptors_of_image"] == count > 50
    assert (results["words"], results["values"]) == (4, size)
    for part in PARTS:
        assert set(results[part]) == {"cpu", "clock"}
    assert results["descriptors"]["cpu"] > 0 and results["svms"]["cpu"] > 0
    kinds = ifv.Model(variant).kinds
    assert [kind for _, _, _, kind in calls] == [*kinds]
    samples = [sample for _, sample, _, _ in calls]
    assert all(sample.shape == (700, columns) and sample.dtype == np.uint8 for sample in samples)
    assert samples[0][:, :96].any(1).all()


def test_another_network_is_refused():
    work = workload.from_paper("resnet", "cifar-8", 1, 8, "float32")
    with pytest.raises(UserError, match="--measure=encoding takes the Fisher vector"):
        encoding.measure(work, lambda *given: None)


def test_lines_have_seconds_and_sizes():
    seconds = {"cpu": 0.25, "clock": 0.125}
    results = {
        "image": (375, 500), "descriptors_of_image": 32_686, "words": 256, "values": 40_960,
        "sample": 100_000, "images": 5011, "classes": 20, **dict.fromkeys(PARTS, seconds),
    }  # fmt: skip
    time = "0.25 s of CPU time (0.125 s by the clock)"
    assert wording._encoding(results) == {
        "descriptors": f"{time}: 32,686 of a 375×500 image",
        "encoding": f"{time}: of these by 256 words, 40,960 values",
        "fit": f"{time}: of components and words, 100,000 descriptors",
        "svms": f"{time}: of 20 classes and 5,011 images",
    }


def test_the_command(capfd, monkeypatch):
    monkeypatch.setattr(benchmark, "_workload", lambda: (None, tiny("256")))
    assert exit_code(benchmark.cli, "--model=ifv", "--measure=encoding", "--json") in (0, None)
    out, err = capfd.readouterr()
    assert json.loads(out)["encoding"]["values"] == 48
    assert err.startswith("measuring descriptors") and "fitted 4 words of 6 dimensions" in err
