"""Splits of real data and of folders, and one line for everything a user can get wrong."""

import collections
import concurrent.futures
import os
import pathlib
import shutil
import subprocess
import sys

import cv2
import numpy as np
import pytest

from cnn_papers.data import host_ops
from cnn_papers.data.sources import open_split
from cnn_papers.data.split import Split
from cnn_papers.errors import UserError

MNIST_TEST_COUNTS = [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]
CIFAR_CLASSES = (
    "airplane",
    "automobile",
    "bird",
    "cat",
    "deer",
    "dog",
    "frog",
    "horse",
    "ship",
    "truck",
)


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """PATH/train with 6 images of ant and 4 of bee, PATH/val with one each.

    One image is two folders deep.
    """
    for name, count in (
        ("train/ant", 5),
        ("train/ant/deep/deeper", 1),
        ("train/bee", 4),
        ("val/ant", 1),
        ("val/bee", 1),
    ):
        (tmp_path / name).mkdir(parents=True)
        for i in range(count):
            cv2.imwrite(str(tmp_path / name / f"{i}.png"), np.full((4, 4, 3), 10 * i, np.uint8))
    return tmp_path


def _labels(split: Split) -> list[int]:
    return [example["label"] for example in split.examples[:]]


def _decode(data: bytes) -> np.ndarray:
    image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    assert image is not None
    return image


# --- real data ------------------------------------------------------------------------------------


def test_cifar10(test_data):
    data_dir = str(test_data / "tfds")
    train, test = open_split("cifar10", "train", data_dir), open_split("cifar10", "test", data_dir)
    assert (len(train.examples), len(test.examples)) == (50_000, 10_000)
    assert train.class_names == CIFAR_CLASSES and train.name == "cifar10[train]"
    assert train.location == f"{data_dir}/cifar10/3.0.2"
    assert train.examples[0]["id"] == "train_16399"
    assert _decode(train.examples[0]["image"]).shape == (32, 32, 3)
    assert collections.Counter(_labels(test)) == dict.fromkeys(range(10), 1000)


def test_slices_of_a_tfds_split_part_it_exactly(test_data):
    data_dir = str(test_data / "tfds")
    whole = open_split("cifar10", "train", data_dir).examples
    head, tail = (
        open_split("cifar10", "train[:45000]", data_dir),
        open_split("cifar10", "train[45000:]", data_dir),
    )
    assert (len(head.examples), len(tail.examples)) == (45_000, 5_000)
    assert head.examples[44_999] == whole[44_999] and tail.examples[0] == whole[45_000]
    assert tail.examples[-1] == whole[49_999]
    assert len(open_split("cifar10", "train[:10%]+test[-5:]", data_dir).examples) == 5_005


def test_mnist(test_data):
    train, test = (
        open_split("mnist", split, str(test_data / "tfds")) for split in ("train", "test")
    )
    assert (len(train.examples), len(test.examples)) == (60_000, 10_000)
    counts = collections.Counter(_labels(test))
    assert [counts[label] for label in range(10)] == MNIST_TEST_COUNTS
    assert _decode(test.examples[0]["image"]).shape == (28, 28)
    assert test.examples[7]["id"] == "mnist[test]:7"


def test_imagenette_as_a_folder(test_data):
    path = test_data / "imagenette_small"
    train, val = open_split(f"folder:{path}", "train"), open_split(f"folder:{path}", "val")
    assert train.class_names == val.class_names and len(train.class_names) == 10
    assert train.class_names[0] == "n01440764" and train.class_names[9] == "n03888257"
    assert collections.Counter(_labels(train)) == dict.fromkeys(range(10), 110)
    assert collections.Counter(_labels(val)) == dict.fromkeys(range(10), 30)
    assert train.location == str(path / "train") and train.name == f"folder:{path}[train]"
    for example in train.examples[:50]:
        assert train.class_names[example["label"]] == example["id"].split("/")[0]
        assert example["image"] == (path / "train" / example["id"]).read_bytes()
    # The order mixes the classes.
    assert set(_labels(open_split(f"folder:{path}", "train[:100]"))) == set(range(10))


def test_many_threads_read_the_same_as_one(test_data):
    for name, data_dir in (
        ("cifar10", str(test_data / "tfds")),
        (f"folder:{test_data}/imagenette_small", ""),
    ):
        one = open_split(name, "train[:400]", data_dir).examples
        expected = [one[i] for i in range(400)]
        shared = open_split(name, "train[:400]", data_dir).examples
        order = np.random.default_rng(0).permutation(np.tile(np.arange(400), 4)).tolist()
        with concurrent.futures.ThreadPoolExecutor(16) as pool:
            for i, example in zip(order, pool.map(shared.__getitem__, order), strict=True):
                assert example == expected[i]


# --- digits ---------------------------------------------------------------------------------------


def test_examples_behave_as_a_sequence(digits_folder):
    examples = open_split("digits", "test", str(digits_folder)).examples
    assert len(examples) == 360
    assert examples[3:9:2] == [examples[3], examples[5], examples[7]]
    assert examples[-1] == examples[359] and examples[360:] == []
    assert examples[5]["id"] == "digits[test]:5"
    for index in (360, -361):
        with pytest.raises(IndexError):
            examples[index]
    assert type(examples[0]["label"]) is int and type(examples[0]["image"]) is bytes


def test_digits_are_made_when_first_opened_and_only_then(tmp_path, capfd):
    split = open_split("digits", "train[:90%]", str(tmp_path))
    assert len(split.examples) == 1293 and split.class_names == tuple("0123456789")
    out, err = capfd.readouterr()
    assert out == f"making digits in {tmp_path}/digits/plain/1.0.0 (once, seconds, no download)\n"
    assert err == ""
    open_split("digits", "test", str(tmp_path))
    assert capfd.readouterr() == ("", "")


def test_two_processes_may_make_digits_at_once_and_neither_imports_tensorflow(tmp_path):
    code = (
        "import sys; from cnn_papers.data.sources import open_split;"
        "s = open_split('digits', 'train', sys.argv[1]);"
        "print(len(s.examples), s.examples[5]['label'], 'tensorflow' in sys.modules)"
    )
    command = [sys.executable, "-c", code, str(tmp_path)]
    runs = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    for run in runs:
        out, err = run.communicate(timeout=120)
        assert run.returncode == 0, err
        assert out.splitlines()[-1] == "1437 5 False"
    names = [path.name for path in (tmp_path / "digits" / "plain").iterdir()]
    assert names == ["1.0.0"]  # nothing incomplete is left


def test_a_process_that_finishes_second_uses_what_the_first_made(
    digits_folder, tmp_path, monkeypatch
):
    from cnn_papers.data.digits import Digits

    def lose_the_race(self):
        shutil.copytree(digits_folder / "digits", tmp_path / "digits")
        raise FileExistsError("Destination already exists")

    monkeypatch.setattr(Digits, "download_and_prepare", lose_the_race)
    assert len(open_split("digits", "test", str(tmp_path)).examples) == 360


def test_importing_the_module_imports_neither_tfds_nor_tensorflow():
    code = (
        "import sys, cnn_papers.data.sources;"
        "print([m for m in sys.modules if m.startswith('tensorflow')])"
    )
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout
        == "[]\n"
    )


# --- what bad input gets --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name, split, message",
    [
        (
            "digits",
            "trian",
            r"digits has no split 'trian': "
            r"it has train \(1,437\), test \(360\) and slices of these",
        ),
        ("digits", "train[", r"digits has no split 'train\['"),
        ("digits", "train[:1438]", r"digits has no split 'train\[:1438\]': it has train \(1,437\)"),
        (
            "digits",
            "train[:0]",
            r"split 'train\[:0\]' of digits is empty: it has train \(1,437\), test \(360\)",
        ),
        ("digits", "train[9:5]", r"split 'train\[9:5\]' of digits is empty"),
        ("digits", "train[9:5]+test", r"split 'train\[9:5\]\+test' of digits is empty"),
        ("digitz", "train", r"no data set is called 'digitz': did you mean digits"),
        (
            "zzqqxx",
            "train",
            r"no data set is called 'zzqqxx': see https://www.tensorflow.org/datasets/catalog",
        ),
        (
            "digits/scene",
            "train",
            r"no data set is called 'digits/scene': there is digits/plain, digits/scenes$",
        ),
        (
            "mnist/small",
            "train",
            r"no data set is called 'mnist/small': mnist has no configurations$",
        ),
        ("mnist:9.9.9", "train", r"no data set is called 'mnist:9.9.9': .*only: 3.0.1"),
        ("not a name", "train", r"no data set is called 'not a name': "),
        (
            "celeb_a",
            "train",
            r"celeb_a has no single label per image, and no `objects` with `bbox` and `label` "
            r"\(it has image, landmarks, attributes, identity\): choose another$",
        ),
        ("lm1b", "train", r"lm1b has no `image` \(it has text\)"),
        ("folder:", "train", r"no folder '': write folder:PATH"),
        ("folder:/no/such", "train", r"no folder '/no/such': write folder:PATH"),
    ],
)
def test_a_wrong_name_or_split_is_one_line(digits_folder, name, split, message):
    with pytest.raises(UserError, match=message) as error:
        open_split(name, split, str(digits_folder))
    assert "\n" not in str(error.value)


def test_an_unprepared_set_gets_the_command_that_prepares_it(tmp_path):
    with pytest.raises(UserError) as error:
        open_split("cifar10", "train", f"{tmp_path}/my data")
    assert str(error.value) == (
        f"cifar10 is not prepared in {tmp_path}/my data/cifar10/3.0.2: "
        f"run python -m cnn_papers.prepare cifar10 --data_dir='{tmp_path}/my data'"
    )
    assert list(tmp_path.iterdir()) == []


def test_digits_that_cannot_be_written_say_why(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(
        UserError, match=r"cannot make digits in .*file/digits/plain/1.0.0: .*, or choose another"
    ):
        open_split("digits", "train", str(tmp_path / "file"))
    (tmp_path / "digits" / "plain" / "1.0.0").mkdir(parents=True)
    with pytest.raises(UserError, match=r"the folder exists but holds no data set: remove it"):
        open_split("digits", "train", str(tmp_path))


@pytest.mark.fault("damage: a data set's files", "named")
def test_damaged_and_missing_files_are_named(digits_folder, tmp_path):
    shutil.copytree(digits_folder, tmp_path, dirs_exist_ok=True)
    file = tmp_path / "digits" / "plain" / "1.0.0" / "digits-test.array_record-00000-of-00001"
    whole = file.read_bytes()
    sound = open_split("digits", "test", str(tmp_path)).examples[:]
    flipped = bytearray(whole)
    flipped[20_000] ^= 1
    for damaged in (bytes(flipped), whole[: len(whole) // 2], b""):
        file.write_bytes(damaged)
        examples = open_split("digits", "test", str(tmp_path)).examples
        with pytest.raises(
            UserError, match=rf"of digits\[test\]: {file} is damaged, remove its folder"
        ) as error:
            examples[:]
        index = int(str(error.value).split()[3])  # cannot read example 82 of …
        with pytest.raises(UserError, match=f"cannot read example {index} of"):
            examples[index]
        assert examples[:index] == sound[:index]
    file.unlink()
    with pytest.raises(
        UserError, match=rf"{file} is missing: remove .*python -m cnn_papers.prepare digits"
    ):
        open_split("digits", "test", str(tmp_path))


# --- folders --------------------------------------------------------------------------------------


def test_a_folder_split_by_sub_folder(folder):
    train, val = open_split(f"folder:{folder}", "train"), open_split(f"folder:{folder}", "val")
    assert train.class_names == val.class_names == ("ant", "bee")
    assert collections.Counter(_labels(train)) == {0: 6, 1: 4}
    assert {e["id"] for e in train.examples[:]} >= {"ant/deep/deeper/0.png", "bee/3.png"}
    assert sorted(e["id"] for e in val.examples[:]) == ["ant/0.png", "bee/0.png"]


@pytest.mark.parametrize("on_disk", ["val", "validation", "valid", "test"])
def test_the_held_out_folder_answers_to_all_its_usual_names(folder, on_disk):
    (folder / "val").rename(folder / on_disk)
    for asked in ("val", "validation", "valid", "test"):
        split = open_split(f"folder:{folder}", asked)
        assert len(split.examples) == 2 and split.name == f"folder:{folder}[{on_disk}]"


def test_a_name_that_is_there_is_not_taken_for_another(folder):
    shutil.copytree(folder / "train", folder / "test")
    assert len(open_split(f"folder:{folder}", "test").examples) == 10
    assert len(open_split(f"folder:{folder}", "val").examples) == 2


def test_a_folder_of_classes_is_split_by_fractions(folder):
    path = f"folder:{folder}/train"
    whole = [e["id"] for e in open_split(path, "train").examples[:]]
    for head, tail, cut in (
        ("[:70%]", "[70%:]", 7),
        ("[:4]", "[4:]", 4),
        ("[:-20%]", "[-20%:]", 8),
        ("[:-1]", "[-1:]", 9),
    ):
        parts = [
            [e["id"] for e in open_split(path, f"train{part}").examples[:]] for part in (head, tail)
        ]
        assert parts == [whole[:cut], whole[cut:]]
    assert whole != sorted(whole)
    shutil.copytree(folder / "train", folder / "elsewhere")
    assert [e["id"] for e in open_split(f"folder:{folder}/elsewhere", "train").examples[:]] == whole


def test_a_class_may_be_called_train(tmp_path):
    for name in ("plane", "train"):
        (tmp_path / name).mkdir()
        cv2.imwrite(str(tmp_path / name / "0.png"), np.zeros((4, 4, 3), np.uint8))
    assert open_split(f"folder:{tmp_path}", "train").class_names == ("plane", "train")


def test_hidden_files_and_other_files_are_left_out(folder):
    image = (folder / "train/ant/0.png").read_bytes()
    for name in (".hidden.png", "notes.txt", ".cache/0.png", "CAPITALS.JPEG"):
        (folder / "train/bee" / name).parent.mkdir(exist_ok=True)
        (folder / "train/bee" / name).write_bytes(image)
    (folder / "train/.git").mkdir()
    split = open_split(f"folder:{folder}", "train")
    assert split.class_names == ("ant", "bee")
    bees = sorted(e["id"] for e in split.examples[:] if e["label"] == 1)
    assert bees == ["bee/0.png", "bee/1.png", "bee/2.png", "bee/3.png", "bee/CAPITALS.JPEG"]


def test_an_image_that_has_gone_is_named(folder):
    split = open_split(f"folder:{folder}", "val")
    (folder / "val/ant/0.png").unlink()
    with pytest.raises(UserError, match=rf"cannot read {folder}/val/ant/0.png: No such file"):
        split.examples[:]
    with pytest.raises(IndexError):
        split.examples[2]


@pytest.mark.parametrize(
    "split, message",
    [
        ("tset", r"has no split 'tset': it has train, val$"),
        ("train[:0]", r"split 'train\[:0\]' of .*/train is empty: there are 10 images"),
        ("train[5:2]", r"is empty"),
        ("train[:11]", r"split 'train\[:11\]' reaches beyond the 10 images of "),
        ("train[:101%]", r"reaches beyond the 10 images"),
        ("train[-11:]", r"reaches beyond the 10 images"),
        (
            "train[:ten]",
            r"cannot read the split 'train\[:ten\]': write for example train, val, train\[:90%\]",
        ),
        ("train+val", r"cannot read the split 'train\+val'"),
        ("", r"cannot read the split ''"),
    ],
)
def test_a_wrong_split_of_a_folder_is_one_line(folder, split, message):
    with pytest.raises(UserError, match=message) as error:
        open_split(f"folder:{folder}", split)
    assert "\n" not in str(error.value)


def test_a_folder_of_classes_has_no_val(folder):
    with pytest.raises(
        UserError,
        match=r"has no split 'val': it has train; take fractions of it, such as train\[:90%\]",
    ):
        open_split(f"folder:{folder}/train", "val")


def test_folders_that_lack_something(folder):
    (folder / "val/cat").mkdir()
    with pytest.raises(UserError, match=r"/val has classes that .*/train lacks: cat$"):
        open_split(f"folder:{folder}", "val")
    (folder / "train/cat").mkdir()
    with pytest.raises(
        UserError, match=r"class folder .*/train/cat holds no images \(JPEG, PNG, BMP or WebP\)$"
    ):
        open_split(f"folder:{folder}", "train")
    with pytest.raises(
        UserError, match=r"/train/bee has no class sub-folders: put the images of each class in"
    ):
        open_split(f"folder:{folder}/train/bee", "train")


# --- folders as people lay them out ---------------------------------------------------------------


def make_folder(root: pathlib.Path, *names: str) -> str:
    """Writes a small image, or text for other suffixes, at every path; returns the set's name."""
    image = cv2.imencode(".png", np.zeros((4, 4, 3), np.uint8))[1].tobytes()
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(image if name.endswith((".png", ".jpg")) else b"text")
    return f"folder:{root}"


@pytest.mark.parametrize(
    ("train", "held_out"),
    [
        ("Train", "Test"),
        ("Training", "Testing"),
        ("TRAIN", "VALIDATION"),
        ("training_set", "test_set"),
        ("trainset", "Valid"),
        ("train-set", "val set"),
    ],
)
def test_splits_have_their_usual_names_in_any_case(tmp_path, train, held_out):
    files = [f"{split}/{name}/0.png" for split in (train, held_out) for name in ("ant", "bee")]
    name = make_folder(tmp_path, *files, f"{train}/ant/1.png")
    for asked in ("train", "training", train, f"{train}[:100%]"):
        split = open_split(name, asked)
        assert split.class_names == ("ant", "bee") and len(split.examples) == 3
        assert split.location == str(tmp_path / train)
    for asked in ("val", "test", "validation", held_out):
        split = open_split(name, asked)
        assert split.class_names == ("ant", "bee") and len(split.examples) == 2
        assert split.location == str(tmp_path / held_out)


def test_two_folders_of_one_split_are_told_apart_by_name(tmp_path):
    files = [f"{split}/{c}/0.png" for split in ("train", "Val", "valid") for c in ("ant", "bee")]
    name = make_folder(tmp_path, *files)
    assert open_split(name, "Val").location == str(tmp_path / "Val")
    with pytest.raises(
        UserError, match=r"has Val, valid: name one of them in place of 'validation'$"
    ):
        open_split(name, "validation")


def test_a_folder_with_only_a_test_split_has_its_own_classes(tmp_path):
    name = make_folder(tmp_path, "Test/bee/0.png", "Test/cat/0.png")
    for asked in ("test", "val"):
        assert open_split(name, asked).class_names == ("bee", "cat")
    with pytest.raises(UserError, match=r"has no split 'train': it has Test$"):
        open_split(name, "train")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        (
            ["Pets/cat/0.png", "Pets/dog/0.png"],
            r"{} holds one folder, Pets, in place of classes: "
            r"write folder:{}/Pets$",
        ),
        (["a/b/cat/0.png", "a/b/dog/0.png", "__MACOSX/a/._0.png"], r"write folder:{}/a/b$"),
        (["Pets/Train/cat/0.png", "Pets/Test/cat/0.png"], r"write folder:{}/Pets$"),
        (
            ["Train/train/cat/0.png", "Train/train/dog/0.png", "Test/test/cat/0.png"],
            r"{0}/Train holds one folder, train, in place of classes: "
            r"move what is in {0}/Train/train to {0}/Train$",
        ),
        (
            ["a/cat/0.png", "a/dog/0.png", "b/cat/0.png", "b/dog/0.png"],
            r"{0}: a, b hold no images, but each holds the folders cat, dog, as splits do: "
            r"rename them train and val, or write folder:{0}/a$",
        ),
        (
            [
                "seg_train/seg_train/sea/0.png",
                "seg_train/seg_train/ice/0.png",
                "seg_test/seg_test/sea/0.png",
                "seg_test/seg_test/ice/0.png",
                "seg_pred/seg_pred/0.png",
            ],
            r"seg_test, seg_train hold no images, but each holds the folders ice, sea, .* "
            r"write folder:{}/seg_train/seg_train$",
        ),
        (["0.png"], r"{} has no class sub-folders: put the images of each class in"),
        (
            ["ant/0.png", "bee/0.heic", "bee/1.heic", "bee/notes.txt"],
            r"class folder {}/bee holds no images \(JPEG, PNG, BMP or WebP\), but 2 .heic, 1 .txt$",
        ),
    ],
)
def test_a_folder_of_other_things_than_classes_says_what_to_write(tmp_path, files, message):
    name = make_folder(tmp_path, *files)
    for split in ("train", "train[:50%]"):
        with pytest.raises(UserError, match=message.format(*[tmp_path] * 3)) as error:
            open_split(name, split)
        assert "\n" not in str(error.value)
    if message.startswith("{} holds one folder"):
        with pytest.raises(UserError, match=message.format(*[tmp_path] * 3)):
            open_split(name, "val")


@pytest.mark.parametrize(
    ("files", "class_names"),
    [
        (["ant/images/0.png", "ant/boxes.txt", "bee/images/0.png"], ("ant", "bee")),
        (["ant/2019/0.png", "ant/2020/0.png", "bee/0.png"], ("ant", "bee")),
        (["ant/big/0.png", "ant/red/0.png", "bee/old/0.png", "bee/new/0.png"], ("ant", "bee")),
        (
            [
                "ant/0.png",
                "__MACOSX/ant/0.png",
                "ant/@eaDir/0.png",
                ".ipynb_checkpoints/0.png",
                "bee/.ipynb_checkpoints/0.png",
                "bee/0.png",
            ],
            ("ant", "bee"),
        ),
        (["ant/0.png"], ("ant",)),
        (["plane/0.png", "train/0.png"], ("plane", "train")),
        (["A/0.png", "a/0.png"], ("A", "a")),
    ],
)
def test_folders_below_classes_and_those_of_programs_are_no_classes(tmp_path, files, class_names):
    split = open_split(make_folder(tmp_path, *files), "train")
    assert split.class_names == class_names
    wanted = [file for file in files if file.endswith(".png") and "._" not in file]
    wanted = [file for file in wanted if not {"__MACOSX", "@eaDir"} & set(file.split("/"))]
    wanted = [file for file in wanted if ".ipynb" not in file]
    assert sorted(example["id"] for example in split.examples[:]) == sorted(wanted)


def test_a_held_out_split_may_lack_classes_and_says_which(tmp_path, caplog):
    name = make_folder(tmp_path, *(f"train/{c}/0.png" for c in ("ant", "bee", "cat", "dog")))
    make_folder(tmp_path, "val/bee/0.png", "val/dog/0.txt")
    split = open_split(name, "val")
    assert split.class_names == ("ant", "bee", "cat", "dog") and _labels(split) == [1]
    assert caplog.messages == [
        f"{tmp_path}/val has no images of ant, cat, dog",
        f"{tmp_path}/val: left out 1 files that are no JPEG, PNG, BMP or WebP: 1 .txt",
    ]


@pytest.mark.fault("damage: files that are no images in a data folder", "counted by suffix, once")
def test_images_are_known_by_content_and_the_rest_is_counted_once(tmp_path, caplog):
    pixels = np.full((4, 5, 3), 9, np.uint8)
    files = {}
    for name, kind in (
        ("a.JPG", ".jpg"),
        ("b.jpe", ".jpg"),
        ("c.jfif", ".jpg"),
        ("d.webp", ".webp"),
        ("e.bmp", ".bmp"),
        ("f", ".png"),
        ("g.gif", ".jpg"),
        ("h.jpg_large", ".jpg"),
    ):
        files[name] = cv2.imencode(kind, pixels)[1].tobytes()
    others = {
        "x.gif": b"GIF89a",
        "y.gif": b"GIF89a",
        "z.HEIC": b"ftypheic",
        "README": b"BMW",
        "n.txt": files["a.JPG"],
        "Thumbs.db": b"",
    }
    for name, content in {**files, **others}.items():
        for class_name in ("ant", "bee"):
            (tmp_path / class_name).mkdir(exist_ok=True)
            (tmp_path / class_name / name).write_bytes(content)
    (tmp_path / "loose.png").write_bytes(files["f"])
    os.mkfifo(tmp_path / "ant" / "pipe")  # is not waited for
    for split in ("train[:50%]", "train[50%:]", "train"):
        opened = open_split(f"folder:{tmp_path}", split)
    names = sorted(f"{class_name}/{name}" for class_name in ("ant", "bee") for name in files)
    assert sorted(example["id"] for example in opened.examples[:]) == names
    assert all(host_ops.decode(e["image"]).shape == (4, 5, 3) for e in opened.examples[:])
    assert caplog.messages == [
        f"{tmp_path}: left out 13 files that are no JPEG, PNG, BMP or WebP: "
        "4 .gif, 3 without suffix, 2 .db, 2 .heic, 2 .txt",
        f"{tmp_path}: left out 1 images that are in no class folder",
    ]


def test_folders_beside_the_splits_are_left_out_and_named(tmp_path, caplog):
    files = [f"{split}/{c}/0.png" for split in ("Train", "Val") for c in ("ant", "bee")]
    name = make_folder(tmp_path, *files, "annotations/0.png", "docs/0.txt")
    assert len(open_split(name, "train").examples) == len(open_split(name, "val").examples) == 2
    assert caplog.messages == [f"{tmp_path}: took Train, Val, left out annotations, docs"]


@pytest.mark.parametrize("unreadable", ["", "/train", "/train/ant", "/train/ant/deep"])
def test_a_folder_that_may_not_be_read_is_named(folder, monkeypatch, unreadable):
    real = os.scandir

    def scandir(path):
        if str(path) == f"{folder}{unreadable}":
            raise PermissionError(13, "Permission denied", str(path))
        return real(path)

    monkeypatch.setattr(os, "scandir", scandir)
    monkeypatch.setattr(os, "listdir", lambda path: [entry.name for entry in scandir(path)])
    with pytest.raises(
        UserError, match=rf"^cannot read the folder {folder}{unreadable}: Permission denied$"
    ):
        open_split(f"folder:{folder}", "train")
