"""The task of several labels: a run on images of colours, its evaluations and its final tests."""

import json
import pathlib
import re
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.commands import exit_code
from support.voc_folders import HEIGHT, WIDTH, annotation, write_voc

from cnn_papers import evaluate, predict, train
from cnn_papers.errors import UserError
from cnn_papers.evaluation import average_precision
from cnn_papers.evaluation.results import Outcome
from cnn_papers.runs import inputs, ranges, splits, workdir
from cnn_papers.runs.rows import METRICS, read_rows
from cnn_papers.tasks import multilabel
from cnn_papers.training.step import StepSettings
from cnn_papers.weights import features, predictor, trained
from configs import cnn_fms, lenet

COLOURS = ("blue", "green", "red")  # in the order of OpenCV's channels
STEPS = 12


def write_colours(folder: pathlib.Path) -> str:
    """Writes 40 images that show some of three colours, noise else; blue is difficult in the first.

    The test has no image with red and green and without blue.
    """
    rng = np.random.default_rng(0)
    shown = {f"i{k:02}": [c for c in range(3) if k >> c & 1] for k in range(40)}
    whole = (1, 1, HEIGHT, WIDTH)
    objects = {name: [(COLOURS[c], whole) for c in colours] for name, colours in shown.items()}
    names = [*objects]
    write_voc(folder, objects, train=names[:24], test=names[24:])
    for name, colours in shown.items():
        pixels = rng.integers(0, 120, (HEIGHT, WIDTH, 3))
        pixels[..., colours] += 100
        cv2.imwrite(str(folder / "JPEGImages" / f"{name}.jpg"), pixels.astype(np.uint8))
    for name in ("i01", "i25"):
        text = annotation(objects[name], difficult="1")
        (folder / "Annotations" / f"{name}.xml").write_text(text)
    return f"voc_folder:{folder}"


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return write_colours(tmp_path_factory.mktemp("colours"))


def configured(data: str, **changes: Any) -> Any:
    config = lenet.get_config()
    config.task, config.data.name = "multilabel", data
    config.model.num_classes, config.model.width = 3, 0.5
    config.data.train_host = config.data.eval_host = "decode|resize(32)"
    config.data.train_device = config.data.eval_device = "scale(0.01)"
    config.batch_size = config.optim.lr_batch = 8
    config.total_steps, config.log_every_steps, config.mesh.data = STEPS, 3, 1
    config.eval.every_epochs = 2.0
    config.update_from_flattened_dict(changes)
    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory, data) -> pathlib.Path:
    folder = tmp_path_factory.mktemp("multilabel") / "run"
    assert train.train_and_evaluate(configured(data), folder) == train.DONE
    return folder


def final_test(run: pathlib.Path, protocol: str, **overrides: Any) -> list[Any]:
    config = workdir.read_run(run).config
    return evaluate.evaluate_runs([run], config, {"eval.protocol": protocol, **overrides})


# --- training and evaluation ----------------------------------------------------------------------


def test_a_run_has_rows_of_its_own_values_and_learns(run):
    rows = read_rows(run / METRICS)
    training = [row for row in rows if "train/loss" in row]
    names = ["loss", "without_terms", "grad_norm", "lr", "skipped_steps"]
    assert [*training[0]] == ["step", *(f"train/{name}" for name in names)]
    assert {row["train/without_terms"] for row in training} == {0.0}
    assert training[-1]["train/loss"] < training[0]["train/loss"]
    evaluated = [row for row in rows if "val/map" in row]
    assert [row["step"] for row in evaluated] == [6, 12]
    assert {*evaluated[0]} == {"step", "val/loss", "val/map", "val/map_area"}


@pytest.mark.parametrize("ranking", [False, True])
def test_an_evaluation_is_of_all_scores_and_of_no_image_that_fills_up(ranking):
    rng = np.random.default_rng(0)
    scores = rng.normal(size=(7, 3)).astype(np.float32)
    labels = rng.integers(-1, 2, (7, 3)).astype(np.int8)
    labels[:2] = [[1, 1, -1], [-1, -1, 1]]
    rows = [[0, 1, 2, 3], [4, 5, 6, 6]]
    batches = [
        {
            "image": jnp.asarray(scores[part]),
            "labels": jnp.asarray(labels[part]),
            "mask": jnp.asarray([True, True, True, k == 0]),
        }
        for k, part in enumerate(rows)
    ]
    settings = StepSettings(ranking=ranking)

    class Model:
        def apply(self, variables, image):
            return variables * image, {}

    step = multilabel.make_eval_step(Model(), lambda image, key: image, settings)
    values = multilabel.evaluate(jax.jit(step), 2.0, batches, 7)
    curves = [average_precision.of_labels(2 * scores[:, c], labels[:, c]) for c in range(3)]
    assert values["map"] == pytest.approx(100 * np.mean([c.by_11_points for c in curves]))
    assert values["map_area"] == pytest.approx(100 * np.mean([c.area for c in curves]))
    expected = 0.0
    for c in range(3):
        hinges = [
            max(0.0, 1 - 2 * (scores[i, c] - scores[j, c])) if ranking else None
            for part in ([0, 1, 2, 3], [4, 5, 6])
            for i in part
            for j in part
            if labels[i, c] == 1 and labels[j, c] == -1
        ]
        if not ranking:
            pairs = zip(labels[:, c], scores[:, c], strict=True)
            hinges = [max(0.0, 1 - 2 * label * score) for label, score in pairs if label]
        expected += np.mean(hinges)
    assert values["loss"] == pytest.approx(expected, rel=1e-5)
    assert multilabel.evaluate(jax.jit(step), 2.0, batches, 7, give_up=lambda: 1) is None


def test_a_class_with_a_score_that_is_not_a_number_has_no_precision():
    labels = np.array([[1, 1, 0], [-1, 1, -1], [1, -1, -1]], np.int8)
    scores = np.array([[3, np.nan, 1], [1, 2, 2], [2, 1, 3]], np.float32)
    first, second, absent = average_precision.of_classes(scores, labels)
    assert (first.by_11_points, second.by_11_points, absent) == (1.0, 0.0, None)


# --- the final test -------------------------------------------------------------------------------


def test_a_final_test_of_single_views_is_the_evaluation(run, capsys):
    rows = read_rows(run / METRICS)
    best = max((row for row in rows if "val/map" in row), key=lambda row: row["val/map"])
    (result,) = final_test(run, "single_view")
    assert result.values == pytest.approx({n: best[f"val/{n}"] for n in ("map", "map_area")})
    kept = read_rows(run / METRICS)[-1]
    assert (kept["test/map"], kept["test/classes"]) == (result.values["map"], 3)
    out = capsys.readouterr().out
    assert "1 label is of difficult objects only, neither positive nor negative" in out
    header = next(line for line in out.splitlines() if line.startswith("AP by class"))
    assert header.split() == ["AP", "by", "class", "images", "single_view"]


def test_views_are_averaged_as_scores_not_as_probabilities(run):
    """A mean over views may be below zero."""
    (result,) = final_test(run, "ten_crop(32, 36)")
    protocols = multilabel.parse_protocols("ten_crop(32, 36)|vgg_dense|spp_multi_view|svm()")
    outputs = jnp.array([[-3.0, 1.0, 2.0]])

    class Model:
        def apply(self, variables, image, **_):
            return outputs, {}

    (part,) = protocols["ten_crop(32, 36)"]
    assert part.score(Model(), {}, None)[0].tolist() == outputs.tolist()
    assert 0 < result.values["map"] <= 100


def outcome(scores: Any, labels: Any) -> Outcome:
    return Outcome(np.array(scores, np.float32), np.array(labels, np.int8), 1, 1.0, 0.0, 0)


def test_a_result_leaves_out_classes_without_images_and_those_that_were_not_fitted():
    labels = [[1, -1, 1, 0], [-1, -1, -1, 0], [1, -1, -1, 1]]
    scores = [[1, 0, -np.inf, 0], [3, 0, -np.inf, 0], [2, 0, -np.inf, 0]]
    names = ("ant", "bee", "cat", "dog")
    result = multilabel.result_of("run", "svm()", [outcome(scores, labels)], names)
    assert result.by_class.names == ("ant", "dog") and result.by_class.absent == ("bee", "cat")
    # Of ant the second and the third rank are hits: 1/2, 2/3.
    assert result.by_class.values == pytest.approx((100 * 2 / 3, 100))
    assert result.values["map"] == result.by_class.mean
    assert result.notes == (
        "2 labels are of difficult objects only, neither positive nor negative",
        "no SVM could be fitted to cat: left out of the mean",
    )


def test_several_networks_are_averaged_by_their_scores():
    labels = [[1], [-1]]
    first, second = outcome([[5.0], [0.0]], labels), outcome([[-1.0], [3.0]], labels)
    result = multilabel.result_of("mean of 2", "single_view", [first, second], ("ant",))
    assert result.values["map"] == 100
    other = outcome([[0.0], [0.0]], [[-1], [1]])
    with pytest.raises(UserError, match="evaluated on different data"):
        multilabel.result_of("mean of 2", "single_view", [first, other], ("ant",))
    both = outcome([[1, 2]], [[-1, 1]])
    turned = multilabel.reordered(both, np.array([1, 0]))
    assert turned.scores.tolist() == [[2, 1]] and turned.labels.tolist() == [[1, -1]]


def test_a_test_without_any_positive_image_is_refused():
    with pytest.raises(UserError, match=r"^single_view: no image of the test shows a class"):
        multilabel.result_of("run", "single_view", [outcome([[1.0]], [[-1]])], ("ant",))
    of_unfitted = [outcome([[-np.inf, 1.0]], [[1, -1]])]
    with pytest.raises(UserError, match="shows a class but ant, which no SVM could be fitted to"):
        multilabel.result_of("run", "svm()", of_unfitted, ("ant", "bee"))


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"task": "classify", "loss.ranking": True},
            r"config\.loss\.ranking ranks images .*: set it to False, or take config\.task=multil",
        ),
        (
            {"eval.analyses": "weight_norm"},
            r"is for images with one label, and config\.task=multilabel learns from labels",
        ),
        (
            {"optim.warmup_until_error": (80.0, 0.1)},
            r"which the task 'multilabel' does not have",
        ),
    ],
)
def test_settings_that_do_not_fit_the_task_are_refused(changes, message, data):
    with pytest.raises(UserError, match=message):
        ranges.check_ranges(configured(data, **changes))


def test_an_object_that_is_cut_out_has_no_labels_of_its_image(data):
    config = configured(data)
    config.data.train_host = "decode|random_object(0.1)|resize(32)"
    train_split, held_out = splits.open_splits(config)
    with pytest.raises(UserError, match=re.escape("'random_object' in config.data.train_host")):
        inputs.open_data(config, train_split, held_out, None)


def test_a_run_by_ranking_whose_balanced_weights_count_the_images_of_each_class(
    data, tmp_path, capsys
):
    changes = {"loss.ranking": True, "loss.class_weights": ("balanced",), "total_steps": 3}
    assert train.train_and_evaluate(configured(data, **changes), tmp_path / "run") == train.DONE
    # blue, which is difficult in one, green, red: 11, 12 and 12 of 24 training images
    assert "class weights  blue 1.06, green 0.972, red 0.972" in capsys.readouterr().out
    (row,) = [row for row in read_rows(tmp_path / "run" / METRICS) if "train/loss" in row]
    assert 0 < row["train/loss"] < 10 and row["train/without_terms"] == 0


def test_fine_tuning_recipes_start_with_a_fresh_head_and_low_rates_below():
    config, ranking = cnn_fms.get_config("voc2007"), cnn_fms.get_config("voc2007_rnk")
    assert (config.task, config.loss.ranking, ranking.loss.ranking) == ("multilabel", False, True)
    assert config.init_from == "runs/cnn_fms-imagenet2012"
    rates = dict(config.optim.lr_mults)
    assert rates["fc8/kernel"] == 10 and config.optim.lr < cnn_fms.imagenet2012().optim.lr / 10
    assert cnn_fms.get_config("caltech101").task == "classify"


def test_a_run_on_real_images(test_data, tmp_path):
    """100 images of VOC, all 20 classes; the numbers say nothing about a network."""
    changes = {"model.num_classes": 20, "total_steps": 4, "eval.protocol": "single_view|svm('F6')"}
    config = configured(f"voc_folder:{test_data}/voc/VOCdevkit/VOC2007", **changes)
    config.data.train_split = "trainval"
    assert train.train_and_evaluate(config, tmp_path / "run") == train.DONE
    single, svm = read_rows(tmp_path / "run" / METRICS)[-2:]
    assert (single["test/protocol"], svm["test/protocol"]) == ("single_view", "svm('F6')")
    assert single["test/images"] == svm["test/images"] == 30
    assert single["test/classes"] == 19 and 0 < svm["test/map"] < 100


# --- predictions ----------------------------------------------------------------------------------


def test_features_of_a_split_have_its_labels(run, tmp_path):
    features.of_split(trained.from_run(run), "F6", "test", tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz") as file:
        assert {*file} == {"features", "labels", "class_names"}
        assert len(file["features"]) == len(file["labels"]) == 16
        # The first image is i24, which shows none; i25 shows a difficult blue; i26 green.
        assert file["labels"][:3].tolist() == [[-1, -1, -1], [0, -1, -1], [-1, 1, -1]]


def test_predictions_are_scores(run, data, capsys):
    folder = pathlib.Path(data.removeprefix("voc_folder:")) / "JPEGImages"
    network = trained.from_run(run)
    tested = predictor.make_predictor(network)
    image = tested.prepare((folder / "i07.jpg").read_bytes())[None].repeat(network.mesh.size, 0)
    seen = network.normalise(image, jax.random.key(0))
    expected = jax.jit(network.model.apply)(network.variables, seen)
    np.testing.assert_allclose(tested.outputs(image), expected[0], rtol=1e-4, atol=1e-4)
    assert tested.has_scores
    arguments = [f"--workdir={run}", "--json", "--top=1", str(folder / "i07.jpg")]
    assert exit_code(predict.cli, *arguments) in (0, None)
    (row,) = json.loads(capsys.readouterr().out)["classes"]
    best = int(np.argmax(expected[0][0]))
    assert (row["class"], row["score"]) == (
        COLOURS[best],
        pytest.approx(float(expected[0][0, best]), rel=1e-4),
    )
