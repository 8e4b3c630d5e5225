"""Draws the pictures of the README in docs/_static: python docs/pictures.py runs/googlenet-desk.

One is of a finished run of `python -m cnn_papers.main --config=configs/googlenet.py`, the other of
the latest verdicts, in results/ledger.jsonl and results/desk.json.
"""

import pathlib
import shutil
import sys
from collections.abc import Iterable, Sequence

import matplotlib
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from paper_pages import LEDGER, RESULTS, ROOT

from cnn_papers.claims.verdicts import AGREES, DISAGREES, UNDECIDED
from cnn_papers.reporting import gather, results_file
from cnn_papers.reporting.results import ClaimResult
from cnn_papers.reporting.svg import COLOURS, MUTED, SETTINGS, as_text

STATIC = ROOT / "docs" / "_static"
LOOKS = {AGREES: COLOURS[2], DISAGREES: COLOURS[1], UNDECIDED: MUTED}
ROW = 0.19  # inches
WIDEST = 16.0  # points to either side; what lies beyond has an arrow


def in_points(claims: Iterable[ClaimResult]) -> list[ClaimResult]:
    """Returns the claims that a percentage is lower or higher, and were asked."""
    return [
        claim
        for claim in claims
        if claim.word in LOOKS
        and claim.expect in ("lower", "higher")
        and not claim.ratio
        and "top1_error" in claim.metric
    ]


def draw_claims(claims: Sequence[ClaimResult], path: pathlib.Path) -> None:
    """Draws the interval of each claim; to the right is what its paper says."""
    words = list(LOOKS)
    claims = sorted(
        claims, key=lambda claim: (words.index(claim.word), -towards_the_claim(claim)[0])
    )
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(7.2, ROW * len(claims) + 0.9), layout="constrained")
        figure.patch.set_facecolor("white")
        axes = figure.subplots()
        axes.axvline(0, color=MUTED, linewidth=0.8)
        for row, claim in enumerate(claims):
            estimate, low, high = towards_the_claim(claim)
            axes.plot([low, high], [row, row], color=LOOKS[claim.word], solid_capstyle="butt")
            inside = min(max(estimate, -WIDEST), WIDEST)
            mark = "o" if inside == estimate else "<" if estimate < inside else ">"
            axes.plot(inside, row, mark, color=LOOKS[claim.word], markersize=4, clip_on=False)
        axes.set_yticks(range(len(claims)), [claim.label for claim in claims], fontsize=7.5)
        axes.set_ylim(len(claims) - 0.5, -0.5)
        axes.set_xlim(-WIDEST, WIDEST)
        axes.set_xlabel("points of top-1 error in the direction that the paper claims")
        seen = [word for word in words if any(claim.word == word for claim in claims)]
        marks = [Line2D([], [], color=LOOKS[word], marker="o", markersize=4) for word in seen]
        figure.legend(marks, seen, loc="outside upper right", ncols=len(seen))
        path.write_text(as_text(figure))


def towards_the_claim(claim: ClaimResult) -> tuple[float, float, float]:
    """Returns estimate, lower and upper end of the interval; positive is what is claimed."""
    assert claim.estimate is not None
    low = claim.estimate if claim.low is None else claim.low
    high = claim.estimate if claim.high is None else claim.high
    if claim.expect == "higher":
        return claim.estimate, low, high
    return -claim.estimate, -high, -low


def main(run: pathlib.Path) -> None:
    """Draws both pictures; `run` is the folder of a finished run."""
    claims = gather.latest(results_file.read(RESULTS), LEDGER).values()
    draw_claims(in_points(claims), STATIC / "claims.svg")
    shutil.copyfile(run / "curves.png", STATIC / "curves.png")


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
