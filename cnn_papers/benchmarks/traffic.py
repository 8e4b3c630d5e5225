"""A train step compiled for a mesh: which layers communicate, how many bytes a step, what each
device holds.
"""

import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from cnn_papers import terminal
from cnn_papers.benchmarks import least_traffic, topologies, workload
from cnn_papers.benchmarks.collectives import collectives
from cnn_papers.benchmarks.workload import Workload
from cnn_papers.errors import UserError

HEADER = ("layer", "parameters", "of them here", "forward", "backward", "least")
OUTSIDE = "loss, joint sums"  # what serves no layer, or not one alone


def parse(text: str) -> dict[str, int]:
    """`data:4,column:2` as {"data": 4, "column": 2}."""
    if not re.fullmatch(r"data:[1-9]\d{0,3}(,column:[1-9]\d?)?", text):
        raise UserError(f"--mesh={text}: write data:4 or data:4,column:2")
    return {name: int(count) for name, count in (part.split(":") for part in text.split(","))}


def over(work: Workload, mesh: dict[str, int]) -> Workload:
    """`work` on a mesh that `parse` gives."""
    return work._replace(devices=mesh["data"], column=mesh.get("column", 1))


def size(mesh: dict[str, int]) -> int:
    """How many devices a mesh takes."""
    return mesh["data"] * mesh.get("column", 1)


def compiled_only(work: Workload, mesh: str, topology: str) -> tuple[Workload, list[Any]]:
    """`work` over `mesh` ("": its own), and devices to compile it for: of `topology` ("": fake
    ones, for that mesh).

    To be called before this process uses a device.
    """
    if not mesh:
        return work, topologies.devices(topology)
    shape = parse(mesh)
    return over(work, shape), topologies.devices(topology or f"cpu:{size(shape)}")


def report(work: Workload, devices: Sequence[Any]) -> dict[str, Any]:
    """Compiles the step for `devices`, which need not be there, and reads off what it sends and
    holds.

    Counted as if the batch were worked through in one part and no block in a loop, whose body XLA's
    text has once. Values of JSON: `mesh`, `devices`, `rows` (for each layer `parameters`, how many
    of them are `here` on each device, bytes a step by kind `forward` and `backward`, and the
    `least`; XLA for GPUs leaves many exchanges without a name, which then are the last row's),
    `sent` and `least` in all, and the `memory` of each device in bytes.

    Raises:
      UserError: what cannot be, as `workload.make_step`; a step that does not fit into the memory
      of a device.
    """
    loops = {"scan": False} if "scan" in work.model else {}
    work = work._replace(step=work.step._replace(accumulate=1), model=work.model | loops)
    step = workload.make_step(work, devices)
    image = jax.ShapeDtypeStruct((work.batch_size, *work.image_shape), np.uint8)
    batch = {"image": image, "label": jax.ShapeDtypeStruct((work.batch_size,), np.int32)}
    try:
        compiled = step.train.lower(
            step.abstract, batch, jax.eval_shape(lambda: jax.random.key(0))
        ).compile()
    except jax.errors.JaxRuntimeError as error:
        if not str(error).startswith("RESOURCE_EXHAUSTED"):
            raise
        raise UserError(
            f"the step does not fit into a device's memory: {str(error).splitlines()[0]}"
        ) from error
    params = step.abstract.params
    found, bound = (
        collectives(compiled, params),
        least_traffic.least(work, step.abstract, step.mesh),
    )
    order = [layer.name for layer in workload.network(work).layers if layer.name in params]
    rows: list[dict[str, Any]] = []
    for name in [*order, *(name for name in params if name not in order), ""]:
        sent: dict[bool, dict[str, int]] = {False: {}, True: {}}
        for each in found:
            if each.layer == name:
                kinds = sent[each.backward]
                kinds[each.kind] = kinds.get(each.kind, 0) + each.bytes
        whole, here = _numbers(params.get(name, {}))
        held = {"layer": name or OUTSIDE, "parameters": whole, "here": here}
        rows.append({**held, "forward": sent[False], "backward": sent[True], "least": bound[name]})
    return {
        "mesh": ",".join(f"{axis}:{count}" for axis, count in step.mesh.shape.items()),
        "devices": f"{step.mesh.size} × {step.mesh.devices.flat[0].device_kind}",
        "rows": rows,
        "sent": sum(each.bytes for each in found),
        "least": bound.total(),
        "memory": _memory(compiled.memory_analysis()),
    }


def as_text(found: dict[str, Any]) -> str:
    """What `report` gives: a table under HEADER and two lines below."""
    rows: Any = found["rows"]
    cells: list[tuple[str, ...]] = [HEADER]
    for row in rows:
        held = (f"{row['parameters']:,}", f"{row['here']:,}") if row["parameters"] else ("", "")
        cells.append(
            (
                row["layer"],
                *held,
                _kinds(row["forward"]),
                _kinds(row["backward"]),
                _bytes(row["least"]),
            )
        )
    held = [f"{sum(row[key] for row in rows):,}" for key in ("parameters", "here")]
    ways = [f"{sum(sum(row[key].values()) for row in rows):,} B" for key in ("forward", "backward")]
    cells.append(("total", *held, *ways, f"{found['least']:,} B"))
    times = f", {found['sent'] / found['least']:.3f} times the least" if found["least"] else ""
    memory = {name: f"{number / 1e6:,.1f}" for name, number in found["memory"].items()}
    total = memory.pop("total")
    parts = " + ".join(f"{number} {name}" for name, number in memory.items()).replace("+ -", "- ")
    sent = f"sent    {found['sent']:,} B a device and step{times}"
    return f"{terminal.aligned(cells)}\n{sent}\nmemory  {total} MB a device: {parts}"


def _numbers(tree: Any) -> tuple[int, int]:
    """Numbers in a tree: in all, and on each device."""
    leaves = jax.tree.leaves(tree)
    here = sum(int(np.prod(leaf.sharding.shard_shape(leaf.shape))) for leaf in leaves)
    return sum(leaf.size for leaf in leaves), here


def _kinds(sent: dict[str, int]) -> str:
    return ", ".join(f"{kind} {number:,} B" for kind, number in sent.items())


def _bytes(number: int) -> str:
    return f"{number:,} B" if number else ""


def _memory(stats: Any) -> dict[str, int]:
    """Arguments (the state and the batch) and results share memory as far as the state is donated."""
    parts = {
        "arguments": stats.argument_size_in_bytes,
        "results": stats.output_size_in_bytes,
        "shared by both": -stats.alias_size_in_bytes,
        "temporary": stats.temp_size_in_bytes,
        "program": stats.generated_code_size_in_bytes,
    }
    return {**parts, "total": sum(parts.values())}
