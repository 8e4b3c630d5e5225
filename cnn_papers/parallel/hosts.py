"""Joins the processes of a multi-host run (`jax.distributed`), from flags, SLURM or a TPU pod."""

import functools
import ipaddress
import logging
import os
import re
import socket
import sys
from collections.abc import Mapping
from typing import NamedTuple

from cnn_papers.errors import UserError
from cnn_papers.parallel import rendezvous

AUTO = "auto"  # the coordinator of a TPU pod, which JAX finds out from the pod
LOOPBACK = "127.0.0.1"
# A SLURM job has a port by its number, so that two jobs on one node have different ones.
FIRST_PORT, PORTS = 61440, 4096


class Place(NamedTuple):
    """The place of this process in a run over several processes.

    Attributes:
      coordinator: host:port that process 0 listens on, or AUTO.
      count: number of processes; 0 with AUTO, where JAX finds it out.
      index: of this process, from 0 on; 0 with AUTO.
    """

    coordinator: str
    count: int
    index: int


def find_place(
    coordinator: str,
    num_processes: int | None,
    process_id: int | None,
    environment: Mapping[str, str],
) -> Place | None:
    """Returns the place of this process, None in a run of one process.

    It is read from the flags, else from $JAX_COORDINATOR_ADDRESS, $JAX_NUM_PROCESSES and
    $JAX_PROCESS_ID, else from the variables of SLURM or of a TPU pod.

    Raises:
      UserError: a place that is incomplete, or numbers that make no sense.
    """
    coordinator = coordinator or environment.get("JAX_COORDINATOR_ADDRESS", "")
    count = _number("JAX_NUM_PROCESSES", environment) if num_processes is None else num_processes
    index = _number("JAX_PROCESS_ID", environment) if process_id is None else process_id
    if coordinator == AUTO:
        return Place(AUTO, 0, 0)
    if not coordinator and count is None and index is None:
        if "," in environment.get("TPU_WORKER_HOSTNAMES", ""):
            return Place(AUTO, 0, 0)
        return _slurm_place(environment)
    given = {
        "--coordinator=HOST:PORT": coordinator or None,
        "--num_processes": count,
        "--process_id": index,
    }
    if missing := [flag for flag, value in given.items() if value is None]:
        raise UserError(f"a run over several processes needs {' and '.join(missing)} as well")
    assert count is not None and index is not None
    host, _, port = coordinator.rpartition(":")
    if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise UserError(f"--coordinator={coordinator} must be HOST:PORT, such as 127.0.0.1:1234")
    if count < 1:
        raise UserError(f"--num_processes={count} must be positive")
    if not 0 <= index < count:
        raise UserError(
            f"--process_id={index} must be from 0 to {count - 1}: there are --num_processes={count}"
        )
    return Place(coordinator, count, index) if count > 1 else None


def join(place: Place, *, timeout_s: int, heartbeat_timeout_s: int) -> None:
    """Joins the other processes, and silences stdout on all but process 0.

    It must be called before anything touches a device. After it, a process that does not answer
    for `heartbeat_timeout_s` seconds ends all the others.

    Raises:
      UserError: a process did not join within `timeout_s` seconds, or processes disagree about
        their number, or two have the same index.
    """
    import jax

    # JAX's own handler of SIGTERM would replace that of `runs.signals`, which handles more signals.
    jax.config.update("jax_enable_preemption_service", False)
    if place.coordinator == AUTO:
        try:
            jax.distributed.initialize(
                initialization_timeout=timeout_s, heartbeat_timeout_seconds=heartbeat_timeout_s
            )
        except (ValueError, RuntimeError, OSError) as error:
            raise UserError(
                f"--coordinator=auto finds no TPU pod here: {str(error).splitlines()[0]}"
            ) from error
    else:
        bind = rendezvous.meet(place.coordinator, place.count, place.index, timeout_s=timeout_s)
        if _is_loopback(place.coordinator):
            _stay_on_loopback()
        jax.distributed.initialize(
            place.coordinator,
            place.count,
            place.index,
            cluster_detection_method="deactivate",  # for SLURM it takes one GPU per process
            initialization_timeout=timeout_s,
            heartbeat_timeout_seconds=heartbeat_timeout_s,
            coordinator_bind_address=bind,
        )
    if jax.process_index():
        _silence_stdout()


def _slurm_place(environment: Mapping[str, str]) -> Place | None:
    """Returns the place in a step that srun started; None outside a step, or if it has one task."""
    names = (
        "SLURM_JOB_ID",
        "SLURM_STEP_ID",
        "SLURM_STEP_NUM_TASKS",
        "SLURM_PROCID",
        "SLURM_STEP_NUM_NODES",
    )
    if any(not environment.get(name, "").isdecimal() for name in names):
        return None
    job, step, count, index, nodes = (int(environment[name]) for name in names)
    if count == 1:
        return None
    # node001 of "node001,other", "node[001-003,7],other" or "node[001,7]"
    match = re.match(r"([^,\[]+)(?:\[([^],-]+))?", environment.get("SLURM_STEP_NODELIST", ""))
    if not match:
        raise UserError(
            "$SLURM_STEP_NODELIST is empty: give --coordinator, --num_processes and --process_id"
        )
    host = LOOPBACK if nodes == 1 else match[1] + (match[2] or "")
    return Place(f"{host}:{FIRST_PORT + (job + step) % PORTS}", count, index)


def _number(name: str, environment: Mapping[str, str]) -> int | None:
    text = environment.get(name, "")
    if text and not text.isdecimal():
        raise UserError(f"${name}={text} must be a number")
    return int(text) if text else None


def _is_loopback(coordinator: str) -> bool:
    host = coordinator.rpartition(":")[0]
    try:
        return ipaddress.ip_address(socket.gethostbyname(host)).is_loopback
    except OSError:
        return False


def _stay_on_loopback() -> None:
    """Makes collectives of CPUs and GPUs listen on the loopback address only.

    Those of CPUs would listen on the address of the machine's host name, and JAX has no option to
    change it.
    """
    from jax._src.lib import _jax  # pyright: ignore[reportPrivateImportUsage]

    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    if make := getattr(_jax, "make_gloo_tcp_collectives", None):
        _jax.make_gloo_tcp_collectives = functools.partial(make, hostname=LOOPBACK)


def _silence_stdout() -> None:
    """Drops all that goes to stdout, from libraries too; warnings and errors go to stderr."""
    sys.stdout.flush()
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    logging.getLogger("cnn_papers").setLevel(logging.WARNING)
