"""Command lines run in this process."""

import sys
from collections.abc import Callable
from typing import Any

import pytest
from absl import flags


def exit_code(cli: Callable[[], None], *arguments: str) -> Any:
    """Calls a command's `cli` with these arguments, removes its flags, returns its exit code."""
    before, argv = set(flags.FLAGS), sys.argv
    sys.argv = ["door", *arguments]
    try:
        with pytest.raises(SystemExit) as caught:
            cli()
    finally:
        sys.argv = argv
        for name in set(flags.FLAGS) - before:
            if not name.startswith("grain_"):  # grain defines its own once, when first needed
                delattr(flags.FLAGS, name)
        flags.FLAGS.unparse_flags()
    return caught.value.code
