"""How a train step spreads over meshes: what is sent against the least possible, a device's memory,
and the time.
"""

from collections.abc import Callable
from typing import Any

import jax

from cnn_papers.benchmarks import topologies, traffic, workload
from cnn_papers.benchmarks.workload import Workload
from cnn_papers.errors import UserError
from cnn_papers.parallel.processes import raise_on_all


def parse(text: str) -> list[dict[str, int]]:
    """`data:1;data:4,column:2` as the meshes it names."""
    return [traffic.parse(part) for part in text.split(";")]


def prepare(shapes: list[dict[str, int]]) -> None:
    """To be called before this process joins others or uses a device: fakes what may be missing."""
    topologies.fake(max(map(traffic.size, shapes)))


def results(
    work: Workload, shapes: list[dict[str, int]], measure: Callable[..., Any]
) -> list[dict[str, Any]]:
    """For each mesh what `describe_mesh.report` tells of its step and, as `step`, how fast it is.

    Fake devices share the machine's cores: their time tells what splitting the work adds, not how
    it would scale.

    Args:
      measure: called with functions that take so many steps, by name, and the batch size; gives
        speeds by name.

    Raises:
      UserError: a mesh that cannot be, before anything is compiled.
    """
    each: list[tuple[Workload, list[Any]]] = []

    def check() -> None:
        for shape in shapes:
            each.append((traffic.over(work, shape), _devices(traffic.size(shape))))
            workload.make_step(*each[-1])

    raise_on_all(check)
    found = []
    for there, devices in each:
        report = traffic.report(there, devices)
        speed = measure({"step": workload.make_trainer(there, devices)}, work.batch_size)["step"]
        found.append(report | {"step": speed._asdict()})
    return found


def _devices(count: int) -> list[Any]:
    """`count` devices, equally many of each process: fake ones where there are too few others."""
    processes = jax.process_count()
    if count % processes:
        raise UserError(
            f"--mesh: {count} devices do not divide over {processes} processes; "
            f"the nearest that do are {max(1, round(count / processes)) * processes}"
        )
    there = jax.devices() if jax.device_count() >= count else jax.devices("cpu")
    of_each = [
        [device for device in there if device.process_index == process]
        for process in range(processes)
    ]
    return [device for devices in of_each for device in devices[: count // processes]]
