"""The rendezvous of a multi-host run: all processes meet at a port before `jax.distributed` starts.

JAX itself would end with a stack trace if a process is missing. Process 0 listens; each of the
others connects and sends its index and the number of processes; process 0 answers `ok`, or an
error, to all at once.
"""

import contextlib
import json
import socket
import time

from cnn_papers.errors import UserError

OK = "ok"
LINE = 1000  # the most bytes of a message
RETRY_S = 0.2


def meet(coordinator: str, count: int, index: int, *, timeout_s: float) -> str:
    """Waits until all `count` processes have connected to `coordinator` (host:port).

    Returns the host:port that process 0 can listen on, and an empty string on the others.

    Raises:
      UserError: on every process, if one did not connect within `timeout_s` seconds, if two have
        the same index, or if they disagree about `count`.
    """
    host, _, port = coordinator.rpartition(":")
    if index:
        _call(coordinator, (host, int(port)), {"process": index, "of": count}, timeout_s)
        return ""
    listener, bound = _listen(host, int(port))
    with listener, contextlib.ExitStack() as callers:
        connections, problem = _accept_all(listener, callers, count, timeout_s)
        for connection in connections:
            with contextlib.suppress(OSError):  # it is gone: the others and JAX will report it
                connection.sendall(f"{problem or OK}\n".encode())
                connection.shutdown(socket.SHUT_WR)
                connection.recv(1)  # it closes first, so that the port is free at once
    if problem:
        raise UserError(problem)
    return f"{bound}:{port}"


def _listen(host: str, port: int) -> tuple[socket.socket, str]:
    """Returns a listening socket and its address: `host`, or all addresses if it is not here."""
    for address in (host, "0.0.0.0"):
        try:
            return socket.create_server((address, port)), address
        except OSError as error:
            reason = error.strerror or str(error)
            if "in use" in reason:
                break
    raise UserError(f"process 0 cannot listen at --coordinator={host}:{port}: {reason}")


def _accept_all(
    listener: socket.socket, callers: contextlib.ExitStack, count: int, timeout_s: float
) -> tuple[list[socket.socket], str]:
    """Accepts the connections of all other processes.

    Returns those that are to be answered, and the problem to answer with, empty if there is none.
    `callers` closes every connection.
    """
    deadline = time.monotonic() + timeout_s
    connected = {0}  # indices of processes
    connections: list[socket.socket] = []
    while len(connected) < count:
        listener.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            connection = callers.enter_context(listener.accept()[0])
        except TimeoutError:
            missing = ", ".join(str(i) for i in range(count) if i not in connected)
            problem = f"only {len(connected)} of {count} processes joined within {timeout_s:g} s"
            return connections, f"{problem}; missing: {missing}"
        try:
            connection.settimeout(RETRY_S * 10)
            message = json.loads(_read_line(connection))
            index, their_count = int(message["process"]), int(message["of"])
        except (OSError, ValueError, KeyError, TypeError):
            connection.close()  # not of a process of this run
            continue
        connection.settimeout(RETRY_S * 10)
        connections.append(connection)
        if their_count != count:
            return connections, (
                f"process {index} was started as one of {their_count} (--num_processes), "
                f"process 0 as one of {count}"
            )
        if index in connected or not 0 <= index < count:
            return connections, (
                f"two processes were started as number {index} of {count} (--process_id)"
            )
        connected.add(index)
    return connections, ""


def _call(
    coordinator: str, address: tuple[str, int], message: dict[str, int], timeout_s: float
) -> None:
    """Connects to process 0 again and again until it answers; UserError if it answers an error."""
    deadline, reason = time.monotonic() + timeout_s, "it does not answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(address, timeout=left) as caller:
                caller.sendall(json.dumps(message).encode() + b"\n")
                # Process 0 may wait as long for the others, and reports itself who is missing.
                caller.settimeout(left + 10 * RETRY_S)
                answer = _read_line(caller)
        except OSError as error:
            reason, answer = error.strerror or str(error), ""
        if answer == OK:
            return
        if answer.isprintable() and len(answer) > len(OK):
            raise UserError(answer)
        time.sleep(RETRY_S)
    raise UserError(
        f"process 0 cannot be reached at --coordinator={coordinator} "
        f"within {timeout_s:g} s: {reason}"
    )


def _read_line(caller: socket.socket) -> str:
    """Returns what is received up to the end of a line, LINE bytes or the end of the connection."""
    received = b""
    while not received.endswith(b"\n") and len(received) < LINE:
        part = caller.recv(LINE)
        if not part:
            break
        received += part
    return received.decode(errors="replace").strip()
