"""Preparing data sets: what is there already, what is converted, and every reason why it cannot be done."""

import importlib.util
import json
import pathlib
import struct
import subprocess
import sys
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import requests
import tensorflow_datasets as tfds
from absl.testing import flagsaver

from cnn_papers import prepare
from cnn_papers.data.sources import make_digits, open_split
from cnn_papers.errors import UserError

TRAIN_TAR, VAL_TAR = "ILSVRC2012_img_train.tar", "ILSVRC2012_img_val.tar"


@pytest.fixture
def tensorflow_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes `prepare` believe that TensorFlow is installed."""
    real = importlib.util.find_spec
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda n: True if n == "tensorflow" else real(n))


@pytest.fixture
def tfrecord_dir(tmp_path: pathlib.Path) -> pathlib.Path:
    """`digits` prepared as TFRecord: framed here from array_record, with sums of zero, as nothing reads them."""
    builder = make_digits("digits", str(tmp_path))
    folder = pathlib.Path(builder.data_dir)
    for split in ("train", "test"):
        source = builder.as_data_source(split, deserialize_method=tfds.decode.DeserializeMethod.RAW_BYTES)
        records = source.__getitems__(list(range(len(source))))
        framed = (struct.pack("<QI", len(r), 0) + r + struct.pack("<I", 0) for r in records)
        (folder / f"digits-{split}.tfrecord-00000-of-00001").write_bytes(b"".join(framed))
        (folder / f"digits-{split}.array_record-00000-of-00001").unlink()
    info = folder / "dataset_info.json"
    info.write_text(json.dumps(json.loads(info.read_text()) | {"fileFormat": "tfrecord"}))
    return tmp_path


def _listing(folder: pathlib.Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


# --- what works ----------------------------------------------------------------------------------------------------


def test_digits_are_prepared_and_a_second_time_nothing_happens(tmp_path, capsys):
    with flagsaver.as_parsed(data_dir=str(tmp_path), manual_dir=""):
        assert prepare.main(["prepare", "digits"]) == 0
        assert f"digits is ready in {tmp_path}/digits/plain/1.0.0: train 1,437, test 360\n" in capsys.readouterr().out
        before = _listing(tmp_path)
        assert prepare.main(["prepare", "digits"]) == 0
    assert capsys.readouterr().out == (
        f"digits is already prepared in {tmp_path}/digits/plain/1.0.0: train 1,437, test 360\n"
    )
    assert _listing(tmp_path) == before


def test_a_prepared_set_says_so(test_data, capsys):
    prepare.prepare("cifar10", str(test_data / "tfds"))
    assert capsys.readouterr().out == (
        f"cifar10 is already prepared in {test_data}/tfds/cifar10/3.0.2: train 50,000, test 10,000\n"
    )


def test_the_door_prints_one_line_and_exits_with_2(tmp_path):
    command = [sys.executable, "-m", "cnn_papers.prepare", "digitz", f"--data_dir={tmp_path}"]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 2
    assert run.stderr.startswith("error: no data set is called 'digitz': did you mean digits")
    assert run.stderr.count("\n") == 1 and run.stdout == ""


@pytest.mark.parametrize("argv", [["prepare"], ["prepare", "mnist", "cifar10"]])
def test_one_name_is_asked_for(argv):
    with pytest.raises(UserError, match=r"write one NAME: python -m cnn_papers.prepare cifar10"):
        prepare.main(argv)


# --- TFRecord → array_record ---------------------------------------------------------------------------------------


def test_a_tfrecord_preparation_is_converted_beside_itself(tfrecord_dir, tmp_path_factory):
    with pytest.raises(
        UserError, match=r"only as tfrecord, not as array_record, in .*: run python -m cnn_papers.prepare"
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
    fresh = str(tmp_path_factory.mktemp("fresh"))
    for split in ("train", "test", "train[:10%]"):
        converted = open_split("digits", split, str(tfrecord_dir)).examples[:]
        assert converted == open_split("digits", split, fresh).examples[:]


def test_a_converted_set_is_not_converted_again(tfrecord_dir, capsys):
    prepare.prepare("digits", str(tfrecord_dir))
    capsys.readouterr()
    before = _listing(tfrecord_dir)
    prepare.prepare("digits", str(tfrecord_dir))
    assert capsys.readouterr().out.startswith("digits is already prepared in ")
    assert _listing(tfrecord_dir) == before


@pytest.mark.parametrize(
    "damage, message",
    [
        (lambda data: data[:-1], r"digits-test.tfrecord-00000-of-00001 is damaged: record 359 of 360 is cut off"),
        (lambda data: data[:5], r"record 0 of 360 is cut off"),
        (lambda data: b"\xff" * 8 + data[8:], r"record 0 of 360 is cut off"),
        (lambda data: data + data[:200], r"is damaged: more than the 360 records it should have"),
    ],
)
def test_a_damaged_tfrecord_is_not_converted_and_the_rest_is_kept(tfrecord_dir, capsys, damage, message):
    file = next(tfrecord_dir.rglob("digits-test.tfrecord*"))
    whole = file.read_bytes()
    file.write_bytes(damage(whole))
    with pytest.raises(UserError, match=message):
        prepare.prepare("digits", str(tfrecord_dir))
    assert not list(tfrecord_dir.rglob("digits-test.array_record*")) and not list(tfrecord_dir.rglob("incomplete*"))
    file.write_bytes(whole)
    capsys.readouterr()
    prepare.prepare("digits", str(tfrecord_dir))
    assert capsys.readouterr().out.startswith("converting digits-test.tfrecord-00000-of-00001 (1 of 1)\n")
    assert len(open_split("digits", "train", str(tfrecord_dir)).examples) == 1437


# --- what stands in the way ----------------------------------------------------------------------------------------


def test_imagenet_says_which_archives_it_needs_and_where(tmp_path):
    names = r"ILSVRC2012_img_train.tar \(147,897,477,120 bytes\) and ILSVRC2012_img_val.tar \(6,744,924,160 bytes\)"
    with pytest.raises(UserError, match=rf"imagenet2012 needs {names} in {tmp_path}/downloads/manual, and") as error:
        prepare.prepare("imagenet2012", str(tmp_path))
    assert "https://image-net.org/download-images" in str(error.value) and "\n" not in str(error.value)
    manual = tmp_path / "tars"
    manual.mkdir()
    (manual / TRAIN_TAR).write_bytes(b"half")
    with pytest.raises(UserError, match=rf"in {manual}, and {TRAIN_TAR} has 4 bytes: download it again"):
        prepare.prepare("imagenet2012", str(tmp_path), str(manual))
    with open(manual / TRAIN_TAR, "wb") as file:
        file.truncate(147_897_477_120)  # sparse: takes no space
    with pytest.raises(UserError, match=rf"in {manual}, and {VAL_TAR} is not there"):
        prepare.prepare("imagenet2012", str(tmp_path), str(manual))


def test_imagenet_with_its_archives_asks_for_space_then_for_tensorflow(tmp_path, monkeypatch):
    for name, size in prepare._IMAGENET_ARCHIVES:
        with open(tmp_path / name, "wb") as file:
            file.truncate(size)
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: SimpleNamespace(free=309_000_000_000))
    with pytest.raises(UserError, match=rf"disk of {tmp_path}: need 309.28 GB, have 309.00 GB"):
        prepare.prepare("imagenet2012", str(tmp_path / "data"), str(tmp_path))
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: SimpleNamespace(free=310_000_000_000))
    monkeypatch.setattr(prepare.importlib.util, "find_spec", lambda _: None)
    with pytest.raises(
        UserError, match=r'preparing imagenet2012 needs TensorFlow \(no run does\): pip install -e "\.\[p'
    ):
        prepare.prepare("imagenet2012", str(tmp_path / "data"), str(tmp_path))
    assert not (tmp_path / "data").exists()


def test_cifar_needs_its_archive_and_itself_twice_over(tmp_path, monkeypatch):
    monkeypatch.setattr(prepare.shutil, "disk_usage", lambda _: SimpleNamespace(free=10**6))
    with pytest.raises(UserError, match=r"need 0.68 GB, have 0.00 GB; free some or choose another --data_dir"):
        prepare.prepare("cifar10", str(tmp_path))


def test_other_sets_for_the_hand_show_tfds_instructions(tmp_path):
    with pytest.raises(
        UserError, match=r"must be downloaded by hand into .*/downloads/manual \(or --manual_dir\): \w+"
    ) as e:
        prepare.prepare("celeb_a_hq/64", str(tmp_path))
    assert "\n" not in str(e.value)


@pytest.mark.parametrize("kind", [requests.exceptions.ConnectionError, requests.exceptions.ReadTimeout])
def test_without_a_network_it_ends_at_once(tmp_path, monkeypatch, tensorflow_found, kind):
    def fail(*args, **kwargs):
        raise kind("Failed to resolve 'www.cs.toronto.edu'")

    monkeypatch.setattr(requests, "head", fail)
    with pytest.raises(
        UserError, match=r"cannot download cifar10: check the network and HTTPS_PROXY, or .*\(Failed to re"
    ):
        prepare.prepare("cifar10", str(tmp_path))


@pytest.mark.parametrize(
    "error, message",
    [
        (tfds.download.DownloadError("HTTP code: 404."), r"cannot download cifar10: .* \(HTTP code: 404.\)"),
        (requests.exceptions.ReadTimeout("timed out"), r"cannot download cifar10: .* \(timed out\)"),
        (
            ModuleNotFoundError("No module named 'apache_beam'"),
            r"preparing cifar10 needs another package: .*apache_beam",
        ),
        (OSError(28, "No space left on device"), r"cannot prepare cifar10 in .*: .*No space left on device"),
    ],
)
def test_what_goes_wrong_in_tfds_is_one_line(tmp_path, monkeypatch, tensorflow_found, error, message):
    def fail(*args, **kwargs):
        raise error

    monkeypatch.setattr(requests, "head", lambda *args, **kwargs: None)
    monkeypatch.setattr(tfds.core.DatasetBuilder, "download_and_prepare", fail)
    with pytest.raises(UserError, match=message):
        prepare.prepare("cifar10", str(tmp_path))


# --- a folder of images --------------------------------------------------------------------------------------------


def test_a_folder_is_checked_and_nothing_is_written(tmp_path, capsys):
    for name, count in (("train/ant", 3), ("train/bee", 2), ("val/ant", 1), ("val/bee", 1)):
        (tmp_path / name).mkdir(parents=True)
        for i in range(count):
            cv2.imwrite(str(tmp_path / name / f"{i}.jpg"), np.full((16, 16, 3), 10 * i, np.uint8))
    before = _listing(tmp_path)
    assert prepare.main(["prepare", f"folder:{tmp_path}"]) == 0
    assert capsys.readouterr().out == (
        f"folder:{tmp_path}[train]: 5 images of 2 classes\n         3  ant\n         2  bee\n"
        f"folder:{tmp_path}[val]: 2 images of 2 classes\n         1  ant\n         1  bee\n"
        "0 images cannot be decoded\n"
    )
    assert _listing(tmp_path) == before
    cut = (tmp_path / "train/ant/1.jpg").read_bytes()[:-20]
    for name, data in (("train/ant/1.jpg", cut), ("val/bee/0.jpg", b""), ("train/bee/0.jpg", b"text")):
        (tmp_path / name).write_bytes(data)
    assert prepare.main(["prepare", f"folder:{tmp_path}"]) == 1
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
