"""Compiles a train step for a mesh and reports what its layers send and its devices hold."""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from cnn_papers import terminal
from cnn_papers.benchmarks import topologies, workload
from cnn_papers.benchmarks.collectives import collectives
from cnn_papers.benchmarks.least_traffic import least_bytes
from cnn_papers.benchmarks.workload import Workload
from cnn_papers.errors import UserError

HEADER = ("layer", "parameters", "on a device", "forward", "backward", "least")
OUTSIDE = "loss, joint sums"  # the row of what serves no layer, or several


def on_topology(work: Workload, mesh: str, topology: str) -> tuple[Workload, list[Any]]:
    """Returns `work` over `mesh`, and devices of `topology` to compile it for.

    It has to be called before this process uses a device.

    Args:
      mesh: as `workload.parse_mesh` takes it; "" is that of `work`.
      topology: as `topologies.devices` takes it; "" is fake CPU devices, as many as `mesh` has.
    """
    if not mesh:
        return work, topologies.devices(topology)
    shape = workload.parse_mesh(mesh)
    devices = topologies.devices(topology or f"cpu:{workload.mesh_size(shape)}")
    return work.on_mesh(shape), devices


def report(work: Workload, devices: Sequence[Any]) -> dict[str, Any]:
    """Compiles the step for `devices`, which need not exist, and returns what it sends and holds.

    It is compiled with the batch in one part and no loop over blocks: XLA's text has the body of a
    loop only once.

    Returns:
      Values of JSON: `mesh`; `devices`; `rows`, one a layer and a last one for the rest, with the
      layer's `parameters`, how many of them are `here` on each device, the bytes a step that it
      sends `forward` and `backward`, by kind, and the `least` it could send; `sent` and `least`
      over all rows; and the `memory` of each device in bytes. XLA for GPUs leaves many collective
      operations without a name; they are in the last row.

    Raises:
      UserError: as `workload.make_step` does, or the step does not fit into a device's memory.
    """
    loops = {"scan": False} if "scan" in work.model else {}
    work = work._replace(step=work.step._replace(accumulate=1), model=work.model | loops)
    step = workload.make_step(work, devices)
    compiled = _compile(step, work)
    params = step.abstract.params
    operations = collectives(compiled, params)
    least = least_bytes(work, step.abstract, step.mesh)
    order = [layer.name for layer in workload.network(work).layers if layer.name in params]
    rows: list[dict[str, Any]] = []
    for name in [*order, *(name for name in params if name not in order), ""]:
        sent: dict[bool, dict[str, int]] = {False: {}, True: {}}
        for operation in operations:
            if operation.layer == name:
                by_kind = sent[operation.backward]
                by_kind[operation.kind] = by_kind.get(operation.kind, 0) + operation.bytes
        whole, here = _sizes(params.get(name, {}))
        held = {"layer": name or OUTSIDE, "parameters": whole, "here": here}
        rows.append({**held, "forward": sent[False], "backward": sent[True], "least": least[name]})
    return {
        "mesh": ",".join(f"{axis}:{count}" for axis, count in step.mesh.shape.items()),
        "devices": f"{step.mesh.size} × {step.mesh.devices.flat[0].device_kind}",
        "rows": rows,
        "sent": sum(operation.bytes for operation in operations),
        "least": least.total(),
        "memory": _memory(compiled.memory_analysis()),
    }


def _compile(step: workload.Step, work: Workload) -> Any:
    image = jax.ShapeDtypeStruct((work.batch_size, *work.image_shape), np.uint8)
    batch = {"image": image, "label": jax.ShapeDtypeStruct((work.batch_size,), np.int32)}
    key = jax.eval_shape(lambda: jax.random.key(0))
    try:
        return step.train.lower(step.abstract, batch, key).compile()
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        raise UserError(
            f"the step does not fit into a device's memory: {str(error).splitlines()[0]}"
        ) from error


def as_text(results: dict[str, Any]) -> str:
    """Returns what `report` returned as a table under HEADER and two lines below."""
    rows: Any = results["rows"]
    cells: list[tuple[str, ...]] = [HEADER]
    for row in rows:
        held = (f"{row['parameters']:,}", f"{row['here']:,}") if row["parameters"] else ("", "")
        ways = (_kinds(row["forward"]), _kinds(row["backward"]))
        cells.append((row["layer"], *held, *ways, _bytes(row["least"])))
    held = [f"{sum(row[key] for row in rows):,}" for key in ("parameters", "here")]
    ways = [f"{sum(sum(row[key].values()) for row in rows):,} B" for key in ("forward", "backward")]
    cells.append(("total", *held, *ways, f"{results['least']:,} B"))
    times = ""
    if results["least"]:
        times = f", {results['sent'] / results['least']:.3f} times the least"
    memory = {name: f"{number / 1e6:,.1f}" for name, number in results["memory"].items()}
    total = memory.pop("total")
    parts = " + ".join(f"{number} {name}" for name, number in memory.items()).replace("+ -", "- ")
    sent = f"sent    {results['sent']:,} B a device and step{times}"
    return f"{terminal.aligned(cells)}\n{sent}\nmemory  {total} MB a device: {parts}"


def _sizes(tree: Any) -> tuple[int, int]:
    """Returns the number of values of a tree: in all, and on each device."""
    leaves = jax.tree.leaves(tree)
    here = sum(int(np.prod(leaf.sharding.shard_shape(leaf.shape))) for leaf in leaves)
    return sum(leaf.size for leaf in leaves), here


def _kinds(sent: dict[str, int]) -> str:
    return ", ".join(f"{kind} {number:,} B" for kind, number in sent.items())


def _bytes(number: int) -> str:
    return f"{number:,} B" if number else ""


def _memory(stats: Any) -> dict[str, int]:
    """Returns the bytes by use, and their total."""
    parts = {
        "arguments": stats.argument_size_in_bytes,
        "results": stats.output_size_in_bytes,
        # the state is donated, so that its old and its new arrays share memory
        "shared by both": -stats.alias_size_in_bytes,
        "temporary": stats.temp_size_in_bytes,
        "program": stats.generated_code_size_in_bytes,
    }
    return {**parts, "total": sum(parts.values())}
