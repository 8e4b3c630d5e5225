"""The device mesh and the shardings of what lives on it."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn_papers.errors import UserError

DATA, COLUMN = "data", "column"


def make_mesh(data: int = -1, column: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A mesh with the axis `data`, and `column` where there is more than one; -1 takes all devices
    there are.

    Args:
      devices: to take instead of those of this run, such as ones to compile for alone.

    Raises:
      UserError: devices that are not there.
    """
    devices = jax.devices() if devices is None else devices
    there = len(devices)
    if column < 1 or column > there:
        raise UserError(
            f"config.mesh.column={column}, but there are {there} devices; 1 has no such axis"
        )
    if data != -1 and not 1 <= data <= there // column:
        times = f" × column={column}" if column > 1 else ""
        raise UserError(
            f"config.mesh.data={data}{times}, but there are {there} devices; -1 takes all of them"
        )
    shape = {DATA: there // column if data == -1 else data} | (
        {COLUMN: column} if column > 1 else {}
    )
    devices = devices[: shape[DATA] * column]
    if len({device.process_index for device in devices}) < jax.process_count():
        raise UserError(
            f"config.mesh leaves out all devices of some of the {jax.process_count()} processes: "
            "--config.mesh.data=-1 takes all devices, or start fewer processes"
        )
    return jax.make_mesh(
        tuple(shape.values()), tuple(shape), (AxisType.Auto,) * len(shape), devices=devices
    )


def data_sharding(mesh: Mesh) -> NamedSharding:
    """The first axis split over `data`."""
    return NamedSharding(mesh, PartitionSpec(DATA))


def replicated(mesh: Mesh) -> NamedSharding:
    """Everything on every device."""
    return NamedSharding(mesh, PartitionSpec())


def shardings(mesh: Mesh, tree: Any, *, columns: str = "", shard_params: bool = False) -> Any:
    """How each array of a state, parameters or statistics (shapes will do) lies on the mesh.

    Args:
      columns: a regular expression for the layers whose last axis, the channels they give, is split
      over `column`.
      shard_params: split the longest axis that divides, and is not split yet, over `data`.
    """

    def sharding(path: Any, leaf: Any) -> NamedSharding:
        spec: list[str | None] = [None] * len(leaf.shape)
        parts = jax.tree_util.keystr(path, simple=True, separator="/").split("/")
        if COLUMN in mesh.shape and spec and any(re.fullmatch(columns, part) for part in parts):
            spec[-1] = COLUMN if leaf.shape[-1] % mesh.shape[COLUMN] == 0 else None
        if shard_params:
            free = [
                axis
                for axis, taken in enumerate(spec)
                if not taken and leaf.shape[axis] % mesh.shape[DATA] == 0
            ]
            if free:
                spec[max(free, key=lambda axis: leaf.shape[axis])] = DATA
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree_util.tree_map_with_path(sharding, tree)


def check_batch(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
    """Raises UserError unless each of `accumulate` parts of a batch divides over the mesh."""
    parts = mesh.shape[DATA] * accumulate
    if batch_size % parts:
        near = max(parts, round(batch_size / parts) * parts)
        raise UserError(
            f"config.batch_size={batch_size} does not divide into {accumulate} × {mesh.shape[DATA]} parts "
            f"(accumulation steps × devices); the nearest that does is {near}"
        )
