"""The one exception that is the user's to fix: shown as a single line, exit code 2."""


class UserError(Exception):
    """Says in one line what is wrong and what to do about it.

    Raised anywhere below the doors (`main`, `describe`, `predict`, …); `doors.run` prints it and exits with code 2.
    """
