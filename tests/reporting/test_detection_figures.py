"""The report of a run that finds objects: pictures, curves, the table of average precisions."""

import base64
import json
import pathlib
import types
from typing import Any

import cv2
import numpy as np
import pytest
from support.commands import exit_code

from cnn_papers import report, tasks
from cnn_papers.claims import plan
from cnn_papers.data import drawing
from cnn_papers.data.split import Objects, Split
from cnn_papers.detection import detections
from cnn_papers.detection.detections import Detections, Kept
from cnn_papers.detection.overfeat import Maps
from cnn_papers.errors import UserError
from cnn_papers.evaluation import average_precision
from cnn_papers.evaluation.average_precision import HIT, MISS
from cnn_papers.reporting import (
    average_precisions,
    detection_figures,
    gather,
    network_figures,
    page,
    results_file,
    svg,
)
from cnn_papers.reporting.results import AveragePrecisions, Line, Lines, Photo
from cnn_papers.runs import splits, workdir
from cnn_papers.tasks import detect_dense
from cnn_papers.weights import trained

FOLDER = pathlib.Path(__file__).parents[1] / "support" / "box_tasks"
NAMES = ("cat", "dog", "owl")
SIDE = 200  # pixels of an image; on the page it keeps its size
HERE, THERE, NOWHERE = [20, 20, 120, 120], [100, 40, 180, 190], [1, 150, 60, 199]


def found(*rows: tuple[list[float], int, float]) -> Detections:
    boxes, classes, scores = zip(*rows, strict=True) if rows else ((), (), ())
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(classes, np.int32),
        np.array(scores, np.float32),
    )


def true(*rows: tuple[list[float], int]) -> Objects:
    boxes, classes = zip(*rows, strict=True) if rows else ((), ())
    return Objects(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(classes, np.int32),
        np.zeros(len(rows), bool),
        (SIDE, SIDE),
    )


# --- what is right --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("detected", "objects", "right", "known"),
    [
        (found(), true((HERE, 0)), [], [False]),
        (found((HERE, 0, 0.9)), true(), [False], []),
        (found((HERE, 0, 0.9)), true((HERE, 0)), [True], [True]),
        (found((HERE, 1, 0.9)), true((HERE, 0)), [False], [False]),
        (found((HERE, 0, 0.9), (HERE, 0, 0.8)), true((HERE, 0)), [True, False], [True]),
        (
            found((HERE, 0, 0.9), (THERE, 1, 0.8)),
            true((THERE, 1), (HERE, 0)),
            [True] * 2,
            [True] * 2,
        ),
        (found(([0, 0, 10, 10], 0, 0.9)), true(([0, 0, 10, 20], 0)), [True], [True]),
        (found(([0, 0, 10, 10], 0, 0.9)), true(([0, 0, 10, 21], 0)), [False], [False]),
    ],
    ids=["missed", "no object", "found", "class", "twice", "two", "half", "below half"],
)
def test_a_detection_is_right_if_it_is_the_first_of_an_object(detected, objects, right, known):
    ours = detection_figures.matches(detected, objects)
    assert [values.tolist() for values in ours] == [right, known]


def test_the_first_the_best_and_the_worst_images_are_shown():
    images = [
        (found(), true()),  # 0: without an object
        (found(), true((HERE, 0))),
        (found((HERE, 0, 0.5)), true((HERE, 0))),
        (found((HERE, 0, 0.9)), true((HERE, 0))),
        (found((HERE, 0, 0.9), (THERE, 1, 0.4)), true((HERE, 0), (THERE, 1))),  # more objects
        (found((NOWHERE, 2, 0.3)), true((HERE, 0))),
        (found((NOWHERE, 2, 0.7)), true((HERE, 0))),  # the most certain mistake
        (found((NOWHERE, 2, 0.5)), true((HERE, 0))),
    ]
    hits = [detection_figures.matches(*image) for image in images]
    assert detection_figures.chosen([image[0] for image in images], hits) == [
        ("first", 1),
        ("first", 2),
        ("best", 4),
        ("best", 3),
        ("worst", 6),
        ("worst", 7),
    ]
    assert detection_figures.chosen([found()], [detection_figures.matches(found(), true())]) == []


# --- curves ---------------------------------------------------------------------------------------


def test_a_curve_has_the_steps_that_average_precision_is_the_area_of():
    ranked = np.array([HIT, MISS, HIT, MISS, MISS, HIT, MISS])
    curve = average_precision.curve(ranked, 4)
    line = detection_figures._line("svm", curve)
    assert line.x == [0, 25, 25, 50, 50, 75]
    assert line.mean == pytest.approx([100, 100, 200 / 3, 200 / 3, 50, 50])
    assert line.mean == line.low == line.high
    assert np.trapezoid(line.mean, line.x) / 1e4 == pytest.approx(curve.area)


def test_a_long_curve_is_thinned_and_keeps_its_end():
    ranked = np.random.default_rng(0).choice([HIT, MISS], 4000)
    curve = average_precision.curve(ranked, int((ranked == HIT).sum()))
    line = detection_figures._line("svm", curve)
    assert len(line.x) <= 2 * detection_figures.STEPS and line.x[-1] == 100
    assert np.trapezoid(line.mean, line.x) / 1e4 == pytest.approx(curve.area, abs=0.01)


@pytest.mark.parametrize("ranked", [[], [MISS, MISS]])
def test_nothing_found_is_a_line_at_the_origin(ranked):
    line = detection_figures._line("svm", average_precision.curve(np.array(ranked, int), 3))
    assert (line.x, line.mean) == ([0.0], [0.0])


def test_names_of_protocols_are_as_short_as_tells_them_apart():
    names = {"softmax(nms=0.3)": 0, "svm('fc6')": 0, "svm('fc7')": 0, "rcnn": 0}
    short = ["softmax", "svm('fc6')", "svm('fc7')", "rcnn"]
    assert [*detection_figures.short_names(names).values()] == short


def test_panels_of_the_same_lines_have_one_legend():
    def panel(*names: str) -> Lines:
        lines = [Line(name, [0, 1], [0.0, 1.0], [0.0, 1.0], [0.0, 1.0]) for name in names]
        return Lines("t", "x", "y", lines)

    legends = {
        1: [[panel("a", "b")], [panel("a", "b"), panel("a", "b")], [panel("a", "b"), panel("a")]],
        2: [[panel("a", "b"), panel("a", "c")]],
        0: [[panel("a"), panel("a")]],
    }
    for count, drawings in legends.items():
        for panels in drawings:
            assert svg.draw(panels).count('id="legend_') == count


# --- the report -----------------------------------------------------------------------------------


@pytest.fixture
def run(tmp_path, monkeypatch) -> pathlib.Path:
    """A run of `bright_boxes` whose final test by two protocols was of three images."""
    monkeypatch.setattr(tasks, "__path__", [*tasks.__path__, str(FOLDER)])
    folder = tmp_path / "run"
    folder.mkdir()
    config = plan.load(plan.make_job("configs/resnet.py", {}))
    with config.unlocked():
        config.task = "bright_boxes"
    workdir.write_run(folder, config, {})
    (folder / "metrics.jsonl").write_text('{"step": 1, "val/loss": 0.7, "val/map": 40.0}\n')
    objects = [true((HERE, 0), (THERE, 1)), true((HERE, 1)), true()]
    good = [found((HERE, 0, 0.9), (THERE, 1, 0.8)), found((HERE, 1, 0.7)), found((HERE, 0, 0.1))]
    poor = [found((HERE, 0, 0.9)), found((HERE, 0, 0.7)), found()]
    for protocol, ours in (("softmax", good), ("svm('fc7')", poor)):
        kept = Kept(protocol, "scenes[test]", 1, NAMES, ours, objects)
        detections.save(folder / detections.FILE, kept)
    grey = np.full((SIDE, SIDE, 3), 90, np.uint8)
    image = cv2.imencode(".png", grey)[1].tobytes()
    examples: Any = [{"image": image, "id": f"image{i}"} for i in range(3)]
    split = Split("scenes[test]", examples, NAMES, str(tmp_path), None, objects)
    monkeypatch.setattr(splits, "open_one_to_test", lambda *arguments: split)
    return folder


def pixels(panel: Photo) -> np.ndarray:
    file = np.frombuffer(base64.b64decode(panel.jpeg), np.uint8)
    return cv2.imdecode(file, cv2.IMREAD_COLOR_RGB)


def test_found_and_true_boxes_are_drawn_on_images(run):
    curves, pictures, _ = gather.gather(run, run).figures[:3]
    assert curves.text == "Loss and mAP over the images seen."
    assert pictures.text.startswith("By softmax on scenes[test], of each image as many of the best")
    titles = [panel.title for panel in pictures.panels]
    assert titles == ["first: image0, 2 of 2 found", "first: image1, 1 of 1 found"]
    first, second = pictures.panels
    assert first.alt == "cat found, 0.90; dog found, 0.80" and first.width == SIDE
    drawn = pixels(second)
    assert drawn.shape == (SIDE, SIDE, 3)
    edge = drawn[60, HERE[1] - 1 : HERE[1] + 2].astype(int)  # found lies on true
    assert np.abs(edge - detection_figures.FOUND).sum(-1).min() < 40
    assert np.abs(drawn[150:].astype(int) - 90).max() < 8


def test_what_is_missed_and_what_is_wrong_is_named(run):
    kept = detections.load(run / detections.FILE)[1]
    detections.save(run / detections.FILE, kept._replace(protocol="softmax"))
    (pictures,) = [
        figure for figure in gather.gather(run, run).figures if "true boxes" in figure.title
    ]
    alts = {panel.title: panel.alt for panel in pictures.panels}
    assert alts == {
        "first: image0, 1 of 2 found": "cat found, 0.90; dog missed",
        "first: image1, 0 of 1 found": "cat wrong, 0.70; dog missed",
    }
    drawn = pixels(pictures.panels[1]).astype(int)
    for colour in (detection_figures.WRONG, detection_figures.TRUE):
        assert (np.abs(drawn - colour).sum(-1) < 40).any()


def test_precision_over_recall_is_drawn_for_each_class_with_objects(run):
    *_, curves = [figure for figure in gather.gather(run, run).figures if figure.panels]
    assert [panel.title for panel in curves.panels] == ["cat", "dog"]
    cat, dog = curves.panels
    assert [line.name for line in dog.series] == ["softmax", "svm"]
    assert [line.mean for line in cat.series] == [[100, 100], [100, 100]]
    assert [line.x for line in dog.series] == [[0, 100], [0]]
    assert cat.limits == [*detection_figures.LIMITS]


def test_average_precisions_are_a_table(run):
    (single,) = gather.gather(run, run).singles
    assert single.precisions == AveragePrecisions(
        "scenes[test]",
        [*NAMES],
        [1, 2, 0],
        {"softmax": [100, 100, None], "svm('fc7')": [100, 0, None]},
    )
    assert average_precisions.table(single.precisions) == [
        ("class", "objects", "softmax", "svm('fc7')"),
        ("cat", "1", "100.0", "100.0"),
        ("dog", "2", "100.0", "0.0"),
        ("owl", "0", "–", "–"),
        ("mean", "3", "100.0", "50.0"),
    ]
    assert average_precisions.caption(single.precisions) == (
        "Average precision by class on scenes[test], in %, by VOC 2007’s 11 points. "
        "1 class has no objects and no part in the mean."
    )


def test_the_page_holds_its_pictures_and_is_the_same_from_its_file(run):
    assert exit_code(report.cli, str(run)) in (None, 0)
    text = (run / "report.html").read_text()
    assert text.count('src="data:image/jpeg;base64,') == 2 and "<td>100.0</td>" in text
    assert page.html(results_file.read(run / "results.json"), ".") == text
    assert "| dog | 2 | 100.0 | 0.0 |" in (run / "report.md").read_text()


def test_a_run_without_a_final_test_has_neither(run):
    (run / detections.FILE).unlink()
    found = gather.gather(run, run)
    assert found.singles[0].precisions is None
    assert "precisions" not in json.loads(results_file.text(found))["singles"][0]
    assert not any("boxes" in figure.title for figure in found.figures)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda split: split._replace(examples=split.examples[:2]),
            "Not drawn: the final test was of 3 images of scenes[test], and scenes[test] has 2.",
        ),
        (
            lambda split: split._replace(name="other[val]"),
            "Not drawn: the final test was of 3 images of scenes[test], and other[val] has 3.",
        ),
    ],
    ids=["fewer", "other"],
)
def test_images_that_are_not_those_of_the_test_are_not_drawn_on(run, monkeypatch, change, message):
    split = change(splits.open_one_to_test(None, ""))
    monkeypatch.setattr(splits, "open_one_to_test", lambda *arguments: split)
    figures = {figure.title: figure for figure in gather.gather(run, run).figures}
    (pictures,) = [figure for title, figure in figures.items() if "true boxes" in title]
    assert (pictures.text, pictures.panels) == (message, [])
    assert any("precision" in title for title in figures)


@pytest.mark.fault("damage: `detections.npz` of a run", "told in the report, which goes on")
def test_damaged_detections_are_told_and_the_report_goes_on(run):
    (run / detections.FILE).write_bytes(b"damaged")
    found = gather.gather(run, run)
    assert found.singles[0].precisions is None
    (text,) = [figure.text for figure in found.figures if "boxes" in figure.title]
    assert text.startswith(f"Not drawn: the detections in {run / detections.FILE} cannot be read")


# --- merging --------------------------------------------------------------------------------------

MERGING = "merge(scales=(64,), match=0.8, least=0.5)"


@pytest.fixture
def merged(run, monkeypatch) -> pathlib.Path:
    """The run with OverFeat's task, whose network finds three boxes of a class near each other."""
    saved = json.loads((run / "run.json").read_text())
    saved["config"]["task"] = "detect_dense"
    (run / "run.json").write_text(json.dumps(saved))
    kept = detections.load(run / detections.FILE)[0]
    detections.save(run / detections.FILE, kept._replace(protocol=MERGING))
    boxes = [[50, 50, 150, 150], [52, 50, 152, 150], [50, 80, 150, 180]]
    maps = Maps(np.full((3, 3), [0.9, 0.0, 0.0], np.float32), np.array(boxes, np.float32))
    network = types.SimpleNamespace(
        config=types.SimpleNamespace(task="detect_dense"), output_names=NAMES, step=1
    )
    monkeypatch.setattr(trained, "from_run", lambda folder: network)
    monkeypatch.setattr(network_figures, "filters", lambda *arguments: [])
    found = types.SimpleNamespace(maps=lambda image: [maps])
    monkeypatch.setattr(detect_dense, "detector", lambda *arguments: found)
    return run


def merging_of(run: pathlib.Path) -> list[Any]:
    return [figure for figure in gather.gather(run, run).figures if "merging" in figure.title]


def test_boxes_are_merged_step_by_step(merged):
    (figure,) = merging_of(merged)
    assert [panel.title for panel in figure.panels] == [
        "before merging: 3 boxes",
        "merged to a match score of 0.2: 2 boxes",
        "merged to a match score of 0.4: 2 boxes",
        "merged to a match score of 0.8: 1 box",
    ]
    assert figure.text.startswith(f"By {MERGING} on image image0 of scenes[test], which has the")
    before, *_, after = [pixels(panel).astype(int) for panel in figure.panels]
    colour = drawing.colour_of(0)
    right_edge = [np.abs(drawn[120, 176:184] - colour).sum(-1).min() for drawn in (before, after)]
    assert right_edge[0] < 60 < right_edge[1]


def test_a_network_that_has_changed_since_is_not_drawn(merged):
    trained.from_run(merged).step = 2
    (figure,) = merging_of(merged)
    message = "Not drawn: the final test was of step 1, and the network is of step 2."
    assert (figure.text, figure.panels) == (message, [])


def test_a_network_that_is_gone_leaves_the_merging_out(merged, monkeypatch):
    def gone(folder: pathlib.Path) -> None:
        raise UserError("there is no checkpoint in best")

    monkeypatch.setattr(trained, "from_run", gone)
    (figure,) = merging_of(merged)
    assert (figure.text, figure.panels) == ("Not drawn: there is no checkpoint in best.", [])


def test_only_merging_has_a_figure_of_it(run):
    assert merging_of(run) == []
