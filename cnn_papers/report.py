"""Reports the results of runs against the papers: python -m cnn_papers.report RUNS [--out=FOLDER]

RUNS is the folder of a sweep, of one run, or of several runs. `report.html`, `report.md` and
`results.json`, from which the other two can be written again, go to RUNS or to `--out`. RUNS may
also be such a JSON file, as this repository's `results/desk.json`, or a ledger of claims
(`.jsonl`).
"""

import os
import pathlib
import urllib.parse

from absl import flags

from cnn_papers import doors, files
from cnn_papers.claims import ledger
from cnn_papers.errors import UserError, listed
from cnn_papers.reporting import gather, markdown, page, results_file, wording

RESULTS = "results.json"


def main(argv: list[str]) -> None:
    """Writes the report of the folder or file on the command line."""
    if len(argv) != 2:
        raise UserError(
            "write python -m cnn_papers.report RUNS with the folder of a sweep or of a run"
        )
    path = pathlib.Path(files.expand(argv[1]))
    is_file = path.suffix in (".json", ledger.SUFFIX)
    out = path.parent if is_file else path
    if flags.FLAGS.out:
        out = pathlib.Path(flags.FLAGS.out)
    if path.suffix == ledger.SUFFIX:
        found = gather.of_ledger(path)
    elif is_file:
        recorded = results_file.read(path)
        found = gather.of_today(recorded)
        if gone := {claim.name for claim in recorded.claims} - {now.name for now in found.claims}:
            print(f"left out, no claims any more: {', '.join(sorted(gone))}")
    else:
        found = gather.gather(path, out)
    # Normalised, since `out` may not exist yet.
    runs = pathlib.Path(os.path.normpath((path.parent if is_file else out) / found.runs))
    runs_exist = any((runs / name).is_dir() for name in found.outcomes)
    address = urllib.parse.quote(os.path.relpath(runs, out)) if runs_exist else None
    texts = {
        "report.html": page.html(found, address),
        "report.md": markdown.markdown(found, address),
    }
    if not is_file:
        texts[RESULTS] = results_file.text(found)
    for name, text in texts.items():
        with files.atomic_write(out / name) as part:
            part.write_text(text, encoding="utf-8", errors="backslashreplace")
    if found.kind == "sweep":
        print(wording.verdicts(found))
    print(wording.runs(found))
    for why, names in wording.unfinished(found).items():
        names = [runs.name if name == "." else name for name in names]
        print(f"not finished ({why}): {listed(names, markdown.SHOWN)}")
    print(f"the report is in {out / 'report.html'}")


def define_flags() -> None:
    """Defines the flags of this command."""
    doors.path_flag("out", "folder for the report; by default RUNS")


def cli() -> None:
    """Runs the command line."""
    doors.run(main, define_flags)


if __name__ == "__main__":
    cli()
