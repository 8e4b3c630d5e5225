"""The device mesh and the shardings of what lives on it."""

import jax
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from cnn_papers.errors import UserError


def make_mesh(data: int = -1) -> Mesh:
    """A mesh with the axis `data` over `data` devices; -1 takes all there are.

    Raises:
      UserError: a number of devices that is not there.
    """
    there = jax.device_count()
    if data != -1 and not 1 <= data <= there:
        raise UserError(f"config.mesh.data={data}, but there are {there} devices; -1 takes all of them")
    devices = there if data == -1 else data
    return jax.make_mesh((devices,), ("data",), axis_types=(AxisType.Auto,), devices=jax.devices()[:devices])


def over_data(mesh: Mesh) -> NamedSharding:
    """The first axis split over `data`."""
    return NamedSharding(mesh, PartitionSpec("data"))


def replicated(mesh: Mesh) -> NamedSharding:
    """Everything on every device."""
    return NamedSharding(mesh, PartitionSpec())


def check_batch(mesh: Mesh, batch_size: int, accumulate: int = 1) -> None:
    """Raises UserError unless each of `accumulate` parts of a batch divides over the mesh."""
    parts = mesh.shape["data"] * accumulate
    if batch_size % parts:
        near = max(parts, round(batch_size / parts) * parts)
        raise UserError(
            f"config.batch_size={batch_size} does not divide into {accumulate} × {mesh.shape['data']} parts "
            f"(accumulation steps × devices); the nearest that does is {near}"
        )
