"""Signals that ask a run to stop: the step ends, the state is saved, the process exits.

Until there is something to save (while data are opened and programs compiled) it exits at once. Of
several processes one may be asked; all stop after the same step.
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
# steps after which the host looks at what the processes told each other: waiting would hold up the
# devices
AHEAD = 2
SECOND_THOUGHT_S = (
    1.0  # launchers repeat a signal within moments; a person's second Ctrl-C comes later
)
TIDY_UP_S = 5.0  # for an orderly exit while there is nothing to save; a compilation does not listen


class Stop:
    """Which signal asked for the stop; `code` is the exit code that reports it (128 + its number,
    as shells do).
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._since = 0.0
        self._saves = False
        self._left = threading.Event()
        self._asked: collections.deque[jax.Array] = collections.deque()

    @property
    def requested(self) -> bool:
        return self.signal is not None

    @property
    def code(self) -> int:
        return 128 + (self.signal or 0)

    def save_first(self) -> None:
        """From now on a signal is a request, since steps would be lost."""
        self._saves = True

    def agreed(self) -> int:
        """The exit code for all processes to stop with now, 0 to go on; every process asks after
        every step.
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
            what = (
                "saving, then stopping (Ctrl-C again leaves at once)" if self._saves else "stopping"
            )
            with contextlib.suppress(
                OSError, RuntimeError
            ):  # stdout is gone, or in the midst of a line itself
                print(f"\n{signal.Signals(number).name}: {what}", flush=True)
            if not self._saves:
                raise SystemExit(self.code)
        elif number == signal.SIGINT and time.monotonic() - self._since > SECOND_THOUGHT_S:
            os._exit(128 + number)

    def _watch(self, received: int) -> None:
        """Ends the process on a signal that the main thread, deep in a compilation, cannot answer.

        `received` is a pipe into which Python writes the number of every signal the moment it
        comes.
        """
        while number := os.read(received, 1):
            if number[0] in SIGNALS and not self._saves and not self._left.wait(TIDY_UP_S):
                os._exit(128 + number[0])


@contextlib.contextmanager
def stop_on_signal() -> Iterator[Stop]:
    """Heeds the signals while the block runs; in a thread other than the main one, nothing changes.

    Until `save_first`, a signal raises SystemExit; the process is gone TIDY_UP_S later if that
    cannot get through.
    """
    stop = Stop()
    if threading.current_thread() is not threading.main_thread():
        yield stop
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    threading.Thread(target=stop._watch, args=(read,), daemon=True).start()
    told = signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    before = {number: signal.signal(number, stop._receive) for number in SIGNALS}
    try:
        yield stop
    finally:
        stop._left.set()
        for number, handler in before.items():
            signal.signal(number, handler)
        signal.set_wakeup_fd(told)
        os.close(write)  # ends the thread
