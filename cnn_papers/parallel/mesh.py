"""Makes the device mesh and the shardings of arrays over it."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn_papers.errors import UserError

DATA, COLUMN = "data", "column"


def make_mesh(data: int = -1, column: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """Makes a mesh with the axis `data`, and the axis `column` if there is more than one column.

    Args:
      data: size of the axis; -1 takes all devices that are available.
      column: size of the axis.
      devices: to use in place of those of this run, such as devices that exist for compiling only.

    Raises:
      UserError: more devices than are available; a mesh without a device of some process.
    """
    devices = jax.devices() if devices is None else devices
    available = len(devices)
    if column < 1:
        raise UserError(
            f"config.mesh.column={column} must be positive; 1 disables column parallelism"
        )
    if column > available:
        raise UserError(
            f"config.mesh.column={column} needs {column} devices and {available} are available; "
            "1 disables column parallelism, and JAX_NUM_CPU_DEVICES=N in the environment makes N "
            "devices of a CPU"
        )
    if data == -1:
        data = available // column
    elif data < 1:
        raise UserError(f"config.mesh.data={data} must be positive, or -1 for all devices")
    elif data * column > available:
        times = f" × column={column}" if column > 1 else ""
        raise UserError(
            f"config.mesh.data={data}{times} needs {data * column} devices "
            f"and {available} are available; -1 takes all of them"
        )
    shape = {DATA: data}
    if column > 1:
        shape[COLUMN] = column
    devices = devices[: data * column]
    if len({device.process_index for device in devices}) < jax.process_count():
        raise UserError(
            f"config.mesh leaves out all devices of some of the {jax.process_count()} processes: "
            "take all devices with --config.mesh.data=-1, or start fewer processes"
        )
    return jax.make_mesh(
        tuple(shape.values()), tuple(shape), (AxisType.Auto,) * len(shape), devices=devices
    )


def data_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that splits the first axis over `data`."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def replicated(mesh: Mesh) -> NamedSharding:
    """Returns the sharding that keeps a full copy on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shardings(mesh: Mesh, tree: Any, *, columns: str = "", shard_params: bool = False) -> Any:
    """Returns the sharding of each array of `tree`: a state, parameters or statistics.

    Args:
      tree: of arrays, or of their shapes.
      columns: a regular expression for the names of the layers whose last axis, the output
        channels, is split over `column`.
      shard_params: split the longest axis that divides evenly, and is not split yet, over `data`.
    """

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        spec: list[str | None] = [None] * len(leaf.shape)
        parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if COLUMN in mesh.shape and spec and any(re.fullmatch(columns, part) for part in parts):
            spec[-1] = COLUMN if leaf.shape[-1] % mesh.shape[COLUMN] == 0 else None
        if shard_params:
            divisible = [
                axis
                for axis, mesh_axis in enumerate(spec)
                if not mesh_axis and leaf.shape[axis] % mesh.shape[DATA] == 0
            ]
            if divisible:
                spec[max(divisible, key=lambda axis: leaf.shape[axis])] = DATA
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def check_batch(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
    """Raises UserError unless each of `accumulate` parts of a batch divides over the mesh."""
    parts = mesh.shape[DATA] * accumulate
    if batch_size % parts:
        nearest = max(parts, round(batch_size / parts) * parts)
        raise UserError(
            f"config.batch_size={batch_size} does not divide into "
            f"{accumulate} × {mesh.shape[DATA]} parts (accumulation steps × devices); "
            f"the nearest that does is {nearest}"
        )
