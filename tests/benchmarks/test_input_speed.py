"""The input pipeline's measurements: comparisons, other libraries' operations, and memory."""

import itertools
import shutil

import numpy as np
import pytest

from cnn_papers.benchmarks import input_speed, other_pipelines
from cnn_papers.benchmarks.timing import Speed
from cnn_papers.data import host_ops
from cnn_papers.data.sources import open_split
from cnn_papers.errors import UserError
from cnn_papers.opstrings import parse
from configs import resnet


def ops(text):
    return parse(text, host_ops, leading=1, key="data.train_host")


@pytest.fixture(scope="module")
def config(tmp_path_factory, digits_folder):
    config = resnet.get_config()
    config.data.data_dir = str(
        shutil.copytree(digits_folder, tmp_path_factory.mktemp("input_speed") / "data")
    )
    config.batch_size, config.mesh.data = 16, 1
    return config


def speeds_of(speeds, taken):
    """Takes two batches from every contender and says that its speed was as given."""

    def run(contenders, batch_size):
        assert batch_size == 16
        for name, take in contenders.items():
            take(2)
            taken.append(name)
        return {name: Speed(speeds[name], [speeds[name]]) for name in contenders}

    return run


def test_a_resident_split_is_compared_with_the_same_streamed(config):
    taken = []
    results = input_speed.measure(
        config, speeds_of({"input": 600.0, "streamed": 100.0}, taken), [], growth_batches=20
    )
    assert taken == ["input", "streamed"]
    assert (results["from"], results["images_per_second"]) == ("a split on the devices", 600.0)
    assert results["streamed"] == {"images_per_second": 100.0, "windows": [100.0], "ratio": 6.0}
    assert results["memory"]["batches"] == 20 and results["memory"]["bytes_at_the_end"] > 10**8
    assert "versus" not in results


def test_another_library_is_compared_with_our_streamed_input(config, monkeypatch):
    pytest.importorskip("torch")
    seen = []

    def batches(name, work):
        seen.append((name, len(work.images), len(work.labels), work.batch_size))
        return (
            {"image": np.zeros((16, 2, 2, 3), np.uint8), "label": np.zeros(16, np.int32)}
            for _ in range(9)
        )

    monkeypatch.setattr(other_pipelines, "batches", batches)
    monkeypatch.setattr(input_speed, "OTHERS_READ", 50)
    speeds = {"input": 600.0, "streamed": 90.0, "torch": 60.0}
    results = input_speed.measure(config, speeds_of(speeds, []), ["torch"], growth_batches=0)
    assert seen == [("torch", 50, 50, 16)]
    versus = results["versus"]["torch"]
    assert versus["ratio"] == 1.5 and versus["what"].startswith("torch ")


@pytest.mark.process
def test_memory_does_not_grow_over_many_batches(config):
    results = input_speed.measure(
        config, speeds_of({"input": 1.0, "streamed": 1.0}, []), [], growth_batches=3000
    )
    memory = results["memory"]
    growth = memory["bytes_at_the_end"] - memory["bytes_after_a_tenth"]
    assert growth < 20e6  # over 2,700 batches of 49 kB


@pytest.mark.parametrize(
    ("names", "text", "message"),
    [
        (["keras"], "decode", "--input_versus=keras: there are tf.data, torch"),
        (
            ["torch"],
            "decode|area_aspect_crop(8)",
            "--input_versus: other libraries have no 'area_aspect_crop' here; they have decode",
        ),
    ],
)
def test_a_comparison_that_cannot_be(names, text, message):
    pytest.importorskip("torch")
    with pytest.raises(UserError, match=message):
        other_pipelines.check(names, ops(text))


def test_a_library_that_is_not_installed(monkeypatch):
    monkeypatch.setattr(other_pipelines.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(
        UserError, match=r"--input_versus=tf\.data needs tensorflow, which is not installed"
    ):
        other_pipelines.check(["tf.data"], ops("decode"))


@pytest.mark.parametrize(
    ("text", "tolerance"),
    [
        ("decode", 1),
        ("decode(1)", 1),
        ("decode|center_crop(64)", 1),
        ("decode|resize(56, 112)|center_crop(50)", 2),
        ("decode|resize_short(112)", 2),
        ("decode|resize_short(300, method='bilinear')|center_crop(200)", 3),
    ],
)
def test_pillow_does_what_ours_does(test_data, text, tolerance):
    split = open_split(f"folder:{test_data}/imagenette_small", "val[:4]")
    images = [example["image"] for example in split.examples]
    theirs = other_pipelines.PillowImages(
        other_pipelines.Work(images, [3, 1, 4, 1], ops(text), 2, 1)
    )
    assert len(theirs) == 4 and [theirs[i][1] for i in range(4)] == [3, 1, 4, 1]
    for i, image in enumerate(images):
        ours = image
        for op in ops(text):
            ours = op(ours)
        assert theirs[i][0].shape == ours.shape and theirs[i][0].dtype == np.uint8
        assert np.abs(theirs[i][0].astype(int) - ours).mean() < tolerance


def test_tf_data_does_what_ours_does(test_data):
    pytest.importorskip("tensorflow")
    split = open_split(f"folder:{test_data}/imagenette_small", "val[:4]")
    work = other_pipelines.Work(
        [e["image"] for e in split.examples], [0, 1, 2, 3], ops("decode|resize_short(112)"), 2, 1
    )
    for batch in itertools.islice(other_pipelines.batches("tf.data", work), 4):
        for image, label in zip(batch["image"], batch["label"], strict=True):
            ours = host_ops.resize_short(host_ops.decode(work.images[label]), 112)
            assert image.shape == ours.shape and np.abs(image.astype(int) - ours).mean() < 2
