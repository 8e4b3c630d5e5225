"""The exception for mistakes that the user can correct, and parts of its messages."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """A mistake of the user: one line that describes it and how to correct it.

    Commands print it and exit with code 2 (`doors.run`). `choices` are the valid alternatives, if
    they are too many for the line, or lines to copy; each is printed on a line of its own below it.
    """

    def __init__(self, message: str, choices: Sequence[str] = ()):
        super().__init__(message)
        self.choices = choices


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "did you mean 'x'?" with the nearest name of `known`; "" if none is similar."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean '{near[0]}'?" if near else ""


def listed(words: Sequence[str], most: int = 3, separator: str = ", ") -> str:
    """Returns the first `most` of `words` and the number of the others: "a, b, c and 7 more"."""
    others = f" and {len(words) - most:,} more" if len(words) > most else ""
    return separator.join(words[:most]) + others
