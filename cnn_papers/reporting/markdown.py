"""Writes results as Markdown."""

from collections.abc import Mapping, Sequence

from cnn_papers.claims.loading import NOT_STARTED
from cnn_papers.errors import listed
from cnn_papers.reporting import asked_often, average_precisions, grid_tests, wording
from cnn_papers.reporting.results import NOT_RUN, ClaimResult, Results

SHOWN = 10  # names of a list on the terminal and in Markdown; the page has all


def markdown(results: Results, base: str | None = None) -> str:
    """Returns the results as a Markdown table with a few lines below it.

    `base` is the relative address of the folder of their runs; without it there are no links.
    """
    if results.kind == "sweep":
        return _of_claims(results, base)
    return _of_runs(results, base)


def _of_claims(results: Results, base: str | None) -> str:
    requested = [claim for claim in results.claims if claim.word != NOT_RUN]
    others = [f"`{claim.name}`" for claim in results.claims if claim.word == NOT_RUN]
    lines = [
        wording.verdicts(results),
        *wording.changed(results),
        *asked_often.chance(results),
        *wording.legend(results, arms=False),
        *_about_runs(results),
    ]
    if others:
        lines.append(f"Not run: {listed(others, SHOWN)}.")
    tables = []
    if requested:
        header = ("claim", "verdict", "ours [95 % interval]", "paper", "scale", "seeds", "time")
        header += () if base is None else ("runs by seed",)
        tables.append(table(header, [_claim(claim, results.outcomes, base) for claim in requested]))
    if results.others:
        rows = [
            (_link(run.id, base, run.id), wording.overrides(run), *wording.headlines(run))
            for run in results.others
        ]
        tables.append(table(wording.others_header(results.others), rows))
    if means := grid_tests.table(results.others):
        tables += [grid_tests.CAPTION, table(means[0], means[1:])]
    return "\n\n".join([*tables, _lines(lines)]) + "\n"


def _claim(claim: ClaimResult, outcomes: Mapping[str, str], base: str | None) -> tuple[str, ...]:
    """Returns the row of a claim."""
    links = () if base is None else (_links(claim, outcomes, base),)
    return (
        f"`{claim.name}` {claim.statement} ({claim.source})",
        f"**{claim.word}**",
        f"{wording.ours(claim)} {wording.interval(claim)}".strip(),
        wording.paper(claim),
        claim.scale or "",
        asked_often.seeds(claim),
        wording.duration(claim.seconds),
        *links,
    )


def _of_runs(results: Results, base: str | None) -> str:
    parts = []
    for run in results.singles:
        name = _link(f"`{run.name}`", base, run.id)
        parts.append(f"{name}, {wording.single(run)}")
        if run.tests:
            header, *rows = wording.tested(run)
            parts.append(table(header, rows))
        if run.precisions:
            header, *rows = average_precisions.table(run.precisions)
            parts += [average_precisions.caption(run.precisions), table(header, rows)]
        if run.reported:
            rows = [wording.against_paper(result) for result in run.reported]
            parts += [wording.comparison(run), table(wording.AGAINST_PAPER, rows)]
    return "\n\n".join([*parts, _lines(_about_runs(results))]) + "\n"


def _about_runs(results: Results) -> list[str]:
    """Returns lines on the number of runs, the unfinished ones, and what all were made with."""
    lines = [wording.runs(results)] if results.outcomes else []
    lines += [
        f"Not finished ({why}): {listed(names, SHOWN)}."
        for why, names in wording.unfinished(results).items()
    ]
    return lines + [f"Made with {text}." for text in wording.made_with(results)]


def _links(claim: ClaimResult, outcomes: Mapping[str, str], base: str) -> str:
    """Returns the seeds of a claim by arm, linked to the runs that were started."""
    arms = []
    for arm, seeds in claim.runs.items():
        links = []
        for job_id, seed in seeds.items():
            started = outcomes.get(job_id, NOT_STARTED) != NOT_STARTED
            links.append(_link(seed, base if started else None, job_id))
        arms.append(f"{arm}: {' '.join(links)}")
    return "; ".join(arms)


def _link(text: object, base: str | None, place: str) -> str:
    return f"{text}" if base is None else f"[{text}]({base}/{place})"


def _lines(items: list[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def table(header: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Returns a Markdown table."""
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
