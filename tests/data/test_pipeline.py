"""The pipeline: batches are pure functions of (seed, i), and every mistake is named."""

import itertools
import logging
import pathlib
import re
import shutil
import threading
import time
from collections.abc import Callable

import cv2
import jax
import numpy as np
import PIL.Image
import pytest

from cnn_papers.data import host_ops, pipeline
from cnn_papers.data.pipeline import Pipeline, parse_host
from cnn_papers.data.sources import open_split
from cnn_papers.data.split import Split
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes

BROKEN = b"\xff\xd8\xff\xe0 no JPEG"


def png(number, side=6):
    """Returns an image: red is its number, green and blue are row and column, to locate crops."""
    rows, columns = np.mgrid[:side, :side]
    return cv2.imencode(
        ".png", np.dstack([columns, rows, np.full_like(rows, number)]).astype(np.uint8)
    )[1].tobytes()


def make_split(count=23, images=None, labels=None) -> Split:
    images = images or [png(i) for i in range(count)]
    labels = labels or [i % 10 for i in range(len(images))]
    examples = [
        {"image": image, "label": label, "id": f"image_{i}"}
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    return Split("made[train]", examples, tuple("0123456789"), "/nowhere")


def open_pipeline(
    split=None, ops="decode", *, devices=1, key="data.train_host", **options
) -> Pipeline:
    mesh = meshes.make_mesh(devices)
    shardings = {"sharding": meshes.data_sharding(mesh), "replicated": meshes.replicated(mesh)}
    host = parse_host(ops, key=key)
    return Pipeline(split or make_split(), host, num_classes=10, **shardings, **options)


def training(split=None, ops="decode", *, batch_size=8, seed=0, steps=range(5), **options):
    """The training batches as NumPy arrays."""
    batches = open_pipeline(split, ops, **options).train_batches(batch_size, seed=seed, steps=steps)
    return jax.device_get(list(batches))


def assert_same(ours, theirs):
    for a, b in zip(ours, theirs, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


def numbers(batches):
    """Returns the number of the image in every row of all batches."""
    return [int(number) for batch in batches for number in batch["image"][:, 0, 0, 0]]


# --- training -------------------------------------------------------------------------------------


def test_a_batch_is_uint8_images_and_int32_labels_that_belong_together():
    for resident in ("always", "never"):
        for batch in training(resident=resident):
            assert batch["image"].shape == (8, 6, 6, 3) and batch["image"].dtype == np.uint8
            assert batch["label"].shape == (8,) and batch["label"].dtype == np.int32
            for image, label in zip(batch["image"], batch["label"], strict=True):
                number = int(image[0, 0, 0])
                assert label == number % 10
                np.testing.assert_array_equal(image, host_ops.decode(png(number)))


def test_resident_and_streamed_batches_are_the_same():
    assert_same(training(resident="always"), training(resident="never"))


@pytest.mark.parametrize("path", ["resident", "streamed"])
def test_starting_at_a_step_gives_the_batches_of_going_through(path):
    options = {"resident": "always"} if path == "resident" else {"ops": "decode|random_crop(4)"}
    whole = training(steps=range(9), seed=5, **options)
    assert_same(training(steps=range(4, 9), seed=5, **options), whole[4:])
    assert_same(training(steps=range(8, 9), seed=5, **options), whole[8:])
    assert training(steps=range(4, 4), seed=5, **options) == []


@pytest.mark.parametrize("path", ["resident", "streamed"])
def test_any_number_of_devices_has_the_same_global_batches(path):
    options = {"resident": "always"} if path == "resident" else {"ops": "decode|random_crop(4)"}
    alone = training(seed=5, **options)
    for devices in (2, 8):
        assert_same(training(seed=5, devices=devices, **options), alone)


def test_a_batch_is_spread_over_the_devices():
    for resident in ("always", "never"):
        (batch,) = open_pipeline(devices=8, resident=resident).train_batches(
            16, seed=0, steps=range(1)
        )
        for array in batch.values():
            assert [shard.data.shape[0] for shard in array.addressable_shards] == [2] * 8


def test_another_seed_gives_another_order_and_other_crops():
    first, second = (training(ops="decode|random_crop(4)", seed=seed) for seed in (0, 1))
    assert numbers(first) != numbers(second)
    places = [
        np.concatenate([batch["image"][:, 0, 0, 1:] for batch in batches])
        for batches in (first, second)
    ]
    assert (places[0] != places[1]).any()


def test_each_epoch_is_a_permutation_of_the_split_and_epochs_differ():
    # 5 epochs of 23 images: some batches are of two epochs.
    rows = numbers(training(batch_size=5, steps=range(23)))
    epochs = [rows[i : i + 23] for i in range(0, 115, 23)]
    assert all(sorted(epoch) == list(range(23)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 5
    assert list(range(23)) not in epochs


def test_a_split_smaller_than_the_batch_is_gone_through_several_times():
    rows = numbers(training(make_split(3), batch_size=7, steps=range(3)))
    assert all(sorted(rows[i : i + 3]) == [0, 1, 2] for i in range(0, 21, 3))


def test_the_same_image_is_cropped_anew_in_every_epoch():
    batches = training(make_split(1), "decode|random_crop(4)", batch_size=1, steps=range(60))
    places = {tuple(batch["image"][0, 0, 0, 1:].tolist()) for batch in batches}
    assert places == set(itertools.product(range(3), range(3)))


def test_operations_of_one_image_draw_independently():
    """Two crops of one pixel each: their places add up to 1 half of the time.

    They never would if both drew the same number.
    """
    batches = training(
        make_split(50), "decode|random_crop(5)|random_crop(4)", batch_size=50, steps=range(4)
    )
    tops = np.concatenate([batch["image"][:, 0, 0, 1] for batch in batches])
    assert set(tops.tolist()) == {0, 1, 2}
    assert 70 < (tops == 1).sum() < 130  # 100 expected of 200, standard deviation 7


def test_what_is_resident():
    assert open_pipeline().resident is not None
    assert open_pipeline(resident="never").resident is None
    assert open_pipeline(ops="decode|random_crop(4)").resident is None
    assert open_pipeline(ops="decode|center_crop(4)").resident is not None


def test_a_split_too_large_to_stay_on_the_devices_is_streamed(monkeypatch):
    monkeypatch.setattr(pipeline, "RESIDENT_BYTES", 23 * 6 * 6 * 3 - 1)
    assert open_pipeline().resident is None
    assert open_pipeline(resident="always").resident is not None


def test_reading_in_parts_keeps_the_order(monkeypatch):
    monkeypatch.setattr(pipeline, "PART", 4)
    images = list(open_pipeline(resident="never").images())
    assert [len(part) for part in images] == [4, 4, 4, 4, 4, 3]
    assert np.concatenate(images)[:, 0, 0, 0].tolist() == list(range(23))
    resident = open_pipeline().resident
    assert resident is not None
    np.testing.assert_array_equal(resident["image"], np.concatenate(images))
    np.testing.assert_array_equal(resident["label"], np.arange(23) % 10)


@pytest.mark.parametrize("images", [1, 3, 5, 8, 100])
def test_a_batch_is_the_same_in_however_many_parts_it_is_read(monkeypatch, images):
    whole = training(ops="decode|random_crop(4)", seed=5)
    monkeypatch.setattr(pipeline, "PART_BYTES", images * 4 * 4 * 3)
    assert_same(training(ops="decode|random_crop(4)", seed=5), whole)


# --- sizes that change with the epoch -------------------------------------------------------------

BY_EPOCH = "decode|random_crop(5)|resize_by_epoch(5, 3, 4)"


def test_sizes_take_turns_by_the_epoch_in_which_a_batch_begins():
    pipe = open_pipeline(ops=BY_EPOCH)
    assert pipe.image_shape == (5, 5, 3) and pipe.image_shapes == [(5, 5, 3), (3, 3, 3), (4, 4, 3)]
    batches = training(ops=BY_EPOCH, steps=range(13))  # of 8 images; an epoch has 23
    sides = [batch["image"].shape[1] for batch in batches]
    assert sides == [{0: 5, 1: 3, 2: 4}[8 * step // 23 % 3] for step in range(13)]
    assert all(
        batch["image"].shape[1:3] == (side, side)
        for batch, side in zip(batches, sides, strict=True)
    )
    assert sorted(numbers(batches)[:23]) == list(range(23))


def test_a_run_resumed_in_an_epoch_has_its_size():
    whole = training(ops=BY_EPOCH, steps=range(9))
    assert_same(training(ops=BY_EPOCH, steps=range(5, 9)), whole[5:])
    assert_same(training(ops=BY_EPOCH, steps=range(9), devices=8), whole)


def test_sizes_that_change_are_not_resident():
    ops = "decode|resize_by_epoch(6, 4)"
    assert open_pipeline(ops=ops).resident is None
    with pytest.raises(
        UserError, match="'resize_by_epoch' depends on the epoch; a resident split needs"
    ):
        open_pipeline(ops=ops, resident="always")


def test_images_smaller_than_a_window_are_scaled_up_and_it_is_said_once(caplog):
    with caplog.at_level(logging.WARNING, "cnn_papers"):
        batches = training(ops="decode|random_crop(9)|center_crop(9)", seed=1)
    assert batches[0]["image"].shape == (8, 9, 9, 3)
    assert [record.getMessage() for record in caplog.records] == [
        "config.data.train_host: 'random_crop' scales up images smaller than its window, "
        "first image_0"
    ]


# --- evaluation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("resident", ["always", "never"])
@pytest.mark.parametrize(
    ("batch_size", "devices"), [(1, 1), (7, 1), (23, 1), (64, 1), (8, 8), (12, 8), (3, 8)]
)
def test_evaluation_sees_every_example_once_in_order(resident, batch_size, devices):
    batches = jax.device_get(
        list(
            open_pipeline(devices=devices, resident=resident, key="data.eval_host").eval_batches(
                batch_size
            )
        )
    )
    assert {batch["image"].shape for batch in batches} == {batches[0]["image"].shape}
    assert len(batches[0]["image"]) % devices == 0 and batches[0]["mask"].dtype == bool
    mask = np.concatenate([batch["mask"] for batch in batches])
    assert [
        number for number, counts in zip(numbers(batches), mask, strict=True) if counts
    ] == list(range(23))
    labels = np.concatenate([batch["label"] for batch in batches])[mask]
    assert labels.tolist() == [i % 10 for i in range(23)]


# --- what can be wrong ----------------------------------------------------------------------------


@pytest.mark.parametrize("label", [-1, 10, 255])
def test_a_label_out_of_range_is_an_error_that_names_the_example(label):
    split = make_split(labels=[*[0] * 22, label])
    message = (
        rf"label {label} of image_22 is out of range: "
        r"the network has 10 classes \(config.model.num_classes\)"
    )
    with pytest.raises(UserError, match=message):
        open_pipeline(split)
    with pytest.raises(UserError, match=message):
        training(split, resident="never")


@pytest.mark.fault(
    "damage: images of the training set", "left out within `data.max_skips`, each named"
)
@pytest.mark.parametrize("resident", ["always", "never"])
def test_undecodable_images_are_left_out_within_the_budget_and_named(resident, caplog):
    images = [png(i) for i in range(23)]
    images[0] = images[7] = images[22] = BROKEN
    with caplog.at_level(logging.WARNING, "cnn_papers"):
        rows = numbers(
            training(make_split(images=images), resident=resident, max_skips=3, batch_size=23)
        )
    stand_ins = {0: 1, 7: 8, 22: 1}  # the next that decodes
    assert [sorted(rows[i : i + 23]) for i in range(0, 115, 23)] == [
        sorted(stand_ins.get(i, i) for i in range(23))
    ] * 5
    said = sorted(record.getMessage() for record in caplog.records)
    assert [line.split(":")[0] for line in said] == [
        f"left out image image_{i}" for i in (0, 22, 7)
    ]
    assert all("cannot be decoded" in line for line in said)
    assert sorted(line[line.rindex("(") :] for line in said) == [
        f"({i} of at most 3)" for i in (1, 2, 3)
    ]


@pytest.mark.parametrize("resident", ["always", "never"])
def test_beyond_the_budget_an_undecodable_image_is_an_error(resident):
    images = [png(i) if i % 5 else BROKEN for i in range(23)]  # five of them
    with pytest.raises(
        UserError,
        match=r"image image_\d+ of made\[train\] cannot be decoded: .*config.data.max_skips",
    ):
        training(make_split(images=images), resident=resident, max_skips=4)
    assert len(training(make_split(images=images), resident=resident, max_skips=5)) == 5


def test_evaluation_needs_every_image():
    images = [png(i) for i in range(22)] + [b""]
    pipe = open_pipeline(make_split(images=images), key="data.eval_host", resident="never")
    with pytest.raises(
        UserError, match=r"image image_22 of .* cannot be decoded: .* evaluation needs every image"
    ):
        list(pipe.eval_batches(8))
    with pytest.raises(UserError, match=r"image image_22 of .* cannot be decoded"):
        open_pipeline(make_split(images=images), key="data.eval_host")


@pytest.mark.parametrize("resident", ["always", "never"])
def test_a_thin_image_that_cannot_be_scaled_counts_as_undecodable(resident, caplog):
    thin = cv2.imencode(".png", np.zeros((1, 60_000, 3), np.uint8))[1].tobytes()
    images = [png(i) for i in range(23)]
    images[7] = thin
    options = {"ops": "decode|resize_short(256)|center_crop(6)", "resident": resident}
    with caplog.at_level(logging.WARNING, "cnn_papers"):
        training(make_split(images=images), max_skips=1, batch_size=23, **options)
    assert [record.getMessage() for record in caplog.records] == [
        "left out image image_7: it cannot be scaled: 15,360,000×256 pixels are more than "
        "134,217,728 (1 of at most 1)"
    ]
    with pytest.raises(UserError, match=r"^image image_7 of made\[train\] cannot be scaled: "):
        training(make_split(images=images), batch_size=23, **options)


@pytest.fixture(scope="session")
def damaged(tmp_path_factory) -> Callable[..., pathlib.Path]:
    """Copies `digits`, changes the bytes of its test shard by a function, returns the folder."""
    original = tmp_path_factory.mktemp("whole")
    open_split("digits", "test", str(original))

    def make(change: Callable[[bytes], bytes]) -> pathlib.Path:
        copy = tmp_path_factory.mktemp("damaged")
        shutil.copytree(original, copy, dirs_exist_ok=True)
        (file,) = copy.rglob("digits-test.array_record*")
        file.write_bytes(change(file.read_bytes()))
        return copy

    return make


def flipped(data: bytes, *places: int) -> bytes:
    return bytes(byte ^ (i in places) for i, byte in enumerate(data))


@pytest.mark.fault(
    "damage: records of the training set", "left out within `data.max_skips`, each named"
)
@pytest.mark.parametrize("ops", ["decode", "decode|random_crop(6)"])
def test_damaged_records_are_left_out_of_training_within_the_budget(damaged, ops, caplog):
    folder = damaged(lambda data: flipped(data, 20_000, 40_000))
    split = open_split("digits", "test", str(folder))
    with caplog.at_level(logging.WARNING, "cnn_papers"):
        batches = training(split, ops, batch_size=90, steps=range(8), max_skips=2)
    assert len(batches) == 8
    said = {record.getMessage() for record in caplog.records}
    assert len(said) == len(caplog.records) == 2  # each once, though they came up in two epochs
    for line in said:
        assert re.match(
            r"left out an example: cannot read example \d+ of digits\[test\]: "
            r".*array_record-0.* is damaged",
            line,
        )
    with pytest.raises(
        UserError,
        match=r"cannot read example \d+ of digits\[test\]: .*data.max_skips lets training",
    ) as error:
        training(split, ops, batch_size=90, steps=range(8), max_skips=1)
    assert "\n" not in str(error.value)


@pytest.mark.fault("damage: a record of the evaluation set", "one line with file and index")
@pytest.mark.parametrize("resident", ["always", "never"])
def test_evaluation_fails_on_a_damaged_record_and_names_file_and_index(damaged, resident):
    folder = damaged(lambda data: flipped(data, 20_000))
    split = open_split("digits", "test", str(folder))
    message = (
        r"cannot read example \d+ of digits\[test\]: "
        rf"{folder}/.*/digits-test.array_record-00000-of-00001 is damaged"
    )
    with pytest.raises(UserError, match=message):
        list(open_pipeline(split, resident=resident, key="data.eval_host").eval_batches(64))


@pytest.mark.parametrize(
    "change", [lambda data: data[: len(data) // 2], lambda data: data[:-1], lambda data: b""]
)
def test_a_shard_that_is_cut_off_is_one_line(damaged, change):
    folder = damaged(change)
    with pytest.raises(UserError, match=r"/digits-test.array_record-00000-of-00001") as error:
        training(
            open_split("digits", "test", str(folder)), max_skips=10, batch_size=90, steps=range(4)
        )
    assert "\n" not in str(error.value) and "damaged" in str(error.value)


def test_an_image_file_that_has_gone_is_left_out(tmp_path, caplog):
    for i in range(6):
        (tmp_path / f"class_{i % 2}").mkdir(exist_ok=True)
        (tmp_path / f"class_{i % 2}" / f"{i}.png").write_bytes(png(i))
    split = open_split(f"folder:{tmp_path}", "train")
    gone = split.examples[3]["id"]
    (tmp_path / gone).unlink()
    with caplog.at_level(logging.WARNING, "cnn_papers"):
        assert len(training(split, batch_size=6, max_skips=1, resident="never")) == 5
    assert [record.getMessage() for record in caplog.records] == [
        f"left out an example: cannot read {tmp_path / gone}: "
        "No such file or directory (1 of at most 1)"
    ]
    with pytest.raises(
        UserError,
        match=r"No such file or directory \(config.data.max_skips lets training leave some",
    ):
        training(split, batch_size=6, resident="never")


def test_a_split_without_any_image_that_decodes_is_an_error():
    with pytest.raises(UserError, match=r"made\[train\] has no image that can be decoded"):
        open_pipeline(make_split(images=[BROKEN] * 4), max_skips=100)


@pytest.mark.parametrize("part", [256, 4])
@pytest.mark.parametrize("resident", ["always", "never"])
def test_images_of_different_shapes_are_an_error(monkeypatch, part, resident):
    monkeypatch.setattr(pipeline, "PART", part)
    images = [png(i, side=6 if i < 12 else 7) for i in range(23)]
    message = r"config.data.train_host: .* \(6, 6, 3\) and \(7, 7, 3\); end with a crop or resize"
    with pytest.raises(UserError, match=message):
        training(make_split(images=images), resident=resident)
    with pytest.raises(UserError, match=message):
        list(open_pipeline(make_split(images=images), resident="never").images())
    assert training(make_split(images=images), "decode|resize(6)", resident=resident)


@pytest.mark.parametrize(
    ("ops", "options", "message"),
    [
        (
            "decode|random_crop(4)",
            {"resident": "always"},
            "config.data.train_host: 'random_crop' is random; a resident",
        ),
        (
            "decode",
            {"resident": "yes"},
            "config.data.resident is 'auto', 'always' or 'never', not 'yes'",
        ),
        ("center_crop(4)", {}, "config.data.train_host must begin with 'decode'"),
        ("center_crop(4)|decode", {}, "config.data.train_host must begin with 'decode'"),
        ("", {}, "config.data.train_host must begin with 'decode'"),
        (
            "decode|centre_crop(4)",
            {},
            r"there is no 'centre_crop' \(did you mean 'center_crop'\?\)",
        ),
        ("decode|center_crop", {}, "does not fit center_crop"),
        ("decode(4)", {}, "an image decodes to 1 or 3 channels, not 4"),
        (
            "decode(3, 4)|center_crop(4)",
            {"key": "data.eval_host"},
            "config.data.eval_host: a test scales whole images: write 'decode' without 'short'",
        ),
        (
            "decode|resize(0)",
            {},
            r"config.data.train_host: 'resize' fails on image_0, \(6, 6, 3\): ",
        ),
        ("decode|center_crop(-2)", {}, "config.data.train_host: 'center_crop' fails on image_0"),
        ("decode|random_crop(-2)", {}, "config.data.train_host: 'random_crop' fails on image_0"),
        (
            "decode|resize_short_between(9, 4)",
            {},
            "config.data.train_host: 'resize_short_between' fails on image_0",
        ),
        ("decode|decode", {}, r"config.data.train_host: 'decode' fails on image_0, \(6, 6, 3\)"),
    ],
)
def test_operations_that_cannot_work_are_refused_before_the_first_batch(ops, options, message):
    with pytest.raises(UserError, match=message) as caught:
        open_pipeline(ops=ops, max_skips=100, **options)
    assert "\n" not in str(caught.value)


def test_an_error_while_streaming_comes_with_its_batch():
    labels = [0] * 22 + [99]
    batches = open_pipeline(make_split(labels=labels), resident="never").train_batches(
        1, seed=0, steps=range(23)
    )
    with pytest.raises(UserError, match="label 99 of image_22"):
        list(batches)


# --- threads --------------------------------------------------------------------------------------


def test_a_generator_closed_early_stops_reading():
    split, read = make_split(), []

    class Examples(list):
        def __getitem__(self, index):
            read.append(index)
            return super().__getitem__(index)

    before = set(threading.enumerate())
    split = split._replace(examples=Examples(split.examples))
    batches = open_pipeline(split, resident="never").train_batches(2, seed=0, steps=range(100_000))
    next(batches)
    assert set(threading.enumerate()) - before
    batches.close()
    deadline = time.monotonic() + 30
    while set(threading.enumerate()) - before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert set(threading.enumerate()) - before == set()
    assert len(read) < 1000


def test_several_pipelines_read_side_by_side():
    first = open_pipeline(ops="decode|random_crop(4)").train_batches(8, seed=0, steps=range(5))
    second = open_pipeline(ops="decode|random_crop(4)").train_batches(8, seed=1, steps=range(5))
    turns = list(zip(first, second, strict=True))
    assert_same(
        jax.device_get([pair[0] for pair in turns]), training(ops="decode|random_crop(4)", seed=0)
    )
    assert_same(
        jax.device_get([pair[1] for pair in turns]), training(ops="decode|random_crop(4)", seed=1)
    )


# --- real data ------------------------------------------------------------------------------------


def test_cifar10_pixels_are_those_of_its_files(test_data, tmp_path):
    split = open_split("cifar10", "test[:300]", str(test_data / "tfds"))
    theirs = []
    for example in split.examples[:]:
        (tmp_path / "image.png").write_bytes(example["image"])
        theirs.append(np.asarray(PIL.Image.open(tmp_path / "image.png")))
    for resident in ("always", "never"):
        batches = jax.device_get(list(open_pipeline(split, resident=resident).eval_batches(128)))
        images, labels, mask = (
            np.concatenate([batch[name] for batch in batches])
            for name in ("image", "label", "mask")
        )
        np.testing.assert_array_equal(images[mask], theirs)
        assert labels[mask].tolist() == [example["label"] for example in split.examples[:]]


def test_imagenette_jpegs_stream_through_random_crops(test_data):
    split = open_split(f"folder:{test_data}/imagenette_small", "train")
    ops = "decode|area_aspect_crop(48)"
    batches = training(split, ops, batch_size=32, seed=1, steps=range(4), devices=8)
    assert_same(training(split, ops, batch_size=32, seed=1, steps=range(2, 4)), batches[2:])
    images = np.concatenate([batch["image"] for batch in batches])
    assert images.shape == (128, 48, 48, 3) and images.dtype == np.uint8
    assert 90 < images.mean() < 150 and images.std() > 40  # photographs, not noise or black
    assert len({int(label) for batch in batches for label in batch["label"]}) == 10
