"""Preparing data sets: those that are ready, those that are converted, and every obstacle."""

import importlib.util
import io
import itertools
import json
import os
import pathlib
import shutil
import struct
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from support import faults
from support.commands import exit_code
from tensorflow_datasets.core.download import extractor

from cnn_papers import prepare
from cnn_papers.data import download, host_ops, image_files, shrink
from cnn_papers.data.convert import write_shard
from cnn_papers.data.sources import open_split
from cnn_papers.data.tfds import find_builder
from cnn_papers.errors import UserError

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


@pytest.fixture
def tensorflow_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `prepare` believe that TensorFlow is installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(
        prepare.importlib.util, "find_spec", lambda n: True if n == "tensorflow" else real(n)
    )


@pytest.fixture
def tfrecord_dir(tmp_path: pathlib.Path, digits_folder: pathlib.Path) -> pathlib.Path:
    """`digits` prepared as TFRecord: framed here from array_record, with checksums of zero."""
    builder = find_builder("digits", str(shutil.copytree(digits_folder, tmp_path / "tfrecord")))
    folder = pathlib.Path(builder.data_dir)
    for split in ("train", "test"):
        source = builder.as_data_source(
            split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES
        )
        records = source.__getitems__(list(range(len(source))))
        framed = (struct.pack("<QI", len(r), 0) + r + struct.pack("<I", 0) for r in records)
        (folder / f"digits-{split}.tfrecord-00000-of-00001").write_bytes(b"".join(framed))
        (folder / f"digits-{split}.array_record-00000-of-00001").unlink()
    info = folder / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    return tmp_path / "tfrecord"


@pytest.fixture
def digits_dir(tmp_path: pathlib.Path, digits_folder: pathlib.Path) -> pathlib.Path:
    """A folder in which `digits` is prepared."""
    return shutil.copytree(digits_folder, tmp_path / "data")


def _listing(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- what works -----------------------------------------------------------------------------------


def test_digits_are_prepared_and_a_second_time_nothing_happens(tmp_path, capsys):
    command = ("digits", f"--data_dir={tmp_path}")
    assert exit_code(prepare.cli, *command) == 0
    assert (
        f"digits is ready in {tmp_path}/digits/plain/1.0.0: train 1,437, test 360\n"
        in capsys.readouterr().out
    )
    before = _listing(tmp_path)
    assert exit_code(prepare.cli, *command) == 0
    assert capsys.readouterr().out == (
        f"digits is already prepared in {tmp_path}/digits/plain/1.0.0: train 1,437, test 360\n"
    )
    assert _listing(tmp_path) == before


def test_a_prepared_set_says_so(test_data, capsys):
    prepare.prepare("cifar10", str(test_data / "tfds"))
    assert capsys.readouterr().out == (
        f"cifar10 is already prepared in {test_data}/tfds/cifar10/3.0.2: "
        "train 50,000, test 10,000\n"
    )


def test_the_door_prints_one_line_and_exits_with_2(tmp_path):
    command = [sys.executable, "-m", "cnn_papers.prepare", "digitz", f"--data_dir={tmp_path}"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: no data set is called 'digitz': did you mean digits")
    assert run.stderr.count("\n") == 1 and run.stdout == ""


@pytest.mark.parametrize("names", [[], ["mnist", "cifar10"]])
def test_one_name_is_asked_for(names, capsys):
    assert exit_code(prepare.cli, *names) == 2
    assert capsys.readouterr().err.startswith(
        "error: write one NAME: python -m cnn_papers.prepare cifar10"
    )


# --- TFRecord → array_record ----------------------------------------------------------------------


def test_a_tfrecord_preparation_is_converted_beside_itself(tfrecord_dir, digits_folder):
    with pytest.raises(
        UserError,
        match=r"only as tfrecord, not as array_record, in .*: run python -m cnn_papers.prepare",
    ):
        open_split("digits", "train", str(tfrecord_dir))
    before = _listing(tfrecord_dir)
    prepare.prepare("digits", str(tfrecord_dir))
    after = _listing(tfrecord_dir)
    changed = {path for path in before if after[path] != before[path]}
    assert {pathlib.Path(path).name for path in changed} == {"dataset_info.json"}
    assert {pathlib.Path(path).name for path in set(after) - set(before)} == {
        "digits-train.array_record-00000-of-00001",
        "digits-test.array_record-00000-of-00001",
    }
    for split in ("train", "test", "train[:10%]"):
        converted = open_split("digits", split, str(tfrecord_dir)).examples[:]
        assert converted == open_split("digits", split, str(digits_folder)).examples[:]


def test_a_converted_set_is_not_converted_again(tfrecord_dir, capsys):
    prepare.prepare("digits", str(tfrecord_dir))
    capsys.readouterr()
    before = _listing(tfrecord_dir)
    prepare.prepare("digits", str(tfrecord_dir))
    assert capsys.readouterr().out.startswith("digits is already prepared in ")
    assert _listing(tfrecord_dir) == before


@pytest.mark.fault("damage: a prepared data set's TFRecord", "named; the rest is kept")
@pytest.mark.parametrize(
    "damage, message",
    [
        (
            lambda data: data[:-1],
            r"digits-test.tfrecord-00000-of-00001 is damaged: record 359 of 360 is cut off",
        ),
        (lambda data: data[:5], r"record 0 of 360 is cut off"),
        (lambda data: b"\xff" * 8 + data[8:], r"record 0 of 360 is cut off"),
        (lambda data: data + data[:200], r"is damaged: more than the 360 records it should have"),
    ],
)
def test_a_damaged_tfrecord_is_not_converted_and_the_rest_is_kept(
    tfrecord_dir, capsys, damage, message
):
    file = next(tfrecord_dir.rglob("digits-test.tfrecord*"))
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with pytest.raises(UserError, match=message):
        prepare.prepare("digits", str(tfrecord_dir))
    assert not list(tfrecord_dir.rglob("digits-test.array_record*")) and not list(
        tfrecord_dir.rglob("*.tmp")
    )
    file.write_bytes(whole)
    capsys.readouterr()
    prepare.prepare("digits", str(tfrecord_dir))
    assert capsys.readouterr().out.startswith(
        "converting digits-test.tfrecord-00000-of-00001 (1 of 1)\n"
    )
    assert len(open_split("digits", "train", str(tfrecord_dir)).examples) == 1437


# --- what stands in the way -----------------------------------------------------------------------


def test_imagenet_says_which_archives_it_needs_and_where(tmp_path):
    names = (
        r"ILSVRC2012_img_train.tar \(147,897,477,120 bytes\) and "
        r"ILSVRC2012_img_val.tar \(6,744,924,160 bytes\)"
    )
    with pytest.raises(
        UserError, match=rf"imagenet2012 needs {names} in {tmp_path}/downloads/manual, and"
    ) as error:
        prepare.prepare("imagenet2012", str(tmp_path))
    assert "https://image-net.org/download-images" in str(error.value) and "\n" not in str(
        error.value
    )
    manual = tmp_path / "tars"
    manual.mkdir()
    (manual / TRAIN_TAR).write_bytes(b"half")
    with pytest.raises(
        UserError, match=rf"in {manual}, and {TRAIN_TAR} has 4 bytes: download it again"
    ):
        prepare.prepare("imagenet2012", str(tmp_path), str(manual))
    with open(manual / TRAIN_TAR, "wb") as file:
        file.truncate(147_897_477_120)  # sparse: takes no space
    with pytest.raises(UserError, match=rf"in {manual}, and {VAL_TAR} is not there"):
        prepare.prepare("imagenet2012", str(tmp_path), str(manual))


def test_imagenet_with_its_archives_asks_for_space_then_for_tensorflow(tmp_path, monkeypatch):
    for name, size in download._IMAGENET_ARCHIVES:
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=309_000_000_000))
    with pytest.raises(UserError, match=rf"disk of {tmp_path}: need 309.28 GB, have 309.00 GB"):
        prepare.prepare("imagenet2012", str(tmp_path / "data"), str(tmp_path))
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=310_000_000_000))
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        UserError,
        match=r'preparing imagenet2012 needs TensorFlow \(no run does\): pip install -e "\.\[p',
    ):
        prepare.prepare("imagenet2012", str(tmp_path / "data"), str(tmp_path))
    assert not (tmp_path / "data").exists()


def test_cifar_needs_its_archive_and_itself_twice_over(tmp_path, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(
        UserError, match=r"need 0.68 GB, have 0.00 GB; free some or choose another --data_dir"
    ):
        prepare.prepare("cifar10", str(tmp_path))


def test_other_sets_for_the_hand_show_tfds_instructions(tmp_path):
    with pytest.raises(
        UserError,
        match=r"must be downloaded by hand into .*/downloads/manual \(or --manual_dir\): \w+",
    ) as e:
        prepare.prepare("celeb_a_hq/64", str(tmp_path))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize(
    "name",
    [
        "mnist",
        "fashion_mnist",
        "cifar10",
        "cifar100",
        "svhn_cropped",
        "imagenette",
        "voc/2007",
        "voc/2012",
    ],
)
def test_public_sets_only_lack_tensorflow(tmp_path, monkeypatch, name):
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda _: None)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=10**12))
    with pytest.raises(UserError, match=rf"^preparing {name} needs TensorFlow \(no run does\)"):
        prepare.prepare(name, str(tmp_path))


def test_a_prepared_detection_set_is_recognised(test_data, capsys):
    prepare.prepare("voc/2007", str(test_data / "tfds"))
    assert "voc/2007 is already prepared in " in capsys.readouterr().out


@pytest.mark.parametrize(
    "kind", [requests.exceptions.ConnectionError, requests.exceptions.ReadTimeout]
)
def test_without_a_network_it_ends_at_once(tmp_path, monkeypatch, tensorflow_found, kind):
    def fail(*args, **kwargs):
        raise kind("Failed to resolve 'www.cs.toronto.edu'")

    monkeypatch.setattr(requests, "head", fail)
    with pytest.raises(
        UserError,
        match=r"cannot download cifar10: check the network and HTTPS_PROXY, or .*\(Failed to re",
    ):
        prepare.prepare("cifar10", str(tmp_path))


@pytest.mark.parametrize(
    "error, message",
    [
        (
            tfds.download.DownloadError("HTTP code: 404."),
            r"cannot download cifar10: .* \(HTTP code: 404.\)",
        ),
        (
            requests.exceptions.ReadTimeout("timed out"),
            r"cannot download cifar10: .* \(timed out\)",
        ),
        (
            ModuleNotFoundError("No module named 'apache_beam'"),
            r"preparing cifar10 needs another package: .*apache_beam",
        ),
        (
            OSError(28, "No space left on device"),
            r"cannot prepare cifar10 in .*: .*No space left on device",
        ),
    ],
)
def test_what_goes_wrong_in_tfds_is_one_line(
    tmp_path, monkeypatch, tensorflow_found, error, message
):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(UserError, match=message):
        prepare.prepare("cifar10", str(tmp_path))


# --- archives -------------------------------------------------------------------------------------


class OfStrangers(tfds.core.GeneratorBasedBuilder):
    """A data set whose images are the files of an archive got by hand."""

    VERSION = tfds.core.Version("1.0.0")
    MANUAL_DOWNLOAD_INSTRUCTIONS = "Ask a stranger."
    pkg_dir_path = pathlib.Path(__file__).parent

    def _info(self):
        label, key = tfds.features.ClassLabel(names=["one"]), tfds.features.Text()
        features = tfds.features.FeaturesDict(
            {"image": tfds.features.Image(), "label": label, "id": key}
        )
        return self.dataset_info_from_configs(features=features)

    def _split_generators(self, dl_manager):
        return {
            "train": self._generate_examples(
                pathlib.Path(dl_manager.extract(dl_manager.manual_dir / "images.tar"))
            )
        }

    def _generate_examples(self, folder):
        for path in faults.files_of(folder):
            image = io.BytesIO(faults.png_of(4, 4))
            yield path.name, {"image": image, "label": 0, "id": str(path.relative_to(folder))}


@pytest.fixture
def by_hand(tmp_path, monkeypatch, tensorflow_found) -> pathlib.Path:
    """The folder of the archive of `of_strangers`, which TFDS unpacks without TensorFlow here."""
    gfile = SimpleNamespace(GFile=open)
    stub = SimpleNamespace(compat=SimpleNamespace(as_text=str), io=SimpleNamespace(gfile=gfile))
    monkeypatch.setattr(extractor, "tf", stub)
    (tmp_path / "manual").mkdir()
    return tmp_path / "manual"


@pytest.mark.fault(
    "hostile: a data set's archive with paths that lead out of its folder",
    "nothing is written outside",
)
def test_an_archive_does_not_write_outside_its_folder(tmp_path, by_hand):
    outside, data = tmp_path / "outside", tmp_path / "deep" / "data"
    outside.mkdir()
    faults.write_escaping_tar(by_hand / "images.tar", outside)
    before = {path for path in tmp_path.rglob("*") if not path.is_relative_to(data)}
    prepare.prepare("of_strangers", str(data), str(by_hand))
    assert {path for path in tmp_path.rglob("*") if not path.is_relative_to(data)} == before | {
        data.parent
    }
    names = sorted(
        example["id"] for example in open_split("of_strangers", "train", str(data)).examples[:]
    )
    assert names == ["fine.txt", "link/through.txt"]
    assert not any(path.is_symlink() for path in data.rglob("*"))
    assert not list(data.rglob("above.txt"))


@pytest.mark.fault(
    "hostile: a data set's archive that is damaged",
    "one line that names it; nothing is left to be read",
)
@pytest.mark.parametrize(
    "damage", [faults.empty, lambda path: path.write_bytes(faults.noise(9999))]
)
def test_a_damaged_archive_is_one_line(tmp_path, by_hand, damage):
    faults.write_escaping_tar(by_hand / "images.tar", tmp_path)
    damage(by_hand / "images.tar")
    with pytest.raises(UserError, match=r"^cannot prepare of_strangers in .*images.tar") as error:
        prepare.prepare("of_strangers", str(tmp_path / "data"), str(by_hand))
    assert "\n" not in str(error.value)
    with pytest.raises(UserError, match="is not prepared"):
        open_split("of_strangers", "train", str(tmp_path / "data"))


# --- copies at a small size -----------------------------------------------------------------------


@pytest.fixture
def quick_parts(monkeypatch) -> None:
    """Records are worked on in parts of 7."""
    monkeypatch.setattr(shrink, "PART", 7)


def sizes(split) -> list[tuple[int, ...]]:
    return [host_ops.decode(example["image"]).shape[:2] for example in split.examples[:]]


def test_a_prepared_set_is_copied_at_a_small_size(tmp_path, test_data, capsys, quick_parts):
    source, out = test_data / "tfds" / "voc/2007", tmp_path / "out"
    options = (f"--data_dir={test_data}/tfds", "--short_side=100", f"--out={out}")
    assert exit_code(prepare.cli, "voc/2007", *options) == 0
    said = (
        f"voc/2007 at shorter sides of at most 100 is in {out}/voc/2007/5.0.0: "
        f"--config.data.data_dir={out}\n"
    )
    assert capsys.readouterr().out.endswith(said)
    theirs, ours = (
        tfds.builder("voc/2007", data_dir=folder) for folder in (test_data / "tfds", out)
    )
    info = json.loads((out / "voc/2007/5.0.0/dataset_info.json").read_text())
    assert info["description"].endswith(
        "Images at a shorter side of at most 100 pixels (JPEG quality 95)."
    )
    assert ours.info.splits.keys() == theirs.info.splits.keys()
    for split in theirs.info.splits:
        before, after = theirs.as_data_source(split), ours.as_data_source(split)
        assert len(before) == len(after) == theirs.info.splits[split].num_examples
        for a, b in zip(before, after, strict=True):
            assert min(b["image"].shape[:2]) == 100
            expected = host_ops.resize_short(a["image"], 100).astype(int)
            assert b["image"].shape == expected.shape and np.abs(b["image"] - expected).mean() < 5
            assert a["image/filename"] == b["image/filename"]
        written = sum(path.stat().st_size for path in out.rglob(f"*-{split}.array_record*"))
        assert ours.info.splits[split].num_bytes == written < theirs.info.splits[split].num_bytes
        originals, copies = (
            open_split("voc/2007", split, str(folder)).objects
            for folder in (test_data / "tfds", out)
        )
        assert originals is not None and copies is not None
        for original, copy in zip(originals, copies, strict=True):
            scales = np.divide(copy.size, original.size)
            np.testing.assert_allclose(
                copy.boxes, original.boxes * np.tile(scales, 2), rtol=0, atol=1e-3
            )
    assert source.exists() and [path.name for path in (out / "voc/2007").iterdir()] == ["5.0.0"]


def test_images_that_are_small_already_are_copied_to_the_byte(digits_dir, tmp_path):
    prepare.copy_small("digits", str(digits_dir), 8)
    for split in ("train", "test"):
        copied = open_split("digits", split, str(digits_dir / "short8"))
        assert copied.examples[:] == open_split("digits", split, str(digits_dir)).examples[:]
    prepare.copy_small("digits", str(digits_dir), 4, str(tmp_path / "four"))
    assert set(sizes(open_split("digits", "test", str(tmp_path / "four")))) == {(4, 4)}


@pytest.mark.fault("kill: while a data set is copied", "goes on; not read before it is whole")
def test_an_interrupted_copy_goes_on_and_is_not_read_before_it_is_whole(
    digits_dir, tmp_path, monkeypatch
):
    written: list[str] = []

    def write(path, records):
        written.append(path.name.split(".array_record")[0])
        if written == ["digits-train", "digits-test"]:
            raise KeyboardInterrupt
        write_shard(path, records)

    monkeypatch.setattr(shrink, "write_shard", write)
    with pytest.raises(KeyboardInterrupt):
        prepare.copy_small("digits", str(digits_dir), 6, str(tmp_path))
    assert not (tmp_path / "digits/plain/1.0.0").exists()
    prepare.copy_small("digits", str(digits_dir), 6, str(tmp_path))
    prepare.copy_small("digits", str(digits_dir), 6, str(tmp_path))
    assert written == ["digits-train", "digits-test", "digits-test"]
    assert len(open_split("digits", "train", str(tmp_path)).examples) == 1437


def test_a_folder_is_copied_at_a_small_size(tmp_path, capsys):
    for name, shape in (
        ("train/ant/a.jpg", (40, 60)),
        ("train/bee/deep/b.png", (90, 30)),
        ("val/ant/c.jpeg", (9, 9)),
    ):
        (tmp_path / "images" / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(
            str(tmp_path / "images" / name),
            np.random.default_rng(0).integers(0, 255, (*shape, 3), np.uint8),
        )
    (tmp_path / "images/val/bee").mkdir()
    (tmp_path / "images/val/bee/d.jpg").write_bytes(b"no image")
    out = tmp_path / "images-short20"
    for said in ("images: 4 added, 0 renewed, 0 removed\n", "images: no changes\n"):
        prepare.copy_small(f"folder:{tmp_path}/images/", "", 20)
        assert capsys.readouterr().out == (
            f"{said}folder:{tmp_path}/images/ at shorter sides of at most 20 is in {out}: "
            f"--config.data.name=folder:{out}\n"
        )
    train, val = open_split(f"folder:{out}", "train"), open_split(f"folder:{out}", "val")
    shapes = {
        example["id"]: host_ops.decode(example["image"]).shape[:2] for example in train.examples
    }
    assert shapes == {"ant/a.jpg": (20, 30), "bee/deep/b.png": (60, 20)}
    for example in val.examples:
        assert example["image"] == (tmp_path / "images/val" / example["id"]).read_bytes()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.fixture
def images(tmp_path) -> pathlib.Path:
    """PATH/train with two images of ant and of bee, PATH/val with one each, all 40×60."""
    rng = np.random.default_rng(0)
    for folder, count in (("train/ant", 2), ("train/bee", 2), ("val/ant", 1), ("val/bee", 1)):
        for i in range(count):
            write_image(tmp_path / f"images/{folder}/{i}.jpg", rng)
    return tmp_path / "images"


def write_image(path: pathlib.Path, rng: np.random.Generator) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rng.integers(0, 255, (40, 60, 3), np.uint8))


def test_a_copied_folder_is_brought_up_to_date(images, tmp_path, capsys):
    rng = np.random.default_rng(1)
    out = tmp_path / "images-short20"
    prepare.copy_small(f"folder:{images}", "", 20)
    kept = (out / "train/bee/0.jpg").stat()
    write_image(images / "train/ant/deep/2.png", rng)
    write_image(images / "train/cat/0.png", rng)
    write_image(images / "train/bee/1.jpg", rng)
    os.utime(images / "train/bee/1.jpg", (1, 1))  # another file, though its time is an older one
    (images / "train/ant/0.jpg").unlink()
    shutil.rmtree(images / "val/bee")
    (out / "notes.md").write_text("mine")
    capsys.readouterr()
    prepare.copy_small(f"folder:{images}", "", 20)
    assert capsys.readouterr().out.startswith("images: 2 added, 1 renewed, 2 removed\n")
    fresh = tmp_path / "fresh"
    prepare.copy_small(f"folder:{images}", "", 20, str(fresh))
    ours, theirs = (
        {path.removeprefix(str(folder)): data for path, data in _listing(folder).items()}
        for folder in (out, fresh)
    )
    assert ours.pop("/notes.md") == b"mine" and ours == theirs
    assert not (out / "val/bee").exists()
    assert (out / "train/bee/0.jpg").stat() == kept
    assert sorted(path.name for path in tmp_path.iterdir()) == ["fresh", "images", out.name]


@pytest.mark.fault(
    "kill: while the copy of a folder is brought up to date",
    "goes on; not read before it is whole",
)
def test_a_copy_that_is_being_brought_up_to_date_is_not_read(
    images, tmp_path, monkeypatch, capsys, caplog
):
    caplog.set_level("INFO", "cnn_papers")
    out = tmp_path / "images-short20"
    prepare.copy_small(f"folder:{images}", "", 20)
    for i in range(2, 6):
        write_image(images / f"train/ant/{i}.jpg", np.random.default_rng(i))
    (images / "train/bee/0.jpg").unlink()

    real, calls = shrink.shrunk, itertools.count(1)

    def shrunk(image: bytes, side: int) -> bytes:
        if next(calls) == 3:
            raise OSError(28, "No space left on device")
        return real(image, side)

    with monkeypatch.context() as patch:
        patch.setattr(shrink, "shrunk", shrunk)
        with pytest.raises(UserError, match=r"cannot write .*\.jpg: No space left on device"):
            prepare.copy_small(f"folder:{images}", "", 20)
    part = tmp_path / ".images-short20.short20.incomplete"
    assert caplog.messages == [f"{out} is called {part} until it is up to date"]
    with pytest.raises(UserError, match="no folder"):
        open_split(f"folder:{out}", "train")
    prepare.copy_small(f"folder:{images}", "", 20)
    assert len(open_split(f"folder:{out}", "train").examples) == 7
    capsys.readouterr()
    prepare.copy_small(f"folder:{images}", "", 20)
    assert capsys.readouterr().out.startswith("images: no changes\n")


def test_no_folder_is_written_over_that_is_not_a_copy_of_this_one(images, tmp_path):
    prepare.copy_small(f"folder:{images}", "", 20)
    out = tmp_path / "images-short20"
    shutil.copytree(images, tmp_path / "others")
    before = _listing(tmp_path)
    for name, side, target, message in (
        (images, 20, tmp_path / "others", "others exists and is no copy of .*images at a shorter"),
        (
            images,
            10,
            out,
            "images-short20 exists and is no copy of .* at a shorter side of 10",
        ),
        (tmp_path / "others", 20, out, "images-short20 exists and is no copy of .*others at"),
        (images, 20, images, "--out=.*images lies within .*images: a copy there would be part of"),
        (images, 20, images / "small", "--out=.*images/small lies within .*images"),
        (images, 20, tmp_path, "exists and is no copy of"),
    ):
        with pytest.raises(UserError, match=message):
            prepare.copy_small(f"folder:{name}", "", side, str(target))
    assert _listing(tmp_path) == before


def test_a_prepared_set_is_not_taken_for_its_copy(digits_dir, tmp_path):
    prepare.copy_small("digits", str(digits_dir), 4, str(tmp_path / "out"))
    prepare.copy_small("digits", str(digits_dir), 4, str(tmp_path / "out"))
    message = r"plain/1.0.0 exists and is no copy of .* as it is now, at this size: remove it"
    for side, out in ((6, tmp_path / "out"), (4, digits_dir)):
        with pytest.raises(UserError, match=message):
            prepare.copy_small("digits", str(digits_dir), side, str(out))
    info = tmp_path / "out/digits/plain/1.0.0/dataset_info.json"
    info.write_text(info.read_text().replace('"360"', '"359"'))  # the source has another split
    with pytest.raises(UserError, match=message):
        prepare.copy_small("digits", str(digits_dir), 4, str(tmp_path / "out"))


@pytest.mark.parametrize(("form", "suffix"), [("BMP", "bmp"), ("WEBP", "webp"), ("PNG", "png")])
def test_a_small_image_is_the_same_kind_of_file(form, suffix):
    pixels = np.full((40, 60, 3), (10, 90, 170), np.uint8)
    small = shrink.shrunk(cv2.imencode(f".{suffix}", pixels)[1].tobytes(), 20)
    assert image_files.kind(small).upper() == form
    np.testing.assert_allclose(host_ops.decode(small), pixels[::2, ::2, ::-1], atol=2)


@pytest.mark.parametrize("name", ["stats", "proposals", "show"])
def test_what_looks_at_a_recipe_takes_no_name(name, capsys):
    assert exit_code(prepare.cli, "cifar10", f"--{name}") == 2
    assert "unexpected argument 'cifar10'" in capsys.readouterr().err


def test_a_size_must_be_positive(capsys):
    assert exit_code(prepare.cli, "digits", "--short_side=-1") == 2
    assert capsys.readouterr().err == "error: --short_side=-1 must be positive\n"


# --- a folder of images ---------------------------------------------------------------------------


def test_a_folder_is_checked_and_nothing_is_written(tmp_path, capsys):
    for name, count in (("train/ant", 3), ("train/bee", 2), ("val/ant", 1), ("val/bee", 1)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(count):
            cv2.imwrite(str(tmp_path / name / f"{i}.jpg"), np.full((16, 16, 3), 10 * i, np.uint8))
    before = _listing(tmp_path)
    assert exit_code(prepare.cli, f"folder:{tmp_path}") == 0
    assert capsys.readouterr().out == (
        f"folder:{tmp_path}[train]: 5 images of 2 classes\n         3  ant\n         2  bee\n"
        f"folder:{tmp_path}[val]: 2 images of 2 classes\n         1  ant\n         1  bee\n"
        "0 images cannot be decoded\n"
    )
    assert _listing(tmp_path) == before
    cut = (tmp_path / "train/ant/1.jpg").read_bytes()[:-20]
    for name, data in (
        ("train/ant/1.jpg", cut),
        ("val/bee/0.jpg", b""),
        ("train/bee/0.jpg", b"text"),
    ):
        (tmp_path / name).write_bytes(data)
    assert exit_code(prepare.cli, f"folder:{tmp_path}") == 1
    assert capsys.readouterr().out.endswith(
        f"cannot be decoded: {tmp_path}/train/ant/1.jpg\n"
        f"cannot be decoded: {tmp_path}/train/bee/0.jpg\n"
        f"cannot be decoded: {tmp_path}/val/bee/0.jpg\n"
        "3 images cannot be decoded\n"
    )


def test_real_images_all_decode(test_data, capsys):
    assert prepare.check_folder(str(test_data / "imagenette_small")) == 0
    out = capsys.readouterr().out
    assert "[train]: 1,100 images of 10 classes" in out and "[val]: 300 images of 10 classes" in out
    assert out.count("       110  n") == 10 and out.count("        30  n") == 10


def test_a_folder_that_does_not_exist():
    with pytest.raises(UserError, match=r"no folder '/no/such'"):
        prepare.check_folder("/no/such")
