"""A train step over a mesh as a table: which layers communicate, how many bytes a step, what each device holds."""

import re
from typing import Any

import jax
import numpy as np

from cnn_papers import workload
from cnn_papers.collectives import Collective, collectives
from cnn_papers.errors import UserError
from cnn_papers.workload import Workload

HEADER = ("layer", "parameters", "of them here", "forward", "backward")


def parse(text: str) -> dict[str, int]:
    """`data:4,column:2` as {"data": 4, "column": 2}."""
    if not re.fullmatch(r"data:[1-9]\d{0,3}(,column:[1-9]\d?)?", text):
        raise UserError(f"--mesh={text}: write data:4 or data:4,column:2")
    return {name: int(count) for name, count in (part.split(":") for part in text.split(","))}


def on_fake_devices(mesh: dict[str, int]) -> None:
    """Lets this process, which has not used a device yet, compile for as many CPU devices as the mesh takes."""
    jax.config.update("jax_platforms", "cpu")
    jax.config.update("jax_num_cpu_devices", mesh.get("data", 1) * mesh.get("column", 1))


def table(work: Workload) -> list[tuple[str, ...]]:
    """Rows under HEADER: the layers in the order of the network, what lies between them, the totals.

    Counted as if the batch were worked through in one part and no block in a loop, whose body XLA's text has once.
    """
    loops = {"scan": False} if "scan" in work.model else {}
    work = work._replace(accumulate=1, model=work.model | loops)
    step = workload.make_step(work)
    image = jax.ShapeDtypeStruct((work.batch_size, *work.image_shape), np.uint8)
    batch = {"image": image, "label": jax.ShapeDtypeStruct((work.batch_size,), np.int32)}
    compiled = step.train.lower(step.abstract, batch, jax.random.key(0)).compile()
    params = step.abstract.params
    found = collectives(compiled, params)
    order = [layer.name for layer in workload.network(work).layers if layer.name in params]
    names = [*order, *(name for name in params if name not in order)]
    rows: list[tuple[str, ...]] = [(name, *_sizes(params[name]), *_sent(found, name)) for name in names]
    rows.append(("loss, gradients", "", "", *_sent(found, "")))
    rows.append(("total", *_sizes(params), *(_total(found, backward) for backward in (False, True))))
    return [HEADER, *rows]


def _sizes(tree: Any) -> tuple[str, str]:
    """Numbers in a tree: in all, and on each device."""
    leaves = jax.tree.leaves(tree)
    here = sum(int(np.prod(leaf.sharding.shard_shape(leaf.shape))) for leaf in leaves)
    return f"{sum(leaf.size for leaf in leaves):,}", f"{here:,}"


def _sent(found: list[Collective], layer: str) -> tuple[str, str]:
    """The exchanges of one layer, forward and backward."""
    cells = []
    for backward in (False, True):
        kinds: dict[str, int] = {}
        for each in found:
            if each.layer == layer and each.backward == backward:
                kinds[each.kind] = kinds.get(each.kind, 0) + each.bytes
        cells.append(", ".join(f"{kind} {size:,} B" for kind, size in kinds.items()))
    return cells[0], cells[1]


def _total(found: list[Collective], backward: bool) -> str:
    return f"{sum(each.bytes for each in found if each.backward == backward):,} B"
