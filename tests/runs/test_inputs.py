"""What a task needs of its data: labels or boxes, and as many outputs as there are classes."""

import types

import cv2
import jax
import numpy as np
import pytest
from support.boxed_images import make_split

from cnn_papers import tasks, train
from cnn_papers.data.pipeline import parse_host
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import inputs, preview, ranges, splits
from cnn_papers.runs.rows import METRICS, read_rows
from cnn_papers.weights import predictor
from configs import lenet

CUT_OUT = {
    "train_host": "decode(1)|random_object(0.1)|resize(28)|pad(2)",
    "eval_host": "decode(1)|largest_object(0.1)|resize(28)|pad(2)",
}
WHOLE = {"train_host": "decode(1)|resize(28)|pad(2)", "eval_host": "decode(1)|resize(28)|pad(2)"}


def configured(split, monkeypatch, hosts, *, classes=4, task="classify"):
    monkeypatch.setattr(splits, "open_split", lambda *arguments, **options: split)
    config = lenet.get_config()
    config.batch_size, config.mesh.data, config.model.num_classes = 8, 1, classes
    config.data.update(hosts)
    config.task = task
    return config


def opened(config):
    mesh = meshes.make_mesh(1)
    train, held_out = splits.open_splits(config)
    return inputs.open_data(config, train, held_out, mesh)


@pytest.fixture
def boxes_task(monkeypatch):
    """A task that learns from boxes, with an output for the background."""
    task = types.SimpleNamespace(NEEDS="boxes", BACKGROUND=1)
    monkeypatch.setattr(
        tasks, "task_module", {"boxes": task, "classify": tasks.task_module("classify")}.get
    )


def test_a_task_of_labels_gets_no_boxes_and_one_of_boxes_gets_them(monkeypatch, boxes_task):
    split = make_split(labels=True, proposals=True)
    data = opened(configured(split, monkeypatch, WHOLE))
    (shapes,) = data.train.batch_shapes(8)
    assert shapes.keys() == {"image", "label"}
    data = opened(configured(split, monkeypatch, WHOLE, classes=5, task="boxes"))
    (shapes,) = data.held_out.batch_shapes(8, mask=True)
    assert shapes.keys() == {
        *("image", "label", "boxes", "classes", "difficult", "size", "proposals", "mask")
    }
    assert data.train.num_classes == 4


@pytest.mark.fault("config: a task whose data lack the labels or boxes that it needs", "refused")
def test_data_without_what_the_task_needs_is_refused(monkeypatch, boxes_task):
    for missing in ("train_host", "eval_host"):
        with pytest.raises(UserError) as caught:
            hosts = {**CUT_OUT, missing: WHOLE[missing]}
            opened(configured(make_split(), monkeypatch, hosts))
        assert str(caught.value) == (
            "config.task=classify needs a label of every image, and those of made[train] have "
            "boxes only: to learn the classes of objects cut out, write random_object(0.1) after "
            "decode in config.data.train_host, and largest_object(0.1) in config.data.eval_host"
        )
    split = make_split(labels=True)._replace(objects=None)
    with pytest.raises(UserError) as caught:
        opened(configured(split, monkeypatch, WHOLE, classes=5, task="boxes"))
    assert str(caught.value) == (
        "config.task=boxes learns from boxes, and made[train] has none: name other data with "
        "--config.data.name, such as voc_folder:PATH"
    )


@pytest.mark.fault(
    "config: a head without the output for the background", "refused with the number"
)
@pytest.mark.parametrize("outputs", [2, 4, 6, 10])
def test_a_task_with_a_background_has_one_output_more(monkeypatch, boxes_task, outputs):
    with pytest.raises(UserError) as caught:
        opened(configured(make_split(), monkeypatch, WHOLE, classes=outputs, task="boxes"))
    assert str(caught.value) == (
        "made[train] has 4 classes, and config.task=boxes needs one more output for the "
        f"background; the network's head has {outputs}: set --config.model.num_classes=5"
    )


@pytest.mark.fault("config: data that the task cannot use", "refused before proposals are made")
@pytest.mark.parametrize(
    ("objects", "classes", "message"),
    [
        (True, 4, "needs one more output for the background; the network's head has 4"),
        (False, 4, "learns from boxes, and made"),
    ],
)
def test_what_is_wrong_with_the_data_is_found_before_proposals(
    monkeypatch, boxes_task, objects, classes, message
):
    monkeypatch.setattr(splits.proposals, "of_split", None)  # it would take hours
    split = make_split() if objects else make_split(labels=True)._replace(objects=None)
    config = configured(split, monkeypatch, WHOLE, classes=classes, task="boxes")
    config.data.proposals = "selective_search()"
    with pytest.raises(UserError, match=message):
        splits.open_splits(config)
    if not objects:
        with pytest.raises(UserError, match=message):  # as a test does
            splits.with_proposals(split, config)


def test_one_class_and_a_background_are_enough(monkeypatch, boxes_task):
    objects = [o._replace(classes=np.zeros_like(o.classes)) for o in make_split().objects or ()]
    split = make_split()._replace(class_names=("cell",), objects=objects)
    data = opened(configured(split, monkeypatch, WHOLE, classes=2, task="boxes"))
    assert data.train.class_counts().tolist() == [sum((~o.difficult).sum() for o in objects)]
    with pytest.raises(UserError, match="has one class, cell: training needs two or more"):
        opened(configured(split, monkeypatch, CUT_OUT, classes=2))


@pytest.mark.fault("config: analyses of images with a label in a task of boxes", "refused")
def test_analyses_need_labels(monkeypatch, boxes_task):
    config = lenet.get_config()
    config.task, config.eval.analyses = "boxes", "dead_units"
    tasks.task_module("boxes").HEADLINE = tasks.task_module("classify").HEADLINE
    tasks.task_module("boxes").Totals = tasks.task_module("classify").Totals
    with pytest.raises(
        UserError, match=r"^config\.eval\.analyses=dead_units is for images with one"
    ):
        ranges.check_ranges(config)


def test_the_evaluation_is_traced_with_the_arrays_of_its_batches(monkeypatch, boxes_task):
    split = make_split(proposals=True)
    data = opened(configured(split, monkeypatch, WHOLE, classes=5, task="boxes"))
    traced = []
    inputs.check_images(data, traced.append, 8)
    (batch,) = traced
    assert {name: x.shape for name, x in batch.items()} == {
        "image": (8, 32, 32, 1),
        "boxes": (8, 3, 4),
        "classes": (8, 3),
        "difficult": (8, 3),
        "size": (8, 2),
        "proposals": (8, 5, 4),
        "mask": (8,),
    }


def test_a_classifier_is_trained_on_objects_cut_out_and_predicts_whole_images(
    monkeypatch, tmp_path, capsys
):
    config = configured(make_split(), monkeypatch, CUT_OUT)
    config.total_steps, config.loss.class_weights = 3, ("balanced",)
    folder = tmp_path / "run"
    train.train_and_evaluate(config, folder)
    out = capsys.readouterr().out
    assert "objects of" in out and "class weights" in out
    rows = [row for row in read_rows(folder / METRICS) if "val/top1_error" in row]
    assert len(rows) == 1 and np.isfinite(rows[0]["val/loss"])
    prepare = predictor._preparation(CUT_OUT["eval_host"], (32, 32, 1))
    image = cv2.imencode(".png", np.full((40, 50, 3), 7, np.uint8))[1].tobytes()
    assert prepare(image).shape == (32, 32, 1)
    assert inputs.configured_input(config) == (32, 32, 1)


def test_the_first_step_is_drawn_with_its_boxes(monkeypatch, tmp_path, boxes_task, capsys):
    hosts = {"train_host": "decode|resize(64, 96)", "eval_host": "decode|resize(64, 96)"}
    config = configured(make_split(), monkeypatch, hosts, classes=5, task="boxes")
    config.data.train_device = "flip"
    config.data.eval_device = ""
    preview.draw_first_step(config, tmp_path / "sheet.png")
    assert "8 images of made[train] at 64×96×3" in capsys.readouterr().out
    sheet = cv2.imread(str(tmp_path / "sheet.png"))
    assert sheet is not None
    # Every tile is enlarged fourfold, to 256×384.
    assert sheet.shape == (256 + 22 + 6, 8 * (384 + 6) + 6, 3)
    pipeline = inputs.open_pipeline(
        make_split(), config, parse_host(hosts["train_host"], key="data.train_host"),
        meshes.make_mesh(1),
    )  # fmt: skip
    batch = jax.device_get(next(pipeline.train_batches(8, seed=config.seed, steps=range(1))))
    for i, boxes in enumerate(batch["boxes"]):
        tile = sheet[6 : 6 + 256, 6 + i * 390 : 6 + i * 390 + 384].astype(int)
        is_coloured = (np.ptp(tile, -1) > 60).any()  # the images are grey
        assert is_coloured == boxes.any()
