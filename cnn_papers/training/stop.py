"""Signals that ask a run to stop: the step ends, the state is saved, the process exits."""

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
SECOND_THOUGHT_S = 1.0  # launchers repeat a signal within moments; a person's second Ctrl-C comes later


class Stop:
    """Which signal asked for the stop; `code` is the exit code that reports it (128 + its number, as shells do)."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def code(self) -> int:
        return 128 + (self.signal or 0)

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
