"""OverFeat's tasks: losses by hand, negatives, a run of each from training to its final test."""

import functools
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_papers import evaluate, train
from cnn_papers.boxes import NONE
from cnn_papers.detection import detections
from cnn_papers.errors import UserError
from cnn_papers.models import overfeat
from cnn_papers.runs.rows import METRICS, evaluations, read_rows
from cnn_papers.tasks import detect_dense, localize
from cnn_papers.training import optim
from cnn_papers.training.step import StepSettings, init_state, make_train_step
from configs import overfeat as recipes

CLASSES, SIZE = 3, 50  # 5×5 windows of 34 pixels, 4 pixels apart
KEY = jax.random.key(0)


def network(background: int, **fields: Any) -> overfeat.OverFeat:
    fields = {"width": 0.02, "conv1_stride": 1, "window": 36, "boxes": "shared"} | fields
    return overfeat.Model(
        "fast",
        num_classes=CLASSES + background,
        weight_init="he",
        fine=True,
        fine_in_training=True,
        **fields,
    )


def batch(difficult: bool = False) -> dict[str, Any]:
    """Two images: with one object of class 2 that the window at (8, 8) fits exactly, with none."""
    boxes = np.zeros((2, 2, 4), np.float32)
    boxes[0, 0] = [8, 15, 42, 35]  # 34 pixels high, centred as the window is
    classes = np.full((2, 2), NONE, np.int32)
    classes[0, 0] = 2
    return {
        "image": np.random.default_rng(0).normal(size=(2, SIZE, SIZE, 3)).astype(np.float32),
        "boxes": boxes,
        "classes": classes,
        "difficult": np.full((2, 2), difficult),
    }


def settings(**boxes: Any) -> StepSettings:
    return StepSettings(boxes=tuple(boxes.items()))


def outputs(background: int, rng: np.random.Generator) -> dict[str, jax.Array]:
    """Endpoints of random numbers for two images."""
    scores = rng.normal(size=(2, 5, 5, CLASSES + background)).astype(np.float32)
    edges = rng.normal(size=(2, 5, 5, 4)).astype(np.float32)
    return {"fc8": jnp.asarray(scores), "box3": jnp.asarray(edges)}


def prepared(task: Any, given: dict[str, Any], key: jax.Array = KEY, **boxes: Any) -> Any:
    """What a task prepares of a batch."""
    prepare = functools.partial(task.prepare, network(task.BACKGROUND))
    return jax.jit(lambda given, key: prepare(given, settings(**boxes), key))(given, key)


def loss_of(task: Any, ends: Any, targets: Any, **boxes: Any) -> Any:
    return jax.jit(
        lambda ends, targets: task.loss(ends["fc8"].mean((1, 2)), ends, targets, settings(**boxes))
    )(ends, targets)


def fit(offset_y: int, offset_x: int) -> float:
    """IoU of squares of 34 pixels that are so far apart."""
    both = (34 - offset_y) * (34 - offset_x)
    return both / (2 * 34**2 - both)


OFFSETS = np.abs(4 * np.arange(5) - 8)
FITS = np.array([[fit(y, x) for x in OFFSETS] for y in OFFSETS])  # of each window of the object


# --- localization ---------------------------------------------------------------------------------


def test_the_loss_of_a_localizer_by_hand():
    """The mean over windows that see half of the object of the squared distance of four edges."""
    arguments, targets = prepared(localize, batch())
    assert arguments == {}
    learns = np.asarray(targets.learns).reshape(2, 5, 5)
    assert learns[0].all() and not learns[1].any()  # each sees 26 or more of its 34 rows
    ends = outputs(0, np.random.default_rng(1))
    value, means = loss_of(localize, ends, targets)
    expected = []
    for row in range(5):
        for column in range(5):
            corner = np.array([4 * row, 4 * column] * 2)
            wanted = (np.array([8, 15, 42, 35]) - corner) / 34
            expected.append(((ends["box3"][0, row, column] - wanted) ** 2).sum())
    assert float(value) == pytest.approx(np.mean(expected), rel=1e-5)
    assert 0 <= float(means["overlap"]) <= 1


@pytest.mark.parametrize(
    ("boxes", "learn"), [({"share": 0.94}, 5), ({"share": 1.0}, 3), ({"smallest": 1.1}, 0)]
)
def test_the_windows_that_a_localizer_learns_from(boxes, learn):
    """One row of windows sees the whole height, and all but the outer two the whole width."""
    _, targets = prepared(localize, batch(), **boxes)
    assert int(targets.learns.sum()) == learn


def test_without_an_object_the_loss_is_zero():
    empty = batch()
    empty["classes"][:] = NONE
    _, targets = prepared(localize, empty)
    ends = outputs(0, np.random.default_rng(1))
    assert float(loss_of(localize, ends, targets)[0]) == 0


# --- detection ------------------------------------------------------------------------------------


def labels(**options: Any) -> np.ndarray:
    given = batch(options.pop("difficult", False))
    _, targets = prepared(detect_dense, given, **options)
    return np.asarray(targets.label).reshape(2, 5, 5)


def test_labels_of_windows():
    found = labels(positive=0.7, negative=0.5)
    expected = np.where(FITS >= 0.7, 2, np.where(FITS < 0.5, CLASSES, NONE))
    assert {2, CLASSES, NONE} == {*expected.ravel().tolist()}
    np.testing.assert_array_equal(found[0], expected)
    assert (found[1] == CLASSES).all()


def test_windows_of_a_difficult_object_are_ignored():
    found = labels(positive=0.7, negative=0.5, difficult=True)
    np.testing.assert_array_equal(found[0], np.where(FITS < 0.5, CLASSES, NONE))


@pytest.mark.parametrize("choice", detect_dense.CHOICES)
def test_the_loss_of_a_detector_by_hand(choice):
    options = {"positive": 0.7, "negative": 0.5, "negatives": 2, "choice": choice}
    options |= {"regressed": 0.6, "box_weight": 3.0}
    _, targets = prepared(detect_dense, batch(), **options)
    ends = outputs(1, np.random.default_rng(1))
    value, means = loss_of(detect_dense, ends, targets, **options)

    label = labels(positive=0.7, negative=0.5).reshape(2, 25)
    scores = np.asarray(ends["fc8"]).reshape(2, 25, -1)
    losses = optax.softmax_cross_entropy_with_integer_labels(scores, label.clip(0))
    order = np.asarray(losses if choice == "hardest" else targets.noise)
    counted, wrong = [], []
    for image in range(2):
        positive = np.flatnonzero((label[image] != NONE) & (label[image] != CLASSES))
        negative = np.flatnonzero(label[image] == CLASSES)
        number = 2 * max(1, len(positive))  # for each positive, and at least so many
        chosen = negative[np.argsort(-order[image, negative])][:number]
        counted += [float(losses[image, p]) for p in (*positive, *chosen)]
        wrong += [scores[image, p].argmax() != label[image, p] for p in positive]
    edges = np.asarray(ends["box3"][0]).reshape(25, 4)
    corners = np.array([[4 * (p // 5), 4 * (p % 5)] * 2 for p in range(25)])
    distances = ((edges - (np.array([8, 15, 42, 35]) - corners) / 34) ** 2).sum(1)
    of_boxes = distances[FITS.ravel() >= 0.6].mean()
    assert float(value) == pytest.approx(np.mean(counted) + 3 * of_boxes, rel=1e-5)
    assert float(means["positive_error"]) == pytest.approx(np.mean(wrong))


def test_random_negatives_change_with_the_key():
    draws = [prepared(detect_dense, batch(), key=jax.random.key(i))[1] for i in (0, 0, 1)]
    np.testing.assert_array_equal(draws[0].noise, draws[1].noise)
    assert (np.asarray(draws[0].noise) != np.asarray(draws[2].noise)).all()


# --- both -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("task", "boxes", "message"),
    [
        (
            localize,
            {"shares": 0.5},
            r"config\.boxes\.shares .* did you mean 'share'\? there are: sh",
        ),
        (detect_dense, {"choice": "hard"}, r"config\.boxes\.choice='hard' is unknown; there are: "),
    ],
)
def test_bad_settings_are_refused(task, boxes, message):
    with pytest.raises(UserError, match=message):
        task.prepare(network(task.BACKGROUND), batch(), settings(**boxes), KEY)


@pytest.mark.parametrize("task", [localize, detect_dense])
def test_a_network_without_a_regressor_is_refused(task):
    with pytest.raises(UserError, match=r"config\.model\.boxes to 'shared' or 'per_class'"):
        task.prepare(network(task.BACKGROUND, boxes=None), batch(), settings(), KEY)


@pytest.mark.fault("not finite: a regressor of boxes that gives NaN", "the step is left out")
@pytest.mark.parametrize("task", [localize, detect_dense])
def test_the_gate_leaves_out_a_regressor_that_gives_nan(task):
    model = network(task.BACKGROUND)
    shapes = jax.eval_shape(model.init, KEY, jnp.zeros((1, SIZE, SIZE, 3)))["params"]
    optimizer = optim.make_optimizer(
        shapes,
        optim.OptimizerSettings(0.01, 2, frozen="(conv|fc).*" if task is localize else ""),
        batch_size=2,
        steps_per_epoch=10,
        total_steps=10,
    )
    init = functools.partial(
        init_state, model, optimizer, (SIZE, SIZE, 3), ema=False, totals=task.Totals
    )
    state = jax.jit(init)(KEY)
    step = jax.jit(make_train_step(model, optimizer, lambda image, key: image, settings(), task))
    good, _ = step(state, batch(), KEY)
    assert int(good.skipped) == 0 and int(good.totals.steps) == 1
    changed = jax.tree.map(
        lambda new, old: bool((np.asarray(new) != old).any()), good.params, state.params
    )
    moved = {name for name, layer in changed.items() if any(jax.tree.leaves(layer))}
    regressor = {"box1", "box2", "box3"}
    assert moved == (regressor if task is localize else set(changed))

    broken = dict(state.params)
    broken["box3"] = jax.tree.map(lambda leaf: leaf.at[...].set(jnp.nan), broken["box3"])
    left_out, _ = step(state._replace(params=broken), batch(), KEY)
    assert int(left_out.skipped) == 1 and int(left_out.totals.steps) == 0
    np.testing.assert_array_equal(left_out.params["box1"]["kernel"], state.params["box1"]["kernel"])


# --- runs -----------------------------------------------------------------------------------------


def shortened(config: Any, home: pathlib.Path) -> Any:
    """Two steps on 32 scenes, and an evaluation of 8 images at one scale."""
    config.batch_size, config.total_steps, config.log_every_steps = 8, 2, 1
    config.eval.batch_size = 8
    config.data.train_split, config.data.eval_split = "train[:32]", "test[:8]"
    config.data.data_dir, config.mesh.data = str(home / "tfds"), 1
    config.model.width = 0.02
    config.optim.warmup_epochs = 0.0
    if "boxes" in config:
        config.init_from = str(home / "classify")
        config.boxes.scales = (48,)
        config.eval.protocol = "merge(scales=(44, 48), least=0.0, most=20)|single(scales=(44,))"
    return config


@pytest.fixture(scope="module")
def home(tmp_path_factory, scenes_folder) -> pathlib.Path:
    """A folder with a run that classifies cut-out objects."""
    home = tmp_path_factory.mktemp("overfeat")
    shutil.copytree(scenes_folder, home / "tfds")
    config = shortened(recipes.get_config("scenes_classify"), home)
    assert train.train_and_evaluate(config, home / "classify") == train.DONE
    return home


@pytest.mark.parametrize(
    ("recipe", "task"), [("scenes_localize", localize), ("scenes_detect", detect_dense)]
)
def test_a_run_from_training_to_its_final_test(home, recipe, task, capsys):
    config, folder = shortened(recipes.get_config(recipe), home), home / recipe
    assert train.train_and_evaluate(config, folder) == train.DONE
    fresh = "box1, box2, box3" + (", fc8" if task is detect_dense else "")
    assert f"fresh: {fresh}" in capsys.readouterr().out
    rows = read_rows(folder / METRICS)
    names = [measure.name for measure in task.MEASURES]
    (evaluated,) = evaluations(rows, task.HEADLINE)
    assert {*evaluated} == {"step", "val/loss", *(f"val/{name}" for name in names)}
    tests = [row for row in rows if "test/protocol" in row]
    assert [row["test/images"] for row in tests] == [8, 8]
    kept = detections.load(folder / detections.FILE)
    assert [one.protocol for one in kept] == config.eval.protocol.split("|")
    assert all(len(one.detections) == 8 for one in kept)
    assert any(len(found.classes) for found in kept[0].detections)

    before = kept[0].detections
    evaluate.evaluate_runs([folder], config, {})
    again = detections.load(folder / detections.FILE)[0].detections
    jax.tree.map(np.testing.assert_array_equal, before, again)


def test_a_scale_that_is_too_small_is_refused_before_the_first_step(home):
    config = shortened(recipes.get_config("scenes_localize"), home)
    config.eval.protocol = "merge(scales=(64, 20))"
    with pytest.raises(UserError, match=r"merge\(scales=\(64, 20\)\) looks at images of 20×20: an"):
        train.train_and_evaluate(config, home / "refused")
    assert not (home / "refused" / "run.json").exists()
