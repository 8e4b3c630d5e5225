"""A step over meshes: the bytes it sends by layer, the least it could, and absent devices."""

import functools
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import types
from collections.abc import Sequence
from typing import Any

import jax
import pytest
from support.commands import exit_code

from cnn_papers import benchmark
from cnn_papers.benchmarks import scaling, topologies, traffic, workload
from cnn_papers.benchmarks.collectives import Collective, collectives
from cnn_papers.benchmarks.least_traffic import least_bytes
from cnn_papers.errors import UserError

ROOT = pathlib.Path(__file__).parents[2]
ALEXNET = {"variant": "paper", "width": 0.125, "num_classes": 10, "dtype": "float32"}
VGG = {"variant": "A", "width": 0.125, "num_classes": 10, "dtype": "float32"}
RESNET = {
    "variant": "cifar-8",
    "blocks": (1,),
    "widths": (4,),
    "num_classes": 10,
    "dtype": "float32",
}


def work(
    name: str, fields: dict[str, Any], size: int, mesh: str, **changes: Any
) -> workload.Workload:
    """A step of eight images."""
    paper = workload.from_paper(name, fields["variant"], 8, size, fields["dtype"])
    return paper._replace(model=fields, **changes).on_mesh(workload.parse_mesh(mesh))


@functools.cache
def report(name: str, mesh: str) -> dict[str, Any]:
    """The compiled step of a small network on fake devices, its rows by layer."""
    on_mesh = work(name, *{"alexnet": (ALEXNET, 67), "resnet": (RESNET, 8)}[name], mesh)
    devices = topologies.devices(f"cpu:{workload.mesh_size(workload.parse_mesh(mesh))}")
    results = traffic.report(on_mesh, devices)
    return results | {"rows": {row["layer"]: row for row in results["rows"]}}


# --- reading a compiled program -------------------------------------------------------------------

OF_FOUR, OF_TWO = "replica_groups=mesh['a'=4,'b'=1] {'a'}", "replica_groups={{0,1},{2,3}}"
LINES = {  # what XLA writes; its op_name; what it means
    "one operation": (
        f"f32[32,3,3,64]{{2,1,0,3}} all-gather(%x), {OF_TWO}",
        "jit(f)/jvp()/AlexNet/conv3/all_gather",
        [Collective("all-gather", "conv3", False, 32 * 9 * 64 * 4)],
    ),
    "several joined, each named": (
        f"(f32[16]{{0}}, bf16[3,3]{{1,0}}, /*index=2*/pred[]) all-reduce(%a, %b, %c), {OF_FOUR}",
        "jit(f)/(transpose(jvp(R))/(x)/bn1/sum:transpose(jvp(R))/conv1/mul:jvp()/sum)",
        [
            Collective("all-reduce", "bn1", True, 64),
            Collective("all-reduce", "conv1", True, 18),
            Collective("all-reduce", "", False, 1),
        ],
    ),
    "two sums of one layer": (
        f"(f32[16]{{0}}, f32[16]{{0}}) all-reduce(%a, %b), {OF_FOUR}",
        "jit(f)/jvp(R)/bn1/sum",
        [Collective("all-reduce", "bn1", False, 128)],
    ),
    "several joined, named after the first": (
        f"(f32[16]{{0}}, f32[3,16]{{1,0}}) all-reduce(%a, %b), {OF_FOUR}",
        "jit(f)/transpose(jvp())/conv1/x",
        [Collective("all-reduce", "", True, 64 + 192)],
    ),
    "a block of layers": (
        f"f32[16]{{0}} all-reduce(%a), {OF_FOUR}",
        "jit(f)/jvp(R)/conv2_1/bn1/sum",
        [Collective("all-reduce", "conv2_1", False, 64)],
    ),
    "no name": (
        f"f32[16]{{0}} all-reduce-start(%a), {OF_FOUR}",
        "",
        [Collective("all-reduce", "", False, 64)],
    ),
    "started, with its operand": (
        f"(bf16[8,128]{{1,0}}, bf16[8,256]{{1,0}}) all-gather-start(%x), {OF_TWO}",
        "jit(f)/conv3/all_gather",
        [Collective("all-gather", "conv3", False, 8 * 256 * 2)],
    ),
    "scattered: the whole": (
        f"((bf16[8,256]), bf16[8,64]) reduce-scatter-start(%x), {OF_FOUR}",
        "jit(f)/transpose(jvp())/conv3/reduce_scatter",
        [Collective("reduce-scatter", "conv3", True, 8 * 256 * 2)],
    ),
    "over a part of an axis": (
        "f32[8,64]{1,0} reduce-scatter(%x), replica_groups=mesh['a'=8] {'a':(1)2}",
        "",
        [Collective("reduce-scatter", "", False, 2 * 8 * 64 * 4)],
    ),
    "handed on": (
        "(f32[5], f32[5], u32[], u32[]) collective-permute-start(%x), "
        "source_target_pairs={{0,1},{1,0}}",
        "",
        [Collective("collective-permute", "", False, 20)],
    ),
    "over one device": (
        "f32[16]{0} all-reduce(%a), replica_groups=mesh['a'=4,'b'=1] {'b'}",
        "",
        [],
    ),
    "its end": ("f32[16]{0} all-reduce-done(%r)", "", []),
}


@pytest.mark.parametrize("name", LINES)
def test_lines_of_a_program(name):
    """As XLA writes them for CPUs, TPUs and GPUs."""
    line, path, expected = LINES[name]
    metadata = (
        f'metadata={{op_name="{path}" stack_frame_id=3}}' if path else "metadata={stack_frame_id=3}"
    )
    compiled = types.SimpleNamespace(as_text=lambda: f"HloModule f\n  %x = {line}, {metadata}\n")
    assert collectives(compiled, ["conv1", "conv2_1", "conv3", "bn1"]) == expected


# --- the least ------------------------------------------------------------------------------------


def bound(asked: workload.Workload) -> dict[str, int]:
    step = workload.make_step(asked)
    return dict(least_bytes(asked, step.abstract, step.mesh))


def test_one_device_need_send_nothing():
    assert bound(work("resnet", RESNET, 8, "data:1")) == {}


@pytest.mark.parametrize("data", [2, 4])
def test_gradients_and_batch_statistics_once(data):
    """4 channels after conv1, whose statistics are 8 numbers forward and 8 backward, their scale's
    and bias's.

    Then a block of two such layers.
    """
    whole = bound(work("resnet", RESNET, 8, f"data:{data}"))
    assert whole == {
        "conv1": 4 * 3 * 9 * 4,
        "bn1": 32 + 32,
        "conv2_1": 4 * 2 * 9 * 16 + 2 * 64,
        "fc": 4 * 50,
        "": 8,
    }


def test_bfloat16_halves_what_is_computed_in_it():
    whole = bound(work("resnet", RESNET | {"dtype": "bfloat16"}, 8, "data:2"))
    assert whole == {
        "conv1": 2 * 3 * 9 * 4,
        "bn1": 32 + 32,
        "conv2_1": 2 * 2 * 9 * 16 + 2 * 64,
        "fc": 2 * 50,
        "": 8,
    }


@pytest.mark.parametrize(("moves", "statistics"), [(False, 0), (True, 32)])
def test_frozen_layers_have_no_gradient_and_no_statistics_unless_they_move(moves, statistics):
    paper = work("resnet", RESNET, 8, "data:2")
    asked = paper._replace(
        optim=paper.optim._replace(frozen="(conv|bn)1"),
        step=paper.step._replace(move_frozen_statistics=moves),
    )
    assert bound(asked) == {
        "conv1": 0,
        "bn1": statistics,
        "conv2_1": 4 * 2 * 9 * 16 + 2 * 64,
        "fc": 4 * 50,
        "": 8,
    }
    split = bound(asked._replace(shard_params=True))
    assert split["conv1"] == 4 * 3 * 9 * 4  # gathered for use all the same


def test_split_parameters_are_gathered_once():
    """fc's kernel [4, 10] divides over 4 devices; its bias [10] does not and is not gathered."""
    split = bound(work("resnet", RESNET, 8, "data:4", shard_params=True))
    assert split["fc"] == 4 * (2 * 40 + 10) and split["conv1"] == 2 * 4 * 3 * 9 * 4


def test_columns_gather_what_both_read():
    """conv3 and the fully connected layers do, of 4 images a device, and sum the gradient back.

    conv1 reads the image, of which every device has all channels.
    """
    over_columns = bound(work("alexnet", ALEXNET, 67, "data:2,column:2"))
    over_data = bound(work("alexnet", ALEXNET, 67, "data:2"))
    inputs = {"conv3": 1 * 1 * 32, "fc6": 0, "fc7": 512, "fc8": 512}
    assert over_data["fc7"] == 4 * (512 * 512 + 512)
    for name in ("conv1", "conv2", "conv4", "conv5"):
        assert over_columns[name] * 2 == over_data[name]
    for name in ("fc7", "fc8"):
        assert over_columns[name] == over_data[name] // 2 + 2 * 4 * inputs[name] * 4


def test_a_layer_that_is_not_split_sums_the_smaller_side():
    """VGG's fc6 reads a whole map and fc8 gives 10 numbers for the 512 it would gather."""
    over_columns = bound(work("vgg", VGG, 32, "data:2,column:2"))
    over_data = bound(work("vgg", VGG, 32, "data:2"))
    assert over_columns["fc6"] == over_data["fc6"] // 2 + 4 * 64 * 4
    assert over_columns["fc7"] == over_data["fc7"] // 2 + 2 * 4 * 512 * 4
    assert over_columns["fc8"] == over_data["fc8"] + 4 * 10 * 4
    assert over_columns["conv5_2"] == over_data["conv5_2"]


# --- against it -----------------------------------------------------------------------------------


@pytest.mark.parametrize("data", [2, 4])
def test_over_data_a_step_sends_the_least_to_the_byte_in_every_layer(data):
    found = report("alexnet", f"data:{data}")
    for name, row in found["rows"].items():
        if name != traffic.OUTSIDE:
            assert (row["forward"], row["backward"]) == ({}, {"all-reduce": row["least"]})
            assert row["least"] == 4 * row["parameters"] == 4 * row["here"]
    outside = found["rows"][traffic.OUTSIDE]
    assert outside["forward"].pop("all-reduce") == outside["least"] == 8
    assert (
        found["sent"] == found["least"] + sum(outside["forward"].values()) == 8 + 4 * 325_114 + 320
    )


def test_over_columns_too():
    """Forward four gathers and no more; the last row's sums are of a softmax over split classes."""
    found = report("alexnet", "data:2,column:2")
    for name, row in found["rows"].items():
        if name != traffic.OUTSIDE:
            assert sum(row["forward"].values()) + sum(row["backward"].values()) == row["least"], (
                name
            )
            assert row["here"] * 2 == row["parameters"]
    assert [name for name, row in found["rows"].items() if "all-gather" in row["forward"]][:-1] == [
        *("conv3", "fc6", "fc7", "fc8")
    ]
    assert found["least"] < found["sent"] < 1.002 * found["least"]


def test_memory_is_what_the_arrays_take():
    memory = report("alexnet", "data:2")["memory"]
    leaves = jax.tree.leaves(workload.make_step(work("alexnet", ALEXNET, 67, "data:2")).abstract)
    state, batch, key = (
        sum(leaf.size * leaf.dtype.itemsize for leaf in leaves),
        4 * (67 * 67 * 3 + 4),
        8,
    )
    assert 2 * 4 * 325_114 < state < 2 * 4 * 325_114 + 64  # parameters, momentum and some numbers
    assert memory["arguments"] == state + batch + key
    assert memory["shared by both"] == -state
    assert memory["total"] == sum(value for name, value in memory.items() if name != "total")


def test_a_mesh_of_one_says_no_ratio():
    found = report("resnet", "data:1")
    text = traffic.as_text({**found, "rows": list(found["rows"].values())})
    assert "\nsent    0 B a device and step\n" in text


# --- the command ----------------------------------------------------------------------------------

TINY = ("--config=configs/resnet.py", "--config.model.blocks=(1,)", "--config.model.widths=(4,)")
# ml_collections loads config files in a deprecated way
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs `benchmark` in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")

    def run(*arguments: str) -> tuple[Any, str, str]:
        return exit_code(benchmark.cli, *arguments), *capfd.readouterr()

    return run


@pytest.mark.process
def test_benchmark_measures_meshes(command):
    code, out, err = command(
        *TINY, "--config.batch_size=8", "--mesh=data:1;data:2", "--seconds=0.1", "--json"
    )
    assert code in (0, None), err
    one, two = json.loads(out)["meshes"]
    assert (one["mesh"], one["devices"], one["sent"], one["least"]) == ("data:1", "1 × cpu", 0, 0)
    assert (two["mesh"], two["devices"]) == ("data:2", "2 × cpu") and two["sent"] >= two[
        "least"
    ] > 0
    assert all(len(found["step"]["windows"]) == 5 for found in (one, two))


def test_benchmark_compiles_for_devices_that_are_not_there(command):
    code, out, _ = command(*TINY, "--topology=cpu:4", "--mesh=data:2")
    assert code in (0, None)
    assert "\n\ndata:2 on 2 × cpu\nlayer " in out and "\nmemory  " in out and "\nstep " not in out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--mesh=data:2;data:0"], "--mesh=data:0: write data:4 or data:4,column:2"),
        (["--mesh=data:2;"], "--mesh=: write data:4 or data:4,column:2"),
        (
            ["--mesh=data:2;data:3"],
            "config.batch_size=64 does not divide into 1 × 3 parts (accumulation steps × ",
        ),
        (
            ["--mesh=data:2,column:2"],
            "config.mesh.column=2: this network has no columns; 1 disables column parallelism",
        ),
        (
            ["--topology=v5e"],
            "--topology=v5e: write v5e:2x2 (TPUs), h100:8 or h100:2x8 (hosts × GPUs), or cpu:4",
        ),
        (["--topology=cpu:2x2"], "--topology=cpu:2x2: write v5e:2x2 (TPUs), "),
        (["--topology=h100:0"], "--topology=h100:0: write v5e:2x2 (TPUs), "),
        (
            ["--topology=cpu:2", "--mesh=data:4"],
            "config.mesh.data=4 needs 4 devices and 2 are available; -1 takes all of them",
        ),
        (["--num_processes=2"], "several processes measure a mesh together: add --mesh=data:N"),
    ],
)
def test_mistakes_are_one_line(command, arguments, message):
    """Before anything is compiled."""
    code, out, err = command(*TINY, *arguments)
    assert (code, out) == (2, "")
    assert err.startswith(f"error: {message}") and err.count("\n") == 1


@pytest.mark.process
def test_two_processes_measure_together():
    """Started by launch/local.sh: AlexNet's columns, each in a process, then two more devices."""
    flags = [
        "--config=configs/alexnet.py",
        "--config.model.width=0.1",
        "--config.batch_size=4",
        "--seconds=0.1",
    ]
    environment = {
        **os.environ,
        "MODULE": "cnn_papers.benchmark",
        "PYTHON": sys.executable,
        "JAX_PLATFORMS": "cpu",
    }
    environment |= {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    command = ["launch/local.sh", "2", *flags, "--mesh=data:1,column:2;data:2,column:2", "--json"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    results = json.loads(done.stdout[done.stdout.index("\n{") :])  # gloo prints before it
    two, four = results["meshes"]
    assert (two["devices"], four["devices"]) == ("2 × cpu", "4 × cpu")
    gathered = [row["layer"] for row in two["rows"] if "all-gather" in row["forward"]][:-1]
    assert gathered == ["conv3", "fc6", "fc7", "fc8"]
    assert all(
        len(found["step"]["windows"]) == 5 and found["sent"] > found["least"]
        for found in (two, four)
    )


# --- devices that are not there -------------------------------------------------------------------


def test_devices_are_shared_equally_among_processes(monkeypatch):
    devices = [
        types.SimpleNamespace(process_index=process, id=number)
        for process in range(2)
        for number in range(3)
    ]
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    monkeypatch.setattr(jax, "device_count", lambda: 6)
    monkeypatch.setattr(jax, "devices", lambda: devices)
    chosen = [(device.process_index, device.id) for device in scaling._devices(4)]
    assert chosen == [(0, 0), (0, 1), (1, 0), (1, 1)]
    with pytest.raises(
        UserError,
        match="--mesh: 5 devices do not divide over 2 processes; the nearest that do are 4",
    ):
        scaling._devices(5)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("v5e:2x2", '--topology=v5e:2x2 needs libtpu, though no TPU: pip install "jax[tpu]"'),
        (
            "h100:8",
            '--topology=h100:8 needs JAX for CUDA, though no GPU: pip install "jax[cuda13]"',
        ),
    ],
)
def test_what_to_install(monkeypatch, name, message):
    monkeypatch.setattr(topologies.importlib.util, "find_spec", lambda package: None)
    with pytest.raises(UserError) as caught:
        topologies.devices(name)
    assert str(caught.value) == message


NARROW_ALEXNET = "cnn_papers.describe", "--config=configs/alexnet.py", "--config.model.width=0.1"
CUDA = "jax_cuda12_plugin", "jax_cuda13_plugin"


def compiled_elsewhere(*arguments: str) -> subprocess.CompletedProcess[str]:
    """A command in a process of its own, since libraries for other devices say much."""
    command = [sys.executable, "-m", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True)


def skip_without(packages: Sequence[str]) -> None:
    """Skips unless one of `packages` is installed."""
    if not any(importlib.util.find_spec(package) for package in packages):
        pytest.skip(f"none of {', '.join(packages)} is installed")


@pytest.mark.parametrize(
    ("packages", "topology", "devices"),
    [
        (("libtpu",), "v5e:2x2", "4 × TPU v5 lite"),
        (CUDA, "h100:4", "4 × NVIDIA H100 80GB HBM3"),
    ],
)
def test_a_step_compiles_for_accelerators(packages, topology, devices):
    skip_without(packages)
    done = compiled_elsewhere(*NARROW_ALEXNET, f"--topology={topology}", "--mesh=data:2,column:2")
    assert done.returncode == 0, done.stderr
    gathers = [line.split()[0] for line in done.stdout.splitlines() if "all-gather" in line]
    assert gathers[:4] == ["conv3", "fc6", "fc7", "fc8"]
    assert "\nmemory  " in done.stdout


@pytest.mark.process
def test_xla_compiles_resnet_50_for_a_gpu():
    """As a step of matrix products, XLA of JAX 0.11.2 aborted on it."""
    skip_without(CUDA)
    network = "--model=resnet", "--variant=50-v1.5", "--batch_size=256", "--dtype=bfloat16"
    done = compiled_elsewhere("cnn_papers.benchmark", *network, "--topology=h100:1")
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_step_too_large_for_a_device(monkeypatch):
    """With the message of the compiler for TPUs, for 51 GB on a device of 16 GB."""

    def compile_it() -> None:
        raise jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Ran out of memory on HBM, 51.13G exceeds 15.75G.\n\nMore"
        )

    train = types.SimpleNamespace(
        lower=lambda *arguments: types.SimpleNamespace(compile=compile_it)
    )
    step = workload.make_step(work("resnet", RESNET, 8, "data:2"))._replace(train=train)
    monkeypatch.setattr(workload, "make_step", lambda *arguments: step)
    with pytest.raises(UserError) as caught:
        traffic.report(work("resnet", RESNET, 8, "data:2"), [])
    assert str(caught.value) == (
        "the step does not fit into a device's memory: "
        "RESOURCE_EXHAUSTED: Ran out of memory on HBM, 51.13G exceeds 15.75G."
    )


def test_an_arrangement_that_is_none():
    skip_without(["libtpu"])
    done = compiled_elsewhere(*NARROW_ALEXNET, "--topology=v5e:3x3")
    assert done.returncode == 2 and "error: --topology=v5e:3x3: INVALID_ARGUMENT" in done.stderr
