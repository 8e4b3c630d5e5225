"""Writes results as Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

from cnn_papers.reporting import wording

SHOWN = 10  # names of a list on the terminal and in Markdown; the page has all


def markdown(found: Mapping[str, Any], base: str | None = None) -> str:
    """The results that `cnn_papers.reporting.results` gathered, as a Markdown table with a few
    lines below it.

    `base` is the relative address of the folder of their runs; without it there are no links.
    """
    return _of_claims(found, base) if found["kind"] == "sweep" else _of_runs(found, base)


def _of_claims(found: Mapping[str, Any], base: str | None) -> str:
    rows = [
        (
            f"`{claim['name']}` {claim['statement']} ({claim['source']})",
            f"**{claim['word']}**",
            f"{wording.ours(claim)} {wording.interval(claim)}".strip(),
            wording.paper(claim),
            claim["scale"],
            str(claim["n"]),
            wording.duration(claim["seconds"]),
            *([] if base is None else [_links(claim, found["outcomes"], base)]),
        )
        for claim in found["claims"]
        if claim["word"] != wording.NOT_RUN
    ]
    lines = [
        wording.verdicts(found),
        *wording.chance(found),
        *wording.legend(found, arms=False),
        *_about_runs(found),
    ]
    if left := [
        f"`{claim['name']}`" for claim in found["claims"] if claim["word"] == wording.NOT_RUN
    ]:
        lines.append(f"Not run: {first_names(left)}.")
    header = ("claim", "verdict", "ours [95 % interval]", "paper", "scale", "seeds", "time")
    header += () if base is None else ("runs by seed",)
    grids = [
        (_link(each["id"], base, each["id"]), wording.overrides(each), *wording.errors(each))
        for each in found["others"]
    ]
    tables = [_table(header, rows)] if rows else []
    tables += [_table(("run", "overrides", "last top-1 error", "best"), grids)] if grids else []
    return "\n\n".join([*tables, _lines(lines)]) + "\n"


def _of_runs(found: Mapping[str, Any], base: str | None) -> str:
    parts = []
    for run in found["singles"]:
        name = _link(f"`{run['name']}`", base, run["id"])
        parts.append(f"{name}, {wording.single(run)}")
        if run["tests"]:
            rows = [wording.tested(test) for test in run["tests"]]
            parts.append(_table(("protocol", "split", "top-1 error", "top-5 error"), rows))
        if run["reported"]:
            rows = [wording.against_paper(result) for result in run["reported"]]
            parts += [wording.comparison(run), _table(wording.AGAINST_PAPER, rows)]
    return "\n\n".join([*parts, _lines(_about_runs(found))]) + "\n"


def _about_runs(found: Mapping[str, Any]) -> list[str]:
    """How many runs there are, which of them are not finished, and what all were made with."""
    lines = [wording.runs(found)] if found["outcomes"] else []
    lines += [
        f"Not finished ({why}): {first_names(names)}."
        for why, names in wording.unfinished(found).items()
    ]
    return lines + [f"Made with {text}." for text in wording.made_with(found)]


def first_names(names: Sequence[str]) -> str:
    """As many of `names` as are SHOWN, and how many more there are."""
    others = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + others


def _links(claim: Mapping[str, Any], outcomes: Mapping[str, str], base: str) -> str:
    """The runs of a claim by arm, each by its seed, with links to those that were started."""
    arms = []
    for arm, runs in claim["runs"].items():
        there = {
            run: None if outcomes.get(run, wording.NEW) == wording.NEW else base for run in runs
        }
        arms.append(
            f"{arm}: {' '.join(_link(seed, there[run], run) for run, seed in runs.items())}"
        )
    return "; ".join(arms)


def _link(text: object, base: str | None, place: str) -> str:
    return f"{text}" if base is None else f"[{text}]({base}/{place})"


def _lines(items: list[str]) -> str:
    return "\n".join(f"- {item}" for item in items)


def _table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    lines = [header, tuple("---" for _ in header), *rows]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
    )
