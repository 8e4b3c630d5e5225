"""The one exception that is the user's to fix: shown as a single line, exit code 2."""

from collections.abc import Sequence


class UserError(Exception):
    """Says in one line what is wrong and what to do about it.

    Raised anywhere below the doors (`main`, `describe`, `predict`, …); `doors.run` prints it and
    exits with code 2. `choices` are what there is instead, a line each below it, where there are
    too many for one line.
    """

    def __init__(self, message: str, choices: Sequence[str] = ()):
        super().__init__(message)
        self.choices = choices
