"""SVMs on the outputs of a layer as a protocol: scikit-learn's on the same features, kept once."""

import pathlib
from typing import Any

import cv2
import jax
import numpy as np
import pytest
from sklearn.svm import LinearSVC
from support.image_folders import write_images
from support.voc_folders import write_voc

from cnn_papers import evaluate, zoo
from cnn_papers.data import augment
from cnn_papers.errors import UserError
from cnn_papers.evaluation import kept_fits, layer_svms, scores, svm
from cnn_papers.parallel import mesh as meshes
from cnn_papers.tasks import classify, multilabel
from cnn_papers.weights.trained import Trained
from configs import lenet

SIDE = 28
CAT, DOG, OWL = (("cat", (2, 3, 20, 30)), ("dog", (1, 1, 40, 60)), ("owl", (5, 5, 9, 9)))
KINDS = [[CAT], [DOG], [CAT, DOG], []]


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    """24 images to train on, 6 to test; no image shows an owl, but one of the test."""
    images = {f"i{k:02}": KINDS[k % 4] for k in range(29)} | {"owl": [OWL], "last": [OWL]}
    names = [*images]
    folder = tmp_path_factory.mktemp("pets")
    return write_voc(folder, images, train=[*names[:23], "last"], test=names[23:30])


@pytest.fixture(scope="module")
def variables():
    model = zoo.build_model("lenet", variant="relu", num_classes=3, width=0.5)
    return jax.jit(model.init)(jax.random.key(0), np.zeros((1, SIDE, SIDE, 3), np.float32))


def network(data: str, variables: Any, task: str = "multilabel", **changes: Any) -> Trained:
    config = lenet.get_config()
    config.task, config.data.name, config.data.train_split = task, data, "train"
    config.model.num_classes, config.model.width = 3, 0.5
    config.data.eval_host = f"decode|resize({SIDE})"
    config.data.eval_device, config.eval.protocol = "scale(0.01)", "svm('F6')"
    config.batch_size, config.eval.mirror = 8, True
    config.update_from_flattened_dict(changes)
    ops = augment.parse_device(config.data.eval_device, key="data.eval_device")
    model = zoo.build_model(config.model_name, **config.model)
    normalise = augment.compose(ops, None, train=False)
    shape = (SIDE, SIDE, 3)
    mesh = meshes.make_mesh(1)
    return Trained("lenet", config, model, variables, mesh, normalise, shape, (), trained_on=data)


def opened(tested: Trained, folder: pathlib.Path | None = None) -> Any:
    return evaluate._open_member(tested, tested.mesh, folder)


def scores_of(member: Any) -> dict[str, np.ndarray]:
    return {
        name: layer_svms.test(protocol, member, name=name).scores
        for name, protocol in member.protocols.items()
    }


def features(tested: Trained, split: Any, layer: str, views: Any) -> np.ndarray:
    """Outputs of a layer of each view of each image, [images, views, d]."""
    rows, apply = [], jax.jit(tested.model.apply)
    for example in split.examples[:]:
        image = cv2.imdecode(np.frombuffer(example["image"], np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        stack = 0.01 * np.stack(views(image)).astype(np.float32)
        outputs = apply(tested.variables, stack)[1][layer]
        rows.append(np.asarray(outputs).reshape(len(stack), -1))
    return np.stack(rows)


def resized(image: np.ndarray) -> list[np.ndarray]:
    from cnn_papers.data.host_ops import resize

    return [resize(image, SIDE)]


def with_mirror(image: np.ndarray) -> list[np.ndarray]:
    (view,) = resized(image)
    return [view, view[:, ::-1]]


def reference(rows: np.ndarray, labels: np.ndarray, test: np.ndarray, C: float) -> np.ndarray:
    """The scores of scikit-learn's SVMs, one a class."""
    fits = [
        LinearSVC(C=C, loss="hinge", tol=layer_svms.TOLERANCE, random_state=0).fit(
            rows.astype(np.float64), labels[:, c]
        )
        for c in range(labels.shape[1])
    ]
    return np.stack([each.decision_function(test) for each in fits], 1)


def unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def pooled(rows: np.ndarray, views: str) -> np.ndarray:
    if views == "separate":
        return rows.reshape(-1, rows.shape[-1])
    return rows.mean(1) if views == "mean" else rows.reshape(len(rows), -1)


@pytest.mark.parametrize(
    ("protocol", "views", "train", "test", "normalise", "C"),
    [
        ("svm('F6')", resized, "mean", "mean", True, 1.0),
        ("svm('F6', 0.0001, False)", resized, "mean", "mean", False, 0.0001),
        ("svm('F6', mirror=True, train='separate')", with_mirror, "separate", "mean", True, 1.0),
        (
            "svm('F6', mirror=True, train='stack', test='stack')",
            with_mirror,
            "stack",
            "stack",
            True,
            1.0,
        ),
    ],
)
def test_the_scores_are_those_of_scikit_learn_on_the_same_features(
    data, variables, protocol, views, train, test, normalise, C
):
    tested = network(data, variables, **{"eval.protocol": protocol})
    member = opened(tested)
    (found,) = scores_of(member).values()
    training = member.open_train_source().raw
    norm = unit if normalise else np.asarray
    rows = norm(pooled(features(tested, training.split, "F6", views), train))
    held_out = norm(pooled(features(tested, member.source.raw.split, "F6", views), test))
    labels = training.reader.labels.repeat(len(rows) // len(training.reader.labels), 0)
    expected = reference(rows, labels, held_out, C)
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-3)


def test_a_map_is_pooled_where_it_is_asked_for(data, variables):
    texts = ["svm('S4', normalise=False)", "svm('S4', pool='max')", "svm('S4', pool='mean')"]
    tested = network(data, variables, **{"eval.protocol": "|".join(texts)})
    member = opened(tested)
    rows = features(tested, member.source.raw.split, "S4", resized)[:, 0]
    maps = rows.reshape(len(rows), 4, 4, -1)
    expected = [rows, unit(maps.max((1, 2))), unit(maps.mean((1, 2)))]
    for (name, protocol), values in zip(member.protocols.items(), expected, strict=True):
        found = layer_svms._features(
            protocol, protocol.test, member, member.source, member.programs, name
        )
        np.testing.assert_allclose(found.values, values, rtol=1e-5, atol=1e-5)


def test_crops_are_those_of_their_protocol(data, variables):
    text = "svm('F6', views='ten_crop(28, 32, whole=True)', train='separate')"
    member = opened(network(data, variables, **{"eval.protocol": text}))
    (protocol,) = member.protocols.values()
    found = layer_svms._features(protocol, "separate", member, member.source, member.programs, text)
    assert len(found.values) == 10 * len(found.labels)
    # Each crop is followed by its mirror image, and the mean is that of a protocol's ten views.
    mean = layer_svms._features(protocol, "mean", member, member.source, member.programs, text)
    raw = protocol._replace(normalise=False)
    ten = layer_svms._features(raw, "separate", member, member.source, member.programs, text)
    means = unit(ten.values.reshape(len(found.labels), 10, -1).mean(1))
    np.testing.assert_allclose(mean.values, means, rtol=1e-4, atol=1e-6)


# --- fitted once ----------------------------------------------------------------------------------


@pytest.fixture
def fits(monkeypatch):
    """The values of C of each fit."""
    calls = []
    original = svm.fit_one_vs_rest

    def fit(*arguments, **settings):
        calls.append(settings["C"])
        return original(*arguments, **settings)

    monkeypatch.setattr(layer_svms, "fit_one_vs_rest", fit)
    return calls


def test_a_run_tested_twice_fits_once(data, variables, tmp_path, fits, caplog):
    caplog.set_level("INFO")
    text = "svm('F6')|svm('F6', C=0.1)|svm('C5')"
    tested = network(data, variables, **{"eval.protocol": text})
    first = scores_of(opened(tested, tmp_path))
    assert fits == [1.0, 0.1, 1.0]  # those on F6 by one pass over the training images
    assert len(list(tmp_path.glob("fitted-*.npz"))) == 3
    again = scores_of(opened(tested, tmp_path))
    assert len(fits) == 3 and "SVMs with C=0.1: read from" in caplog.text
    for name, values in first.items():
        np.testing.assert_array_equal(values, again[name])


@pytest.mark.parametrize(
    "changes",
    [
        {"eval.protocol": "svm('F6', normalise=False)"},
        {"eval.protocol": "svm('F6', mirror=True)"},
        {"data.eval_host": f"decode|resize({SIDE}, method='bilinear')"},
        {"data.eval_device": "scale(0.02)"},
        {"data.train_split": "train[:20]"},
        {"task": "multilabel", "data.name": "other images"},
    ],
)
def test_svms_are_fitted_anew_where_something_has_changed(changes, data, variables, tmp_path, fits):
    if "data.name" in changes:
        images = {f"i{k:02}": KINDS[(k + 1) % 4] for k in range(23)} | {"o": [OWL]}
        changes = {"data.name": write_voc(tmp_path / "voc", images, train=[*images], test=["o"])}
    scores_of(opened(network(data, variables), tmp_path))
    for _ in range(2):
        scores_of(opened(network(data, variables, **changes), tmp_path))
    assert len(fits) == 2


def test_the_digest_of_training_images_has_their_labels(data, variables):
    split = opened(network(data, variables)).open_train_source().raw.split._replace(objects=None)
    digests = {
        kept_fits.digest_of_training(split._replace(labels=labels))
        for labels in (None, [0] * 24, [0] * 23 + [1])
    }
    assert len(digests) == 3


# --- other classes than the head's ----------------------------------------------------------------


def test_classes_are_those_of_the_data_where_all_protocols_fit_them(data, variables):
    """A network of three digits is tested on pets that it has never heard of."""
    tested = network(data, variables)._replace(class_names=("one", "two", "three"))
    member = opened(tested)
    assert member.source.raw.split.class_names == ("cat", "dog", "owl")
    assert evaluate._order(tested, tested._replace(description="other")) is None
    mixed = network(data, variables, **{"eval.protocol": "svm('F6')|single_view"})
    with pytest.raises(UserError, match="has classes that lenet does not know: cat, dog, owl"):
        opened(mixed._replace(class_names=("one", "two", "three")))


def test_images_with_one_label_have_errors_by_class(variables, tmp_path):
    """A class without training images is the last guess, and no error of the others."""
    images = {"train/ant": 6, "train/bee": 6, "val/ant": 2, "val/bee": 2}
    data = write_images(tmp_path, images)
    tested = network(data, variables, "classify", **{"data.eval_split": "val"})
    member = opened(tested)
    (protocol,) = member.protocols.values()
    outcome = classify.test(protocol, member, name="svm")
    labels = [example["label"] for example in member.source.raw.split.examples[:]]
    assert outcome.labels.tolist() == labels and sorted(labels) == [0, 0, 1, 1]
    result = classify.result_of("run", "svm", [outcome], ("ant", "bee"))
    wrong = outcome.scores.argmax(1) != outcome.labels
    errors = [100 * wrong[outcome.labels == label].mean() for label in range(2)]
    assert result.by_class.values == pytest.approx(tuple(errors))
    absent = outcome._replace(scores=np.array([[1.0, -np.inf]] * 4, np.float32))

    def unfitted(*arguments, **names):
        return absent

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(layer_svms, "test", unfitted)
        result = classify.result_of(
            "run", "svm", [classify.test(protocol, member, name="svm")], ("ant", "bee")
        )
    assert result.by_class.values == (0.0, 100.0)


def test_a_class_without_positive_training_images_is_named_and_left_out(
    data, variables, tmp_path, caplog
):
    """Of the first 23 training images none shows an owl, and the head knows three classes."""
    changes = {"data.train_split": "train[:23]", "data.eval_split": "test"}
    tested = network(data, variables, **changes)
    member = opened(tested)
    (protocol,) = member.protocols.values()
    outcome = multilabel.test(protocol, member, name="svm")
    assert "owl has no positive images: it gets no SVM" in caplog.text
    assert np.isneginf(outcome.scores[:, 2]).all() and outcome.labels[:, 2].max() == 1
    result = multilabel.result_of("run", "svm", [outcome], ("cat", "dog", "owl"))
    assert result.by_class.absent == ("owl",)
    assert "no SVM could be fitted to owl: left out of the mean" in result.notes


# --- what is refused ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("svm(C=0.0)", "svm with C=0.0, which must be positive"),
        ("svm(pool='sum')", "svm with pool='sum': it is 'mean', 'max' or ''"),
        ("svm(train='stack')", "svm with train='stack', test='mean': write 'separate' or 'mean'"),
        ("svm(test='separate')", "svm with train='mean', test='separate'"),
        ("svm(views='svm()')", r"svm with views='svm\(\)', which is no protocol with crops of one"),
        ("svm(views='vgg_dense')", "which is no protocol with crops of one size"),
        ("svm(views='single_view|ten_crop')", "which is no protocol with crops of one size"),
        ("svm(views='ten_corp')", "there is no 'ten_corp'"),
        ("svm('F7')", "the network has no layer 'F7'; there are: C1, S2, "),
    ],
)
def test_what_makes_no_sense_is_refused(text, message, data, variables):
    with pytest.raises(UserError, match=message):
        opened(network(data, variables, **{"eval.protocol": text}))


def test_outputs_without_positions_are_not_pooled():
    class Model:
        def apply(self, variables, image):
            return image, {"fc": image}

    rows = np.ones((2, 3), np.float32)
    values, count = scores.layer_outputs(Model(), {}, rows, layer="fc")
    assert (values.shape, count) == ((2, 3), 1)
    with pytest.raises(UserError, match="layer 'fc' gives no map: pool='max' has no positions"):
        scores.layer_outputs(Model(), {}, rows, layer="fc", pool="max")


@pytest.mark.fault("hostile: features that are all zero", "counted and said; they stay zero")
def test_features_of_zero_have_no_norm(caplog):
    rows = np.array([[3, 4], [0, 0]], np.float32)
    np.testing.assert_allclose(layer_svms._normalised(rows, "pets[train]"), [[0.6, 0.8], [0, 0]])
    assert caplog.messages == [
        "1 of 2 of the features of pets[train] are all zero and have no norm: they stay zero"
    ]


def test_outputs_that_are_not_finite_are_refused(data, variables):
    broken = jax.tree.map(lambda x: np.full_like(x, np.nan), variables)
    member = opened(network(data, broken))
    with pytest.raises(UserError, match=r"^outputs of lenet are not finite: its training diverged"):
        scores_of(member)
