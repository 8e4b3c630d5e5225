"""Statistics and proposals: runs that start at once make them once."""

import concurrent.futures
import logging
import threading
import time

import cv2
import numpy as np
import pytest

from cnn_papers.data import proposals, statistics
from cnn_papers.data.split import Split

WAITS = "waiting for the process that writes"


@pytest.fixture
def split(tmp_path, monkeypatch) -> Split:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    image = cv2.imencode(".png", np.full((9, 9, 3), 7, np.uint8))[1].tobytes()
    return Split("made[train]", [{"image": image, "id": "0"}], ("one",), str(tmp_path / "data"))


class Slow:
    """Counts its calls, each of which goes on once `go` is set."""

    def __init__(self):
        self.calls, self.go = 0, threading.Event()

    def __call__(self):
        self.calls += 1
        assert self.go.wait(60)


def _statistics(split, slow, monkeypatch):
    def batches():
        slow()
        yield np.zeros((1, 9, 9, 3), np.uint8)

    return lambda: statistics.load_or_compute(split, "decode", batches).mean


def _proposals(split, slow, monkeypatch):
    def propose(*arguments):
        slow()
        return np.array([[0, 0, 9, 5]], np.float32)

    monkeypatch.setattr(proposals, "_propose", propose)
    return lambda: proposals.of_split(split, "selective_search()")[0]


@pytest.mark.fault("two runs: statistics or proposals of the same data at once", "made once")
@pytest.mark.parametrize("make", [_statistics, _proposals])
@pytest.mark.parametrize("place", ["beside the data", "in the user's cache"])
def test_runs_that_start_at_once_make_it_once(make, place, split, monkeypatch, caplog, tmp_path):
    caplog.set_level(logging.INFO)
    if place == "in the user's cache":
        (tmp_path / "data").write_text("a file, so that no folder can be made")
    slow = Slow()
    run = make(split, slow, monkeypatch)
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
        results = [pool.submit(run) for _ in range(3)]
        deadline = time.monotonic() + 60
        while caplog.text.count(WAITS) < 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        slow.go.set()
        first, *others = (result.result(60) for result in results)
    assert slow.calls == 1
    for other in others:
        np.testing.assert_array_equal(other, first)
    kept = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "data"]
    assert [path.suffix for path in kept] == [".npz"]  # and no lock


def test_one_that_fails_lets_the_next_one_make_it(split, monkeypatch, tmp_path):
    slow = Slow()
    slow.go.set()
    run = _proposals(split, slow, monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(proposals, "_propose", lambda *arguments: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            run()
    assert run().tolist() == [[0, 0, 9, 5]] and slow.calls == 1
