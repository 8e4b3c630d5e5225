"""Writes docs/faults.md from the tests: python tests/support/fault_table.py > docs/faults.md.

A test states what it proves with `@pytest.mark.fault("ROW: fault", "outcome")`, where ROW is a key
of ROWS. The marks are read from the source; no test is run.
"""

import ast
import pathlib
from typing import NamedTuple

TESTS = pathlib.Path(__file__).parents[1]
ROWS = {
    "signal": "SIGTERM, SIGINT, SLURM's twice-sent SIGTERM or SIGUSR1, at any moment",
    "kill": "kill -9 anywhere, also while a large state is saved",
    "damage": "A flipped bit, a file cut off, missing or emptied in a checkpoint",
    "full disk": "A full disk",
    "two runs": "Two runs in one folder",
    "not finite": "NaN or Inf in a batch, a loss that blows up",
    "devices": "Going on with other devices or hosts",
    "config": "Going on with another architecture, data or optimiser",
    "host": "A host of several dies",
    "mesh": "A mesh or batch that does not divide, more devices than there are",
    "beside": "A damaged compilation cache, a dead TensorBoard, a clock that jumps",
    "hostile": "A checkpoint, weights file, data set or image from someone hostile",
    "place": "An unusual user, terminal or name of a file",
    "network": "What listens on the network",
}
HEAD = """# Faults

Each row has a fault, the outcome that the user sees, and the tests that show it. \
Tests marked slow or process run with `pytest -m slow` or `pytest -m process`.
Generated: `python tests/support/fault_table.py > docs/faults.md`.
"""


class Proof(NamedTuple):
    """One mark on one test."""

    row: str
    fault: str
    outcome: str
    test: str


def proofs(file: pathlib.Path) -> list[Proof]:
    """Returns the marks of the tests of one file, in their order.

    Raises:
      ValueError: a mark has another form or names no row.
    """
    marked = []
    for node in ast.parse(file.read_text(), file).body:
        marks = [mark for mark in getattr(node, "decorator_list", ()) if isinstance(mark, ast.Call)]
        for mark in (mark for mark in marks if ast.unparse(mark.func) == "pytest.mark.fault"):
            fault, outcome = (ast.literal_eval(argument) for argument in mark.args)
            row, _, fault = fault.partition(": ")
            if row not in ROWS or not fault or not node.name.startswith("test_"):
                form = "@pytest.mark.fault('ROW: fault', 'outcome')"
                raise ValueError(f"{file}:{mark.lineno}: write {form} on a test")
            tier = [
                f" ({name})"
                for name in ("slow", "process")
                if f"pytest.mark.{name}" in map(ast.unparse, node.decorator_list)
            ]
            test = f"`{file.stem}::{node.name}`{''.join(tier)}"
            marked.append(Proof(row, fault, outcome, test))
    return marked


def table() -> str:
    """Returns the page: a section for each row, a line for each fault with the tests of it."""
    lines = [HEAD]
    everything = [proof for file in sorted(TESTS.rglob("test_*.py")) for proof in proofs(file)]
    for row, title in ROWS.items():
        lines += [f"## {title}\n", "| fault | outcome | tests |", "| --- | --- | --- |"]
        tests: dict[tuple[str, str], list[str]] = {}
        for proof in everything:
            if proof.row == row:
                tests.setdefault((proof.fault, proof.outcome), []).append(proof.test)
        lines += [
            f"| {fault} | {outcome} | {', '.join(names)} |"
            for (fault, outcome), names in tests.items()
        ]
        lines.append("")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(), end="")
