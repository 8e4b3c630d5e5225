"""What a process says on its terminal, which may go away before the process does."""

import os
import sys


def say(text: str, end: str = "\n") -> None:
    """A line on stdout. Where that is gone (a closed terminal; Ctrl-C ends `| tee` too) the process goes on without."""
    try:
        print(text, end=end, flush=True)
    except OSError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
