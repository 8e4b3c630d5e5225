"""All commands: their paths, their output, and several of them in one process."""

import json
import logging
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import cv2
import jax
import numpy as np
import pytest
from absl import flags
from support.commands import exit_code

from cnn_papers import benchmark, describe, doors, export, main, predict, prepare, report
from cnn_papers.data import statistics, tfds
from cnn_papers.data.split import Split
from cnn_papers.errors import UserError
from cnn_papers.runs import compile_cache, config_files, workdir
from launch import sweep

ROOT = pathlib.Path(__file__).parents[2]
DOORS = (benchmark, describe, export, main, predict, prepare, report, sweep)
TILDE = "a name that begins with ~ is written ./~name"
NOBODY = f"~no-such-user/a: there is no user 'no-such-user'; {TILDE}"
NOT_UTF8 = os.fsdecode(b"ow\xffl")

# ml_collections reads configs with load_module
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


def write_photos(folder: pathlib.Path) -> None:
    """Writes three images of each of three classes, with names of all kinds."""
    rng = np.random.default_rng(0)
    for name in ("cat", "é×–", NOT_UTF8):
        (folder / name).mkdir(parents=True)
        for i in range(3):
            image = cv2.imencode(".png", rng.integers(0, 255, (8, 8, 3), np.uint8))[1]
            (folder / name / f"{i}{NOT_UTF8}.png").write_bytes(image.tobytes())


def training(data: str) -> list[str]:
    """Returns the flags of a run of one step on two images of `data`."""
    values = {
        "data.name": f"folder:{data}",
        "data.eval_split": "train",
        "data.train_host": "decode|resize(8)",
        "data.eval_host": "decode|resize(8)",
        "data.train_device": "normalize((127, 127, 127), (50, 50, 50))",
        "data.eval_device": "normalize((127, 127, 127), (50, 50, 50))",
        "model.num_classes": 3,
        "model.blocks": "(1,)",
        "model.widths": "(8,)",
        "mesh.data": 1,
        "batch_size": 2,
        "total_steps": 1,
    }
    overrides = [f"--config.{key}={value}" for key, value in values.items()]
    return ["--config=configs/resnet.py", *overrides]


# --- paths ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("door", DOORS, ids=lambda door: door.__name__)
def test_flags_that_name_a_file_or_folder_take_a_tilde(door, capsys):
    before = set(flags.FLAGS)
    with doors._defined(door.define_flags):
        defined = [flags.FLAGS[name] for name in set(flags.FLAGS) - before - {"config"}]
    of_paths = {flag.name for flag in defined if isinstance(flag.parser, doors._PathParser)}
    about_paths = {flag.name for flag in defined if re.search(r"\b(folder|file|FILE)\b", flag.help)}
    assert about_paths <= of_paths
    for name in of_paths:
        assert exit_code(door.cli, f"--{name}=~no-such-user/a") == 2
        assert capsys.readouterr().err == f"error: --{name}={NOBODY}\n"


@pytest.mark.parametrize(
    ("door", "arguments", "message"),
    [
        (predict, ["--workdir=r", "~no-such-user/a"], NOBODY),
        (report, ["~no-such-user/a"], NOBODY),
        (prepare, ["folder:~no-such-user/a"], f"config.data.name=folder:{NOBODY}"),
        (prepare, ["voc_folder:~no-such-user/a"], f"config.data.name=voc_folder:{NOBODY}"),
        (describe, ["--config=~no-such-user/a"], f"--config={NOBODY}"),
        (
            describe,
            ["--config=configs/lenet.py", "--config.init_from=~no-such-user/a"],
            f"config.init_from={NOBODY}",
        ),
        (
            sweep,
            ["--config=configs/lenet.py", "--grid=data.data_dir=a,~no-such-user/a"],
            f"config.data.data_dir={NOBODY}",
        ),
    ],
)
def test_a_user_that_does_not_exist_is_one_line(door, arguments, message, capsys):
    assert exit_code(door.cli, *arguments) == 2
    assert capsys.readouterr().err == f"error: {message}\n"


def test_keys_that_hold_a_path_take_a_tilde(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", "/home/ann")
    file = tmp_path / "mine.py"
    text = (ROOT / "configs/lenet.py").read_text()
    defaults = "config.data.data_dir, config.init_from = '~/tfds', '~/w.pth'"
    changed = (
        f"def get_config(recipe=''):\n    config = old(recipe)\n    {defaults}\n    return config"
    )
    file.write_text(f"{text}\nold = get_config\n{changed}\n")
    config = config_files.read(str(file), [("data.name", "folder:~/a"), ("data.train_split", "~")])
    assert config.data.data_dir == "/home/ann/tfds"
    assert config.init_from == "/home/ann/w.pth"
    assert config.data.name == "folder:/home/ann/a"
    assert config.data.train_split == "~"

    flags_of_run = [f"--config={file}", "--config.data.name=folder:~/a", f"--runs={tmp_path}/s"]
    assert exit_code(sweep.cli, *flags_of_run, "--seeds=1", "--dry_run") == 0
    assert "--config.data.name=folder:/home/ann/a" in capsys.readouterr().out


def test_the_last_value_of_a_key_counts(tmp_path, capsys):
    """Also of a tuple, which ml_collections would make longer with every value."""
    given = ["model.levels=(2,1)", "optim.lr=0.1", "model.levels=(3,)", "optim.lr=0.5"]
    overrides = [f"--config.{text}" for text in given]
    asked = ["--config=configs/spp.py", *overrides, f"--runs={tmp_path}/s", "--seeds=1"]
    assert exit_code(sweep.cli, *asked, "--dry_run") == 0
    (command,) = re.findall(r"python -m cnn_papers\.main.*", capsys.readouterr().out)
    assert re.findall(r"config\.(\S*?\.(?:levels|lr))=([\d(,.)]*)", command) == [
        ("model.levels", "(3,)"),
        ("optim.lr", "0.5"),
    ]


def test_a_name_with_commas_is_one_run_if_it_exists(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", "/home/ann")
    folders = [pathlib.Path(name) for name in ("a", "/home/ann/b")]
    assert main._folders("a,~/b") == folders
    (tmp_path / "a,b").mkdir()
    assert main._folders("a,b") == [pathlib.Path("a,b")]


# --- names that are not UTF-8, and several commands in one process --------------------------------


@pytest.mark.fault(
    "place: classes and images whose names are not UTF-8",
    "trained on and predicted; names are kept exactly in run.json and in files of features",
)
@pytest.mark.fault(
    "place: several commands in one process, as in a notebook", "each does what it does by itself"
)
def test_commands_in_one_process_on_names_of_all_kinds(tmp_path, monkeypatch, capfdbinary):
    write_photos(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    handlers = len(logging.getLogger().handlers)
    before = set(flags.FLAGS)
    names = ["cat", NOT_UTF8, "é×–"]
    image = f"photos/{NOT_UTF8}/0{NOT_UTF8}.png"
    train = [*training("~/photos"), "--workdir=~/runs/a"]

    assert exit_code(main.cli, *train) == 0
    assert not (tmp_path / "~").exists()
    run = workdir.read_run(tmp_path / "runs/a")
    assert run and run.class_names == tuple(names)
    assert run.config.data.name == f"folder:{tmp_path}/photos"

    assert exit_code(predict.cli, "--workdir=~/runs/a", "--jsn", image) == 2
    capfdbinary.readouterr()
    assert exit_code(predict.cli, "--workdir=~/runs/a", "--json", image) == 0
    predicted = json.loads(capfdbinary.readouterr().out.decode("ascii"))
    assert predicted["image"] == image
    assert sorted(row["class"] for row in predicted["classes"]) == names
    assert exit_code(predict.cli, "--workdir=~/runs/a", image) == 0
    features = ["--layer=fc", "--out=~/f.npz", "--split=train"]
    assert exit_code(predict.cli, "--workdir=~/runs/a", *features) == 0
    with np.load(tmp_path / "f.npz") as file:
        assert file["class_names"].tolist() == names

    assert exit_code(describe.cli, "--workdir=~/runs/a") is None
    assert exit_code(report.cli, "~/runs/a", "--out=~/report") is None
    assert (tmp_path / "report/report.html").is_file()
    capfdbinary.readouterr()
    assert exit_code(main.cli, *train) == 0
    assert b"this run is finished" in capfdbinary.readouterr().out
    assert len(logging.getLogger().handlers) == handlers
    left = set(flags.FLAGS) - before
    assert not left & {"config", "workdir", "mode", "json", "out", "config.batch_size"}


def test_more_devices_than_jax_has_started_with_are_one_line(capsys):
    present = len(jax.devices())
    options = ["--config=configs/lenet.py", f"--mesh=data:{present + 1}"]
    assert exit_code(describe.cli, *options) == 2
    assert capsys.readouterr().err == (
        f"error: this needs {present + 1} CPU devices, and JAX has started with {present} in this "
        "process: start another process, or the notebook's kernel anew\n"
    )


@pytest.mark.parametrize("error", [KeyboardInterrupt(), SystemExit(130)], ids=repr)
def test_ctrl_c_does_not_end_an_interactive_session(error, monkeypatch):
    def interrupted(argv: list[str]) -> None:
        raise error

    monkeypatch.setattr(sys, "ps1", ">>> ", raising=False)
    monkeypatch.setattr(sys, "argv", ["door"])
    with pytest.raises(type(error)):
        doors.run(interrupted, lambda: None)


# --- streams --------------------------------------------------------------------------------------


def in_a_command(code: str) -> list[str]:
    """Returns the command line of a process that runs `code` as the body of a command."""
    program = f"from cnn_papers import doors\ndef main(argv):\n    {code}\n"
    return [sys.executable, "-c", f"{program}doors.run(main, lambda: None)"]


@pytest.mark.fault(
    "place: a reader of the output that leaves, as in `| head -1`", "exit code 141, silently"
)
@pytest.mark.parametrize("size", [1, 10**6])
def test_output_that_nobody_reads_ends_a_command_silently(size):
    read, write = os.pipe()
    os.close(read)
    command = in_a_command(f"print('x' * {size})")
    process = subprocess.run(command, cwd=ROOT, stdout=write, stderr=subprocess.PIPE)
    os.close(write)
    assert (process.returncode, process.stderr) == (141, b"")


def test_another_broken_pipe_is_an_error():
    command = in_a_command("raise BrokenPipeError('of a helper')")
    process = subprocess.run(command, cwd=ROOT, capture_output=True)
    assert process.returncode == 1
    assert b"BrokenPipeError: of a helper" in process.stderr


@pytest.mark.fault("place: stdin and stdout that are closed", "the command does its work")
def test_a_file_does_not_take_the_place_of_a_closed_stdout(tmp_path):
    file = tmp_path / "written"
    code = f"f = open({str(file)!r}, 'w'); print('shown', flush=True); f.write('kept')"
    process = subprocess.run(
        ["sh", "-c", 'exec "$@" <&- >&-', "sh", *in_a_command(code)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
    )
    assert (process.returncode, process.stderr) == (0, b"")
    assert file.read_text() == "kept"


# --- a user without a home folder -----------------------------------------------------------------


def test_without_a_home_folder_nothing_is_kept_outside_the_data(no_home, tmp_path, monkeypatch):
    settings = {}
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    assert statistics.cache_folder() is None
    split = Split("x", [], ("a",), str(tmp_path))
    assert statistics.places(split) == [tmp_path / ".statistics"]
    tmp_path.chmod(0o555)
    assert statistics.places(split) == []
    compile_cache.enable()
    assert settings == {}


def test_the_compilation_cache_may_be_named_with_a_tilde(monkeypatch):
    settings = {}
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    monkeypatch.setenv("HOME", "/home/ann")
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "~/xla")
    compile_cache.enable()
    assert settings["jax_compilation_cache_dir"] == "/home/ann/xla"


@pytest.mark.parametrize("prepare_it", [tfds.make_digits, prepare.prepare])
def test_without_a_home_folder_a_data_set_needs_a_place(prepare_it, no_home, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TFDS_DATA_DIR", raising=False)
    with pytest.raises(UserError) as caught:
        prepare_it("digits")
    assert str(caught.value) == (
        "data sets are kept in your home folder, which is not known: "
        "set HOME or TFDS_DATA_DIR, or give a data_dir"
    )
    assert not any(tmp_path.iterdir())


@pytest.fixture
def everyones() -> Iterator[pathlib.Path]:
    """A folder that every user may look into; pytest's own are for one user."""
    with tempfile.TemporaryDirectory() as folder:
        pathlib.Path(folder).chmod(0o755)
        yield pathlib.Path(folder)


@pytest.mark.process
@pytest.mark.fault(
    "place: a user without a name and a home folder, as in a container",
    "trains, tests, predicts and exports as others do",
)
def test_a_user_without_a_name(everyones):
    if os.getuid() or not shutil.which("setpriv"):
        pytest.skip("becoming another user needs root and setpriv")
    write_photos(everyones / "photos")
    (everyones / "here").mkdir()
    (everyones / "here").chmod(0o777)
    dropped = ("HOME", "XDG_CACHE_HOME", "JAX_COMPILATION_CACHE_DIR", "TFDS_DATA_DIR")
    environment = {name: value for name, value in os.environ.items() if name not in dropped}
    user = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups", sys.executable]
    probe = [*user, "-c", "import cnn_papers, jax"]
    if subprocess.run(probe, cwd="/", env={**environment, "PYTHONPATH": str(ROOT)}).returncode:
        pytest.skip("another user cannot read the packages of this environment")

    def command(module: str, *arguments: str) -> str:
        process = subprocess.run(
            [*user, "-m", module, *arguments],
            cwd=everyones / "here",
            env={**environment, "PYTHONPATH": str(ROOT)},
            capture_output=True,
            text=True,
            errors="surrogateescape",
        )
        assert process.returncode == 0, process.stderr
        return process.stdout

    train = [*training("../photos"), "--workdir=a"]
    assert "  last  step 1: " in command("cnn_papers.main", *train)
    assert "single_view" in command("cnn_papers.main", *train, "--mode=eval")
    assert NOT_UTF8 in command("cnn_papers.predict", "--workdir=a", "../photos/cat")
    command("cnn_papers.export", "--workdir=a", "--out=a.safetensors")
    command("cnn_papers.report", "a")
    assert {path.name for path in (everyones / "here").iterdir()} == {"a", "a.safetensors"}
