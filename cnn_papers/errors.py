"""The one exception that is the user's to fix: shown as a single line, exit code 2."""

import difflib
from collections.abc import Iterable, Sequence


class UserError(Exception):
    """Says in one line what is wrong and what to do about it.

    Raised anywhere below the doors (`main`, `describe`, `predict`, …); `doors.run` prints it and
    exits with code 2. `choices` are what there is instead, a line each below it, where there are
    too many for one line.
    """

    def __init__(self, message: str, choices: Sequence[str] = ()):
        super().__init__(message)
        self.choices = choices


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Returns "did you mean 'x'?" with the name of `known` that is nearest to `name`; "" if none is near."""
    near = difflib.get_close_matches(name, list(known), 1)
    return f"did you mean '{near[0]}'?" if near else ""
