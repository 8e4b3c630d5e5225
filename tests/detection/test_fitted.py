"""What a test fits: fitted once, read again, and fitted anew where anything of it has changed."""

import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from support.coloured_squares import COLOURS, network, split

from cnn_papers.data import host_ops
from cnn_papers.detection import detections, fitted, fitting
from cnn_papers.detection.fitting import Regression, Svm
from cnn_papers.detection.window_protocols import rcnn, softmax, svm
from cnn_papers.errors import UserError
from cnn_papers.evaluation.svm import Linear

TRAIN: Any = split(18)
ARGUMENTS: Any = {"scales": (48,), "side": 24}


class Member(NamedTuple):
    """What `for_test` needs of an `evaluate.Member`."""

    network: Any
    folder: pathlib.Path | None
    protocols: dict[str, Any]
    train: Any = TRAIN

    def open_train(self):
        return self.train


@pytest.fixture(scope="module")
def net():
    return network()


@pytest.fixture(autouse=True)
def fits(monkeypatch):
    """The lists of what each call of `fitting.fit` was to fit."""
    calls = []
    original = fitting.fit

    def fit(wanted, *arguments):
        calls.append(list(wanted))
        return original(wanted, *arguments)

    monkeypatch.setattr(fitting, "fit", fit)
    return calls


def _values(result):
    return {each: tuple(map(np.ndarray.tolist, values)) for each, values in result.items()}


def test_all_that_a_test_wants_of_the_same_features_is_fitted_at_once_and_read_again(
    net, tmp_path, fits, caplog
):
    caplog.set_level("INFO")
    protocols = {
        "softmax": softmax(**ARGUMENTS),
        "fc7": svm("fc7", **ARGUMENTS),
        "boxes": svm("fc7", boxes=True, **ARGUMENTS),
        "pool5": svm("spp", **ARGUMENTS),
        "other scale": svm("fc6", scales=(40,), side=24),
    }
    member = Member(net, tmp_path, protocols)
    first = {name: fitted.for_test(protocol, member) for name, protocol in protocols.items()}
    assert first["softmax"] == {}
    assert fits == [[Svm("fc7"), Regression("spp"), Svm("spp")], [Svm("fc6")]]
    assert len(list(tmp_path.glob("fitted-*.npz"))) == 4
    for name, protocol in protocols.items():
        assert tuple(first[name]) == protocol.wanted
        again = fitted.for_test(protocol, member)
        assert _values(again) == _values(first[name])
        assert set(fitted.of_run(protocol, net, tmp_path)) == set(protocol.wanted)
    assert len(fits) == 2
    assert f"SVMs on fc7: read from {tmp_path}" in caplog.text


def test_a_run_tested_twice_has_the_same_table(net, tmp_path):
    held_out: Any = split(9, seed=1)
    protocol = svm("fc7", boxes=True, C=0.01, **ARGUMENTS)
    member = Member(net, tmp_path, {"svm": protocol})

    def found():
        detect = protocol.detector(net, fitted.for_test(protocol, member))
        return [
            detect(host_ops.decode(example["image"]), proposals)
            for example, proposals in zip(held_out.examples, held_out.proposals, strict=True)
        ]

    once, twice = found(), found()
    jax.tree.map(np.testing.assert_array_equal, once, twice)
    curves = detections.curves(once, held_out.objects, 3)
    assert detections.mean_average_precisions(curves)["map"] > 30


def _changed_weights(member):
    variables = jax.tree.map(np.array, member.network.variables)
    variables["params"]["fc7"]["bias"][0] += 1
    return member._replace(network=member.network._replace(variables=variables))


def _changed_proposals(member):
    proposals = [rows.copy() for rows in TRAIN.proposals]
    proposals[-1][0, 0] += 1
    return member._replace(train=TRAIN._replace(proposals=proposals))


def _changed_boxes(member):
    objects = list(TRAIN.objects)
    objects[1] = objects[1]._replace(boxes=objects[1].boxes + 1)
    return member._replace(train=TRAIN._replace(objects=objects))


def _changed_images(member):
    return member._replace(train=TRAIN._replace(examples=split(18, seed=2).examples))


def _changed_settings(member):
    return member._replace(protocols={"svm": svm("fc7", C=0.01, **ARGUMENTS)})


def _changed_scale(member):
    return member._replace(protocols={"svm": svm("fc7", scales=(40,), side=24)})


@pytest.mark.parametrize(
    "change",
    [
        _changed_weights,
        _changed_proposals,
        _changed_boxes,
        _changed_images,
        _changed_settings,
        _changed_scale,
    ],
)
def test_it_is_fitted_anew_where_something_has_changed(change, net, tmp_path, monkeypatch):
    calls = []

    def fit(wanted, *arguments):
        calls.append(wanted)
        return {each: Linear(np.zeros((3, 3), np.float32), np.zeros(3)) for each in wanted}

    monkeypatch.setattr(fitting, "fit", fit)
    member = Member(net, tmp_path, {"svm": svm("fc7", **ARGUMENTS)})
    for each in (member, member, change(member), change(member), member):
        fitted.for_test(each.protocols["svm"], each)
    assert len(calls) == 2
    assert len(list(tmp_path.glob("fitted-*.npz"))) == 2


@pytest.mark.fault("damage: a file of what a test has fitted", "refused by name, nothing fitted")
@pytest.mark.parametrize("damage", ["flipped", "cut off", "empty", "other arrays"])
def test_a_damaged_file_is_refused(damage, tmp_path, fits):
    def fit(wanted) -> Any:
        ones = np.ones((50, 3), np.float32)
        return {each: Linear(ones, ones[0]) for each in wanted}

    fitted.load_or_fit(tmp_path, [Svm("fc7")], [], "network", "training", fit)
    (path,) = tmp_path.glob("fitted-*.npz")
    content = bytearray(path.read_bytes())
    if damage == "flipped":
        content[200] ^= 1
        path.write_bytes(content)
    elif damage == "other arrays":
        np.savez(path, weights=np.ones(3))
    else:
        path.write_bytes(content[: len(content) // 2 if damage == "cut off" else 0])
    for action in (
        lambda: fitted.load_or_fit(tmp_path, [Svm("fc7")], [], "network", "training", fit),
        lambda: fitted.find(tmp_path, [Svm("fc7")], "network"),
    ):
        with pytest.raises(UserError) as error:
            action()
        assert str(error.value).startswith(f"{path} cannot be read (")
        assert str(error.value).endswith("delete the file, and the next test fits it again")
    with pytest.raises(UserError, match="cannot be read"):  # before anything is fitted
        fitted.load_or_fit(tmp_path, [Svm("spp")], [Svm("fc7")], "network", "training", fit)
    assert list(tmp_path.glob("fitted-*.npz")) == [path]
    path.unlink()
    fitted.load_or_fit(tmp_path, [Svm("fc7")], [], "network", "training", fit)
    assert path.is_file()


def test_weights_from_a_file_have_no_folder_and_keep_nothing(net, fits):
    protocol = svm("fc7", **ARGUMENTS)
    member = Member(net, None, {"svm": protocol})
    assert set(fitted.for_test(protocol, member)) == {Svm("fc7")}
    assert len(fits) == 1
    with pytest.raises(UserError, match="kept in the folder of a run"):
        fitted.of_run(protocol, net, None)
    assert fitted.of_run(softmax(**ARGUMENTS), net, None) == {}


def test_prediction_needs_a_test_of_the_same_network(net, tmp_path):
    protocol = svm("fc7", boxes=True, **ARGUMENTS)
    member = Member(net, tmp_path, {"svm": protocol})
    message = (
        f"{tmp_path} has no SVMs on fc7 of this network: test the run by the protocol that needs "
        r"them \(main with --mode=eval\), which fits them"
    )
    with pytest.raises(UserError, match=message):
        fitted.of_run(protocol, net, tmp_path)
    result = fitted.for_test(protocol, member)
    assert _values(fitted.of_run(protocol, net, tmp_path)) == _values(result)
    with pytest.raises(UserError, match=message):
        fitted.of_run(protocol, _changed_weights(member).network, tmp_path)
    with pytest.raises(UserError, match="has no SVMs on fc7"):
        fitted.of_run(rcnn(side=24, context=2), net, tmp_path)


def test_a_training_split_without_proposals_is_refused(net, tmp_path):
    protocol = svm("fc7", **ARGUMENTS)
    member = Member(net, tmp_path, {"svm": protocol}, TRAIN._replace(proposals=None))
    with pytest.raises(UserError, match=r"windows that config\.data\.proposals names"):
        fitted.for_test(protocol, member)


def test_a_digest_is_of_the_classes_too():
    reversed_classes = TRAIN._replace(class_names=COLOURS[::-1])
    assert fitted.digest_of_training(TRAIN) == fitted.digest_of_training(split(18))
    assert fitted.digest_of_training(TRAIN) != fitted.digest_of_training(reversed_classes)
