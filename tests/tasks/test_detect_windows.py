"""The task of windows: which are drawn, their loss, other sizes, and evaluation."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from support.random_variables import random_variables
from support.voc_folders import HEIGHT, WIDTH, write_voc

from cnn_papers import boxes, evaluate, train
from cnn_papers.boxes import NONE
from cnn_papers.data.split import Objects
from cnn_papers.detection import detections
from cnn_papers.errors import UserError
from cnn_papers.models import spp
from cnn_papers.runs import workdir
from cnn_papers.runs.rows import METRICS, evaluations, read_rows
from cnn_papers.tasks import detect_windows
from cnn_papers.tasks.detect_windows import Settings
from cnn_papers.training import freezing
from cnn_papers.training.step import StepSettings
from configs import sppnet as recipes

CLASSES = 4


def random_boxes(rng, count, side=64):
    corners = rng.uniform(0, side, (count, 2, 2))
    return np.concatenate([corners.min(1), corners.max(1)], -1).astype(np.float32)


def near(rng, box, count, spread):
    """Boxes whose edges are those of `box`, moved a little."""
    return (box + rng.normal(0, spread, (count, 4))).astype(np.float32)


def made_batch(images=4, proposals=60, objects=3, seed=0):
    """Images with objects, the second one with none, the third with difficult ones only."""
    rng = np.random.default_rng(seed)
    true = np.stack([random_boxes(rng, objects) for _ in range(images)])
    true[..., 2:] += 8
    classes = rng.integers(0, CLASSES, (images, objects)).astype(np.int32)
    difficult = np.zeros((images, objects), bool)
    true[1], classes[1] = 0, NONE
    difficult[2] = True
    found = []
    for image in true:
        close = [near(rng, box, 5, spread) for box in image for spread in (1, 4)]
        found.append(np.concatenate([*close, random_boxes(rng, proposals)])[:proposals])
    found = np.stack(found)
    found[:, -5:] = 0  # rows that fill up
    found[..., 2:] = np.maximum(found[..., 2:], found[..., :2])
    return {
        "image": jnp.asarray(rng.normal(size=(images, 64, 64, 3)), jnp.float32),
        "boxes": jnp.asarray(true),
        "classes": jnp.asarray(classes),
        "difficult": jnp.asarray(difficult),
        "proposals": jnp.asarray(found),
    }


def kinds(batch, image, settings):
    """What each candidate of an image is by §4.1, one after the other: a class, NONE, or None."""
    true, classes, difficult = (np.asarray(batch[name][image]) for name in BOXED)
    candidates = [*np.asarray(batch["proposals"][image]), *true]
    rows = [i for i, label in enumerate(classes) if label != NONE]
    low, high = settings.background_iou
    found = []
    for window in candidates:
        overlaps = [float(boxes.iou(window, true[i])) for i in rows]
        best = max(overlaps, default=0.0)
        owner = rows[int(np.argmax(overlaps))] if rows else None
        if float(boxes.area(window)) == 0:
            found.append(None)
        elif best >= settings.positive_iou:
            found.append(None if difficult[owner] else int(classes[owner]))
        elif best < high and (best >= low or not rows):
            found.append(NONE)
        else:
            found.append(None)
    return found


BOXED = ("boxes", "classes", "difficult")
DRAWS = [
    Settings(windows=32),
    Settings(windows=128),
    Settings(windows=32, background_iou=(0.0, 0.5)),
    Settings(windows=64, positive_share=0.5, positive_iou=0.6, background_iou=(0.2, 0.4)),
    Settings(windows=8, positive_share=0.0),
    Settings(windows=400),
]


def drawn_of(batch, settings, seeds):
    """The draws with the keys of `seeds`, an axis before all others."""
    return drawn_with(batch, settings, jnp.stack([jax.random.key(seed) for seed in seeds]))


def drawn_with(batch, settings, keys):
    candidates = jnp.concatenate([batch["proposals"], batch["boxes"]], 1)
    draw = jax.jit(jax.vmap(lambda key: detect_windows.draw(candidates, batch, settings, key)))
    return detect_windows.Drawn(*map(np.asarray, draw(keys)))


@pytest.mark.parametrize("settings", DRAWS, ids=str)
def test_windows_are_drawn_by_their_overlap(settings):
    batch = made_batch()
    count = settings.windows // 4
    most = round(count * settings.positive_share)
    drawn = drawn_of(batch, settings, range(3))
    assert drawn.rows.shape == drawn.classes.shape == drawn.counted.shape == (3, 4, count)
    for image in range(4):
        kind = kinds(batch, image, settings)
        positives = sum(k is not None and k != NONE for k in kind)
        background = kind.count(NONE)
        for draw in range(3):
            counted = drawn.counted[draw, image]
            rows, classes = drawn.rows[draw, image][counted], drawn.classes[draw, image][counted]
            assert len(set(rows.tolist())) == len(rows), "none is drawn twice"
            assert [kind[row] for row in rows] == classes.tolist()
            assert (classes != NONE).sum() == min(most, positives)
            assert (classes == NONE).sum() == min(count - min(most, positives), background)


def test_a_draw_depends_on_its_key_only():
    batch, settings = made_batch(), Settings(windows=32)
    drawn = drawn_of(batch, settings, (0, 0, 1))
    assert all(np.array_equal(values[0], values[1]) for values in drawn)
    assert not np.array_equal(drawn.rows[0], drawn.rows[2])


def test_every_window_of_a_kind_is_as_likely():
    settings, draws = Settings(windows=32, background_iou=(0.0, 0.5)), 300
    batch = made_batch()
    kind = kinds(batch, 0, settings)
    drawn = drawn_of(batch, settings, range(draws))
    taken = np.bincount(drawn.rows[:, 0][drawn.counted[:, 0]], minlength=len(kind))
    positives = [i for i, k in enumerate(kind) if k not in (None, NONE)]
    background = [i for i, k in enumerate(kind) if k == NONE]
    assert len(positives) > 2 and len(background) > 6
    for rows, count in ((positives, 2), (background, 6)):
        share = count / len(rows)
        spread = np.sqrt(draws * share * (1 - share))
        assert np.abs(taken[rows] - draws * share).max() < 4.5 * spread


def targets_of(batch, **settings):
    settings = StepSettings(boxes=tuple(settings.items()))

    def prepare(batch, key):
        return detect_windows.prepare(None, batch, settings, key)

    return jax.jit(prepare)(batch, jax.random.key(0))


def test_the_loss_is_the_mean_over_drawn_windows():
    batch = made_batch()
    arguments, targets = targets_of(batch, windows=128)
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(4, 32, CLASSES + 1)).astype(np.float32)
    value, means = detect_windows.loss(jnp.asarray(logits), {}, targets, StepSettings())
    losses, wrong = [], []
    drawn = drawn_of_prepare(batch, 128)
    assert 0 < drawn.counted.mean() < 1
    for image, i in np.argwhere(drawn.counted):
        scores = logits[image, i].astype(np.float64)
        label = drawn.classes[image, i]
        label = CLASSES if label == NONE else label
        losses.append(np.log(np.exp(scores).sum()) - scores[label])
        wrong.append(scores.argmax() != label)
    assert float(value) == pytest.approx(np.mean(losses), rel=1e-5)
    assert float(detect_windows.scalars(means)["window_error"]) == pytest.approx(
        100 * np.mean(wrong), rel=1e-5
    )
    assert list(arguments) == ["windows"]


def drawn_of_prepare(batch, windows):
    """The draw of `prepare` with key 0, which splits it into that of the draw and of sizes."""
    key = jax.random.split(jax.random.key(0))[0]
    drawn = drawn_with(batch, Settings(windows=windows), key[None])
    return jax.tree.map(lambda values: values[0], drawn)


def test_logits_that_are_not_finite_are_wrong():
    _, targets = targets_of(made_batch(), windows=16)
    logits = jnp.full((4, 4, CLASSES + 1), jnp.nan)
    _, means = detect_windows.loss(logits, {}, targets, StepSettings())
    assert float(means["window_error"]) == 1


def test_each_window_is_of_one_size_at_random():
    batch = made_batch()
    plain = targets_of(batch, windows=128)[0]["windows"]
    arguments, _ = targets_of(batch, windows=128, other_sizes=(96, 48))
    size_of, windows = np.asarray(arguments["size_of"]), np.asarray(arguments["windows"])
    assert [image.shape for image in arguments["other_sizes"]] == [(4, 96, 96, 3), (4, 48, 48, 3)]
    assert {*size_of.flat} == {0, 1, 2}
    factors = np.array([1, 1.5, 0.75])[size_of][..., None]
    np.testing.assert_allclose(windows, plain * factors, rtol=1e-6)
    for image in arguments["other_sizes"]:
        expected = jax.image.resize(batch["image"], image.shape, "linear")
        np.testing.assert_array_equal(image, expected)


def test_the_network_takes_each_window_from_its_size():
    batch = made_batch()
    arguments, _ = targets_of(batch, windows=16, other_sizes=(96,))
    model = network()
    variables, apply = random_variables(model, (64, 64, 3)), jax.jit(model.apply)
    together, _ = apply(variables, batch["image"], **arguments)
    images = (batch["image"], *arguments["other_sizes"])
    each = [apply(variables, image, windows=arguments["windows"])[0] for image in images]
    assert float(jnp.abs(each[0] - each[1]).max()) > 1e-3
    expected = jnp.where((arguments["size_of"] == 1)[..., None], each[1], each[0])
    np.testing.assert_allclose(together, expected, rtol=1e-5, atol=1e-6)


def network():
    fields = {"width": 0.02, "levels": (2, 1), "weight_init": "he", "conv1_stride": 1}
    return spp.Model("zf5", num_classes=CLASSES + 1, lrn=False, dropout=0.0, **fields)


def test_frozen_convolutions_take_no_backward_pass():
    """The program of the gradient then has as many convolutions as a forward pass."""
    batch, model = made_batch(), network()
    variables = random_variables(model, (64, 64, 3))
    arguments, targets = targets_of(batch, windows=16)

    def convolutions(frozen):
        layers = freezing.frozen_layers(variables["params"], frozen)
        trained, kept = freezing.split(variables["params"], layers)

        def loss(trained):
            params = {"params": freezing.join(trained, kept)}
            logits, ends = model.apply(params, batch["image"], **arguments)
            return detect_windows.loss(logits, ends, targets, StepSettings())[0]

        return str(jax.make_jaxpr(jax.grad(loss))(trained)).count("conv_general_dilated")

    assert convolutions("conv.*") == 5 < convolutions("conv1")


# --- evaluation -----------------------------------------------------------------------------------


def test_an_evaluation_is_the_softmax_of_proposals():
    """Boxes of a class are kept best first; loss and precision are those by hand."""
    batch = made_batch()
    batch["mask"] = jnp.array([True, True, True, False])
    model, settings = network(), StepSettings(boxes=(("windows", 64),))
    variables = random_variables(model, (64, 64, 3))
    step = detect_windows.make_eval_step(model, lambda image, key: image, settings)
    values = detect_windows.evaluate(jax.jit(step), variables, [batch], 3)
    candidates = jnp.concatenate([batch["proposals"], batch["boxes"]], 1)
    logits, _ = jax.jit(model.apply)(variables, batch["image"], windows=candidates)
    scores = np.asarray(jax.nn.softmax(logits), np.float64)
    found, objects = [], []
    for i in range(3):
        real = np.asarray(boxes.area(batch["proposals"][i])) > 0
        windows, of_classes = np.asarray(batch["proposals"][i])[real], scores[i, :60][real]
        rows = []
        for label in range(CLASSES):
            kept = boxes.nms(windows, of_classes[:, label], 0.3)
            rows += [(of_classes[k, label], label, windows[k]) for k in kept]
        rows.sort(key=lambda row: -row[0])
        scores_of, labels, kept_boxes = (np.array(part) for part in zip(*rows, strict=True))
        found.append(detections.Detections(kept_boxes, labels, scores_of))
        true = np.asarray(batch["classes"][i]) != NONE
        objects.append(Objects(*(np.asarray(batch[n][i])[true] for n in BOXED), size=(64, 64)))
    curves = detections.curves(found, objects, CLASSES)
    expected = detections.mean_average_precisions(curves)
    assert expected["map"] > 1
    assert {name: values[name] for name in expected} == pytest.approx(expected)
    drawn = drawn_of(batch, Settings(windows=64), [0])
    losses = [
        -np.log(scores[i, drawn.rows[0, i, j], drawn.classes[0, i, j]])
        for i, j in np.argwhere(drawn.counted[0])
        if i < 3  # NONE, -1, is the last output
    ]
    assert values["loss"] == pytest.approx(np.mean(losses), rel=1e-4)


def test_an_evaluation_can_be_left():
    assert detect_windows.evaluate(lambda *_: {}, {}, [{}], 1, lambda: 1) is None


def test_guessing_finds_nothing():
    guess = detect_windows.guessing(5)
    assert guess == {"loss": pytest.approx(np.log(5)), "map": 0.0, "map_area": 0.0}


# --- a run ----------------------------------------------------------------------------------------


def test_a_run_from_training_to_its_final_test(tmp_path, capsys):
    """On a folder of photographs, one of which has no objects; tested twice it finds the same."""
    names = [f"photo{i}" for i in range(12)]
    objects = {
        name: [
            (("cat", "dog")[(i + k) % 2], (4, 5 + 25 * k, 34, 25 + 25 * k)) for k in range(i % 3)
        ]
        for i, name in enumerate(names)
    }
    config = recipes.get_config("own")
    config.data.name = write_voc(tmp_path / "voc", objects, trainval=names[:8], test=names[8:])
    config.data.proposals = "selective_search(max_proposals=20)"
    config.data.train_host = config.data.eval_host = "decode|fit(48, 64)"
    config.model.num_classes, config.model.width, config.mesh.data = 3, 0.02, 1
    config.boxes.windows, config.boxes.other_sizes = 16, (80,)
    config.batch_size, config.total_steps, config.log_every_steps = 4, 2, 1
    config.eval.protocol = "softmax(scales=(48, 64), side=24)"
    folder = tmp_path / "run"
    assert train.train_and_evaluate(config, folder) == train.DONE
    assert "step 2/2  epoch 1.0  loss" in capsys.readouterr().out
    rows = read_rows(folder / METRICS)
    assert {"train/loss", "train/window_error"} <= {*rows[0]}
    (evaluated,) = evaluations(rows, detect_windows.HEADLINE)
    assert {*evaluated} == {"step", "val/loss", "val/map", "val/map_area"}
    (tested,) = [row for row in rows if "test/protocol" in row]
    assert tested["test/images"] == 4 and 0 <= tested["test/map"] <= 100
    (kept,) = detections.load(folder / detections.FILE)
    assert len(kept.detections) == 4 and any(len(found.classes) for found in kept.detections)
    for found in kept.detections:  # in pixels of the original
        assert (found.boxes[:, 2:] <= [HEIGHT, WIDTH]).all()
        assert found.boxes[:, 3].max(initial=WIDTH) > 50
    evaluate.evaluate_runs([folder], workdir.read_run(folder).config, {})
    (again,) = detections.load(folder / detections.FILE)
    jax.tree.map(np.testing.assert_array_equal, kept.detections, again.detections)


# --- bad input ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"windows": 30}, r"config\.boxes\.windows=30 must be a multiple of the batch of 4"),
        ({"windows": 0}, r"config\.boxes\.windows=0 must be a multiple of the batch of 4"),
        ({"window": 16}, r"config\.boxes\.window is no setting.*did you mean 'windows'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(change, message):
    with pytest.raises(UserError, match=message):
        targets_of(made_batch(), **change)


def test_data_without_proposals_are_refused():
    batch = made_batch()
    del batch["proposals"]
    with pytest.raises(UserError, match=r"config\.data\.proposals.*is empty"):
        targets_of(batch)


def test_weights_of_classes_are_refused():
    settings = StepSettings(class_weights=(1.0,) * 5)
    with pytest.raises(UserError, match=r"config\.loss\.class_weights"):
        detect_windows.prepare(None, made_batch(), settings, jax.random.key(0))


def test_protocols_need_a_network_with_a_pyramid():
    batch = made_batch()
    for model, refused in ((network(), None), (spp.Model("zf5-no-spp"), "spatial pyramid")):
        check = types.SimpleNamespace(model=model)
        arguments = ("softmax", check.model, {}, None, batch["image"].shape[1:])
        if refused is None:
            assert [*detect_windows.protocols(*arguments)] == ["softmax"]
            with pytest.raises(UserError, match="no batch normalisation"):
                detect_windows.protocols(*arguments, precise_bn=3)
            continue
        with pytest.raises(UserError, match=refused):
            detect_windows.protocols(*arguments)
