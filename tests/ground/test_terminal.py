"""Printing any text to any stream."""

import io
import os
import sys

import pytest

from cnn_papers import terminal

TEXT = f"3×3 – é {os.fsdecode(b'ow' + bytes([255]))}"


@pytest.mark.fault(
    "place: a stdout that is not UTF-8, or a name of a file that is not",
    "what cannot be printed is an escape, or the bytes of the name",
)
@pytest.mark.parametrize(
    ("encoding", "errors", "printed"),
    [
        ("utf-8", "strict", b"3\xc3\x973 \xe2\x80\x93 \xc3\xa9 ow\xff"),
        ("UTF8", "backslashreplace", b"3\xc3\x973 \xe2\x80\x93 \xc3\xa9 ow\\udcff"),
        ("latin-1", "strict", b"3\xd73 \\u2013 \xe9 ow\\udcff"),
        ("ascii", "strict", b"3\\xd73 \\u2013 \\xe9 ow\\udcff"),
        ("ascii", "surrogateescape", b"3\\xd73 \\u2013 \\xe9 ow\\udcff"),
        ("ascii", "replace", b"3?3 ? ? ow?"),
    ],
)
@pytest.mark.parametrize("name", ["stdout", "stderr"])
def test_every_stream_takes_every_text(name, encoding, errors, printed, monkeypatch):
    written = io.BytesIO()
    monkeypatch.setattr(sys, name, io.TextIOWrapper(written, encoding, errors))
    terminal.take_any_text()
    print(TEXT, end="", file=getattr(sys, name), flush=True)
    assert written.getvalue() == printed


def test_a_stream_that_is_closed_takes_every_text_too(monkeypatch):
    names = ("stdin", "stdout", "stderr")
    for name in names:
        monkeypatch.setattr(sys, name, None)
    terminal.take_any_text()
    assert sys.stdin.read() == ""
    print(TEXT)
    print(TEXT, file=sys.stderr)
    for name in names:
        getattr(sys, name).close()


def test_a_stream_that_is_no_file_is_left_as_it_is(monkeypatch):
    stream = io.StringIO()  # as in a notebook
    monkeypatch.setattr(sys, "stdout", stream)
    terminal.take_any_text()
    print(TEXT, end="")
    assert stream.getvalue() == TEXT


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((0, "image"), "0 images"),
        ((1, "image"), "1 image"),
        ((1234, "image"), "1,234 images"),
        ((1, "bad box", "bad boxes"), "1 bad box"),
        ((2, "bad box", "bad boxes"), "2 bad boxes"),
    ],
)
def test_a_number_has_its_noun(arguments, expected):
    assert terminal.counted(*arguments) == expected
