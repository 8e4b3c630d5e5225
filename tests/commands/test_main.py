"""The command line: a mistake is one line on stderr and exit code 2, and no file is touched."""

import hashlib
import os
import pathlib
import shutil
import subprocess
import sys
from typing import NamedTuple

import cv2
import jax
import numpy as np
import pytest
from support.commands import exit_code
from support.processes import TINY

from cnn_papers import main
from cnn_papers.runs import compile_cache, inputs, summary, workdir
from cnn_papers.runs.rows import read_rows
from cnn_papers.tasks.classify import MEASURES
from configs import resnet

ROOT = pathlib.Path(__file__).parents[2]
RESNET = "--config=configs/resnet.py"

TWO_STEPS = [*TINY, "--config.total_steps=2", "--config.log_every_steps=1"]

# ml_collections reads configs with load_module
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


class Outcome(NamedTuple):
    """Exit code and output of a command."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def digits_dir(home: pathlib.Path) -> pathlib.Path:
    """A data_dir in which `digits` lies ready."""
    return home / "tfds"


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory, digits_dir) -> dict[str, str]:
    """Environment of a process: one device, none of the user's folders, this checkout."""
    cache = tmp_path_factory.mktemp("main_cache")
    paths = {
        "TFDS_DATA_DIR": digits_dir,
        "XDG_CACHE_HOME": cache,
        "PYTHONPATH": ROOT,
        "HOME": cache,
    }
    return {**os.environ, **{name: str(path) for name, path in paths.items()}}


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, environment) -> tuple[pathlib.Path, Outcome]:
    """The folder in which a process started a run of two steps, and the outcome of the process."""
    folder = tmp_path_factory.mktemp("finished")
    code = "import sys; from cnn_papers.main import cli\ntry: cli()\nfinally: print(*sys.modules)"
    arguments = [*TWO_STEPS, "--config.mesh.data=1"]
    process = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
    )
    return folder, Outcome(process.returncode, process.stdout, process.stderr)


@pytest.fixture
def command(tmp_path, monkeypatch, capfd, digits_dir):
    """Runs main's command line in this process, in an empty folder, with `digits` ready."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def run(*arguments: str) -> Outcome:
        own = (
            {"--config.data.data_dir": digits_dir, "--config.mesh.data": 1}
            if RESNET in arguments
            else {}
        )
        given = {argument.partition("=")[0] for argument in arguments}
        defaults = [f"{flag}={value}" for flag, value in own.items() if flag not in given]
        capfd.readouterr()
        code = exit_code(main.cli, *arguments, *defaults)
        assert isinstance(code, int)
        return Outcome(code, *capfd.readouterr())

    return run


def contents(folder: pathlib.Path) -> dict[str, str]:
    """Every file below a folder with its digest, and every folder; without the lock file."""
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        if path.is_file()
        else "folder"
        for path in sorted(folder.rglob("*"))
        if path.name != ".lock"
    }


def assert_one_line(outcome: Outcome) -> str:
    """The one line on stderr that a user's mistake comes out as."""
    assert outcome.code == 2, outcome
    assert outcome.err.startswith("error: ") and outcome.err.endswith("\n"), outcome.err
    assert outcome.err.count("\n") == 1, outcome.err
    assert "Traceback" not in outcome.err + outcome.out
    return outcome.err


# --- mistakes -------------------------------------------------------------------------------------

KEYS = [
    (
        "--config.batchsize=3",
        "there is no config key config.batchsize; did you mean 'batch_size'?",
    ),
    (
        "--config.optim.moment=3",
        "there is no config key config.optim.moment; did you mean 'momentum'?",
    ),
    (
        "--config.model.widht=3",
        "there is no config key config.model.widht; did you mean 'width'?",
    ),
    ("--config.modle.width=3", "there is no config key config.modle; did you mean 'model'?"),
    (
        "--config.optim.xyz=3",
        "there is no config key config.optim.xyz; there are: accumulate, bn_group, constant_lr,",
    ),
    (
        "--config.optim.lr.x=3",
        "config.optim.lr is a value, not a group: it has no key 'x'",
    ),
    (
        "--noconfig.optim.nestrov",
        "there is no config key config.optim.nestrov; did you mean 'nesterov'?",
    ),
    ("--confg=configs/resnet.py", "Unknown command line flag 'confg'. Did you mean: config"),
    ("--workdri=x", "Unknown command line flag 'workdri'. Did you mean: workdir"),
    ("more", "unexpected argument 'more'; overrides are written --config.key=value"),
    ("--mode=test", "flag --mode=test: value should be one of <train|eval>"),
]
TYPES = [
    ("--config.batch_size=1.5", "flag --config.batch_size=1.5: invalid literal for int()"),
    ("--config.batch_size=many", "flag --config.batch_size=many: invalid literal for int()"),
    ("--config.optim.lr=abc", "flag --config.optim.lr=abc: could not convert string to float"),
    ("--config.optim.nesterov=maybe", "flag --config.optim.nesterov=maybe: "),
    (
        "--config.model.width=wide",
        "flag --config.model.width=wide: could not convert string to float",
    ),
    ("--config.model=3", "flag --config.model=3: Failed to parse '3' as a ConfigDict"),
]
RANGES = [
    ("--config.batch_size=0", "config.batch_size=0 must be positive"),
    ("--config.batch_size=-8", "config.batch_size=-8 must be positive"),
    ("--config.optim.lr=-0.1", "config.optim.lr=-0.1 must be zero or more"),
    ("--config.optim.lr=nan", "config.optim.lr=nan must be finite"),
    ("--config.total_epochs=inf", "config.total_epochs=inf must be finite"),
    ("--config.total_epochs=0", "config.total_epochs or config.total_steps must be positive"),
    ("--config.optim.momentum=1", "config.optim.momentum=1.0 must be below 1"),
    ("--config.model.width=0", "config.model.width=0.0 must be positive"),
    ("--config.log_every_steps=0", "config.log_every_steps=0 must be positive"),
    ("--config.eval.batch_size=-1", "config.eval.batch_size=-1 must be zero or more"),
    ("--config.seed=-1", "config.seed=-1 must be zero or more"),
    ("--config.seed=99999999999999999999", "config.seed=99999999999999999999 must be below 2**32"),
    ("--config.eval.protocol=twelve_crops", "config.eval.protocol: there is no 'twelve_crops'"),
    (
        "--config.eval.protocol=ten_crop(36, 32)",
        "a crop of 36 does not fit images of shorter side 32",
    ),
    ("--config.eval.precise_bn=-1", "config.eval.precise_bn=-1 must be zero or more"),
]
PIECES = [
    ("--config.data.name=digitss", "no data set is called 'digitss': did you mean digits?"),
    (
        "--config.data.eval_split=tset",
        "digits has no split 'tset': it has train (1,437), test (360)",
    ),
    ("--config.data.eval_split=test[:0]", "split 'test[:0]' of digits is empty"),
    ("--config.data.name=folder:nowhere", "no folder 'nowhere'"),
    ("--config.data.name=voc_folder:nowhere", "no folder 'nowhere': write voc_folder:PATH with"),
    (
        "--config.data.resident=maybe",
        "config.data.resident is 'auto', 'always' or 'never', not 'maybe'",
    ),
    (
        "--config.data.train_host=decode|resise(32)",
        "config.data.train_host: there is no 'resise' (did you mean 'resi",
    ),
    (
        "--config.data.train_host=decode|resize",
        "config.data.train_host: 'resize' does not fit resize(height: int, ",
    ),
    (
        "--config.data.train_host=decode|resize('a')",
        "'resize('a')' does not fit resize(height: int",
    ),
    (
        "--config.data.train_host=decode|resize(0)",
        "config.data.train_host: 'resize' fails on digits[train]:0",
    ),
    (
        "--config.data.train_host=decode|resize(open('x'))",
        "config.data.train_host: cannot read 'resize(open('x'))'",
    ),
    ("--config.data.eval_host=resize(32)", "config.data.eval_host must begin with 'decode'"),
    (
        "--config.data.train_device=flap",
        "config.data.train_device: there is no 'flap' (did you mean 'flip'?)",
    ),
    (
        "--config.data.eval_device=flip",
        "config.data.eval_device: 'flip' is random, which evaluation may not be",
    ),
    (
        "--config.data.train_device=pad_crop(-1)",
        "config.data.train_device: 'pad_crop' fails on images of 32×32×3",
    ),
    (
        "--config.data.eval_host=decode(1)|resize(32)",
        "a network for images of (32, 32, 3) (config.data.train_host) can",
    ),
    (
        "--config.model.num_classes=5",
        "digits[train] has 10 classes, the network's head 5: set --config.model.num_clas",
    ),
    ("--config.batch_size=1438", "config.batch_size=1438 exceeds the 1437 images of digits[train]"),
    (
        "--config.model.variant=cifar-21",
        "config.model: unknown model.variant 'cifar-21'; there are: 18, ",
    ),
    ("--config.model_name=resnett", "unknown config.model_name 'resnett'; there are: alexnet, "),
    ("--config.model.dtype=float64", "config.model.dtype is float32 or bfloat16, not 'float64'"),
    (
        "--config.optim.schedule=cosin",
        "config.optim.schedule: there is no 'cosin' (did you mean 'cosine'?)",
    ),
    ("--config.optim.lr_mults=3", "config.optim.lr_mults=(3,) takes ((regex, factor), …)"),
    (
        "--config.optim.lr_mults=(('fd/.*', 2.0),)",
        "config.optim.lr_mults: 'fd/.*' matches no parameter",
    ),
    (
        "--config.optim.momentum_form=adam",
        "config.optim.momentum_form is 'caffe' or 'torch', not 'adam'",
    ),
    (
        "--config.eval.protocol=overfeat_dense",
        "overfeat_dense needs a network that pools last at every offset",
    ),
    ("--config.init_from=none.pth", "there is no run or weights file none.pth to start from"),
    (
        "--config.init_layers=conv1",
        "config.init_layers selects layers of config.init_from, which is empty",
    ),
    ("--config.model.num_classes=0", "config.model.num_classes=0 must be positive"),
    (
        "--config.mesh.column=2",
        "config.mesh.column=2: this network has no columns; 1 disables column parallelism",
    ),
    (
        "--config.mesh.column=9",
        "config.mesh.column=9 needs 9 devices and 8 are available; 1 disables column parallelism, "
        "and JAX_NUM_CPU_DEVICES=N in the environment makes N devices of a CPU",
    ),
    (
        "--config.optim.bn_group=7",
        "config.optim.bn_group=7 does not divide the batch of 64: set it to a",
    ),
    ("--weights=a.pth", "--weights goes with --mode=eval and without --workdir"),
    (
        "--config.mesh.data=9",
        "config.mesh.data=9 needs 9 devices and 8 are available; -1 takes all of them",
    ),
    ("--config.optim.accumulate=3", "config.batch_size=64 does not divide into 3 × 1 parts"),
]


@pytest.mark.parametrize(("flag", "message"), KEYS + TYPES + RANGES + PIECES)
def test_a_mistake_is_one_line_and_leaves_nothing_behind(command, tmp_path, flag, message):
    assert message in assert_one_line(command(RESNET, flag, "--workdir=deep/run"))
    assert [name for name in contents(tmp_path) if not name.startswith("cache")] == []


@pytest.mark.parametrize("steps", [[], ["--config.total_steps=100"]])
def test_a_number_of_epochs_that_counts_for_nothing_is_refused(command, steps):
    arguments = [f"{RESNET}:cifar10", "--config.total_epochs=3", *steps, "--workdir=deep/run"]
    message = assert_one_line(command(*arguments))
    number = 100 if steps else 64000
    assert f"total_epochs=3.0 has no effect beside config.total_steps={number}" in message


def test_in_the_default_workdir_a_mistake_leaves_nothing_behind_either(command, tmp_path):
    assert_one_line(command(RESNET, "--config.data.train_host=decode|resise(3)"))
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "arguments", [(), ("--workdir=x",), ("--config.seed=3",), ("--mode=eval", "--config.a.b=c")]
)
def test_without_a_config_the_files_are_listed(command, tmp_path, arguments):
    line = assert_one_line(command(*arguments))
    assert "--config is missing; for example --config=configs/googlenet.py. There are: " in line
    assert "configs/alexnet.py" in line and "configs/resnet.py" in line and "common" not in line
    assert contents(tmp_path) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ("--config=configs/resent.py",),
        ("--config", "configs/resent.py"),
        ("-config=configs/resent.py",),
        ("--config=configs/resent.py:desk",),
        ("--config=",),
        ("--config",),
        ("--config=.",),
        ("--config=configs/resent.py", "--config.batch_size=3"),
    ],
)
def test_a_config_file_that_is_not_there_is_named_and_the_others_are_listed(command, arguments):
    line = assert_one_line(command(*arguments))
    assert "there is no config file '" in line and "There are: configs/alexnet.py" in line


def test_a_recipe_that_is_not_there_is_refused_with_the_list(command):
    line = assert_one_line(command("--config=configs/resnet.py:imagnet"))
    assert (
        "configs/resnet.py has no recipe 'imagnet'; there are: desk, cifar10, cifar10_110, " in line
    )


def test_config_may_stand_apart_from_its_value(command):
    line = assert_one_line(command("--config", "configs/resnet.py:cifar10", "--config.batchsize=3"))
    assert "did you mean 'batch_size'?" in line


def test_an_error_within_a_config_file_is_shown_without_its_traceback(command, tmp_path):
    (tmp_path / "mine.py").write_text("def get_config():\n    raise ValueError('no such luck')\n")
    line = assert_one_line(command("--config=mine.py"))
    assert "--config=mine.py" in line and line.endswith("ValueError: no such luck\n")


def test_data_that_are_not_prepared_come_with_the_exact_command(command, digits_dir):
    line = assert_one_line(command(RESNET, "--config.data.name=cifar100"))
    assert f"cifar100 is not prepared in {digits_dir}/cifar100/" in line
    assert line.endswith(f"run python -m cnn_papers.prepare cifar100 --data_dir={digits_dir}\n")


@pytest.mark.fault(
    "mesh: a batch that does not divide over the devices",
    "one line with the nearest that does, before anything is compiled or made",
)
def test_a_batch_that_does_not_divide_over_the_devices_comes_with_the_nearest_that_does(command):
    line = assert_one_line(command(RESNET, "--config.mesh.data=8", "--config.batch_size=60"))
    assert "config.batch_size=60 does not divide into 1 × 8 parts" in line and line.endswith(
        "that does is 64\n"
    )


MESHES = [
    (
        RESNET,
        ("--config.mesh.data=9",),
        "config.mesh.data=9 needs 9 devices and 8 are available; -1 takes all of them",
    ),
    (
        RESNET,
        ("--config.mesh.data=0",),
        "config.mesh.data=0 must be positive, or -1 for all devices",
    ),
    (RESNET, ("--config.mesh.data=8", "--config.batch_size=60"), "nearest that does is 64"),
    (RESNET, ("--config.mesh.data=5",), "config.batch_size=64 does not divide into 1 × 5 parts"),
    (
        "--config=configs/alexnet.py",
        ("--config.mesh.column=9",),
        "config.mesh.column=9 needs 9 devices and 8 are available",
    ),
    (
        "--config=configs/alexnet.py",
        ("--config.mesh.data=8", "--config.mesh.column=2"),
        "data=8 × column=2 needs 16 devices and 8 are available",
    ),
]


@pytest.mark.fault(
    "mesh: a batch, a `data` or a `column` that does not divide, more devices than there are",
    "one line with values that work, before anything is compiled or made",
)
@pytest.mark.parametrize(("config", "overrides", "message"), MESHES)
def test_a_mesh_that_cannot_be_is_one_line_before_anything_compiles(
    command, tmp_path, monkeypatch, digits_dir, config, overrides, message
):
    compiled = []

    def listen(event: str, *_, **__) -> None:
        compiled.extend([event] if "backend_compile" in event else [])

    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.jit(lambda x: x + len(message))(1.0)
        assert len(compiled) >= 1  # it does hear
        compiled.clear()
        line = assert_one_line(
            command(config, *overrides, f"--config.data.data_dir={digits_dir}", "--workdir=run")
        )
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert message in line and compiled == []
    assert not (tmp_path / "run").exists()


def test_a_folder_with_an_image_that_cannot_be_decoded_is_not_evaluated(command, tmp_path):
    for name in ("train/ant", "train/bee", "val/ant", "val/bee"):
        (tmp_path / "images" / name).mkdir(parents=True)
        for i in range(4):
            cv2.imwrite(
                str(tmp_path / "images" / name / f"{i}.png"), np.full((8, 8, 3), 20 * i, np.uint8)
            )
    (tmp_path / "images/val/bee/2.png").write_bytes(b"no image")
    data = [
        "--config.data.name=folder:images",
        "--config.data.eval_split=val",
        "--config.batch_size=4",
    ]
    line = assert_one_line(command(RESNET, *data, "--workdir=run"))
    reason = "cannot be decoded: not a JPEG, PNG, BMP or WebP"
    assert f"image bee/2.png of folder:images[val] {reason}" in line
    assert "evaluation needs every image" in line
    assert not (tmp_path / "run").exists()


def test_a_folder_with_one_class_is_not_trained_on(command, tmp_path):
    (tmp_path / "images/dog").mkdir(parents=True)
    for i in range(5):
        cv2.imwrite(str(tmp_path / f"images/dog/{i}.png"), np.zeros((8, 8, 3), np.uint8))
    data = ["--config.data.name=folder:images", "--config.data.eval_split=train[80%:]"]
    line = assert_one_line(command(RESNET, *data, "--config.batch_size=2", "--workdir=run"))
    assert "folder:images[train] has one class, dog: training needs two or more" in line
    assert not (tmp_path / "run").exists()


# --- workdirs -------------------------------------------------------------------------------------


@pytest.mark.fault(
    "full disk: a workdir that cannot be written to", "one line before the start, nothing touched"
)
def test_a_workdir_that_cannot_be_written_to_is_refused(command, tmp_path):
    (tmp_path / "file").write_text("not a folder, not even for root")
    line = assert_one_line(command(RESNET, "--workdir=file/run"))
    assert (
        "workdir file/run cannot be written to: Not a directory; give another with --workdir"
        in line
    )
    assert (tmp_path / "file").read_text() == "not a folder, not even for root"


@pytest.mark.fault(
    "full disk: too little space for the checkpoints",
    "one line with bytes free and needed, before the start",
)
def test_a_workdir_without_space_is_refused(command, tmp_path, monkeypatch):
    usage = workdir.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(workdir.shutil, "disk_usage", lambda _: usage)
    line = assert_one_line(command(RESNET, "--workdir=run"))
    assert "workdir run has 1,000 bytes free; " in line and "give another with --workdir" in line
    assert not (tmp_path / "run").exists()


@pytest.mark.fault(
    "two runs: the command line, in a folder in use",
    "one line with the holder's process, exit code 2",
)
def test_a_workdir_in_use_is_refused(command, tmp_path):
    with workdir.locked(tmp_path / "run"):
        line = assert_one_line(command(RESNET, "--workdir=run"))
    assert f"workdir run is in use by process {os.getpid()} on " in line


@pytest.mark.fault(
    "config: another learning rate, or another seed",
    "refused with the difference, exit code 2, nothing changed",
)
@pytest.mark.parametrize(
    ("change", "difference"),
    [
        ("--config.optim.lr=0.7", "optim.lr: 0.05 there, 0.7 now"),
        ("--config.seed=7", "seed: 0 there, 7 now"),
    ],
)
def test_a_workdir_of_another_run_is_refused_with_the_differences(
    command, finished, change, difference
):
    folder = finished[0] / "runs" / "resnet-desk"
    before = contents(folder)
    line = assert_one_line(command(*TWO_STEPS, f"--workdir={folder}", change))
    assert line == (
        f"error: workdir {folder} holds a run of another configuration ({difference}); "
        "give another with --workdir, or remove it\n"
    )
    assert contents(folder) == before


def test_evaluating_where_no_run_is_says_so(command, tmp_path):
    line = assert_one_line(command(RESNET, "--mode=eval"))
    assert "there is no run in runs/resnet-desk: give the folder of a training" in line
    assert not (tmp_path / "runs").exists()


# --- runs -----------------------------------------------------------------------------------------


def test_a_run_goes_to_the_default_workdir_without_tensorflow(finished):
    folder, (code, out, err) = finished
    assert code == 0, err
    assert "Traceback" not in err
    run = folder / "runs" / "resnet-desk"
    assert {"run.json", "metrics.jsonl", "checkpoints", "best", "curves.png"} <= set(
        os.listdir(run)
    )
    assert os.listdir(folder) == ["runs"]
    *lines, modules = out.strip().splitlines()
    assert "tensorflow" not in modules.split() and "jax" in modules.split()
    text = "\n".join(lines)
    assert "recipe  resnet:desk  (the paper's own is configs/resnet.py:imagenet2012)" in text
    assert "step 2/2" in text and "top-1 error" in text


def test_a_finished_run_says_so(command, finished):
    folder = finished[0] / "runs" / "resnet-desk"
    metrics = (folder / "metrics.jsonl").read_bytes()
    steps = sorted(folder.glob("*/0*"))
    outcome = command(*TWO_STEPS, f"--workdir={folder}")
    assert (outcome.code, outcome.err) == (0, "")
    assert f"this run is finished: 2 steps in {folder}\n" in outcome.out
    assert (folder / "metrics.jsonl").read_bytes() == metrics
    assert sorted(folder.glob("*/0*")) == steps and len(steps) >= 2


def test_a_finished_run_is_tested_alike_on_any_number_of_devices(command, finished, tmp_path):
    run = shutil.copytree(finished[0] / "runs" / "resnet-desk", tmp_path / "run")
    before = contents(run)
    protocol, results = "--config.eval.protocol=single_view|ten_crop(32, 36)", set()
    for devices, batch_size in ((1, 64), (2, 101)):
        size = f"--config.eval.batch_size={batch_size}"
        outcome = command(
            RESNET,
            f"--workdir={run}",
            "--mode=eval",
            f"--config.mesh.data={devices}",
            size,
            protocol,
        )
        assert outcome.code == 0, outcome
        lines = outcome.out.splitlines()
        single, ten = (
            next(line for line in lines if line.startswith(f"{name} "))
            for name in ("single_view", "ten_crop(32, 36)")
        )
        results.add((*single.split()[1:3], *ten.split()[2:4]))
    assert len(results) == 1  # the rows too are the same, and stand there once
    assert [row.get("test/protocol") for row in read_rows(run / "metrics.jsonl")][-3:] == [
        *(None, "single_view", "ten_crop(32, 36)")
    ]
    changed = {name for name, digest in contents(run).items() if before.get(name) != digest}
    assert changed == {"metrics.jsonl", "timing.jsonl"}


def test_several_runs_are_tested_and_averaged(command, finished, tmp_path):
    folder = finished[0] / "runs" / "resnet-desk"
    twin = shutil.copytree(folder, tmp_path / "twin")
    other = shutil.copytree(folder, tmp_path / "other")
    outcome = command(RESNET, f"--workdir={twin},{other}", "--mode=eval")
    assert outcome.code == 0, outcome
    first, second, mean = (
        next(line for line in outcome.out.splitlines() if line.startswith(f"{who} ")).split()
        for who in (twin, other, "mean of 2")
    )
    assert first[2:4] == second[2:4] == mean[4:6]
    line = assert_one_line(command(RESNET, f"--workdir={twin},{tmp_path}/none", "--mode=eval"))
    assert f"there is no run in {tmp_path}/none" in line


def test_the_last_and_the_best_evaluation_are_printed(capsys):
    rows = [
        {"step": 7, "val/loss": 1.0, "val/top1_error": 20.0, "val/top5_error": 1.0},
        {"step": 9, "val/loss": 1.0, "val/top1_error": 21.0, "val/top5_error": 1.0},
    ]
    summary.print_result(rows, MEASURES)
    assert capsys.readouterr().out == (
        "          last  step 9: top-1 error 21.00%, top-5 error 1.00%\n"
        "          best  step 7: top-1 error 20.00%, top-5 error 1.00%\n"
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((RESNET, "--config.batchsize=3"), "did you mean 'batch_size'?"),
        (("--config=configs/resent.py",), "there is no config file 'configs/resent.py'"),
        (
            (RESNET, "--config.model.num_classes=3"),
            "digits[train] has 10 classes, the network's head 3",
        ),
    ],
)
def test_a_process_of_its_own_ends_with_one_line_and_code_2(
    tmp_path, environment, arguments, message
):
    process = subprocess.run(
        [sys.executable, "-m", "cnn_papers.main", *arguments],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
    )
    assert message in assert_one_line(Outcome(process.returncode, process.stdout, process.stderr))
    assert contents(tmp_path) == {}


# --- what a door does besides ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "folder"),
    [(None, "cache/cnn_papers/xla"), ("elsewhere", "elsewhere"), ("", None)],
    ids=str,
)
def test_compiled_programs_are_kept_within_bounds_in_the_users_cache(
    monkeypatch, tmp_path, named, folder
):
    settings = {}
    monkeypatch.setattr(jax.config, "update", settings.__setitem__)
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")
    monkeypatch.delenv("JAX_COMPILATION_CACHE_DIR", raising=False)
    if named is not None:
        monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", named)
    compile_cache.enable()
    assert settings.get("jax_compilation_cache_dir") == folder
    assert bool(settings) == bool(folder)
    assert not folder or 0 < settings["jax_compilation_cache_max_size"] < 10 * 2**30


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"),
    [
        (2.0, 0, (29, 14.37, 29)),
        (2.0, 7, (7, 14.37, 29)),
        (0.001, 0, (1, 14.37, 29)),
        (0.5, 0, (7, 14.37, 29)),
    ],
)
def test_a_run_is_as_long_as_its_epochs_or_steps_say(epochs, steps, expected):
    config = resnet.get_config()
    config.batch_size, config.total_epochs, config.total_steps = 100, epochs, steps
    config.eval.every_epochs = 2.0
    assert inputs.run_length(config, 1437) == expected
