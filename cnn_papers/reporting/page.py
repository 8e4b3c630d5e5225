"""Writes results as one HTML page, which needs no script and loads nothing beyond itself."""

import base64
import html as escaping
import itertools
import math
from collections.abc import Iterable, Sequence
from typing import Any

from cnn_papers.claims.loading import NOT_STARTED
from cnn_papers.reporting import asked_often, average_precisions, grid_tests, svg, wording
from cnn_papers.reporting.results import (
    ASK_AGAIN,
    NOT_RUN,
    ArmResult,
    ClaimResult,
    Figure,
    Photo,
    Picture,
    Results,
)
from cnn_papers.reporting.style import STYLE

SIGNS = {"agrees": "●", "disagrees": "▲", "undecided": "◐"}  # as different in grey as in colour
TITLES = {"sweep": "The papers’ claims, run again", "runs": "Runs against their papers"}
GRAPH, MIDDLE, EDGE = 150, 9, 6  # pixels of an interval's picture: width, half its height, margin
CAPTION = (
    "Intervals are of 95 % or as they say; "
    "bold is an arm’s mean, where a claim is of a ratio the geometric one; "
    "the diamond is the paper’s value, where that is of the same data."
)
COLUMNS = ("claim", "verdict", "ours", "interval", "paper", "scale", "seeds", "time")


def html(results: Results, base: str | None) -> str:
    """Returns the page of `results`.

    `base` is the relative address of the folder of its runs, None if they are not there.
    """
    title = TITLES[results.kind]
    body = _sweep(results, base) if results.kind == "sweep" else _runs(results, base)
    drawn = [_figure(figure) for figure in results.figures if figure.panels]
    left_out = [f"{figure.title}: {figure.text}" for figure in results.figures if not figure.panels]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>",
            f"<body>\n<main>\n<h1>{title}</h1>",
            *body,
            *(["<h2>Figures</h2>", *drawn] if drawn else []),
            _list("figures that could not be drawn", left_out),
            "<h2>Made with</h2>",
            _list("machines and versions", wording.made_with(results)),
            "</main>\n</body>\n</html>\n",
        ]
    )


# --- claims ---------------------------------------------------------------------------------------


def _sweep(results: Results, base: str | None) -> list[str]:
    judged = [claim for claim in results.claims if claim.word in SIGNS]
    about = [*wording.changed(results), *asked_often.chance(results), wording.runs(results)]
    parts = [
        f'<p class="lead">{_text(wording.verdicts(results))}</p>',
        *(f"<p>{_text(line)}</p>" for line in about),
        *_unfinished(results, base),
    ]
    if judged:
        rows = []
        for title, claims in itertools.groupby(judged, lambda claim: claim.title):
            rows += [_group(title), *(_claim(claim, results, base) for claim in claims)]
        caption = " ".join([CAPTION, *wording.legend(results, arms=True)])
        parts += ["<h2>Claims</h2>", _table(COLUMNS, rows, caption)]
    if results.others:
        rows = [
            _row(
                _link(run.id, base, run.id),
                _text(wording.overrides(run)),
                *map(_text, wording.headlines(run)),
            )
            for run in results.others
        ]
        parts += ["<h2>Other runs</h2>", _table(wording.others_header(results.others), rows)]
    if means := grid_tests.table(results.others):
        rows = [_row(*map(_text, cells)) for cells in means[1:]]
        parts.append(_table(means[0], rows, grid_tests.CAPTION))
    for word in (ASK_AGAIN, NOT_RUN):
        parts += _without_verdict(word, [claim for claim in results.claims if claim.word == word])
    return parts


def _without_verdict(word: str, claims: Sequence[ClaimResult]) -> list[str]:
    """Returns a heading and a table of claims that have no verdict; nothing if there are none."""
    if not claims:
        return []
    rows = [
        _row(
            f"<code>{_text(claim.name)}</code>",
            _text(claim.statement),
            _text(claim.source),
            _text(_scales(claim)),
        )
        for claim in claims
    ]
    header = ("claim", "statement", "source", "scales")
    return [f"<h2>{word.capitalize()}</h2>", _table(header, rows)]


def _unfinished(results: Results, base: str | None) -> list[str]:
    """Names the runs that are not finished, with links: in a sweep, to the logs of started ones."""
    ending = ".log" if results.kind == "sweep" else ""
    parts = []
    for why, names in wording.unfinished(results).items():
        links = [
            _link(name, base, None if why == NOT_STARTED else f"{name}{ending}") for name in names
        ]
        parts.append(f'<p class="warning">Not finished ({_text(why)}): {", ".join(links)}.</p>')
    return parts


def _group(title: str) -> str:
    """Returns the row above a paper's claims."""
    head = f'<th scope="rowgroup" colspan="{len(COLUMNS)}">{_text(title)}</th>'
    return f'<tbody><tr class="group">{head}</tr></tbody>\n'


def _scales(claim: ClaimResult) -> str:
    """Returns the scale at which a claim was requested, or all that it has."""
    if claim.scale and claim.word == NOT_RUN:
        return f"requested at {claim.scale}, no run finished"
    return ", ".join(claim.scales)


def _claim(claim: ClaimResult, results: Results, base: str | None) -> str:
    """Returns two rows: the verdict with its numbers, then the statement and all readings."""
    cells = (
        f'<span class="whole {claim.word}">{SIGNS[claim.word]} {claim.word}</span>',
        f'{_text(wording.ours(claim))} <span class="whole">{_text(wording.interval(claim))}</span>',
        _interval(claim),
        _text(wording.paper(claim)),
        _text(claim.scale),
        _text(asked_often.seeds(claim)),
        f'<span class="whole">{_text(wording.duration(claim.seconds))}</span>',
    )
    notes = "; ".join(filter(None, (claim.note, wording.missing(claim, results))))
    arms = "; ".join(_arm(name, arm, claim, base) for name, arm in claim.arms.items())
    about = [
        f"{_text(claim.statement)} <cite>{_text(claim.source)}</cite>",
        f"<code>{_text(claim.metric)}</code> {_text(wording.expected(claim))}. {arms}.",
        *([f"<em>{_text(notes)}</em>"] if notes else []),
    ]
    head = f'<th scope="row" id="{_text(claim.name)}">{_text(claim.label)}</th>'
    first = head + "".join(f"<td>{cell}</td>" for cell in cells)
    second = f'<td colspan="{len(COLUMNS)}">{"<br>".join(about)}</td>'
    return f'<tbody>\n<tr>{first}</tr>\n<tr class="about">{second}</tr>\n</tbody>'


def _arm(name: str, arm: ArmResult, claim: ClaimResult, base: str | None) -> str:
    """Returns an arm's mean and the reading of each run.

    Readings of seeds that another arm lacks come last.
    """
    job_ids = {str(seed): job_id for job_id, seed in claim.runs.get(name, {}).items()}
    readings = {
        seed: _link(_bound(reading.value, reading.censored), base, job_ids.get(seed))
        for seed, reading in arm.readings.items()
        if reading.value is not None
    }
    common = set.intersection(*(set(arm.readings) for arm in claim.arms.values()))
    counted = [text for seed, text in readings.items() if seed in common]
    others = [text for seed, text in readings.items() if seed not in common]
    mean = ""
    if arm.mean is not None and len(counted) >= 2:
        mean = f" {_bound(arm.mean, arm.censored)}"
    listed = [", ".join(counted), f"not in every arm: {', '.join(others)}" if others else ""]
    return f"{_text(name)}<b>{mean}</b> ({'; '.join(filter(None, listed))})"


def _bound(value: float, censored: int) -> str:
    """Returns a number; the true one is at least this if readings are censored."""
    return ("≥ " if censored else "") + wording.number(value)


def _interval(claim: ClaimResult) -> str:
    """Draws the estimate in its interval as a small SVG.

    It also has the bounds of equivalence, the paper's value, and the value of no difference.
    """
    if claim.estimate is None:
        return ""
    low, high = wording.bounds(claim)
    delta, bound = claim.paper_delta, claim.bound
    if delta is not None and claim.ratio and delta <= 0:
        delta = None
    neutral = 1.0 if claim.ratio else 0.0
    if claim.expect in wording.VALUES and bound is not None:
        neutral = bound
    same = None
    if claim.expect == "same" and bound is not None:
        same = (1 / bound if claim.ratio else -bound, bound)
    scale = math.log if claim.ratio else float
    values = [claim.estimate, low, high, delta, neutral, *(same or ())]
    marks = [scale(value) for value in values if value is not None]
    least, span = min(marks), max(marks) - min(marks) or 1.0

    def x(value: float) -> float:
        return round(EDGE + (GRAPH - 2 * EDGE) * (scale(value) - least) / span, 1)

    parts = []
    if same:
        left, right = map(x, same)
        size = f'width="{right - left:.1f}" height="{2 * MIDDLE - 2}"'
        parts.append(f'<rect class="band" x="{left}" y="1" {size}/>')
    across = f'x1="{x(neutral)}" x2="{x(neutral)}"'
    parts.append(f'<line class="neutral" {across} y1="0" y2="{2 * MIDDLE}"/>')
    name = f"{claim.word} open" if low is None or high is None else claim.word
    across = f'x1="{0 if low is None else x(low)}" x2="{GRAPH if high is None else x(high)}"'
    parts.append(f'<line class="{name}" {across} y1="{MIDDLE}" y2="{MIDDLE}"/>')
    parts.append(f'<circle class="{claim.word}" cx="{x(claim.estimate)}" cy="{MIDDLE}" r="3.5"/>')
    if delta is not None:
        parts.append(f'<path class="paper" d="M{x(delta)} {MIDDLE - 5}l5 5l-5 5l-5 -5z"/>')
    label = (
        f"ours {wording.ours(claim)} {wording.interval(claim)}; "
        f"the paper’s {wording.paper(claim) or 'not given'}"
    )
    size = f'width="{GRAPH}" height="{2 * MIDDLE}" viewBox="0 0 {GRAPH} {2 * MIDDLE}"'
    return f'<svg role="img" aria-label="{_text(label)}" {size}>{"".join(parts)}</svg>'


# --- single runs ----------------------------------------------------------------------------------


def _runs(results: Results, base: str | None) -> list[str]:
    parts = [f"<p>{_text(wording.runs(results))}</p>", *_unfinished(results, base)]
    for run in results.singles:
        parts.append(f"<h2>{_link(run.name, base, run.id)}</h2>")
        parts.append(f"<p>{_text(wording.single(run))}</p>")
        if run.tests:
            header, *tested = wording.tested(run)
            rows = [_row(*map(_text, cells)) for cells in tested]
            parts.append(_table(header, rows, "The final test."))
        if run.precisions:
            header, *classes = average_precisions.table(run.precisions)
            rows = [_row(*map(_text, cells)) for cells in classes]
            parts.append(_table(header, rows, average_precisions.caption(run.precisions)))
        if run.reported:
            rows = [_row(*map(_text, wording.against_paper(result))) for result in run.reported]
            parts.append(_table(wording.AGAINST_PAPER, rows, wording.comparison(run)))
    return parts


# --- figures and pieces ---------------------------------------------------------------------------


def _figure(figure: Figure) -> str:
    """Returns a figure: its drawn panels as one image, then its pictures."""
    images = []
    drawn = [panel for panel in figure.panels if not isinstance(panel, Picture | Photo)]
    if drawn:
        alt = " ".join(map(svg.describe, drawn))
        address = svg.data_uri(svg.draw(drawn).encode(), "svg+xml")
        images.append(f'<img alt="{_text(alt)}" src="{address}">')
    images += [_image(panel) for panel in figure.panels if isinstance(panel, Picture | Photo)]
    caption = f"<b>{_text(figure.title)}.</b> {_text(figure.text)}"
    return f"<figure>\n{''.join(images)}\n<figcaption>{caption}</figcaption>\n</figure>"


def _image(panel: Picture | Photo) -> str:
    """Returns a panel of pixels below its title; only those of a Picture show as squares."""
    if isinstance(panel, Picture):
        kind, shown, file = "png", ' class="pixels"', panel.png
    else:
        kind, shown, file = "jpeg", "", panel.jpeg
    address = svg.data_uri(base64.b64decode(file), kind)
    size = f'alt="{_text(panel.alt)}" width="{_text(panel.width)}"'
    title = f"<p>{_text(panel.title)}</p>"
    return f'<div class="panel">{title}<img{shown} {size} src="{address}"></div>'


def _table(header: Sequence[str], rows: Iterable[str], caption: str = "") -> str:
    heads = "".join(f'<th scope="col">{_text(name)}</th>' for name in header)
    above = f"<caption>{_text(caption)}</caption>" if caption else ""
    table = f"<table>{above}\n<thead><tr>{heads}</tr></thead>\n{''.join(rows)}</table>"
    return f'<div class="wide">{table}</div>'


def _row(first: str, *others: str) -> str:
    cells = "".join(f"<td>{cell}</td>" for cell in others)
    return f'<tr><th scope="row">{first}</th>{cells}</tr>\n'


def _list(label: str, items: Sequence[str]) -> str:
    if not items:
        return ""
    elements = "".join(f"<li>{_text(item)}</li>" for item in items)
    return f'<ul aria-label="{label}">{elements}</ul>'


def _link(text: str, base: str | None, place: str | None) -> str:
    if base is None or place is None:
        return _text(text)
    address = base if place == "." else f"{base}/{place}"
    return f'<a href="{_text(address)}">{_text(text)}</a>'


def _text(value: Any) -> str:
    return escaping.escape(str(value))
