"""The snippets of README.md and docs/how-to: Python runs, and command lines are parsed."""

import ast
import importlib
import pathlib
import re
import shlex
from typing import Any

import cv2
import jax
import numpy as np
import pytest
import safetensors.numpy
from support import hub_cache
from support.commands import exit_code

from cnn_papers import counting, doors, export
from cnn_papers.models import resnet
from cnn_papers.weights import convert, trained

# ml_collections reads configs with load_module
pytestmark = pytest.mark.filterwarnings("ignore:the load_module:DeprecationWarning")
ROOT = pathlib.Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs/how-to").glob("*.md"))]
FENCED = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
COMMAND = re.compile(r"(?:python -m (cnn_papers\.\w+|launch\.sweep)|^…(?= --config=))(.*)")
PLACEHOLDERS = {"CONFIG": "configs/resnet.py", "--config=…": "--config=configs/resnet.py"}


def blocks(page: pathlib.Path, language: str) -> list[str]:
    return [text for name, text in FENCED.findall(page.read_text()) if name == language]


def command_lines(page: pathlib.Path) -> list[tuple[str, str]]:
    """The module and the arguments of every command of ours on a page, also within a sentence."""
    text = page.read_text()
    inline = re.findall(r"`([^`\n]+)`", FENCED.sub("", text))
    lines = "\n".join(blocks(page, "bash")).replace("\\\n", " ").splitlines()
    found = map(COMMAND.search, [*lines, *(code.replace("\\|", "|") for code in inline)])
    return [(match[1] or "cnn_papers.main", match[2]) for match in found if match]


COMMANDS = [
    pytest.param(*command, id=f"{page.stem}-{i}")
    for page in PAGES
    for i, command in enumerate(command_lines(page))
    if "HOST:PORT" not in command[1]
]


def test_there_are_snippets():
    """So that a page that is written otherwise cannot make everything below hold of nothing."""
    assert len(COMMANDS) > 40
    assert any(page.stem == "python" and blocks(page, "python") for page in PAGES)


@pytest.mark.parametrize(("module", "arguments"), COMMANDS)
def test_a_command_line_has_flags_and_keys_that_exist(module, arguments, capsys):
    for placeholder, value in PLACEHOLDERS.items():
        arguments = arguments.replace(placeholder, value)
    define_flags = importlib.import_module(module).define_flags
    code = exit_code(
        lambda: doors.run(lambda argv: 0, define_flags), *shlex.split(arguments, comments=True)
    )
    assert (code, capsys.readouterr().err) == (0, "")


def resnet18() -> bytes:
    """A file as of `timm/resnet18.tv_in1k`, whose weights are all zero."""
    model = resnet.Model("18")
    shapes = counting.abstract_variables(model, (224, 224, 3))
    zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes)
    return safetensors.numpy.save(convert.to_torch(zeros, "resnet", model))


@pytest.fixture
def surroundings(tmp_path, monkeypatch, digits_folder, tiny_run):
    """A folder with what the snippets name, and a hub without a network."""
    hub = pytest.importorskip("huggingface_hub.constants")
    hub_cache.write(tmp_path / "hub", "timm/resnet18.tv_in1k", {"model.safetensors": resnet18()})
    monkeypatch.setattr(hub, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(hub, "HF_HUB_OFFLINE", True)
    monkeypatch.setenv("TFDS_DATA_DIR", str(digits_folder))
    monkeypatch.chdir(tmp_path)
    export.write_program(pathlib.Path("net.stablehlo"), trained.from_run(tiny_run))
    cv2.imwrite("digit.png", np.full((40, 30, 3), 200, np.uint8))


def run(block: str, names: dict[str, Any]) -> None:
    """Runs a block; an expression with a literal for a comment must have that value."""
    lines = block.splitlines()
    for node in ast.parse(block).body:
        line = lines[(node.end_lineno or 1) - 1]
        code = ast.Module([node], [])
        if not isinstance(node, ast.Expr):
            exec(compile(code, line, "exec"), names)
            continue
        value = eval(compile(ast.Expression(node.value), line, "eval"), names)
        try:
            expected = ast.literal_eval(line.partition("  # ")[2])
        except (SyntaxError, ValueError):
            continue  # a comment in words, or none
        assert value == expected, line


@pytest.mark.process
@pytest.mark.usefixtures("surroundings")
@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page, "python")], ids=lambda page: page.stem
)
def test_python_runs_and_gives_the_values_beside_it(page):
    names: dict[str, Any] = {}
    for block in blocks(page, "python"):
        run(block, names)
