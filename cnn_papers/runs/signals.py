"""Handles signals that stop a run: the step ends, the state is saved, the process exits.

While there is nothing to save (data are opened and programs compiled), the process exits at once.
A signal to one of several processes stops all of them after the same step.
"""

import collections
import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator

import jax

from cnn_papers.parallel import processes

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
# The host reads the signals of all processes this many steps late: waiting would idle the devices.
AHEAD = 2
# Launchers repeat a signal within moments; a person's second Ctrl-C comes later.
SECOND_THOUGHT_S = 1.0
# Time for an orderly exit while there is nothing to save; a compilation does not handle signals.
TIDY_UP_S = 5.0


class Stop:
    """A request to stop, by the first signal that came."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._saves = False
        self._left = threading.Event()
        self._asked: collections.deque[jax.Array] = collections.deque()

    @property
    def requested(self) -> bool:
        """True once a signal has come."""
        return self.signal is not None

    @property
    def code(self) -> int:
        """The exit code: 128 + the number of the signal, as in shells."""
        return 128 + (self.signal or 0)

    def save_first(self) -> None:
        """Makes signals a request from now on, since an exit would lose steps."""
        self._saves = True

    def agreed(self) -> int:
        """Returns the exit code with which all processes stop now; 0 to continue.

        Every process calls this after every step.
        """
        if jax.process_count() == 1:
            return self.code if self.requested else 0
        self._asked.append(processes.largest(self.signal or 0))
        number = int(self._asked.popleft()) if len(self._asked) > AHEAD else 0
        if number and not self.requested:
            self.signal = number
            print(
                f"{signal.Signals(number).name} at another process: saving, then stopping",
                flush=True,
            )
        return 128 + number if number else 0

    def _receive(self, number: int, _: object) -> None:
        if self.signal is None:
            self.signal, self._since = number, time.monotonic()
            text = "stopping"
            if self._saves:
                text = "saving, then stopping (Ctrl-C again leaves at once)"
            # stdout may be closed, or be printing a line at this moment.
            with contextlib.suppress(OSError, RuntimeError):
                print(f"\n{signal.Signals(number).name}: {text}", flush=True)
            if not self._saves:
                raise SystemExit(self.code)
        elif number == signal.SIGINT and time.monotonic() - self._since > SECOND_THOUGHT_S:
            os._exit(128 + number)

    def _watch(self, received: int) -> None:
        """Ends the process on a signal that the main thread, inside a compilation, cannot handle.

        `received` is a pipe to which Python writes the number of each signal when it comes.
        """
        while number := os.read(received, 1):
            if number[0] in SIGNALS and not self._saves and not self._left.wait(TIDY_UP_S):
                os._exit(128 + number[0])


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Handles the signals while the block runs; does nothing in a thread other than the main one.

    Until `save_first` is called, a signal raises SystemExit, and ends the process TIDY_UP_S later
    if the main thread does not get to that.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    threading.Thread(target=stop._watch, args=(read,), daemon=True).start()
    wakeup_before = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    handlers_before = {number: signal.signal(number, stop._receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        stop._left.set()
        for number, handler in handlers_before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(wakeup_before)
        os.close(write)  # ends the thread
