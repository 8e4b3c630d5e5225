"""Layer tables, tables of trained parameters and the zoo table, as users see them."""

import ast
import os
import pathlib
import re
import subprocess
import sys
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from support.commands import exit_code

from cnn_papers import describe, zoo
from cnn_papers.runs import pictures
from cnn_papers.weights import convert, trained, weight_files

# ml_collections reads configs with load_module
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
ZOO = pathlib.Path(__file__).parents[2] / "docs" / "zoo.md"


@pytest.fixture
def command(capsys):
    """Runs `describe` in this process: exit code, stdout, stderr."""

    def run(*arguments: str) -> tuple[Any, str, str]:
        return exit_code(describe.cli, *arguments), *capsys.readouterr()

    return run


def test_the_zoo_page_is_what_the_command_prints(command):
    """After a change: python -m cnn_papers.describe --zoo > the table of docs/zoo.md."""
    code, out, _ = command("--zoo")
    text = ZOO.read_text()
    assert code is None and text[text.index("| variant") :] == out
    for name in zoo.model_names():
        for variant in zoo.model_module(name).VARIANTS:
            assert f"| {name} `{variant}` |" in out


def test_the_page_of_recipes_is_what_the_command_prints(command):
    """After a change: python -m cnn_papers.describe --sources > docs/recipes.md"""
    code, out, _ = command("--sources")
    assert code is None and (ZOO.parent / "recipes.md").read_text() == out


def test_the_sources_of_one_recipe(command):
    """What it sets, then what it leaves as every recipe starts; as its file has it."""
    code, out, err = command("--config=configs/alexnet.py:imagenet2012", "--sources")
    own, start = out.split("Every recipe starts")
    assert (code, err) == (None, "")
    assert "| `optim.weight_decay` | `0.0005` | §5 |" in own.splitlines()
    assert "`optim.nesterov`" in start and "`optim.nesterov`" not in own
    meaning = (
        "written like lr_mults; (): decay acts on biases and batch norm's scale and shift too |"
    )
    assert f"| `optim.wd_mults` | `()` | as every recipe starts: {meaning}" in own.splitlines()
    assert f"| `optim.wd_mults` | `()` | {meaning}" in start.splitlines()
    code, out, err = command(
        "--config=configs/alexnet.py", "--sources", "--config.optim.lr=0.5", "--config.seed=1"
    )
    assert (code, out) == (2, "") and "leave out --config.optim.lr" in err


def test_a_row_of_the_zoo_page(command):
    rows = {line.split("|")[1].strip(): line for line in command("--zoo")[1].splitlines()}
    assert rows["vgg `D`"] == (
        "| vgg `D` | 224×224×3 | 138,357,544 | 15,470,264,320 | 138M | "
        "top1 27.0, top5 8.8 (imagenet2012, S = Q = 256, dense, Table 3); "
        "top1 26.8, top5 8.7 (imagenet2012_384, S = Q = 384, dense, Table 3); "
        "top1 25.6, top5 8.1 (imagenet2012_jitter, S in [256, 512], Q = 384, dense, Table 3); "
        "top1 24.8, top5 7.5 (imagenet2012_jitter, S in [256, 512], Q = 256, 384, 512, dense, "
        "Table 4); top1 24.4, top5 7.2 (imagenet2012_jitter, S in [256, 512], Q = 256, 384, 512, "
        "dense and crops, Table 5) |"
    )


@pytest.mark.parametrize("name", [name for name in zoo.model_names() if name != "alexnet_cifar"])
def test_every_network_is_described_from_its_config(name, command):
    """The last variant of its file, at the size for which the paper's numbers hold."""
    variant, facts = list(zoo.model_module(name).FACTS.items())[-1]
    size = ",".join(map(str, facts.input))
    code, out, err = command(
        f"--config=configs/{name}.py", f"--config.model.variant={variant}", f"--input={size}"
    )
    assert (code, err) == (None, "")
    assert out.splitlines()[-1].startswith("total") and "multiply-adds" in out.splitlines()[0]


def test_alexnets_figure_2_as_a_table(command):
    """In a process of its own: it makes as many devices as the mesh takes."""
    arguments = ["--config=configs/alexnet.py", "--mesh=data:4,column:2"]
    run = subprocess.run(
        [sys.executable, "-m", "cnn_papers.describe", *arguments], capture_output=True, text=True
    )
    assert (run.returncode, run.stderr) == (0, "")
    table, sent, memory = run.stdout.rsplit("\n", 3)[:3]
    rows = {line.split("  ")[0]: re.split(" {2,}", line.rstrip()) for line in table.splitlines()}
    for layer in ("conv3", "fc6", "fc7", "fc8"):
        _, whole, here, forward, backward, _ = rows[layer]
        assert int(here.replace(",", "")) * 2 == int(whole.replace(",", ""))
        assert forward.startswith("all-gather ")
        gradient = f"all-reduce {4 * int(here.replace(',', '')):,} B"
        assert backward == f"{forward.replace('all-gather', 'reduce-scatter')}, {gradient}"
    # 16 images a device, the 3×3 maps of both columns before conv3: 64 channels of float32, there
    # and back
    assert rows["conv3"][3] == f"all-gather {16 * 3 * 3 * 64 * 4:,} B"
    assert rows["conv3"][5] == f"{2 * 16 * 3 * 3 * 64 * 4 + 4 * 27_696:,} B"
    for layer in ("conv1", "conv2", "conv4", "conv5"):
        _, _, here, backward, bound = rows[layer]
        assert (
            backward == f"all-reduce {bound}" == f"all-reduce {4 * int(here.replace(',', '')):,} B"
        )
    assert re.fullmatch(r"sent    [\d,]+ B a device and step, 1\.00\d times the least", sent)
    assert memory.startswith("memory  ")


WRITTEN = "write data:4 or data:4,column:2"


@pytest.mark.parametrize(
    ("mesh", "message"),
    [
        ("data:4,colum:2", f"--mesh=data:4,colum:2: {WRITTEN}"),
        ("data:4,data:2", f"--mesh=data:4,data:2: {WRITTEN}"),
        ("data:999999", f"--mesh=data:999999: {WRITTEN}"),
        ("data:0", f"--mesh=data:0: {WRITTEN}"),
        (
            "data:1,column:2",
            "config.mesh.column=2: this network has no columns; 1 disables column parallelism",
        ),
        ("data:5", "config.batch_size=64 does not divide into 1 × 5 parts"),
    ],
)
def test_meshes_that_cannot_be(command, mesh, message):
    code, out, err = command("--config=configs/resnet.py", f"--mesh={mesh}")
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


@pytest.mark.parametrize("size", ["0,0,3", "64,64,0", "3", "a,b,c"])
def test_inputs_that_are_none(command, size):
    code, out, err = command("--config=configs/alexnet.py", f"--input={size}")
    assert (code, out) == (2, "") and "it takes height,width,channels" in err


def test_a_format_that_a_table_has_not(command):
    for table in ("--zoo", "--sources"):
        code, _, err = command(table, "--format=json")
        assert code == 2 and "--zoo and --sources are Markdown" in err


def test_a_network_as_a_diagram(command, tmp_path):
    path = tmp_path / "new" / "net.SVG"
    code, out, err = command(
        "--config=configs/lenet.py", "--config.model.dtype=bfloat16", f"--plot={path}"
    )
    assert (code, err) == (None, "")
    assert out == f"{path}: lenet 'relu', 7 layers\n"
    texts = [element.text for element in ElementTree.parse(path).iter()]
    assert texts[:2] == ["\n", "lenet 'relu'"]
    for row in command("--config=configs/lenet.py")[1].splitlines()[2:9]:
        name, shape, *numbers = row.split()
        assert {name, shape, *numbers} <= set(texts)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--plot=net.png"], "--plot=net.png: the name ends in .svg"),
        (["--plot=/dev/null/net.svg"], "cannot write /dev/null/net.svg: "),
        (["--plot=net.svg", "--format=json"], "--format is for the table of one network, --plot"),
        (["--plot=net.svg", "--zoo"], "--format is for the table of one network, --plot draws it"),
        (["--plot=net.svg", "--mesh=data:2"], "--format is for the table of one network, --plot"),
        (["--plot=net.svg", "--input=1,1,3"], "config.model: "),
        (["--filters=a.png"], "--filters is of trained weights: add --workdir=RUN, or --weights"),
        (["--filters=a.jpg"], "--filters=a.jpg: the name ends in .png"),
    ],
)
def test_pictures_that_cannot_be(command, tmp_path, monkeypatch, arguments, message):
    config = f"--config={pathlib.Path('configs/lenet.py').resolve()}"
    monkeypatch.chdir(tmp_path)
    code, out, err = command(config, *arguments)
    assert (code, out) == (2, "") and not list(tmp_path.iterdir())
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


# --- trained parameters ---------------------------------------------------------------------------

TINY_RESNET = (
    "--config=configs/resnet.py",
    "--config.model.blocks=(1,)",
    "--config.model.widths=(8,)",
)


def assert_overview(text: str, network: trained.Trained, collection: str) -> None:
    """Compares a printed table with the arrays of `network`, through NumPy only."""
    arrays = convert.flatten({collection: network.variables[collection]}, network.model)
    rule, header, _, *rows, last_rule, total = text.splitlines()
    assert rule == last_rule and set(rule) == {"+", "-"}
    assert " ".join(header.split()) == "| Name | Shape | Dtype | Size | Mean | Std |"
    cells = [[cell.strip() for cell in row.strip("|").split("|")] for row in rows]
    assert [name for name, *_ in cells] == sorted(arrays)
    for name, shape, dtype, size, mean, std in cells:
        array = np.asarray(arrays[name])
        assert ast.literal_eval(shape) == array.shape and dtype == "float32"
        assert size == f"{array.size:,}"
        assert (mean, std) == (f"{float(array.mean()):.3}", f"{float(array.std()):.3}"), name
    sizes = [np.asarray(array).size for array in arrays.values()]
    assert total == f"Total: {sum(sizes):,} -- {4 * sum(sizes):,} bytes"


def test_the_trained_parameters_of_a_run_without_tensorflow(tiny_run):
    """In a process of its own, which then lists the modules that it has imported."""
    code = (
        "import sys; from cnn_papers.describe import cli\ntry: cli()\nfinally: print(*sys.modules)"
    )
    run = subprocess.run(
        [sys.executable, "-c", code, f"--workdir={tiny_run}"],
        capture_output=True,
        text=True,
        env={**os.environ, "JAX_COMPILATION_CACHE_DIR": ""},
    )
    assert (run.returncode, run.stderr) == (0, "")
    description, *table, modules = run.stdout.splitlines()
    assert description == f"resnet 'cifar-8' trained on digits, step 3 in {tiny_run / 'best'}"
    params, batch_stats = "\n".join(table).split(" bytes\n", 1)
    network = trained.from_run(tiny_run)
    assert_overview(f"{params} bytes", network, "params")
    assert_overview(batch_stats, network, "batch_stats")
    assert "clu.parameter_overview" in modules.split()
    assert not {"tensorflow", "clu.metric_writers"} & set(modules.split())


def test_the_parameters_of_a_weights_file(tiny_run, tmp_path, command):
    """The same tables as of the run that the file was exported from."""
    network, path = trained.from_run(tiny_run), tmp_path / "net.safetensors"
    weight_files.write(path, network.variables, "resnet", network.model)
    code, out, err = command(*TINY_RESNET, f"--weights={path}")
    assert (code, err) == (None, "")
    description, table = out.split("\n", 1)
    assert description == f"resnet 'cifar-8' with the weights of {path}"
    assert table == command(f"--workdir={tiny_run}")[1].split("\n", 1)[1]


def test_the_filters_of_a_run_and_of_a_weights_file(tiny_run, tmp_path, command, monkeypatch):
    """Those of 3×3 pixels are too small, unless the limit is lower."""
    network, weights = trained.from_run(tiny_run), tmp_path / "net.safetensors"
    weight_files.write(weights, network.variables, "resnet", network.model)
    path = tmp_path / "filters.png"
    code, out, err = command(f"--workdir={tiny_run}", f"--filters={path}")
    assert (code, out) == (2, "") and not path.exists()
    assert "filters of 3×3 pixels are too small to draw: 5×5 is the least" in err
    monkeypatch.setattr(pictures, "LEGIBLE", 3)
    code, out, err = command(f"--workdir={tiny_run}", f"--filters={path}")
    assert (code, err) == (None, "")
    assert out == f"{path}: 8 filters of 3×3 pixels, {network.description}\n"
    of_run = path.read_bytes()
    code, out, err = command(*TINY_RESNET, f"--weights={weights}", f"--filters={path}")
    assert (code, err) == (None, "") and path.read_bytes() == of_run
    assert (
        out == f"{path}: 8 filters of 3×3 pixels, resnet 'cifar-8' with the weights of {weights}\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--workdir=nowhere"], "there is no run in nowhere"),
        (["--workdir=run", "--weights=a.pth"], "--workdir=RUN and --weights=FILE each name a"),
        (["--workdir=run", *TINY_RESNET], "--workdir=RUN takes the config of the run: leave out"),
        (["--weights=a.pth"], "--config is missing; for example --config=configs/googlenet.py."),
        ([*TINY_RESNET, "--weights=no.pth"], "there is no weights file no.pth to read: No such"),
        (["--workdir=run", "--zoo"], "--zoo does not go with --workdir or --weights"),
        (["--workdir=run", "--mesh=data:2"], "--mesh does not go with --workdir or --weights"),
        (["--workdir=run", "--topology=cpu:2"], "--topology does not go with --workdir or"),
        (["--workdir=run", "--input=32,32,3"], "--input does not go with --workdir or --weights"),
        ([*TINY_RESNET, "--weights=a.pth", "--format=json"], "--format does not go with"),
        (["--workdir=run", "--plot=a.svg"], "--plot does not go with --workdir or --weights"),
    ],
)
def test_mistakes_about_trained_parameters_are_one_line(command, arguments, message):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}") and err.count("\n") == 1
