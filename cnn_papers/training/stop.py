"""Signals that ask a run to stop: the step ends, the state is saved, the process exits.

Of several processes one may be asked; all stop after the same step.
"""

import collections
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import jax

from cnn_papers.training import agree

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
AHEAD = 2  # steps after which the host looks at what the processes told each other: waiting would hold up the devices
SECOND_THOUGHT_S = 1.0  # launchers repeat a signal within moments; a person's second Ctrl-C comes later


class Stop:
    """Which signal asked for the stop; `code` is the exit code that reports it (128 + its number, as shells do)."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._asked: collections.deque[jax.Array] = collections.deque()

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def code(self) -> int:
        return 128 + (self.signal or 0)

    def agreed(self) -> int:
        """The exit code for all processes to stop with now, 0 to go on; every process asks after every step."""
        if jax.process_count() == 1:
            return self.code if self.requested else 0
        self._asked.append(agree.largest(self.signal or 0))
        number = int(self._asked.popleft()) if len(self._asked) > AHEAD else 0
        if number and not self.requested:
            self.signal = number
            print(f"{signal.Signals(number).name} at another process: saving, then stopping", flush=True)
        return 128 + number if number else 0

    def _receive(self, number: int, _: object) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
            with contextlib.suppress(OSError, RuntimeError):  # stdout is gone, or in the midst of a line itself
                print(
                    f"\n{signal.Signals(number).name}: saving, then stopping (Ctrl-C again leaves at once)", flush=True
                )
        elif number == signal.SIGINT and time.monotonic() - self._since > SECOND_THOUGHT_S:
            os._exit(128 + number)


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Turns the signals into a request while the block runs; in a thread other than the main one, nothing changes."""
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    before = {number: signal.signal(number, stop._receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
