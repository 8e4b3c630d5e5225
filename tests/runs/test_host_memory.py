"""Memory that a process frees and takes again, in processes of their own."""

import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, threading
from cnn_papers.runs import host_memory

def take_and_free():
    for faults in (first, second):
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        b"x" * 2**27
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)

first, second = [], []
if sys.argv[1] == "True":
    host_memory.keep_freed()
thread = threading.Thread(target=take_and_free)  # as XLA takes memory, not in the main thread
thread.start()
thread.join()
print(*first, *second)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="it is for Linux with glibc")
@pytest.mark.parametrize("kept", [True, False])
def test_memory_that_is_kept_is_not_mapped_again(kept):
    done = subprocess.run(
        [sys.executable, "-c", FAULTS, str(kept)], capture_output=True, text=True, check=True
    )
    most = 0.9 * 2**27 / 4096  # pages, but for some
    first, second = map(int, done.stdout.split())
    assert first > most
    assert second < most / 100 if kept else second > most
