"""The benchmark: its measurements, and the four packages that it needs for a network."""

import json
import os
import pathlib
import subprocess
import sys
import types
from typing import Any

import jax
import numpy as np
import pytest
from support.commands import exit_code
from support.measured import FACTS

from cnn_papers import benchmark, zoo
from cnn_papers.benchmarks import timing, wording, workload
from cnn_papers.errors import UserError
from cnn_papers.training.step import StepSettings
from configs import alexnet, googlenet

ROOT = pathlib.Path(__file__).parents[2]
# All dependencies except JAX, Flax, Optax, NumPy and what these bring.
ABSENT = [
    "ml_collections",
    "tensorflow_datasets",
    "grain",
    "orbax",
    "cv2",
    "clu",
    "array_record",
    "sklearn",
    "matplotlib",
    "tensorboard",
    "tensorflow",
    "importlib_resources",
    "torch",
    "torchvision",
    "PIL",
    "configs",
]
BARE = f"""
import importlib.abc, sys
class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] in {ABSENT}:
            raise ModuleNotFoundError("No module named " + repr(name), name=name)
sys.meta_path.insert(0, Refuse())
"""
TINY = {"variant": "cifar-8", "blocks": (1,), "widths": (4,), "num_classes": 10, "dtype": "float32"}


def tiny(**changes: Any) -> workload.Workload:
    """A step that compiles in seconds, on the eight devices of the tests."""
    work = workload.from_paper("resnet", "cifar-8", batch_size=8, image_size=8, dtype="float32")
    return work._replace(model=TINY, **changes)


# --- measuring ------------------------------------------------------------------------------------


class Machine:
    """A clock that only work moves.

    A contender takes `seconds[name][i]` for a batch in its i-th call.
    """

    def __init__(self, seconds: dict[str, list[float]]):
        self.now, self.calls, self.seconds = 0.0, [], seconds

    def contender(self, name: str) -> timing.Contender:
        def run(batches: int) -> None:
            earlier = sum(called == name for called, _ in self.calls)
            self.calls.append((name, batches))
            self.now += batches * self.seconds[name][earlier]

        return run


def test_windows_are_taken_in_turns_and_the_median_counts(monkeypatch):
    machine = Machine({"ours": [99, 0.5, 0.5, 1, 0.25, 4, 0.5], "theirs": [99, 2, 2, 2, 2, 2, 2]})
    monkeypatch.setattr(timing.time, "perf_counter", lambda: machine.now)
    speeds = timing.measure(
        {name: machine.contender(name) for name in machine.seconds}, batch_size=3, seconds=40
    )
    # the first call compiles, the second tells how many batches to take
    assert speeds["ours"] == (6.0, [6.0, 3.0, 12.0, 0.75, 6.0])
    assert speeds["theirs"] == (1.5, [1.5] * 5)
    assert machine.calls[:4] == [("ours", 2), ("ours", 2), ("theirs", 2), ("theirs", 2)]
    assert machine.calls[4:] == [("ours", 16), ("theirs", 4)] * 5  # a fifth of the 40 seconds each


def test_cpu_time_counts_only_this_process(monkeypatch):
    machine = Machine({"ours": [1.0] * 7})
    monkeypatch.setattr(timing.time, "process_time", lambda: machine.now)
    speeds = timing.measure({"ours": machine.contender("ours")}, 3, seconds=5, cpu_time=True)
    assert speeds["ours"] == (3.0, [3.0] * 5)
    assert machine.calls == [("ours", 2), ("ours", 2), *[("ours", 1)] * 5]
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    with pytest.raises(UserError, match="--cpu_time: JAX runs on gpu, use the wall clock"):
        timing.measure({}, 3, seconds=5, cpu_time=True)


def test_a_slow_contender_gets_one_batch_a_window(monkeypatch):
    machine = Machine({"slow": [100.0] * 7})
    monkeypatch.setattr(timing.time, "perf_counter", lambda: machine.now)
    speeds = timing.measure({"slow": machine.contender("slow")}, 50, seconds=1)
    assert speeds["slow"] == (0.5, [0.5] * 5)
    assert machine.calls[2:] == [("slow", 1)] * 5


def test_peak_memory_is_the_devices_where_they_count_it(monkeypatch):
    peaks = [
        {"peak_bytes_in_use": 5, "bytes_in_use": 1},
        {"peak_bytes_in_use": 7, "bytes_in_use": 2},
    ]
    devices = [types.SimpleNamespace(memory_stats=lambda stats=stats: stats) for stats in peaks]
    monkeypatch.setattr(jax, "local_devices", lambda: devices)
    assert timing.peak_memory() == (7, "of the fullest device")
    devices[0].memory_stats = lambda: None
    monkeypatch.setattr(timing, "process_peak", lambda: 9)
    assert timing.peak_memory() == (9, "of the whole process, compiling included")


# --- the workload ---------------------------------------------------------------------------------


def test_a_workload_survives_the_way_to_another_process():
    for work in (tiny(), workload.from_config(googlenet.get_config("imagenet2012"), (224, 224, 3))):
        assert workload.from_text(work.as_text()) == work


def test_a_config_gives_its_own_step():
    config = googlenet.get_config("imagenet2012")
    work = workload.from_config(config, (224, 224, 3))
    assert work.model_name == "googlenet"
    assert (work.model["variant"], work.model["dtype"]) == ("paper", "bfloat16")
    assert work.batch_size == 256
    assert work.train_device == "flip|photometric|pca_light(0.1)|subtract_mean"
    assert work.eval_device == config.data.eval_device == "subtract_mean"
    assert work.step == StepSettings(aux_weight=0.3, ema_decay=0.9999)
    assert (work.devices, work.optim.lr) == (-1, 0.01)
    assert workload.network(work).macs == zoo.model_module("googlenet").FACTS["paper"].macs


def test_a_network_alone_is_the_papers():
    work = workload.from_paper("resnet", None, batch_size=64, image_size=None, dtype="bfloat16")
    assert (work.model, work.image_shape) == ({"variant": "50", "dtype": "bfloat16"}, (224, 224, 3))
    assert workload.network(work).params == 25_557_032
    assert workload.from_paper("lenet", None, 1, 40, "float32").image_shape == (40, 40, 1)
    with pytest.raises(UserError, match="resnet has no variant '49'; there are: 18, "):
        workload.from_paper("resnet", "49", 64, None, "float32")
    with pytest.raises(UserError, match="'resnt'; there are: alexnet, "):
        workload.from_paper("resnt", None, 64, None, "float32")


def test_the_batch_is_what_the_network_takes():
    batch = workload.synthetic_batch(tiny())
    assert (batch["image"].shape, batch["image"].dtype) == ((8, 8, 8, 3), np.uint8)
    assert (batch["label"].shape, batch["label"].dtype) == ((8,), np.int32)
    assert batch["image"].std() > 60 and set(batch["label"]) <= set(range(10))


def test_every_part_of_a_step_runs():
    """All that a recipe may have: operations with statistics and keys, an average, accumulation."""
    operations = alexnet.get_config("imagenet2012").data.train_device
    assert operations == "flip|pca_light(0.1)|subtract_mean_image"
    operations += "|gcn|zca|lcn|photometric"
    train = workload.make_trainer(
        tiny(train_device=operations, step=StepSettings(ema_decay=0.9, accumulate=2), batch_size=16)
    )
    train(1)
    train(2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 9}, "config.batch_size=9 does not divide into 1 × 8 parts"),
        ({"train_device": "flop"}, "config.data.train_device: there is no 'flop'"),
        ({"devices": 9}, "config.mesh.data=9 needs 9 devices and 8 are available"),
    ],
)
def test_a_step_that_cannot_be(changes, message):
    with pytest.raises(UserError) as caught:
        workload.make_trainer(tiny(**changes))
    assert message in str(caught.value)


def test_the_first_step_is_taken_in_fresh_processes(monkeypatch):
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    steps = timing.first_step(tiny())
    assert list(steps) == ["cold", "warm"]
    assert all(0.1 < step.seconds < 600 for step in steps.values())
    assert all(1e8 < step.peak_bytes < 4e9 for step in steps.values())
    with pytest.raises(
        UserError, match=r"the process that takes one step failed: .*there is no 'flop'"
    ):
        timing.first_step(tiny(train_device="flop"))


def test_a_process_counts_only_its_own_memory():
    """Linux counts what the parent held in `getrusage` of its child."""
    code = "from cnn_papers.benchmarks import timing; print(timing.process_peak())"
    ballast = np.ones(2**26)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True)
    assert 5e7 < int(done.stdout) < ballast.nbytes


def test_the_forward_pass_computes_what_evaluation_does(monkeypatch):
    """With the operations of evaluation and moving averages, as many times as it is told."""
    work = tiny(eval_device="scale(0.5)")
    logits = []
    ready = jax.block_until_ready
    monkeypatch.setattr(jax, "block_until_ready", lambda values: logits.append(ready(values)))
    workload.make_forward(work)(3)
    monkeypatch.undo()
    assert len(logits[0]) == 3
    model, variables, _, _ = workload.make_network(work)
    image = workload.synthetic_batch(work)["image"].astype(np.float32) * 0.5
    expected = jax.jit(model.apply)(variables, image)[0]
    for values in logits[0]:
        np.testing.assert_allclose(values, expected, rtol=1e-4, atol=1e-5)


# --- the command ----------------------------------------------------------------------------------


@pytest.fixture
def command(monkeypatch, capfd, tmp_path):
    """Runs the command line in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def run(*arguments: str) -> tuple[Any, str, str]:
        return exit_code(benchmark.cli, *arguments), *capfd.readouterr()

    return run


RESNET = ("--config=configs/resnet.py", "--config.model.blocks=(1,)", "--config.model.widths=(4,)")


# ml_collections loads config files in a deprecated way
@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_config_with_its_data(tiny_run, command):
    code, out, err = command(
        *RESNET,
        f"--config.data.data_dir={tiny_run.parent / 'data'}",
        "--measure=step,forward,input",
        "--seconds=0.1",
        "--json",
    )
    assert code in (0, None), err
    results = json.loads(out)
    assert results["network"]["input"] == [32, 32, 3] and results["network"]["variant"] == "cifar-8"
    assert results["batch_size"] == 64 and results["devices"]["count"] == 8
    step, pipeline = results["train_step"], results["input_pipeline"]
    forward = results["forward"]
    assert len(forward["windows"]) == len(step["windows"]) == len(pipeline["windows"]) == 5
    assert step["images_per_second"] == sorted(step["windows"])[2] > 0
    macs = results["network"]["multiply_adds"]
    assert step["model_flops_per_second"] == 6 * macs * step["images_per_second"]
    assert forward["model_flops_per_second"] == 2 * macs * forward["images_per_second"]
    assert pipeline["from"] == "a split on the devices" and pipeline["images_per_second"] > 0
    assert step["peak_memory"]["bytes"] > 1e8 and results["load_average"] >= 0
    assert "first_step" not in results and "versus" not in step and "versus" not in forward


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
def test_a_config_without_its_data_says_why(tmp_path, command):
    code, out, _ = command(
        "--config=configs/resnet.py:imagenet2012",
        f"--config.data.data_dir={tmp_path}",
        "--measure=input",
    )
    assert code in (0, None)
    lines = {line[:14].strip(): line[16:] for line in out.splitlines()}
    assert lines["network"] == "resnet '50' at 224×224×3, bfloat16"
    assert lines["input pipeline"].startswith("not measured: imagenet2012 is not prepared in ")
    assert (
        f"run python -m cnn_papers.prepare imagenet2012 --data_dir={tmp_path}"
        in lines["input pipeline"]
    )


@pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "write --config=configs/x.py, or --model=NAME"),
        ([*RESNET, "--model=resnet"], "write --config=configs/x.py, or --model=NAME"),
        (
            [*RESNET, "--batch_size=8"],
            "--batch_size goes with --model; a config is changed with --config.key=value",
        ),
        ([*RESNET, "--config.batch_size=-1"], "config.batch_size=-1 must be positive"),
        (
            ["--config=configs/resnet.py:mnist"],
            "configs/resnet.py has no recipe 'mnist'; there are: desk, ",
        ),
        (["--model=resnt"], "unknown config.model_name 'resnt'; there are: alexnet, "),
        (
            ["--model=resnet", "--dtype=int8"],
            "flag --dtype=int8: value should be one of <float32|bfloat16>",
        ),
        (
            ["--model=resnet", "--measure=speed"],
            "--measure=speed: there are start, step, forward, input, saving, windows, encoding, ",
        ),
        (
            ["--model=resnet", "--versus=torchvision"],
            "torchvision has no network equal to resnet '50'; both have: ",
        ),
        (["--model=resnet", "50"], "unexpected argument '50'"),
    ],
)
def test_mistakes_are_one_line(command, arguments, message):
    code, out, err = command(*arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


def bare(code: str, *arguments: str, cwd: pathlib.Path) -> subprocess.CompletedProcess[str]:
    """Runs `code` in a process that has only JAX, Flax, Optax and NumPy."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "JAX_COMPILATION_CACHE_DIR": ""}
    command = [sys.executable, "-c", BARE + code, *arguments]
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True)


def test_a_machine_with_little_on_it_measures_a_network(tmp_path):
    code = "from cnn_papers.benchmark import cli; cli()"
    options = ("--batch_size=2", "--image_size=8", "--measure=step,forward,input", "--seconds=0.1")
    done = bare(code, "--model=resnet", "--variant=cifar-8", *options, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    lines = {line[:14].strip(): line[16:] for line in done.stdout.splitlines()}
    lines.pop("warning", None)  # of a busy machine
    names = ["network", "batch", "train step", "peak memory", "forward", "input pipeline"]
    assert list(lines) == names and lines["network"] == "resnet 'cifar-8' at 8×8×3, float32"
    assert (
        lines["input pipeline"]
        == "not measured: a network has no data; name a recipe with --config"
    )


def test_what_the_benchmark_stands_on_imports_there(tmp_path):
    models = "".join(f"import cnn_papers.models.{name}\n" for name in zoo.model_names())
    training = "from cnn_papers.training import losses, optim, placement, schedules, step\n"
    training += "from cnn_papers.parallel import mesh\nfrom cnn_papers import doors\n"
    refused = "from cnn_papers import benchmark\n"
    refused += "sys.argv = ['x', '--config=configs/resnet.py']\nbenchmark.cli()\n"
    done = bare(models + training + "print('all there', flush=True)\n" + refused, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "all there\n")
    assert done.stderr == (
        "error: --config needs ml_collections, which is not installed; "
        "name a network with --model\n"
    )


# --- the text -------------------------------------------------------------------------------------


def test_a_busy_machine_is_told():
    """Other processes slow down threads that wait for each other, torch's above all."""
    assert "warning" not in wording.as_text(FACTS)
    busy = wording.as_text(FACTS | {"load_average": 1.25})
    assert (
        "       warning  others use this machine (load 1.2): expect no fair comparison"
        in busy.splitlines()
    )


def test_time_and_memory_of_the_first_step_are_told():
    steps = {"cold": timing.FirstStep(20.04, 2_345_600_000), "warm": timing.FirstStep(4.0, 9e8)}
    lines = wording.as_text(FACTS | {"first_step": steps}).splitlines()
    assert lines[2:] == [
        "    first step  20.0 s after the start, 4.0 s with a compilation cache",
        "    its memory  2,346 MB of a process that compiles, 900 MB of one that only runs",
    ]
