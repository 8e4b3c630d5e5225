"""Measures a train step over several meshes: what is sent, a device's memory, and the time."""

from collections.abc import Callable
from typing import Any

import jax

from cnn_papers.benchmarks import topologies, traffic, workload
from cnn_papers.benchmarks.timing import Contender, Speed
from cnn_papers.benchmarks.workload import Workload
from cnn_papers.errors import UserError
from cnn_papers.parallel.processes import raise_on_all


def parse_meshes(text: str) -> list[dict[str, int]]:
    """Returns the meshes of `data:1;data:4,column:2`."""
    return [workload.parse_mesh(part) for part in text.split(";")]


def prepare(shapes: list[dict[str, int]]) -> None:
    """Makes enough fake CPU devices for the largest mesh, in case there are too few others.

    It has to be called before this process joins others or uses a device.
    """
    topologies.fake_devices(max(map(workload.mesh_size, shapes)))


def measure(
    work: Workload,
    shapes: list[dict[str, int]],
    speeds_of: Callable[[dict[str, Contender], int], dict[str, Speed]],
) -> list[dict[str, Any]]:
    """Returns for each mesh the report of `traffic.report` and, as `step`, the speed of the step.

    Fake devices share the machine's cores: their speed tells what splitting the work adds, not how
    it would scale.

    Args:
      speeds_of: (contenders by name, images a batch) -> their speeds by name.

    Raises:
      UserError: a mesh is impossible; raised before anything is compiled.
    """
    steps: list[tuple[Workload, list[Any]]] = []

    def check() -> None:
        for shape in shapes:
            on_mesh, devices = work.on_mesh(shape), _devices(workload.mesh_size(shape))
            workload.make_step(on_mesh, devices)
            steps.append((on_mesh, devices))

    raise_on_all(check)
    reports = []
    for on_mesh, devices in steps:
        report = traffic.report(on_mesh, devices)
        trainer = workload.make_trainer(on_mesh, devices)
        speed = speeds_of({"step": trainer}, work.batch_size)["step"]
        reports.append(report | {"step": speed._asdict()})
    return reports


def _devices(count: int) -> list[Any]:
    """Returns `count` devices, equally many of each process; fake ones if there are too few."""
    processes = jax.process_count()
    if count % processes:
        raise UserError(
            f"--mesh: {count} devices do not divide over {processes} processes; "
            f"the nearest that do are {max(1, round(count / processes)) * processes}"
        )
    devices = jax.devices() if jax.device_count() >= count else jax.devices("cpu")
    chosen = []
    for process in range(processes):
        own = [device for device in devices if device.process_index == process]
        chosen += own[: count // processes]
    return chosen
