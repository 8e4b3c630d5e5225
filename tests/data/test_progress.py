"""The progress of long passes: a line on a terminal that changes, lines of the log elsewhere."""

import io
import sys

import pytest

from cnn_papers.data import progress


class Terminal(io.StringIO):
    """A stderr that is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test sets: `clock[0]` is the time in seconds."""
    now = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: now[0])
    return now


def take(clock, seconds: float, items, total, **options) -> list:
    """Takes all items, each for so many seconds."""
    taken = []
    for item in progress.reported(items, total, "looking", **options):
        taken.append(item)
        clock[0] += seconds
    return taken


def test_a_log_has_a_line_every_ten_seconds_and_none_at_the_end(clock, caplog):
    with caplog.at_level("INFO", "cnn_papers"):
        assert take(clock, 0.25, range(100), 100) == [*range(100)]
    assert caplog.messages == [
        "looking: 40 of 100 images, 4 images/s, about 15 s left",
        "looking: 80 of 100 images, 4 images/s, about 5 s left",
    ]


def test_items_of_a_size_and_of_another_unit(clock, caplog):
    with caplog.at_level("INFO", "cnn_papers"):
        take(clock, 20, [300, 500, 400], 1200, unit="boxes", size=lambda item: item)
    assert caplog.messages == [
        "looking: 300 of 1,200 boxes, 15 boxes/s, about 60 s left",
        "looking: 800 of 1,200 boxes, 20 boxes/s, about 20 s left",
    ]


def test_on_a_terminal_one_line_changes_every_second_and_is_cleared(clock, monkeypatch, caplog):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "60")
    take(clock, 0.5, range(5), 5)
    written = sys.stderr.getvalue()
    lines = [
        "looking: 0 of 5 images",
        "looking: 2 of 5 images, 2 images/s, about 2 s left",
        "looking: 4 of 5 images, 2 images/s, about 0 s left",
        "",
    ]
    assert written == "".join(f"\r{line:<60}" for line in lines) + "\r"
    assert caplog.messages == []


def test_a_line_is_no_longer_than_the_terminal_is_wide_and_goes_with_an_error(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    monkeypatch.setenv("COLUMNS", "12")
    passing = progress.reported(range(5), 5, "looking")
    next(passing)
    assert sys.stderr.getvalue() == "\rlooking: 0 o"
    passing.close()  # as where the loop is left
    assert sys.stderr.getvalue() == "\rlooking: 0 o" + "\r" + " " * 12 + "\r"
