"""Parts of messages."""

import pytest

from cnn_papers.errors import listed


@pytest.mark.parametrize(
    ("words", "options", "text"),
    [
        ("abc", {}, "a, b, c"),
        ("abcd", {}, "a, b, c and 1 more"),
        ("0" * 1202, {"most": 2}, "0, 0 and 1,200 more"),
        ("abc", {"most": 1, "separator": "; "}, "a and 2 more"),
        ("ab", {"separator": "; "}, "a; b"),
    ],
)
def test_a_long_list_is_cut_and_counted(words, options, text):
    assert listed([*words], **options) == text
