"""Several processes meet at a port before JAX does: JAX would end with a stack trace where one does
not come.

Process 0 listens. The others say which process they are and of how many, and hear `ok` or what is
wrong.
"""

import contextlib
import json
import socket
import time

from cnn_papers.errors import UserError

OK = "ok"
LINE = 1000  # bytes of a message at most
RETRY_S = 0.2


def meet(coordinator: str, count: int, index: int, *, timeout_s: float) -> str:
    """Waits until all `count` processes have met at `coordinator` (host:port); gives the address to
    listen on.

    Raises:
      UserError: not all came within `timeout_s`, one came twice, or they count differently; said by
      every process.
    """
    host, _, port = coordinator.rpartition(":")
    if index:
        _call(coordinator, (host, int(port)), {"process": index, "of": count}, timeout_s)
        return ""
    listener, bound = _listen(host, int(port))
    with listener, contextlib.ExitStack() as callers:
        wrong = _take(listener, callers, count, timeout_s, answers := [])
        for caller in answers:
            with contextlib.suppress(OSError):  # it has gone: the others and JAX will say so
                caller.sendall(f"{wrong or OK}\n".encode())
                caller.shutdown(socket.SHUT_WR)
                caller.recv(1)  # it closes first, so that the port is free at once
    if wrong:
        raise UserError(wrong)
    return f"{bound}:{port}"


def _listen(host: str, port: int) -> tuple[socket.socket, str]:
    """A listening socket at `host`, or at all addresses where its name stands for none of this
    machine.
    """
    for address in (host, "0.0.0.0"):
        try:
            return socket.create_server((address, port)), address
        except OSError as error:
            reason = error.strerror or str(error)
            if "in use" in reason:
                break
    raise UserError(f"process 0 cannot listen at --coordinator={host}:{port}: {reason}")


def _take(
    listener: socket.socket,
    callers: contextlib.ExitStack,
    count: int,
    timeout_s: float,
    answers: list[socket.socket],
) -> str:
    """Takes the calls of all others and keeps their sockets in `answers`; what is wrong, or
    nothing.
    """
    deadline, here = time.monotonic() + timeout_s, {0}
    while len(here) < count:
        listener.settimeout(max(0.01, deadline - time.monotonic()))
        try:
            caller = callers.enter_context(listener.accept()[0])
        except TimeoutError:
            absent = ", ".join(str(i) for i in range(count) if i not in here)
            return f"only {len(here)} of {count} processes came within {timeout_s:g} s; missing: {absent}"
        try:
            caller.settimeout(RETRY_S * 10)
            call = json.loads(_line(caller))
            index, of = int(call["process"]), int(call["of"])
        except (OSError, ValueError, KeyError, TypeError):
            caller.close()  # someone else's
            continue
        caller.settimeout(RETRY_S * 10)
        answers.append(caller)
        if of != count:
            return f"process {index} was started as one of {of} (--num_processes), process 0 as one of {count}"
        if index in here or not 0 <= index < count:
            return f"two processes were started as number {index} of {count} (--process_id)"
        here.add(index)
    return ""


def _call(
    coordinator: str, address: tuple[str, int], message: dict[str, int], timeout_s: float
) -> None:
    """Calls process 0 until it answers."""
    deadline, reason = time.monotonic() + timeout_s, "it does not answer"
    while (left := deadline - time.monotonic()) > 0:
        try:
            with socket.create_connection(address, timeout=left) as caller:
                caller.sendall(json.dumps(message).encode() + b"\n")
                # Process 0 may wait as long for the others, and says so itself when they do not
                # come.
                caller.settimeout(left + 10 * RETRY_S)
                answer = _line(caller)
        except OSError as error:
            reason, answer = error.strerror or str(error), ""
        if answer == OK:
            return
        if answer.isprintable() and len(answer) > len(OK):
            raise UserError(answer)
        time.sleep(RETRY_S)
    raise UserError(
        f"process 0 cannot be reached at --coordinator={coordinator} within {timeout_s:g} s: {reason}"
    )


def _line(caller: socket.socket) -> str:
    """What comes up to the end of a line."""
    received = b""
    while not received.endswith(b"\n") and len(received) < LINE:
        part = caller.recv(LINE)
        if not part:
            break
        received += part
    return received.decode(errors="replace").strip()
