"""Measures how fast a network trains on this machine.

    python -m cnn_papers.benchmark --config=configs/x.py
    python -m cnn_papers.benchmark --model=resnet --variant=50

By default it measures, in images a second, the train step and the forward pass in evaluation (on a
synthetic batch that lies on the devices) and the input pipeline, each without the others; and the
time from the start of a process to the end of its first step, and its peak memory, with an empty
compilation cache and then with what that left in it. (A run opens its data before its first step,
too.)

- `--versus=torchvision`: runs torchvision's copy of the network in turns with ours; with
  `--compile` also compiled by torch.
- `--input_versus=tf.data,torch`: reads the images with other libraries in turns with ours.
- `--input_batches=10000`: watches memory over that many batches of input.
- `--measure=saving`: measures what checkpoints cost.
- `--measure=protocols`: measures test protocols (`--protocols`) against views one by one.
- `--measure=windows --model=spp`: measures SPP-net's features of windows against R-CNN's.
- `--measure=encoding --model=ifv`: measures SIFT, the Fisher vector, and the fits around it.

`--suite` measures a table of networks in turns with torch's, with --compile also compiled, and says
what it skips. `--suite --results=results/speed.json` keeps the results of this machine in a file;
`--results=results/speed.json` prints the tables of docs/speed.md.

With --model or --suite, only JAX, Flax, Optax and NumPy need be installed (and Orbax for saving).

`--mesh="data:1;data:4;data:4,column:2"` measures the step over each mesh instead, on fake devices
where there are too few others: what its devices send by layer and the least they could, their
memory, and the time. Several processes measure together, started as those of `main` are:
MODULE=cnn_papers.benchmark launch/local.sh 2 --model=alexnet --mesh=data:2,column:2.
`--topology=v5e:2x2` compiles the step for devices that need not exist, and tells all but the time.
"""

import contextlib
import functools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jax
from absl import flags

from cnn_papers import doors
from cnn_papers.benchmarks import (
    saving,
    scaling,
    step_speed,
    suite,
    timing,
    torchvision,
    traffic,
    wording,
    workload,
)
from cnn_papers.benchmarks.step_speed import FORWARD, STEP
from cnn_papers.benchmarks.torchvision import COMPILED, EAGER
from cnn_papers.benchmarks.workload import Workload
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import compile_cache, host_memory

MEASURES = ("start", "step", "forward", "input", "saving", "windows", "encoding", "protocols")
EVERY_STEPS = 200  # between two saves, unless a config says otherwise


def main(argv: list[str]) -> None:
    """Measures what the flags ask for and prints it."""
    values = flags.FLAGS
    if len(argv) > 1:
        raise UserError(
            f"unexpected argument '{argv[1]}'; overrides are written --config.key=value"
        )
    if unknown := sorted(set(values.measure) - set(MEASURES)):
        raise UserError(f"--measure={unknown[0]}: there are {', '.join(MEASURES)}")
    if values.compile and not (values.suite or values.versus):
        raise UserError("--compile goes with --suite or --versus=torchvision")
    if values.quick and not values.suite:
        raise UserError("--quick goes with --suite")
    results: Any
    as_text: Callable[[Any], str]
    if values.suite or values.results:
        results, as_text = _suite(), suite.as_markdown
    elif values.mesh or values.topology:
        results, as_text = _measure_meshes(), wording.meshes_as_text
    elif (values.num_processes or 1) > 1:
        raise UserError("several processes measure a mesh together: add --mesh=data:N")
    else:
        results, as_text = _measure(), wording.as_text
    print(json.dumps(results, indent=1) if values.json else as_text(results))


def _suite() -> list[dict[str, Any]]:
    """Returns the results of `--suite` on this machine, or those that `--results` keeps."""
    values = flags.FLAGS
    path = pathlib.Path(values.results)
    if values.config or values.model:
        raise UserError("--suite and --results have networks of their own: leave out the network")
    if not values.suite:
        return suite.read(path)
    earlier = suite.read(path) if values.results and path.exists() else []
    _share_memory()
    results = suite.measure(
        suite.QUICK if values.quick else suite.ROWS,
        _say,
        seconds=values.seconds,
        cpu_time=values.cpu_time,
        against_compiled=values.compile,
        dtype=values.dtype if values["dtype"].present else "",
    ) | {"clock": _clock()}
    if values.results:
        suite.keep(results, earlier, path)
    return [results]


def _clock() -> str:
    return "CPU time" if flags.FLAGS.cpu_time else "wall clock"


def _share_memory() -> None:
    """Lets torch use the devices too: JAX would take most of a GPU's memory when it starts."""
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")


def _measure() -> dict[str, Any]:
    """Returns the results of `--measure` and `--versus`."""
    values = flags.FLAGS
    config, work = _workload()
    torch_name = ""
    if values.versus:
        torch_name = torchvision.torch_name(work.model_name, work.model["variant"])
        if values.compile:
            torchvision.check_compiler()
        work = work._replace(devices=1)  # torch trains on one device
        _share_memory()
    host_memory.keep_freed()
    compile_cache.enable()
    load = os.getloadavg()[0]  # of others: taken before this process works
    first: dict[str, Any] = {}
    if "start" in values.measure:  # before this process takes the devices
        _say("starting two fresh processes that take one step")
        first = {"first_step": timing.first_step(work)}
    results: dict[str, Any] = _facts(work) | {"load_average": load} | first
    hows = [EAGER, COMPILED] if values.compile else [EAGER]
    rivals = [step_speed.rival(work, torch_name, how) for how in hows if torch_name]
    if {"step", "forward"} & set(values.measure):
        # CPU devices share the cores
        of_their_own = 1 if jax.default_backend() == "cpu" else results["devices"]["count"]
        rate = of_their_own * timing.matmul_rate(work.model["dtype"])
        results["devices"]["matmul_flops_per_second"] = rate
    if "step" in values.measure:
        _say("measuring the train step")
        results[STEP] = step_speed.measure(work, STEP, _speeds_of(), rivals)
    if "forward" in values.measure:
        _say("measuring the forward pass")
        results[FORWARD] = step_speed.measure(work, FORWARD, _speeds_of(), rivals)
    if "saving" in values.measure:
        _say("measuring what saving costs")
        every_steps = config.checkpoint.every_steps if config else EVERY_STEPS
        results["saving"] = saving.measure(work, pathlib.Path(values.workdir), every_steps)
    if "windows" in values.measure:
        results["windows"] = _measure_windows(work)
    if "encoding" in values.measure:
        results["encoding"] = _measure_encoding(work)
    if "protocols" in values.measure:
        results["protocols"] = _measure_protocols(work)
    if "input" in values.measure:
        results["input_pipeline"] = _measure_input(config)
    return results


def _measure_input(config: Any) -> dict[str, Any]:
    """Returns the speed of the input pipeline, or the reason why it cannot be measured."""
    if config is None:
        return {"not_measured": "a network has no data; name a recipe with --config"}
    from cnn_papers.benchmarks import input_speed

    values = flags.FLAGS
    _say("measuring the input pipeline")
    try:
        with contextlib.redirect_stdout(sys.stderr):  # the embedded data set says when it is made
            return input_speed.measure(
                config, _speeds_of(), values.input_versus, values.input_batches
            )
    except UserError as error:
        if values.input_versus:
            raise
        return {"not_measured": str(error)}


def _measure_windows(work: Workload) -> dict[str, Any]:
    """Returns the seconds for features of windows, of SPP-net and of R-CNN."""
    with _importing("windows"):
        from cnn_papers.benchmarks import windows
    _say("measuring features of windows, for minutes where R-CNN's network is large")
    return windows.measure(work)


def _measure_encoding(work: Workload) -> dict[str, Any]:
    """Returns the seconds of descriptors, encoding and fits of the shallow baseline."""
    with _importing("encoding"):
        from cnn_papers.benchmarks import encoding
        from cnn_papers.weights import fitting
    _say("measuring descriptors, their encoding, and fits, for minutes")
    with contextlib.redirect_stdout(sys.stderr):  # a fit says how it ends
        return encoding.measure(work, fitting.fit_to)


def _measure_protocols(work: Workload) -> dict[str, Any]:
    """Returns the speed of `--protocols`, or of the config's, in batches and one by one."""
    with _importing("protocols"):
        from cnn_papers.benchmarks import protocol_speed
    values = flags.FLAGS
    configured = values.config.eval.protocol if values.config else protocol_speed.USUAL
    _say("measuring test protocols")
    return protocol_speed.measure(work, values.protocols or configured, _speeds_of())


@contextlib.contextmanager
def _importing(measure: str) -> Iterator[None]:
    """Raises UserError if a package that `measure` needs is not installed."""
    try:
        yield
    except ImportError as error:
        raise UserError(
            f"--measure={measure} needs {error.name}, which is not installed"
        ) from error


def _measure_meshes() -> dict[str, Any]:
    """Returns the results over each of `--mesh`, or on `--topology`, there without the speed."""
    values = flags.FLAGS
    _, work = _workload()
    if values.topology:
        work_there, devices = traffic.on_topology(work, values.mesh, values.topology)
        reports = [traffic.report(work_there, devices)]
    else:
        shapes = scaling.parse_meshes(values.mesh)
        scaling.prepare(shapes)
        with doors.joined_hosts():
            host_memory.keep_freed()
            compile_cache.enable()
            reports = scaling.measure(work, shapes, _speeds_of())
    return _network_facts(work) | {"cpu_threads": timing.cpu_threads(), "meshes": reports}


def _speeds_of() -> Any:
    """Returns `timing.measure` for as long as `--seconds` and by the clock that the flags say."""
    values = flags.FLAGS
    return functools.partial(timing.measure, seconds=values.seconds, cpu_time=values.cpu_time)


def _workload() -> tuple[Any, Workload]:
    """Returns the config, or None, and the workload that the flags name."""
    values = flags.FLAGS
    if bool(values.config) == bool(values.model):
        raise UserError(
            "write --config=configs/x.py, "
            "or --model=NAME [--variant= --batch_size= --image_size= --dtype=]"
        )
    if values.model:
        options = values.variant, values.batch_size, values.image_size, values.dtype
        return None, workload.from_paper(values.model, *options)
    if isinstance(values.config, str):
        raise UserError(
            "--config needs ml_collections, which is not installed; name a network with --model"
        )
    from cnn_papers.runs import inputs, ranges

    for name in ("variant", "batch_size", "image_size", "dtype"):
        if values[name].present:
            raise UserError(
                f"--{name} goes with --model; a config is changed with --config.key=value"
            )
    ranges.check_ranges(values.config)
    image_shape = inputs.configured_input(values.config, "train_host")
    return values.config, workload.from_config(values.config, image_shape)


def _facts(work: Workload) -> dict[str, Any]:
    """Returns facts of the network and of the devices that it is measured on."""
    mesh = meshes.make_mesh(work.devices)
    devices = {
        "count": mesh.size,
        "kind": mesh.devices.flat[0].device_kind,
        "cpu_threads": timing.cpu_threads(),
    }
    return _network_facts(work) | {"devices": devices, "clock": _clock()}


def _network_facts(work: Workload) -> dict[str, Any]:
    network = workload.network(work)
    return {
        "network": {
            "model": work.model_name,
            "variant": work.model["variant"],
            "dtype": work.model["dtype"],
            "input": network.input,
            "parameters": network.params,
            "multiply_adds": network.macs,
        },
        "batch_size": work.batch_size,
        "jax": jax.__version__,
    }


def _say(text: str) -> None:
    print(f"{text} …", file=sys.stderr, flush=True)


def define_flags() -> None:
    """Defines the flags of this command."""
    try:
        doors.config_flag()
    except ImportError:  # --model does without it
        flags.DEFINE_string("config", None, "needs ml_collections")
    flags.DEFINE_string(
        "model", None, "network of cnn_papers.models on synthetic images, instead of --config"
    )
    flags.DEFINE_string("variant", None, "variant of --model; by default its usual one")
    flags.DEFINE_integer("batch_size", 32, "images a step, with --model", lower_bound=1)
    flags.DEFINE_integer(
        "image_size",
        None,
        "height and width in pixels, with --model; by default the paper's",
        lower_bound=1,
    )
    flags.DEFINE_enum(
        "dtype", "float32", ["float32", "bfloat16"], "type to compute in, with --model"
    )
    flags.DEFINE_list(
        "measure",
        list(MEASURES[:4]),
        "what to measure: any of start (fresh processes), step, forward (in evaluation), "
        "input (the pipeline), saving (checkpoints), windows (features of windows, SPP-net "
        "against R-CNN), encoding (descriptors, Fisher vector, fits) and protocols",
    )
    doors.path_flag("workdir", "folder on the disk that saving is measured on", default=".")
    flags.DEFINE_string("mesh", "", "measure the step over meshes instead: data:1;data:4,column:2")
    flags.DEFINE_string(
        "topology",
        "",
        "compile the step for devices that need not exist: v5e:2x2, h100:8, cpu:8",
    )
    flags.DEFINE_list(
        "input_versus", [], "measure these libraries' input pipelines too: tf.data, torch"
    )
    flags.DEFINE_integer(
        "input_batches", 0, "number of batches of input to watch memory over", lower_bound=0
    )
    flags.DEFINE_string(
        "protocols", "", "to measure, joined by |; by default the config's, or ten_crop|vgg_dense"
    )
    flags.DEFINE_enum("versus", None, ["torchvision"], "measure its network too")
    flags.DEFINE_bool("compile", False, "measure torch's network compiled by torch.compile, too")
    flags.DEFINE_bool("suite", False, "measure a table of networks in turns with torch's")
    flags.DEFINE_bool("quick", False, "with --suite, only two small networks")
    flags.DEFINE_bool("cpu_time", False, "count CPU seconds: on a CPU that others use too")
    doors.path_flag(
        "results",
        "JSON file that --suite keeps its results in; without --suite, print it as Markdown",
    )
    flags.DEFINE_float("seconds", 10.0, "how long each speed is measured", lower_bound=0.0)
    flags.DEFINE_bool("json", False, "print one JSON object")
    doors.hosts_flags()


def cli() -> None:
    """Runs the command line."""
    doors.run(main, define_flags)


if __name__ == "__main__":
    cli()
