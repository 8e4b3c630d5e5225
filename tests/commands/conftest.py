"""Fixtures of the tests of commands."""

from typing import Any

import pytest
from support.commands import exit_code

from cnn_papers import predict


@pytest.fixture
def command(monkeypatch, capfd):
    """Runs `cnn_papers.predict` in this process: exit code, stdout, stderr."""
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", "")

    def run(*arguments: object) -> tuple[Any, str, str]:
        return exit_code(predict.cli, *map(str, arguments)), *capfd.readouterr()

    return run
