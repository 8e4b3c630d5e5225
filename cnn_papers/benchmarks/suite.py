"""Measures several networks in turns with torch's, and keeps the results for docs/speed.md.

Each is measured training and in evaluation: against eager torch and, if asked for, against
`torch.compile`. Each of these measurements is a process of its own, so that memory is counted for
it alone, and a compiler that aborts takes nothing else with it.
"""

import functools
import importlib.metadata
import json
import os
import pathlib
import platform
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax

from cnn_papers import files
from cnn_papers.benchmarks import step_speed, timing, torchvision, workload
from cnn_papers.benchmarks.step_speed import FORWARD, STEP
from cnn_papers.benchmarks.torchvision import COMPILED, EAGER
from cnn_papers.errors import UserError
from cnn_papers.runs import compile_cache, host_memory

PACKAGES = ("jax", "jaxlib", "torch", "torchvision")


class Row(NamedTuple):
    """A network of the suite.

    Attributes:
      batch_size, large_batch: images a step on a CPU, and on an accelerator.
      pixels: height and width of the images.
    """

    model: str
    variant: str
    batch_size: int
    pixels: int
    large_batch: int


ROWS = (
    Row("resnet", "50-v1.5", 8, 224, 256),
    Row("resnet", "50-v1.5", 16, 96, 256),
    Row("googlenet", "torchvision", 8, 224, 256),
    Row("googlenet", "torchvision", 16, 96, 512),
    Row("densenet", "121", 8, 224, 128),
    Row("densenet", "121", 8, 96, 256),
    Row("vgg", "A", 4, 224, 128),
    Row("vgg", "D", 4, 224, 128),
    Row("alexnet", "one_weird_trick", 16, 224, 512),
    Row("resnet", "cifar-20", 128, 32, 1024),
)
QUICK = (Row("resnet", "cifar-8", 8, 16, 8), Row("resnet", "18", 2, 32, 2))
PART = """
import sys
from cnn_papers.benchmarks import suite
suite.measure_part(sys.argv[1])
"""


def measure(
    rows: Sequence[Row],
    say: Callable[[str], None],
    *,
    seconds: float,
    cpu_time: bool,
    against_compiled: bool,
    dtype: str = "",
) -> dict[str, Any]:
    """Returns machine, versions and, of each row, the speeds of `step_speed.measure`, as JSON.

    What cannot be measured here is left out, and `skipped` says why, a line each.

    Args:
      say: takes what is being measured, in words.
      seconds, cpu_time: as in `timing.measure`.
      dtype: to compute in; "" is float32 on a CPU and bfloat16 elsewhere.
    """
    load = os.getloadavg()[0]  # of others: taken before this process works
    on_cpu = jax.default_backend() == "cpu"
    dtype = dtype or ("float32" if on_cpu else "bfloat16")
    hows, skipped = _hows(against_compiled)
    measured = []
    for row in rows:
        batch_size = row.batch_size if on_cpu else row.large_batch
        work = workload.from_paper(row.model, row.variant, batch_size, row.pixels, dtype)
        work = work._replace(devices=1)  # torch trains on one device
        name = f"{row.model} '{row.variant}' at {row.pixels} pixels, batch {batch_size}"
        rivals = []
        try:
            torchvision.torch_name(row.model, row.variant)
            rivals = hows
        except UserError as error:
            skipped.append(f"torch's {row.model} '{row.variant}': {error}")
        results: dict[str, Any] = {**row._asdict(), "batch_size": batch_size}
        for part in (STEP, FORWARD):
            say(f"{name}, {part.replace('_', ' ')}")
            try:
                asked = json.dumps([work.as_text(), part, rivals, seconds, cpu_time])
                results[part] = json.loads(timing.in_a_process(PART, asked).splitlines()[-1])
            except UserError as error:
                skipped.append(f"{name}, {part.replace('_', ' ')}: {error}")
        measured.append(results)
    return {
        **_machine(),
        "matmul_flops_per_second": timing.matmul_rate(dtype),
        "dtype": dtype,
        "load_average": load,
        "rows": measured,
        "skipped": skipped,
    }


def measure_part(asked: str) -> None:
    """Prints what `step_speed.measure` returns, as JSON; it is the work of a process of its own.

    The process exits with the first line of an error, such as too little memory.

    Args:
      asked: JSON of a workload as text, STEP or FORWARD, how torch runs, `seconds` and `cpu_time`.
    """
    text, part, hows, seconds, cpu_time = json.loads(asked)
    host_memory.keep_freed()
    compile_cache.enable()
    work = workload.from_text(text)
    speeds_of = functools.partial(timing.measure, seconds=seconds, cpu_time=cpu_time)
    try:
        rivals = [
            step_speed.rival(
                work, torchvision.torch_name(work.model_name, work.model["variant"]), how
            )
            for how in hows
        ]
        print(json.dumps(step_speed.measure(work, part, speeds_of, rivals)))
    except (UserError, RuntimeError) as error:
        sys.exit((str(error).strip().splitlines() or [type(error).__name__])[0])


def _hows(against_compiled: bool) -> tuple[list[str], list[str]]:
    """Returns how torch runs here, and what is skipped with the reason."""
    if not against_compiled:
        return [EAGER], []
    try:
        torchvision.check_compiler()
    except UserError as error:
        return [EAGER], [str(error)]
    return [EAGER, COMPILED], []


def _machine() -> dict[str, Any]:
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    device = jax.devices()[0].device_kind
    if jax.default_backend() == "cpu":
        device = timing.cpu_name()
    return {"device": device, "cpu_threads": timing.cpu_threads(), "versions": versions}


# --- the file -------------------------------------------------------------------------------------


def read(path: pathlib.Path) -> list[dict[str, Any]]:
    """Returns the results that `keep` wrote, one of each machine; UserError for another file."""
    try:
        machines = json.loads(path.read_text())
        as_markdown(machines)
    except OSError as error:
        raise UserError(f"--results={path} cannot be read: {error.strerror}") from error
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"--results={path} is no file of --suite") from error
    return machines


def keep(results: dict[str, Any], earlier: Sequence[dict[str, Any]], path: pathlib.Path) -> None:
    """Writes `results` with `earlier` ones to `path`; they replace those of the same machine."""
    others = [machine for machine in earlier if _key(machine) != _key(results)]
    with files.replacing(path) as part:
        part.write_text(json.dumps([*others, results], indent=1, ensure_ascii=False) + "\n")


def _key(machine: dict[str, Any]) -> tuple[Any, ...]:
    return machine["device"], machine["cpu_threads"], machine["dtype"]


HEADER = ("network", "batch", "pixels")
MATMUL = "matmul"  # a column: our operations a second, as a share of a matrix product's


def as_markdown(machines: Sequence[dict[str, Any]]) -> str:
    """Returns the results as Markdown: of each machine a line, a table and what was skipped."""
    return "\n\n".join(part for machine in machines for part in _parts(machine))


def _parts(machine: dict[str, Any]) -> list[str]:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    threads = machine["cpu_threads"]
    about = (
        f"{machine['device']}, {threads} CPU thread{'s' if threads > 1 else ''}, "
        f"{machine['dtype']}, {machine['clock']}, load {machine['load_average']:.1f} before; "
        f"{versions}:"
    )
    rate = machine.get("matmul_flops_per_second")  # results of earlier versions lack it
    if rate:
        about = f"{about[:-1]}; a product of large matrices: {rate / 1e12:,.2f} TFLOP/s:"
    hows = [
        how
        for how in (EAGER, COMPILED)
        if any(how in row.get(STEP, {}).get("versus", {}) for row in machine["rows"])
    ]
    shares = [MATMUL] if rate else []
    columns = [(part, how) for part in (STEP, FORWARD) for how in ("", *shares, *hows)]
    header = [*HEADER, *(_column(part, how) for part, how in columns)]
    lines = [header, ["---", *["---:"] * (len(header) - 1)]]
    for row in machine["rows"]:
        values = [_value(row.get(part, {}), how, rate) for part, how in columns]
        network = f"{row['model']} `{row['variant']}`"
        lines.append([network, str(row["batch_size"]), str(row["pixels"]), *values])
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    skipped = [f"Not measured: {reason}" for reason in machine["skipped"]]
    return [about, table, *skipped]


def _column(part: str, how: str) -> str:
    name = "step" if part == STEP else "forward"
    return f"{name} / {how}" if how else name


def _value(result: dict[str, Any], how: str, rate: float | None) -> str:
    """Returns our images a second, or how many times as fast we are as torch run like `how`.

    For MATMUL it is the share of `rate`, a matrix product's, that the network's operations reach.
    """
    if not how:
        return f"{result['images_per_second']:,.1f}" if result else ""
    if how == MATMUL:
        return f"{result['model_flops_per_second'] / rate:.1%}" if result and rate else ""
    rival = result.get("versus", {}).get(how)
    if rival is None:
        return ""
    low, high = rival["ratios"]
    return f"**{rival['ratio']:.2f}** ({low:.2f}–{high:.2f})"
