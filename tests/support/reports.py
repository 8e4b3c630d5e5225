"""What a report says, read off its files."""

import pathlib

from cnn_papers import report
from support.commands import exit_code


def claims_table(path: pathlib.Path, out: pathlib.Path) -> list[str]:
    """Returns the rows of claims of the report on a sweep or a ledger, without links and times.

    Args:
      out: the folder that the report is written to.
    """
    assert not exit_code(report.cli, str(path), f"--out={out}")
    lines = (out / "report.md").read_text().splitlines()
    return ["|".join(line.split("|")[:7]) for line in lines if line.startswith("| `")]
