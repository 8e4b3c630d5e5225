"""A run's weights put to use: to start another run from, and for other programs."""

import json
import pathlib
import shutil
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
import pytest
from support.commands import exit_code
from support.image_folders import write_images

from cnn_papers import counting, evaluate, export, train, zoo
from cnn_papers.data import statistics
from cnn_papers.data.sources import open_split
from cnn_papers.errors import UserError
from cnn_papers.runs.checkpoint import read_model
from cnn_papers.runs.rows import read_rows
from cnn_papers.runs.run import assemble
from cnn_papers.weights import convert, initial, trained, weight_files
from cnn_papers.weights.predictor import make_predictor
from configs import resnet


def config_like(tiny_run: pathlib.Path, **model: Any) -> Any:
    """The config of the tiny run, on its data, for two steps."""
    config = resnet.get_config()
    config.total_steps = 2
    config.data.data_dir = str(tiny_run.parent / "data")
    config.model.update({"blocks": (1,), "widths": (8,), **model})
    config.init_from = str(tiny_run)
    return config


def params_of(folder: pathlib.Path) -> convert.Flat:
    network = trained.from_run(folder)
    return convert.flatten({"params": network.variables["params"]}, network.model)


def started(config: Any, folder: pathlib.Path) -> tuple[Any, convert.Flat]:
    """The state a run of `config` starts from, and its parameters by path."""
    run = assemble(config, folder)
    train = run.data.train
    arrays = initial.read(config, run.model, train.image_shape, train.split.class_names)
    state = initial.insert(run.training.init(jax.random.key(config.seed)), arrays, run.model)
    return state, convert.flatten({"params": state.params}, run.model)


def test_a_run_starts_from_anothers_weights(tiny_run, tmp_path, capsys):
    config = config_like(tiny_run)
    state, arrays = started(config, tmp_path)
    expected = params_of(tiny_run)
    assert arrays.keys() == expected.keys()
    for path, value in expected.items():
        np.testing.assert_array_equal(arrays[path], value, err_msg=path)
    best = trained.from_run(tiny_run).variables["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, state.batch_stats, best)
    assert int(state.step) == 0
    assert f"starts from 7 layers of {tiny_run}\n" in capsys.readouterr().out


@pytest.mark.process
def test_a_head_of_other_classes_stays_fresh_and_the_run_trains(tiny_run, tmp_path, capsys):
    config = config_like(tiny_run, num_classes=12)
    config.optim.ema_decay = 0.5
    config.seed = 7
    state, arrays = started(config, tmp_path / "a")
    config.init_from = ""
    _, fresh = started(config, tmp_path / "a")
    config.init_from = str(tiny_run)
    expected = params_of(tiny_run)
    for path in arrays:
        like = fresh if path.startswith("params/fc/") else expected
        np.testing.assert_array_equal(arrays[path], like[path], err_msg=path)
    jax.tree.map(np.testing.assert_array_equal, state.ema, state.params)
    assert f"starts from 6 layers of {tiny_run}; fresh: fc\n" in capsys.readouterr().out
    assert train.train_and_evaluate(config, tmp_path / "run") == train.DONE
    moved = params_of(tmp_path / "run")["params/conv1/kernel"]
    assert 0 < np.abs(moved - expected["params/conv1/kernel"]).max() < 0.5


@pytest.fixture
def donor(tiny_run, tmp_path) -> pathlib.Path:
    """A copy of the tiny run, whose `run.json` may change."""
    return shutil.copytree(tiny_run, tmp_path / "donor")


def rename_classes(run: pathlib.Path, names: Sequence[str]) -> None:
    saved = json.loads((run / "run.json").read_text())
    (run / "run.json").write_text(json.dumps(saved | {"class_names": names}))


@pytest.mark.parametrize(
    ("names", "layers", "said"),
    [
        (
            "abcdefghij",
            "",
            "6 layers of {donor}; fresh: fc; its classes are others "
            "(new: 0, 1, 2 and 7 more; gone: a, b, c and 7 more)",
        ),
        (
            "0123465789",
            "",
            "6 layers of {donor}; fresh: fc; its classes are others "
            "(the same in another order: class 5 was 6 and is 5)",
        ),
        ("0123456789", "", "7 layers of {donor}"),
        (
            "",
            "",
            "7 layers of {donor}; it does not name its classes, which are taken to be those of "
            "this run",
        ),
        (
            "abcdefghij",
            "conv1|fc",
            "2 layers of {donor}; fresh: bn1, conv2_1/bn1, conv2_1/bn2, conv2_1/conv1, "
            "conv2_1/conv2; its classes are others (new: 0, 1, 2 and 7 more; gone: a, b, c and 7 "
            "more), and config.init_layers takes fc all the same",
        ),
    ],
)
def test_a_head_of_as_many_other_classes_stays_fresh(
    tiny_run, donor, tmp_path, capsys, names, layers, said
):
    rename_classes(donor, list(names))
    config = config_like(tiny_run)
    config.init_from, config.init_layers, config.seed = str(donor), layers, 7
    _, arrays = started(config, tmp_path / "run")
    assert f"starts from {said.format(donor=donor)}\n" in capsys.readouterr().out
    head = "params/fc/kernel"
    is_donors = np.array_equal(arrays[head], params_of(tiny_run)[head])
    assert is_donors == ("fc" not in said.split("fresh: ")[-1].split("; its")[0].split(", "))
    np.testing.assert_array_equal(
        arrays["params/conv1/kernel"], params_of(tiny_run)["params/conv1/kernel"]
    )


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (tuple("0123456789"), "7 layers of {file}"),
        (
            ("ant", *"123456789"),
            "6 layers of {file}; fresh: fc; its classes are others (new: 0; gone: ant)",
        ),
        (
            (),
            "7 layers of {file}; it does not name its classes, which are taken to be those of "
            "this run",
        ),
    ],
)
def test_a_file_of_ours_names_its_classes(tiny_run, tmp_path, capsys, names, said):
    file, network = tmp_path / "net.safetensors", trained.from_run(tiny_run)
    weight_files.write(file, network.variables, "resnet", network.model, names)
    config = config_like(tiny_run)
    config.init_from = str(file)
    started(config, tmp_path / "run")
    assert f"starts from {said.format(file=file)}\n" in capsys.readouterr().out


def test_a_file_of_ours_is_tested_by_name_on_a_folder_of_some_classes(tmp_path, caplog):
    model = zoo.build_model("resnet", variant="cifar-8", num_classes=3, blocks=(1,), widths=(8,))
    variables = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        dict(counting.abstract_variables(model, (32, 32, 3))),
    )
    variables["params"]["fc"]["bias"][2] = 1  # every image is an owl
    file, animals = tmp_path / "net.safetensors", ("cat", "dog", "owl")
    weight_files.write(file, variables, "resnet", model, animals)
    config = resnet.get_config()
    config.model.update({"blocks": (1,), "widths": (8,), "num_classes": 3})
    config.data.name = write_images(tmp_path / "images", {"dog": 1, "owl": 3})
    config.data.eval_device = ""
    with caplog.at_level("INFO", "cnn_papers"):
        assert trained.from_file(file, config).class_names == animals
        (result,) = evaluate.evaluate_weights(file, config)
    assert (result.values["top1_error"], result.images) == (25.0, 4)
    assert "does not name its classes" not in caplog.text
    assert "are unknown" not in caplog.text


def test_a_run_says_that_it_starts_from_fresh_weights(tiny_run, tmp_path, capsys):
    config = config_like(tiny_run)
    config.init_from, config.seed = "", 3
    started(config, tmp_path)
    assert capsys.readouterr().out.endswith("\nstarts from fresh weights of seed 3\n")


# --- the classes of a weights file ----------------------------------------------------------------


def test_a_file_has_the_classes_of_the_data_set_or_of_imagenet():
    imagenet = trained.classes_of_file((), 1000)
    assert (imagenet[0], imagenet[217], imagenet[999]) == ("n01440764", "n02102040", "n15075141")
    letters = ("a", "b", "c")
    thousand = tuple(f"class {i}" for i in range(1000))
    assert trained.classes_of_file(letters, 3) == letters
    assert trained.classes_of_file(letters, 4) == ()
    assert trained.classes_of_file(letters, 1000) == imagenet
    assert trained.classes_of_file(thousand, 1000) == thousand
    assert trained.classes_of_file(imagenet[::-1], 1000) == imagenet
    assert trained.classes_of_file(("n02102040", *thousand[1:]), 1000) == imagenet


@pytest.fixture(scope="module")
def of_imagenet(tmp_path_factory) -> pathlib.Path:
    """A weights file of a tiny network with 1,000 outputs, all for n02102040."""
    model = zoo.build_model("resnet", variant="cifar-8", num_classes=1000, blocks=(1,), widths=(8,))
    variables = jax.tree.map(
        lambda leaf: np.zeros(leaf.shape, leaf.dtype),
        dict(counting.abstract_variables(model, (32, 32, 3))),
    )
    variables["params"]["fc"]["bias"][217] = 1
    file = tmp_path_factory.mktemp("imagenet") / "net.safetensors"
    weight_files.write(file, variables, "resnet", model)
    return file


@pytest.mark.parametrize(
    ("classes", "error"),
    [(["n02102040"], 0.0), (["n02102040", "n03888257"], 50.0), (["n01440764"], 100.0)],
)
def test_published_weights_are_tested_on_a_folder_by_wordnet_ids(
    of_imagenet, tmp_path, classes, error
):
    config = resnet.get_config()
    config.model.update({"blocks": (1,), "widths": (8,), "num_classes": 1000})
    config.data.name = write_images(tmp_path, dict.fromkeys(classes, 4))
    config.data.eval_device = ""
    (result,) = evaluate.evaluate_weights(of_imagenet, config)
    assert (result.values["top1_error"], result.images) == (error, 4 * len(classes))


def test_published_weights_are_not_tested_on_classes_of_other_names(of_imagenet, tmp_path):
    config = resnet.get_config()
    config.model.update({"blocks": (1,), "widths": (8,), "num_classes": 1000})
    config.data.name = write_images(tmp_path, {"parachute": 1, "tench": 1})
    config.data.eval_device = ""
    with pytest.raises(
        UserError, match=r"does not know: parachute, tench; it knows n01440764, n01443537, "
    ):
        evaluate.evaluate_weights(of_imagenet, config)


@pytest.mark.fault("config: the weights it began from are gone", "goes on")
@pytest.mark.process
def test_a_run_that_goes_on_needs_the_weights_no_more(tiny_run, tmp_path):
    config = config_like(tiny_run)
    source = tmp_path / "net.safetensors"
    network = trained.from_run(tiny_run)
    weight_files.write(source, network.variables, "resnet", network.model)
    config.init_from = str(source)
    assert train.train_and_evaluate(config, tmp_path / "run") == train.DONE
    source.unlink()
    config.total_steps = 3
    assert train.train_and_evaluate(config, tmp_path / "run") == train.DONE
    run = assemble(config, tmp_path / "run")
    assert read_model(tmp_path / "run" / "checkpoints", run.training.abstract)[0] == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"init_from": "nowhere.pth"}, "config.init_from: there is no run or weights file nowhere"),
        ({"init_from": "runs/none"}, "config.init_from: there is no run or weights file runs/none"),
        (
            {"model.widths": (16,)},
            r"another network: .*\[8\], \[16\] expected.*--config.init_layers",
        ),
        ({"model.blocks": (2,)}, r"another network: .*conv2_2/.* is missing"),
        ({"init_layers": "conv7"}, "no layer is called 'conv7'"),
    ],
)
def test_what_does_not_fit_is_said_before_anything_is_written(tiny_run, tmp_path, change, message):
    config = config_like(tiny_run)
    config.update_from_flattened_dict(change)
    with pytest.raises(UserError, match=message):
        train.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_that_are_not_there_are_missed_before_data_is_opened(
    tiny_run, tmp_path, monkeypatch
):
    config = config_like(tiny_run)
    config.init_from = "runs/none"
    monkeypatch.setattr(train, "assemble", None)
    with pytest.raises(UserError, match="there is no run or weights file runs/none to start from;"):
        train.train_and_evaluate(config, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_deeper_network_takes_the_layers_that_are_named(tiny_run, tmp_path):
    config = config_like(tiny_run, blocks=(2,))
    config.init_layers = "conv1|bn1|conv2_1/.*|fc"
    _, arrays = started(config, tmp_path)
    for path, value in params_of(tiny_run).items():
        np.testing.assert_array_equal(arrays[path], value, err_msg=path)
    assert any(path.startswith("params/conv2_2/") for path in arrays)


# --- fine-tuning ----------------------------------------------------------------------------------


def warnings_of(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Our own warnings."""
    return [record.getMessage() for record in caplog.records if "cnn_papers" in record.name]


def test_the_start_says_what_is_trained_and_how_classes_weigh(tiny_run, tmp_path, capsys, caplog):
    config = config_like(tiny_run)
    config.optim.frozen = "(conv|bn).*"
    config.loss.class_weights = (("7", 3.0), ("2", 0.5))
    started(config, tmp_path)
    out = capsys.readouterr().out
    assert "        trains  1 of 7 layers: fc; 90 parameters\n" in out
    assert " class weights  7 3, 0 1, 1 1, 3 1, 4 1, 5 1, 6 1, 8 1 and 2 more\n" in out
    assert warnings_of(caplog) == []
    config.optim.frozen, config.loss.class_weights = "", ()
    started(config, tmp_path)
    out = capsys.readouterr().out
    assert "trains" not in out and "class weights" not in out


@pytest.mark.fault("config: layers frozen that start from random weights", "a warning names them")
@pytest.mark.parametrize(
    ("changes", "layers"),
    [
        ({"init_from": ""}, "bn1, conv1, conv2_1/bn1, conv2_1/bn2 and 2 more"),
        ({"init_layers": "conv.*"}, "bn1"),
    ],
)
def test_frozen_layers_that_start_from_random_weights_are_named(
    tiny_run, tmp_path, caplog, changes, layers
):
    config = config_like(tiny_run)
    config.optim.frozen = "(conv|bn).*"
    config.update_from_flattened_dict(changes)
    started(config, tmp_path)
    assert warnings_of(caplog) == [
        "no weights are read for layers that config.optim.frozen keeps as they are, at random: "
        + layers
    ]


@pytest.mark.process
def test_a_run_with_frozen_layers_trains_goes_on_and_is_tested(tiny_run, tmp_path):
    """Its last state is that of a run that was not interrupted."""
    config = config_like(tiny_run, num_classes=12)
    config.optim.frozen, config.optim.ema_decay = "(conv|bn).*", 0.5
    config.loss.class_weights = ("balanced",)
    config.optim.schedule = "constant"
    for folder, lengths in (("in parts", (2, 4)), ("whole", (4,))):
        for config.total_steps in lengths:
            assert train.train_and_evaluate(config, tmp_path / folder) == train.DONE
    taken, parts, whole = map(params_of, (tiny_run, tmp_path / "in parts", tmp_path / "whole"))
    for path, value in whole.items():
        np.testing.assert_array_equal(parts[path], value, err_msg=path)
        if not path.startswith("params/fc/"):
            np.testing.assert_array_equal(value, taken[path], err_msg=path)
    (result,) = evaluate.evaluate_runs([tmp_path / "whole"], config, {"eval.precise_bn": 2})
    (plain,) = evaluate.evaluate_runs([tmp_path / "whole"], config, {})
    assert result.values["top1_error"] == plain.values["top1_error"]  # all statistics stay
    assert len(result.by_class.names) == 10


# --- export ---------------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capsys):
    """Runs `export` in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")

    def run(*arguments: str) -> tuple[Any, str, str]:
        return exit_code(export.cli, *arguments), *capsys.readouterr()

    return run


def test_the_exported_program_predicts_as_the_run_does_at_any_batch_size(
    tiny_run, tmp_path, command
):
    path = tmp_path / "net.stablehlo"
    code, out, err = command(f"--workdir={tiny_run}", f"--out={path}")
    assert (code, err) == (None, "") and out.startswith(
        f"{path}: resnet 'cifar-8' trained on digits, step 3 in"
    )
    program = jax.export.deserialize(bytearray(path.read_bytes()))
    assert program.platforms == ("cpu", "cuda", "tpu")
    predictor = make_predictor(trained.from_run(tiny_run))
    examples = open_split("digits", "test", str(tiny_run.parent / "data")).examples[:8]
    images = np.stack([predictor.prepare(example["image"]) for example in examples])
    expected = predictor.outputs(images)
    np.testing.assert_allclose(program.call(images), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(program.call(images[2:3]), expected[2:3], rtol=1e-5, atol=1e-7)


def test_exported_weights_start_a_run(tiny_run, tmp_path, command):
    path = tmp_path / "net.safetensors"
    assert command(f"--workdir={tiny_run}", f"--out={path}")[0] is None
    config = config_like(tiny_run)
    config.init_from = str(path)
    _, arrays = started(config, tmp_path)
    for name, value in params_of(tiny_run).items():
        np.testing.assert_array_equal(arrays[name], value, err_msg=name)


def test_exported_weights_are_tested_as_the_run_is(tiny_run, tmp_path, capsys):
    network = trained.from_run(tiny_run)
    weight_files.write(tmp_path / "net.safetensors", network.variables, "resnet", network.model)
    config = config_like(tiny_run)
    pixels = statistics.load(tiny_run / "statistics.npz")
    mean, std = (tuple(map(float, values)) for values in (pixels.mean, pixels.std))
    config.data.eval_device = f"normalize({mean}, {std})"
    (outcome,) = evaluate.evaluate_weights(tmp_path / "net.safetensors", config)
    rows = [row for row in read_rows(tiny_run / "metrics.jsonl") if "val/top1_error" in row]
    best = min(rows, key=lambda row: row["val/top1_error"])
    assert outcome.images == 360
    assert outcome.values["top1_error"] == pytest.approx(best["val/top1_error"], abs=0.3)
    assert f"with the weights of {tmp_path / 'net.safetensors'}" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            [],
            "write python -m cnn_papers.export --workdir=RUN "
            "--out=FILE.safetensors or FILE.stablehlo",
        ),
        (["--workdir=nowhere", "--out=a.safetensors"], "there is no run in nowhere"),
        (
            ["--workdir=run", "--out=a.onnx"],
            "--out=a.onnx: the name ends in .safetensors or .stablehlo",
        ),
        (["--workdir={run}", "--out=/proc/a/b.safetensors"], "cannot write /proc/a/b.safetensors"),
        (["--workdir={run}", "--out=/proc/b.safetensors"], "cannot write /proc/b.safetensors"),
        (["--workdir={run}", "--out=/proc/b.stablehlo"], "cannot write /proc/b.stablehlo"),
    ],
)
def test_mistakes_are_one_line(tiny_run, command, arguments, message):
    code, out, err = command(*(argument.replace("{run}", str(tiny_run)) for argument in arguments))
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
