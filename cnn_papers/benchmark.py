"""How fast a network trains here: python -m cnn_papers.benchmark --config=configs/x.py, or
--model=resnet --variant=50.

Measured are images a second of the train step alone (on a synthetic batch that lies on the devices)
and of the input pipeline alone, the time from the start of a process to the end of its first step
(with an empty compilation cache, then with what that left in it; a run also opens its data), and
peak memory. `--versus=torchvision` trains torchvision's copy of the network in turns with ours,
`--input_versus=tf.data,torch` reads the images with other libraries in turns with ours, and
`--input_batches=10000` watches memory over so many batches. `--measure=saving` tells what
checkpoints cost. With `--model` nothing but JAX, Flax, Optax and NumPy need be installed (and orbax
for saving).

`--mesh="data:1;data:4;data:4,column:2"` measures the step over each mesh instead, on fake devices
where there are too few others: what its devices send by layer against the least possible, their
memory, and its time. Several processes measure together as `main` runs: MODULE=cnn_papers.benchmark
launch/local.sh 2 --model=alexnet --mesh=data:2,column:2. `--topology=v5e:2x2` compiles the step for
devices that need not be there, and tells all but the time.
"""

import contextlib
import functools
import json
import os
import pathlib
import sys
from typing import Any

import jax
from absl import flags

from cnn_papers import doors
from cnn_papers.benchmarks import saving, scaling, timing, torchvision, traffic, wording, workload
from cnn_papers.benchmarks.workload import Workload
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import compile_cache

MEASURES = ("start", "step", "input", "saving")
EVERY_STEPS = 200  # between two saves, unless a config says otherwise


def step_results(work: Workload, torch_name: str, seconds: float) -> dict[str, Any]:
    """Speed and memory of our train step, and of torchvision's if its network is named."""
    _say("measuring the train step")
    network, bfloat16 = workload.network(work), work.model["dtype"] == "bfloat16"
    contenders = {"ours": workload.make_trainer(work)}
    contenders["ours"](1)
    results: dict[str, Any] = {"peak_memory": timing.peak_memory()._asdict()}
    if torch_name:
        contenders["torch"] = torchvision.make_trainer(
            torch_name,
            **workload.synthetic_batch(work),
            num_classes=workload.num_classes(work),
            parameters=network.params,
            settings=work.optim,
            aux_weight=work.step.aux_weight,
            bfloat16=bfloat16,
            platform=jax.default_backend(),
            threads=_threads(),
        )
    speeds = timing.measure(contenders, work.batch_size, seconds)
    rate = speeds["ours"].images_per_second
    flops = 3 * 2 * network.macs * rate  # the backward pass costs twice the forward pass
    results["train_step"] = {**speeds["ours"]._asdict(), "model_flops_per_second": flops}
    if torch_name:
        ratio = rate / speeds["torch"].images_per_second
        what = torchvision.description(torch_name, bfloat16=bfloat16)
        results["torchvision"] = {**speeds["torch"]._asdict(), "what": what, "ratio": ratio}
    return results


def input_results(
    config: Any, seconds: float, against: list[str], growth_batches: int
) -> dict[str, Any]:
    """Speed at which training batches of `config` come to the devices, or why it cannot be
    measured.
    """
    if config is None:
        return {"not_measured": "a network alone has no data; name a recipe with --config"}
    from cnn_papers.benchmarks import input_speed

    _say("measuring the input pipeline")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the embedded data set says when it is made
            return input_speed.results(
                config, functools.partial(timing.measure, seconds=seconds), against, growth_batches
            )
    except UserError as error:
        if against:
            raise
        return {"not_measured": str(error)}


def main(argv: list[str]) -> None:
    """Measures what the flags ask for and prints it."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise UserError(
            f"unexpected argument '{argv[1]}'; overrides are written --config.key=value"
        )
    if unknown := sorted(set(values.measure) - set(MEASURES)):
        raise UserError(f"--measure={unknown[0]}: there are {', '.join(MEASURES)}")
    if values.mesh or values.topology:
        return _over_meshes()
    if (values.num_processes or 1) > 1:
        raise UserError("several processes measure a mesh together: add --mesh=data:N")
    config, work = _workload()
    torch_name = (
        torchvision.torch_name(work.model_name, work.model["variant"]) if values.versus else ""
    )
    if (
        torch_name
    ):  # JAX would take most of a GPU's memory at its start, and torch trains on one device
        os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
        work = work._replace(devices=1)
    compile_cache.enable()
    load = os.getloadavg()[0]  # of others: now, before this process works
    first: dict[str, Any] = {}
    if "start" in values.measure:  # before this process takes the devices
        _say("starting two fresh processes that take one step")
        first = {"first_step_seconds": timing.first_step_seconds(work)}
    results = _facts(work) | {"load_average": load} | first
    if "step" in values.measure or torch_name:
        results |= step_results(work, torch_name, values.seconds)
    if "saving" in values.measure:
        _say("measuring what saving costs")
        every_steps = config.checkpoint.every_steps if config else EVERY_STEPS
        results["saving"] = saving.results(work, pathlib.Path(values.workdir), every_steps)
    if "input" in values.measure:
        results["input_pipeline"] = input_results(
            config, values.seconds, values.input_versus, values.input_batches
        )
    print(json.dumps(results, indent=1) if values.json else wording.as_text(results))


def _over_meshes() -> None:
    """Prints what the step sends and holds over each of `--mesh`, and its time; without, on
    `--topology`.
    """
    values = flags.FLAGS
    _, work = _workload()
    if values.topology:
        found = [traffic.report(*traffic.compiled_only(work, values.mesh, values.topology))]
    else:
        shapes = scaling.parse(values.mesh)
        scaling.prepare(shapes)
        with doors.joined_hosts():
            compile_cache.enable()
            found = scaling.results(
                work, shapes, functools.partial(timing.measure, seconds=values.seconds)
            )
    results = _network_facts(work) | {"cpu_threads": _threads(), "meshes": found}
    print(json.dumps(results, indent=1) if values.json else wording.of_meshes(results))


def _workload() -> tuple[Any, Workload]:
    """The config, if there is one, and the workload that the flags name."""
    values = flags.FLAGS
    if bool(values.config) == bool(values.model):
        raise UserError(
            "write --config=configs/x.py, or --model=NAME [--variant= --batch_size= --image_size= --dtype=]"
        )
    if values.model:
        own = values.variant, values.batch_size, values.image_size, values.dtype
        return None, workload.from_paper(values.model, *own)
    if isinstance(values.config, str):
        raise UserError(
            "--config needs ml_collections, which is not installed; name a network with --model"
        )
    from cnn_papers.runs import inputs, ranges

    if given := [
        key for key in ("variant", "batch_size", "image_size", "dtype") if values[key].present
    ]:
        raise UserError(
            f"--{given[0]} goes with --model; a config is changed with --config.key=value"
        )
    ranges.check_ranges(values.config)
    return values.config, workload.from_config(
        values.config, inputs.configured_input(values.config, "train_host")
    )


def _facts(work: Workload) -> dict[str, Any]:
    """What is measured, and on what."""
    mesh = meshes.make_mesh(work.devices)
    devices = {
        "count": mesh.size,
        "kind": mesh.devices.flat[0].device_kind,
        "cpu_threads": _threads(),
    }
    return _network_facts(work) | {"devices": devices}


def _network_facts(work: Workload) -> dict[str, Any]:
    network = workload.network(work)
    return {
        "network": {
            **{
                "model": work.model_name,
                "variant": work.model["variant"],
                "dtype": work.model["dtype"],
            },
            **{"input": network.input, "parameters": network.params, "multiply_adds": network.macs},
        },
        "batch_size": work.batch_size,
        "jax": jax.__version__,
    }


def _threads() -> int:
    """The CPU cores this process may use, as XLA counts them."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _say(text: str) -> None:
    print(f"{text} …", file=sys.stderr, flush=True)


def cli() -> None:
    """The command line."""
    try:
        doors.config_flag()
    except ImportError:  # a machine for --model
        flags.DEFINE_string("config", None, "needs ml_collections")
    flags.DEFINE_string(
        "model", None, "a network of cnn_papers.models on synthetic images, instead of --config"
    )
    flags.DEFINE_string("variant", None, "of --model; its usual one by default")
    flags.DEFINE_integer("batch_size", 32, "images a step, with --model", lower_bound=1)
    flags.DEFINE_integer(
        "image_size", None, "pixels a side, with --model; the paper's by default", lower_bound=1
    )
    flags.DEFINE_enum("dtype", "float32", ["float32", "bfloat16"], "to compute in, with --model")
    text = "any of start (fresh processes), step, input (the pipeline) and saving (checkpoints)"
    flags.DEFINE_list("measure", list(MEASURES[:3]), text)
    flags.DEFINE_string("workdir", ".", "a folder of the disk that saving is measured on")
    flags.DEFINE_string("mesh", "", "measure the step over meshes instead: data:1;data:4,column:2")
    flags.DEFINE_string(
        "topology",
        "",
        "compile the step for devices that need not be there: v5e:2x2, h100:8, cpu:8",
    )
    flags.DEFINE_list(
        "input_versus", [], "measure these libraries' input pipelines too: tf.data, torch"
    )
    flags.DEFINE_integer(
        "input_batches", 0, "watch memory over so many batches of input", lower_bound=0
    )
    flags.DEFINE_enum("versus", None, ["torchvision"], "measure its train step too")
    flags.DEFINE_float("seconds", 10.0, "how long each speed is measured", lower_bound=0.0)
    flags.DEFINE_bool("json", False, "print one JSON object")
    doors.hosts_flags()
    doors.run(main)


if __name__ == "__main__":
    cli()
