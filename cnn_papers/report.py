"""What came of the runs in a folder, against the papers: python -m cnn_papers.report RUNS
[--out=FOLDER]

RUNS is the folder of a sweep, of one run, or of several runs; `report.html`, `report.md` and
`results.json`, from which both can be drawn again, are written to it, or to `--out`. RUNS may also
be such a JSON file, or one of this repository's `results/`.
"""

import os
import pathlib
import urllib.parse

from absl import flags

from cnn_papers import doors
from cnn_papers.errors import UserError
from cnn_papers.files import whole
from cnn_papers.reporting import gather, markdown, page, results, wording

RESULTS = "results.json"


def main(argv: list[str]) -> None:
    """Writes the report of the folder or file on the command line."""
    if len(argv) != 2:
        raise UserError(
            "write python -m cnn_papers.report RUNS with the folder of a sweep or of a run"
        )
    place, is_file = pathlib.Path(argv[1]), argv[1].endswith(".json")
    out = pathlib.Path(flags.FLAGS.out) if flags.FLAGS.out else (place.parent if is_file else place)
    found = results.read(place) if is_file else gather.gather(place, out)
    base = pathlib.Path(
        os.path.normpath((place.parent if is_file else out) / found.runs)
    )  # out may be new
    are_there = any((base / run).is_dir() for run in found.outcomes)
    address = urllib.parse.quote(os.path.relpath(base, out)) if are_there else None
    texts = {
        "report.html": page.html(found, address),
        "report.md": markdown.markdown(found, address),
    }
    if not is_file:
        texts[RESULTS] = results.text(found)
    for name, text in texts.items():
        with whole(out / name) as part:
            part.write_text(text)
    if found.kind == "sweep":
        print(wording.verdicts(found))
    print(wording.runs(found))
    for why, names in wording.unfinished(found).items():
        print(f"not finished ({why}): {markdown.first_names(names)}")
    print(f"the report is in {out / 'report.html'}")


def cli() -> None:
    """The command line."""
    flags.DEFINE_string("out", "", "folder for the report instead of RUNS")
    doors.run(main)


if __name__ == "__main__":
    cli()
