"""Objects found by a run: printed, drawn on copies of the images, which stay as they are."""

import json
import pathlib
import shutil
import sys
from typing import Any

import cv2
import numpy as np
import pytest

import cnn_papers
from cnn_papers import tasks
from cnn_papers.detection.detections import Detections
from cnn_papers.errors import UserError
from cnn_papers.weights import detector

# ml_collections reads configs with load_module
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
FOLDER = pathlib.Path(__file__).parents[1] / "support" / "box_tasks"
SIDE = 400  # pixels: such an image is drawn on as it is


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory) -> Any:
    """A run of the task `bright_boxes`, whose network is that of another."""
    folder = tmp_path_factory.mktemp("boxes") / "run"
    shutil.copytree(tiny_run, folder)
    saved = json.loads((folder / "run.json").read_text())
    saved["config"]["task"] = "bright_boxes"
    saved["config"]["eval"]["protocol"] = "bright|brighter"
    (folder / "run.json").write_text(json.dumps(saved))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tasks, "__path__", [*tasks.__path__, str(FOLDER)])
        yield folder
    sys.modules.pop("cnn_papers.tasks.bright_boxes", None)


@pytest.fixture
def images(tmp_path, monkeypatch) -> pathlib.Path:
    """A folder of images: two objects, one, none, and a small grey one; the folder is current."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    two = np.full((SIDE, SIDE, 3), 40, np.uint8)
    two[50:150, 20:120], two[200:300, 250:390] = 255, 230
    one = np.full((SIDE, SIDE, 3), 40, np.uint8)
    one[100:200, 300:380] = 240
    grey = np.full((64, 64), 40, np.uint8)
    grey[10:30, 5:25] = 250
    assert cv2.imwrite(str(folder / "two.png"), two)
    assert cv2.imwrite(str(folder / "one.jpg"), one)
    assert cv2.imwrite(str(folder / "more" / "two.png"), 0 * two)
    assert cv2.imwrite(str(folder / "more" / "grey.bmp"), grey)
    monkeypatch.chdir(tmp_path)
    return folder


def contents(folder: pathlib.Path) -> dict[str, bytes]:
    files = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def test_objects_are_printed_for_people(run, images, command):
    code, out, err = command(f"--workdir={run}", "photos")
    assert code == 0, err
    assert err.splitlines() == [
        f"resnet 'cifar-8' trained on digits, step 3 in {run / 'best'}, by bright",
        "boxes are [y1, x1, y2, x2] in pixels, the far edges exclusive",
    ]
    first, _, *others = out.splitlines()
    assert first == "photos/one.jpg: 1 box, drawn in predicted/one.boxes.jpg"
    assert others == [
        "photos/two.png: 2 boxes, drawn in predicted/two.boxes.png",
        "   1.000  0  [50.0, 20.0, 150.0, 120.0]",
        "   0.902  1  [200.0, 250.0, 300.0, 390.0]",
    ]


def test_from_python_they_are_found_on_files_bytes_and_pixels(run, images):
    network = cnn_papers.load_network(run)
    path = images / "two.png"
    pixels = cv2.imread(str(path))[..., ::-1]
    for found in network.find_objects([path, path.read_bytes(), pixels]):
        np.testing.assert_array_equal(found.image, pixels)
        boxes, classes, scores = found.detections
        assert boxes.tolist() == [[50, 20, 150, 120], [200, 250, 300, 390]]
        assert [network.class_names[i] for i in classes] == ["0", "1"]
        assert scores.tolist() == pytest.approx([1, 230 / 255])
    with pytest.raises(UserError, match="finds objects: call find_objects"):
        network(path)
    with pytest.raises(UserError, match=r"none.png cannot be read: No such file"):
        network.find_objects("none.png")


def test_a_line_of_json_has_boxes_classes_and_scores(run, images, command):
    arguments = ["photos/two.png", "photos/more/two.png", "photos/more/grey.bmp"]
    code, out, _ = command(f"--workdir={run}", "--json", *arguments)
    rows = [json.loads(line) for line in out.splitlines()]
    assert code == 0 and [row["image"] for row in rows] == arguments
    two, nothing, grey = rows
    assert (two["height"], two["width"]) == (SIDE, SIDE)
    assert two["boxes"] == [
        {"class": "0", "label": 0, "score": 1.0, "box": [50, 20, 150, 120]},
        {
            "class": "1",
            "label": 1,
            "score": pytest.approx(230 / 255),
            "box": [200, 250, 300, 390],
        },
    ]
    assert nothing["boxes"] == []
    assert (grey["height"], grey["boxes"][0]["box"]) == (64, [10, 5, 30, 25])
    pictures = [row["picture"] for row in rows]
    assert pictures == [
        "predicted/two.boxes.png",
        "predicted/more/two.boxes.png",
        "predicted/more/grey.boxes.bmp.png",
    ]
    assert all(pathlib.Path(picture).is_file() for picture in pictures)


def test_pictures_are_copies_with_boxes_and_the_images_stay(run, images, command):
    before = contents(images)
    code, _, _ = command(f"--workdir={run}", "photos/more/grey.bmp", "photos/two.png", "--out=new")
    assert code == 0 and contents(images) == before
    assert {*contents(images.parent / "new")} == {"two.boxes.png", "more/grey.boxes.bmp.png"}
    picture = cv2.imread("new/two.boxes.png").astype(int)
    original = cv2.imread("photos/two.png").astype(int)
    changed = np.nonzero((picture != original).any(-1))
    assert picture.shape == original.shape
    assert changed[0].min() < 50 and changed[0].max() == 301 and changed[1].max() == 391
    small = cv2.imread("new/more/grey.boxes.bmp.png")
    assert small.shape == (320, 320, 3)  # five times as large, so that labels can be read


@pytest.mark.parametrize(
    ("argument", "left"), [("--top=1", [1.0]), ("--min_score=0.95", [1.0]), ("--min_score=2", [])]
)
def test_boxes_that_are_left_out(run, images, command, argument, left):
    _, out, _ = command(f"--workdir={run}", "--json", argument, "photos/two.png")
    assert [row["score"] for row in json.loads(out)["boxes"]] == left


def test_a_file_that_is_no_image_is_told_and_the_others_are_predicted(run, images, command):
    (images / "text.png").write_text("no image")
    arguments = ["photos/text.png", "photos/none.jpg", "photos/two.png"]
    code, out, err = command(f"--workdir={run}", *arguments)
    assert code == 2 and out.startswith("photos/two.png: 2 boxes")
    assert [line for line in err.splitlines() if line.startswith("error")] == [
        "error: photos/text.png cannot be decoded: not a JPEG, PNG, BMP or WebP",
        "error: photos/none.jpg cannot be read: No such file or directory",
    ]


@pytest.fixture
def given(run, monkeypatch) -> list[Any]:
    """What the detector of the run's task is given: what is fitted, then proposals."""
    task, seen = tasks.task_module("bright_boxes"), []
    nothing = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.int32), np.zeros(0))

    def detector(protocol: str, network: Any, fitted: Any) -> Any:
        seen.append(fitted)
        return lambda image, proposals: seen.append(proposals) or nothing

    monkeypatch.setattr(task, "detector", detector)
    return seen


def test_a_detector_of_proposals_is_given_those_that_the_run_names(run, images, command, given):
    arguments = ["--config=configs/sppnet.py", "--config.data.proposals=selective_search(size=64)"]
    code, out, _ = command(f"--workdir={run}", *arguments, "photos/two.png")
    fitted, proposals = given
    assert (code, fitted) == (0, None) and "0 boxes" in out
    assert proposals.dtype == np.float32 and len(proposals) and proposals.max() <= SIDE


def test_proposals_of_a_file_are_of_other_images(run, images, command):
    arguments = ["--config=configs/sppnet.py", "--config.data.proposals=boxes.npz"]
    code, _, err = command(f"--workdir={run}", *arguments, "photos/two.png")
    assert code == 2 and "boxes.npz has boxes of its own images only" in err.splitlines()[-1]


def test_a_detector_is_given_what_the_final_test_has_fitted(
    run, images, command, given, monkeypatch
):
    task = tasks.task_module("bright_boxes")
    find = lambda protocol, network, folder: (protocol, folder)  # noqa: E731
    monkeypatch.setattr(task, "fitted_of_run", find, raising=False)
    code, _, _ = command(f"--workdir={run}", "photos/two.png")
    assert code == 0 and given[0] == ("bright", run)


@pytest.mark.fault(
    "not finite: `predict` with a network that gives NaN as a box", "the image is named, none drawn"
)
@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([0, 0, np.nan, 9], "box [0.0, 0.0, nan, 9.0] with score 1, which is not finite"),
        ([0, 500, 9, 600], "does not intersect its 400×400 pixels"),
    ],
)
def test_a_network_that_has_diverged_is_an_error(run, images, command, monkeypatch, box, message):
    wrong = Detections(np.array([box], np.float32), np.zeros(1, np.int32), np.ones(1, np.float32))
    task = tasks.task_module("bright_boxes")
    monkeypatch.setattr(task, "detector", lambda *_: lambda image, proposals: wrong)
    code, out, err = command(f"--workdir={run}", "photos/two.png")
    assert (code, out) == (2, "") and not pathlib.Path("predicted").exists()
    assert err.splitlines()[-1].startswith("error: photos/two.png: the network ") and message in err


@pytest.mark.fault("place: a picture that would replace one of the images", "refused by name")
def test_a_picture_never_replaces_an_image(run, images, command):
    command(f"--workdir={run}", "photos/two.png", "--out=photos")
    before = contents(images)
    arguments = ["photos/two.png", "photos/two.boxes.png", "--out=photos"]
    code, out, err = command(f"--workdir={run}", *arguments)
    assert (code, out) == (2, "") and err == (
        "error: the picture of photos/two.png would replace the image photos/two.boxes.png: "
        "give another folder with --out\n"
    )
    assert contents(images) == before


def test_images_of_one_name_have_pictures_of_their_own(tmp_path):
    names = ["a/1.jpg", "b/1.jpg", "b/1.png", "b/1.webp", "b/c/1.JPG"]
    targets = detector.picture_paths([tmp_path / name for name in names], pathlib.Path("out"))
    assert [str(target) for target in targets.values()] == [
        "out/a/1.boxes.jpg",
        "out/b/1.boxes.jpg",
        "out/b/1.boxes.png",
        "out/b/1.boxes.webp.png",
        "out/b/c/1.boxes.JPG",
    ]


def test_pictures_stay_below_their_folder(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    paths = [pathlib.Path("../there/1.jpg"), pathlib.Path("1.jpg")]
    targets = detector.picture_paths(paths, pathlib.Path("out"))
    assert [*map(str, targets.values())] == ["out/there/1.boxes.jpg", "out/here/1.boxes.jpg"]


def test_a_folder_that_is_a_file_is_one_line(run, images, command):
    code, out, err = command(f"--workdir={run}", "photos/two.png", "--out=photos/one.jpg")
    assert (code, out) == (2, "")
    assert err.splitlines()[-1].startswith("error: cannot write photos/one.jpg/two.boxes.png: ")


@pytest.mark.parametrize(
    ("argument", "message"),
    [
        ("--min_score=0.5", "error: --min_score leaves out boxes, and resnet 'cifar-8' trained on"),
        ("--out=pictures", "error: --layer=NAME and --out=FILE.npz go together"),
    ],
)
def test_a_flag_of_boxes_is_refused_of_a_network_of_classes(
    tiny_run, images, command, argument, message
):
    code, out, err = command(f"--workdir={tiny_run}", "photos/two.png", argument)
    assert (code, out) == (2, "") and err.startswith(message) and err.count("\n") == 1
