"""Images in class folders: which of them a network gets wrong, as text, as JSON and on a sheet."""

import json
import pathlib
from typing import Any

import cv2
import numpy as np
import pytest
from support.image_folders import write_images

from cnn_papers import predict
from cnn_papers.data import contact_sheet
from cnn_papers.errors import UserError
from cnn_papers.weights import named_images, prediction_sheet, predictions, predictor
from cnn_papers.weights.named_images import NamedImage
from cnn_papers.weights.prediction_sheet import Tile
from cnn_papers.weights.predictions import Prediction
from cnn_papers.weights.predictor import Predictor

# ml_collections reads configs with load_module
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
CLASSES = ("cat", "dog")


# --- true classes by folders ----------------------------------------------------------------------


def named(folder: pathlib.Path, *arguments: str) -> list[tuple[str, str]]:
    """The images below `folder` that the arguments mean, with their true classes."""
    paths = [str(folder / argument) for argument in arguments]
    images = named_images.find_images(paths, CLASSES)
    return [(image.path.relative_to(folder).as_posix(), image.true_class) for image in images]


def test_the_class_of_an_image_is_its_folder_if_the_network_knows_that(tmp_path, monkeypatch):
    write_images(tmp_path, {"val/cat": 2, "val/dog": 1, "holiday": 1})
    assert named(tmp_path, "val/cat") == [("val/cat/000.png", "cat"), ("val/cat/001.png", "cat")]
    assert named(tmp_path, "val/dog/000.png", "holiday", "holiday/gone.png") == [
        ("val/dog/000.png", "dog"),
        ("holiday/000.png", ""),
        ("holiday/gone.png", ""),
    ]
    monkeypatch.chdir(tmp_path / "val" / "cat")
    assert named_images.find_images(["001.png"], CLASSES)[0].true_class == "cat"


def test_a_folder_of_class_folders_is_all_their_images_at_any_depth(tmp_path, caplog):
    write_images(tmp_path, {"dog": 1, "cat": 1, "cat/indoors": 1, "@eaDir": 1, ".thumbs": 1})
    (tmp_path / "cat" / "notes.txt").touch()
    with caplog.at_level("WARNING", "cnn_papers"):
        assert named(tmp_path, "") == [
            ("cat/000.png", "cat"),
            ("cat/indoors/000.png", "cat"),
            ("dog/000.png", "dog"),
        ]
    assert caplog.messages == [
        f"{tmp_path}/cat: left out 1 files that are no JPEG, PNG, BMP or WebP: 1 .txt"
    ]


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (
            {"train/cat": 1, "val/cat": 1, "val/dog": 1},
            "{} holds the network's classes in train, val: give one of these folders, such as "
            "{}/val",
        ),
        (
            {"cat": 1, "dogs": 1},
            "{} has folders that are no classes of the network: dogs; did you mean 'dog'? it knows "
            "cat, dog; give the folders of its classes one by one",
        ),
        (
            {"january": 1, "february": 1},
            "{} holds no images (JPEG, PNG, BMP or WebP); sub-folders are searched only if they "
            "are the network's classes",
        ),
        ({"cat": 0}, "{}: its class folders hold no images (JPEG, PNG, BMP or WebP)"),
    ],
)
def test_a_folder_without_images_of_known_classes(tmp_path, images, message):
    write_images(tmp_path, images)
    with pytest.raises(UserError) as raised:
        named_images.find_images([str(tmp_path)], CLASSES)
    assert str(raised.value) == message.replace("{}", str(tmp_path))


# --- right and wrong ------------------------------------------------------------------------------


def predicted(name: str, true_class: str, chance_of_dog: float, **changes: Any) -> Prediction:
    """The prediction of a network of two classes for an image."""
    network = Predictor("it", CLASSES, bytes, np.asarray, 1, has_scores=False)
    outputs = np.array([1 - chance_of_dog, chance_of_dog])
    image = NamedImage(pathlib.Path(name), true_class)
    return predictions.of_image(image, outputs, network, 1, **{"compare": True, **changes})


def test_the_most_confident_of_the_wrong_come_first():
    images = [
        predicted("a", "cat", 0.75),
        predicted("b", "dog", 1.0),
        predicted("c", "dog", 0.125),
        predicted("d", "", 1.0),
        predicted("e", "cat", 0.25),
    ]
    assert [image.mark for image in images] == [
        "wrong: true cat",
        "right",
        "wrong: true dog",
        "",
        "right",
    ]
    wrong = predictions.worst_first(images)
    assert predictions.list_lines(wrong) == [
        "  87.50%  cat  (true: dog, 12.50%)  c",
        "  75.00%  dog  (true: cat, 25.00%)  a",
    ]
    assert (
        predictions.count_text(images) == "2 of 4 images in class folders wrong: top-1 error 50.00%"
    )
    assert predictions.count_text(images[1:2]) == "0 of 1 image wrong: top-1 error 0.00%"
    assert predictions.list_lines([]) == []


def test_an_image_in_text_and_in_json_has_its_true_class_where_that_is_known():
    wrong, unknown = predicted("a", "cat", 0.75), predicted("a", "", 0.75)
    assert predictions.as_text(wrong) == "a  wrong: true cat\n  75.00%  dog"
    assert predictions.as_text(unknown) == "a\n  75.00%  dog"
    dog = {"class": "dog", "label": 1, "probability": 0.75}
    cat = {"class": "cat", "label": 0, "probability": 0.25}
    row = {"image": "a", "classes": [dog]}
    assert json.loads(predictions.as_json(wrong)) == row | {"true": cat, "wrong": True}
    assert json.loads(predictions.as_json(unknown)) == row
    assert predicted("a", "cat", 0.75, compare=False) == unknown


# --- the sheet ------------------------------------------------------------------------------------


def test_a_wrong_image_has_a_red_frame_on_the_sheet_and_a_right_one_has_none(tmp_path):
    image = np.full((192, 192, 3), 90, np.uint8)
    tiles = [
        Tile(tmp_path / "a.png", image, 0, ["wrong: true cat"], is_wrong=True),
        Tile(tmp_path / "b.png", image, 0, ["right"]),
    ]
    prediction_sheet.write(tmp_path / "sheet.png", tiles, None)
    sheet = cv2.imread(str(tmp_path / "sheet.png"))[..., ::-1]
    top = contact_sheet.MARGIN
    for left, edge in ((top, (213, 0, 0)), (2 * top + 192, (90, 90, 90))):
        framed = sheet[top : top + 192, left : left + 192]
        assert {tuple(map(int, framed[y, x])) for y, x in ((0, 0), (3, 96), (191, 191))} == {edge}
        assert (framed[4:-4, 4:-4] == 90).all()


# --- the command ----------------------------------------------------------------------------------


def test_wrong_leaves_out_all_other_images_in_text_in_json_and_on_the_sheet(
    tiny_run, tmp_path, command
):
    """The run knows the digits; noise in folders of all of them cannot all be right."""
    write_images(tmp_path / "val", {str(digit): 2 for digit in range(10)})
    run, val, sheet = f"--workdir={tiny_run}", str(tmp_path / "val"), tmp_path / "sheet.png"
    code, out, err = command(run, "--json", "--top=1", val)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and len(rows) == 20
    for row in rows:
        assert row["true"]["class"] == pathlib.Path(row["image"]).parent.name
        assert row["wrong"] == (row["true"]["class"] != row["classes"][0]["class"])
    wrong = [row for row in rows if row["wrong"]]
    wrong.sort(key=lambda row: -row["classes"][0]["probability"])
    count = f"{len(wrong)} of 20 images wrong: top-1 error {5 * len(wrong):.2f}%"
    assert wrong and f"{count}, the most confident first\n" in err

    code, out, _ = command(run, "--json", "--top=1", "--wrong", val)
    assert code == 0 and [json.loads(line) for line in out.splitlines()] == wrong
    code, out, err = command(run, "--wrong", f"--show={sheet}", val)
    first, *lines = out.splitlines()
    assert (code, first) == (0, f"{count}, the most confident first")
    assert [line.rpartition("  ")[2] for line in lines] == [row["image"] for row in wrong]
    assert f"{sheet} shows {len(wrong)} images\n" in err
    code, out, err = command(run, "--top=1", f"--show={sheet}", val)
    assert code == 0 and out.count("  right\n") == 20 - len(wrong)
    assert f"{sheet} shows 20 images, the wrong ones first\n" in err


def test_nothing_is_wrong(tiny_run, tmp_path, command):
    write_images(tmp_path, {"images": 1})
    sheet = tmp_path / "sheet.png"
    code, out, _ = command(f"--workdir={tiny_run}", "--json", str(tmp_path / "images"))
    best = json.loads(out)["classes"][0]["class"]
    (tmp_path / "images").rename(tmp_path / best)
    arguments = ("--wrong", f"--show={sheet}", str(tmp_path / best))
    code, out, err = command(f"--workdir={tiny_run}", *arguments)
    assert (code, out) == (0, "0 of 1 image wrong: top-1 error 0.00%\n")
    assert f"{sheet} is not written: no image is wrong\n" in err and not sheet.exists()
    assert command(f"--workdir={tiny_run}", "--json", *arguments)[1] == ""


def test_images_that_may_show_several_classes_are_not_compared(
    tiny_run, tmp_path, command, monkeypatch
):
    write_images(tmp_path, {"3": 1})
    monkeypatch.setattr(predictor, "has_scores", lambda network: True)
    monkeypatch.setattr(predict, "has_scores", lambda network: True)
    code, out, err = command(f"--workdir={tiny_run}", "--json", str(tmp_path / "3"))
    several = "an image of the task 'classify' may show several classes"
    assert code == 0 and json.loads(out).keys() == {"image", "classes"}
    assert f"true classes are not compared: {several}\n" in err
    code, out, err = command(f"--workdir={tiny_run}", "--wrong", str(tmp_path / "3"))
    assert (code, out) == (2, "")
    assert err == f"error: --wrong: {several}, so that no best one is wrong\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["holiday"], "--wrong: none of the images is in a folder that is named after a class of"),
        (["--layer=fc", "--out=f.npz", "3"], "--wrong is of predictions, and --layer makes none"),
    ],
)
def test_wrong_of_nothing(tiny_run, tmp_path, command, monkeypatch, arguments, message):
    write_images(tmp_path, {"holiday": 1, "3": 1})
    monkeypatch.chdir(tmp_path)
    code, out, err = command(f"--workdir={tiny_run}", "--wrong", *arguments)
    assert (code, out) == (2, "") and err.startswith(f"error: {message}")
