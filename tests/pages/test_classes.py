"""Runs on folders of people's own images: going on after changes, tests on other folders."""

import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
from support.image_folders import write_images

from cnn_papers import evaluate, train
from cnn_papers.data.sources import open_split
from cnn_papers.errors import UserError
from cnn_papers.parallel.mesh import make_mesh
from cnn_papers.runs import workdir
from cnn_papers.runs.rows import METRICS, read_rows
from cnn_papers.runs.run import assemble
from cnn_papers.weights import features, trained
from cnn_papers.weights.predictor import make_predictor
from configs import resnet

ANIMALS, STEPS = ("cat", "dog", "owl"), 6


def animals(folder: pathlib.Path, **changes: int) -> str:
    """Writes six images of each animal to train on, three to test on; `train_ant=6` changes it."""
    images = {f"train/{name}": 6 for name in ANIMALS} | {f"val/{name}": 3 for name in ANIMALS}
    images |= {name.replace("_", "/"): count for name, count in changes.items()}
    return write_images(folder, {name: count for name, count in images.items() if count})


def config_on(name: str, **changes):
    config = resnet.get_config()
    config.model.update({"blocks": (1,), "widths": (8,), "num_classes": len(ANIMALS)})
    config.data.name, config.mesh.data = name, 1
    config.batch_size, config.total_steps, config.log_every_steps = 6, STEPS, 1
    keys = {key.replace("__", "."): value for key, value in changes.items()}
    config.update_from_flattened_dict(keys)
    return config


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> pathlib.Path:
    """The folder of a finished run with statistics, not to be written to; `images` is beside it."""
    folder = tmp_path_factory.mktemp("animals")
    config = config_on(animals(folder / "images"))
    assert train.train_and_evaluate(config, folder / "run") == train.DONE
    return folder / "run"


@pytest.fixture
def run(finished, tmp_path) -> pathlib.Path:
    """A copy of the finished run and of its images."""
    shutil.copytree(finished.parent / "images", tmp_path / "images")
    return shutil.copytree(finished, tmp_path / "run")


def contents(folder: pathlib.Path) -> dict[pathlib.Path, bytes]:
    return {
        path: path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != ".lock"
    }


# --- going on -------------------------------------------------------------------------------------


@pytest.mark.fault(
    "config: a class is added to the images of a run, finished or not",
    "refused with its name; no byte of the run changes",
)
@pytest.mark.parametrize("steps", [STEPS, STEPS + 3])
def test_a_start_that_is_refused_for_its_classes_writes_nothing(finished, run, steps):
    images = finished.parent / "images"
    before = contents(run)
    try:
        write_images(images, {"train/ant": 2})
        with pytest.raises(UserError, match=r"a run with other classes \(new: ant\); give another"):
            train.train_and_evaluate(config_on(f"folder:{images}", total_steps=steps), run)
    finally:
        shutil.rmtree(images / "train" / "ant")
    assert contents(run) == before


@pytest.mark.fault(
    "config: other images under the names of those of a run, with statistics",
    "refused; no byte of the run changes",
)
def test_a_start_that_is_refused_for_its_statistics_writes_nothing(run):
    moved = write_images(
        run.parent / "images", {f"train/{name}": 6 for name in ["owl", "dog", "cat"]}
    )
    saved = json.loads((run / "run.json").read_text())
    del saved["digests"]  # an older version did not record them
    (run / "run.json").write_text(json.dumps(saved))
    before = contents(run)
    with pytest.raises(UserError, match=r"belong to other images .* start a new run"):
        train.train_and_evaluate(config_on(moved, total_steps=STEPS + 3), run)
    assert contents(run) == before


@pytest.mark.fault(
    "config: another folder with as many other images of the classes of a run",
    "refused with the difference; no byte of the run changes",
)
def test_as_many_images_of_another_folder_are_no_moved_data(tmp_path):
    """As of another fold of a cross-validation, where no statistics are kept."""
    first = animals(tmp_path / "first")
    raw = {"data__train_device": "", "data__eval_device": ""}
    run = tmp_path / "run"
    assert train.train_and_evaluate(config_on(first, **raw), run) == train.DONE
    before = contents(run)
    second = write_images(tmp_path / "second", {f"train/{name}": 6 for name in ANIMALS})
    write_images(tmp_path / "second", {f"val/{name}": 3 for name in ("owl", "cat", "dog")})
    with pytest.raises(UserError, match=r"/second now; as many images of the same classes, but"):
        train.train_and_evaluate(config_on(second, total_steps=STEPS + 3, **raw), run)
    assert contents(run) == before


def test_a_finished_run_keeps_its_run_json_whoever_asks_again(run, capsys):
    before = contents(run)
    same = workdir.read_run(run).config.data.name
    config = config_on(
        same, checkpoint__every_steps=7, eval__protocol="single_view|ten_crop(32, 36)"
    )
    assert train.train_and_evaluate(config, run) == train.DONE
    out = capsys.readouterr().out
    assert f"this run is finished: {STEPS} steps in {run}\n" in out
    assert (run / "run.json").read_bytes() == before[run / "run.json"]
    assert re.search(r"^ten_crop\(32, 36\) +\d", out, re.MULTILINE)  # as this command says


def test_a_finished_run_knows_where_its_images_have_moved(run):
    now = f"folder:{run.parent}/images"
    text = (run / "run.json").read_text()
    then = workdir.read_run(run).config.data.name
    config = config_on(now, eval__precise_bn=2)
    assert train.train_and_evaluate(config, run) == train.DONE
    assert (run / "run.json").read_text() == text.replace(f'"{then}"', f'"{now}"') != text
    assert read_rows(run / METRICS)[-1]["test/split"] == f"{now}[val]"


def test_a_finished_run_of_an_older_version_gets_what_its_run_json_lacks(run):
    saved = workdir.read_run(run)
    workdir.write_run(run, saved.config, {"class_names": saved.class_names})
    (run / "statistics.npz").unlink()
    assert train.train_and_evaluate(saved.config, run) == train.DONE
    assert workdir.read_run(run)[1:6] == saved[1:6] and (run / "statistics.npz").is_file()
    assert saved.images == (18, 9)


@pytest.mark.parametrize("evaluated", [True, False])
def test_fewer_steps_than_done_are_nothing_to_train(run, capsys, evaluated):
    before = (run / "run.json").read_bytes()
    if not evaluated:
        (run / METRICS).write_text('{"step": 1, "train/loss": 1.0}\n')
    config = config_on(workdir.read_run(run).config.data.name, total_steps=3)
    assert train.train_and_evaluate(config, run) == train.DONE
    assert (
        f"the run in {run} has done {STEPS} steps, more than the 3 that its config asks for: "
        "nothing to train\n"
    ) in (out := capsys.readouterr().out)
    assert ("          last  step 6: " in out) == evaluated
    assert (run / "run.json").read_bytes() == before


def test_moved_images_and_more_steps_go_on_with_both_rates_said(finished, run, capsys):
    then, now = (f"folder:{folder}/images" for folder in (finished.parent, run.parent))
    config = config_on(now, total_steps=STEPS + 3)
    assert train.train_and_evaluate(config, run) == train.DONE
    out = capsys.readouterr().out
    assert f"the data has moved: {then} before, {now} now\n" in out
    base = config.optim.lr * config.batch_size / config.optim.lr_batch
    rate = base * 0.5 * (1 + np.cos(np.pi * STEPS / (STEPS + 3)))
    said = (
        f"the length has changed: {STEPS} steps before, {STEPS + 3} now\nthe learning rate of "
        f"'cosine' after step {STEPS} was 0 before and is {rate:.4g} now\n"
    )
    assert said in out and out.index(said) < out.index("first step after")
    rates = {row["step"]: row["train/lr"] for row in read_rows(run / METRICS) if "train/lr" in row}
    assert rates[STEPS + 1] == pytest.approx(rate, rel=1e-5) and rates[STEPS] < rates[STEPS + 1]
    saved = workdir.read_run(run)
    assert (saved.config.data.name, saved.total_steps) == (now, STEPS + 3)


# --- what the start prints ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({}, " 3: cat, dog, owl; 6 images of each"),
        ({"outputs": 10}, " 3 (of 10 outputs): cat, dog, owl; 6 images of each"),
        ({"train_owl": 9, "train_cat": 7}, "cat, dog, owl; 6 images of dog to 9 of owl"),
        ({"val_cat": 0, "val_owl": 0}, "6 images of each; none to evaluate of cat, owl"),
        (
            {"outputs": 6, **{f"train_{name}": 2 for name in ("ant", "bee", "elk")}},
            " 6: ant, bee, cat, dog, elk, …; 2 images of ant to 6 of cat; "
            "none to evaluate of ant, bee, elk",
        ),
    ],
)
def test_the_start_prints_the_classes(tmp_path, capsys, changes, line):
    outputs = changes.get("outputs", len(ANIMALS))
    images = {name: count for name, count in changes.items() if name != "outputs"}
    config = config_on(
        animals(tmp_path / "images", **images),
        data__resident="never",
        model__num_classes=outputs,
    )
    assemble(config, tmp_path / "run")
    found = re.search(r"^       classes  (.*)$", capsys.readouterr().out, re.MULTILINE)
    assert found and found[0].endswith(line)


@pytest.mark.parametrize(
    ("resident", "ending"), [("always", "; 141 images of 8 to 146 of 1"), ("never", "")]
)
def test_images_of_a_class_are_counted_where_no_pass_is_needed(
    digits_folder, tmp_path, capsys, resident, ending
):
    config = config_on("digits", data__data_dir=str(digits_folder), data__resident=resident)
    config.model.num_classes = 10
    assemble(config, tmp_path / "run")
    assert f"       classes  10: 0, 1, 2, 3, 4, …{ending}\n" in capsys.readouterr().out


# --- tests on other folders -----------------------------------------------------------------------


def errors_by_name(run: pathlib.Path, name: str, split: str = "train") -> float:
    """Returns the top-1 error in percent, from the names that the network gives each image."""
    predictor, opened = make_predictor(trained.from_run(run)), open_split(name, split)
    images = np.stack([predictor.prepare(example["image"]) for example in opened.examples])
    filled = np.concatenate([images, images[:1].repeat(-len(images) % jax.device_count(), 0)])
    outputs = predictor.outputs(filled)[: len(images)]
    wrong = [
        predictor.class_names[row.argmax()] != opened.class_names[example["label"]]
        for row, example in zip(outputs, opened.examples, strict=True)
    ]
    return 100 * float(np.mean(wrong))


@pytest.mark.parametrize("names", [("dog", "owl"), ("owl",), ("cat", "dog", "owl")])
def test_a_folder_of_some_classes_is_tested_by_name(run, tmp_path, names):
    name = write_images(tmp_path / "new", dict.fromkeys(names, 5), colours="cat,dog,owl")
    (result,) = evaluate.evaluate_runs([run], config_on(""), {"data.name": name})
    assert result.images == 5 * len(names)
    assert result.values["top1_error"] == pytest.approx(errors_by_name(run, name))
    assert read_rows(run / METRICS)[-1]["test/split"] == name


def test_a_folder_with_an_unknown_class_is_not_tested(run, tmp_path):
    name = write_images(tmp_path / "new", {"dog": 2, "eagle": 2})
    with pytest.raises(UserError, match=r"best does not know: eagle; it knows cat, dog, owl$"):
        evaluate.evaluate_runs([run], config_on(""), {"data.name": name})


def test_batch_statistics_are_of_the_images_trained_on(run, tmp_path):
    """Also where the test is on a folder that has only images to test on."""
    name = write_images(tmp_path / "new", {"owl": 5}, colours="cat,dog,owl")
    for data in ({}, {"data.name": name}):
        network = trained.from_run(run, {"eval.precise_bn": 3} | data)
        (member,) = [evaluate._open_member(network, make_mesh(1), run)]
        means = jax.device_get(member.network.variables["batch_stats"]["bn1"]["mean"])
        if not data:
            expected = means
    np.testing.assert_array_equal(means, expected)


@pytest.mark.parametrize(
    ("images", "names", "labels"),
    [
        ({"owl": 2, "dog": 1}, ANIMALS, [1, 2, 2]),
        ({"ant": 1, "bee": 1, "cat": 1, "elk": 2}, ("ant", "bee", "cat", "elk"), [0, 1, 2, 3, 3]),
    ],
)
def test_features_have_the_labels_of_the_network_if_it_knows_all(
    run, tmp_path, images, names, labels
):
    network = trained.from_run(run, {"data.name": write_images(tmp_path / "new", images)})
    features.of_split(network, "pool", "test", tmp_path / "features.npz")
    with np.load(tmp_path / "features.npz") as written:
        assert written["class_names"].tolist() == [*names]
        assert sorted(written["label"].tolist()) == labels


def with_other_head(network: trained.Trained, order: list[int], names: tuple[str, ...]):
    """Returns the network with its outputs in another order."""
    head = {
        key: leaf[..., np.array(order)] for key, leaf in network.variables["params"]["fc"].items()
    }
    params = network.variables["params"] | {"fc": head}
    return network._replace(variables={**network.variables, "params": params}, class_names=names)


def test_members_are_averaged_by_name(finished):
    network = trained.from_run(finished)
    other = with_other_head(network, [2, 0, 1], ("owl", "cat", "dog"))
    first, second, mean = evaluate.evaluate([network, other], make_mesh(1), [None, None])
    assert first[2:4] == second[2:4] == mean[2:4] and 0 < first.values["top1_error"] < 100


@pytest.mark.parametrize("tested", ["cat", "dog", "owl"])
def test_members_of_other_orders_meet_a_folder_of_some_classes(finished, tmp_path, capsys, tested):
    name = write_images(tmp_path, {tested: 3}, colours="cat,dog,owl")
    network = trained.from_run(finished, {"data.name": name})
    other = with_other_head(network, [2, 1, 0], ("owl", "dog", "cat"))
    for members in ([network, other], [other, network]):
        first, second, mean = evaluate.evaluate(members, make_mesh(1), [None, None])
        assert first.by_class[:5] == second.by_class[:5] == mean.by_class[:5]
        assert first.by_class.names == (tested,) and first.by_class.counts == (3,)
        absent = ", ".join(animal for animal in members[0].class_names if animal != tested)
        assert f"without an image here: {absent}\n" in capsys.readouterr().out


def test_members_of_other_classes_are_not_averaged(finished, tmp_path):
    name = write_images(tmp_path, {"dog": 2})
    network = trained.from_run(finished, {"data.name": name})
    other = network._replace(class_names=("cat", "dog", "eel"))
    with pytest.raises(
        UserError, match=r"different classes and cannot .* only one of them has eel, owl$"
    ):
        evaluate.evaluate([network, other], make_mesh(1), [None, None])


def test_a_network_without_names_is_tested_by_number(finished, caplog):
    """As always with runs that are older than their names."""
    named = trained.from_run(finished)
    with caplog.at_level("INFO", "cnn_papers"):
        results = [
            evaluate.evaluate([network], make_mesh(1), [None])
            for network in (named, named._replace(class_names=()))
        ]
    assert results[0][0][2:5] == results[1][0][2:5]
    assert caplog.text.count("the names of this network's classes are unknown: class i of") == 1
