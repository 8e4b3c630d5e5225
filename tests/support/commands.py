"""Command lines run in this process."""

import sys
from collections.abc import Callable
from typing import Any

import pytest


def exit_code(cli: Callable[[], None], *arguments: str) -> Any:
    """Calls a command's `cli` with these arguments; returns its exit code."""
    argv = sys.argv
    sys.argv = ["door", *arguments]
    try:
        with pytest.raises(SystemExit) as caught:
            cli()
    finally:
        sys.argv = argv
    return caught.value.code
