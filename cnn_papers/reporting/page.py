"""A report's results as one HTML page, which needs no script and asks for nothing beyond itself."""

import base64
import html as escaping
import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from cnn_papers.reporting import svg, wording
from cnn_papers.reporting.style import STYLE

Results = Mapping[str, Any]
SIGNS = {"agrees": "●", "disagrees": "▲", "undecided": "◐"}  # as different in grey as in colour
TITLES = {"sweep": "The papers’ claims, run again", "runs": "Runs against their papers"}
GRAPH, MIDDLE, EDGE = 150, 9, 6  # pixels of an interval's picture: width, half its height, margin
CAPTION = (
    "Intervals are of 95 % or as they say; bold is an arm’s mean, where a claim is of a ratio the geometric one; "
    "the diamond is the paper’s figure."
)
COLUMNS = ("claim", "verdict", "ours", "interval", "paper", "scale", "seeds", "time")


def html(found: Results, base: str | None) -> str:
    """The page of `found`; `base` is the relative address of the folder of its runs, None where
    they are not there.
    """
    title = TITLES[found["kind"]]
    body = _sweep(found, base) if found["kind"] == "sweep" else _runs(found, base)
    drawn = [_figure(each) for each in found["figures"] if each["panels"]]
    left_out = [
        f"{each['title']}: {each['text']}" for each in found["figures"] if not each["panels"]
    ]
    policy = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"
    return "\n".join(
        [
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">',
            '<meta name="viewport" content="width=device-width, initial-scale=1">',
            f"<title>{title}</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>{title}</h1>",
            *body,
            *(["<h2>Figures</h2>", *drawn] if drawn else []),
            _list("figures that could not be drawn", left_out),
            "<h2>Made with</h2>",
            _list("machines and versions", wording.made_with(found)),
            "</main>\n</body>\n</html>\n",
        ]
    )


# --- claims ---------------------------------------------------------------------------------------


def _sweep(found: Results, base: str | None) -> list[str]:
    asked = [claim for claim in found["claims"] if claim["word"] in SIGNS]
    others = [claim for claim in found["claims"] if claim["word"] not in SIGNS]
    about = [*wording.chance(found), wording.runs(found)]
    parts = [
        f'<p class="lead">{_text(wording.verdicts(found))}</p>',
        *(f"<p>{_text(line)}</p>" for line in about),
    ]
    parts += _unfinished(found, base)
    if asked:
        rows = [
            _group(title) + "".join(_claim(claim, found, base) for claim in of)
            for title, of in itertools.groupby(asked, lambda claim: claim["title"])
        ]
        caption = " ".join([CAPTION, *wording.legend(found, arms=True)])
        parts += ["<h2>Claims</h2>", _table(COLUMNS, rows, caption)]
    if found["others"]:
        rows = [
            _row(
                (
                    _link(run["id"], base, run["id"]),
                    _text(wording.overrides(run)),
                    *map(_text, wording.errors(run)),
                )
            )
            for run in found["others"]
        ]
        parts += [
            "<h2>Other runs</h2>",
            _table(("run", "overrides", "last top-1 error", "best"), rows),
        ]
    if others:
        rows = [
            _row(
                (
                    f"<code>{_text(claim['name'])}</code>",
                    *map(_text, (claim["statement"], claim["source"], _at(claim))),
                )
            )
            for claim in others
        ]
        parts += ["<h2>Not run</h2>", _table(("claim", "statement", "source", "scales"), rows)]
    return parts


def _unfinished(found: Results, base: str | None) -> list[str]:
    """The runs that are not finished: of a sweep with their logs, which all have that were started."""
    end = ".log" if found["kind"] == "sweep" else ""
    parts = []
    for why, names in wording.unfinished(found).items():
        links = (
            _link(name, base, None if why == wording.NEW else f"{name}{end}") for name in names
        )
        parts.append(f'<p class="warning">Not finished ({_text(why)}): {", ".join(links)}.</p>')
    return parts


def _group(title: str) -> str:
    """The line above a paper's claims."""
    return f'<tbody><tr class="group"><th scope="rowgroup" colspan="{len(COLUMNS)}">{_text(title)}</th></tr></tbody>\n'


def _at(claim: Results) -> str:
    return (
        f"asked at {claim['scale']}, no run finished"
        if claim["scale"]
        else ", ".join(claim["scales"])
    )


def _claim(claim: Results, found: Results, base: str | None) -> str:
    """A body of two rows: the figures, and below them what is claimed and what each arm gave."""
    word = claim["word"]
    cells = (
        f'<span class="whole {word}">{SIGNS[word]} {word}</span>',
        f'{_text(wording.ours(claim))} <span class="whole">{_text(wording.interval(claim))}</span>',
        _interval(claim),
        _text(wording.paper(claim)),
        _text(claim["scale"]),
        _text(claim["n"]),
        f'<span class="whole">{_text(wording.duration(claim["seconds"]))}</span>',
    )
    notes = "; ".join(filter(None, (claim["note"], wording.missing(claim, found))))
    arms = "; ".join(_arm(name, arm, claim, base) for name, arm in claim["arms"].items())
    about = [
        f"{_text(claim['statement'])} <cite>{_text(claim['source'])}</cite>",
        f"<code>{_text(claim['metric'])}</code> {_text(wording.expected(claim))}. {arms}.",
        *([f"<em>{_text(notes)}</em>"] if notes else []),
    ]
    head = f'<th scope="row" id="{_text(claim["name"])}">{_text(claim["label"])}</th>'
    first = head + "".join(f"<td>{cell}</td>" for cell in cells)
    second = f'<td colspan="{len(COLUMNS)}">{"<br>".join(about)}</td>'
    return f'<tbody>\n<tr>{first}</tr>\n<tr class="about">{second}</tr>\n</tbody>'


def _arm(name: str, arm: Results, claim: Results, base: str | None) -> str:
    """An arm's mean, and what each of its runs gave; apart from them those of seeds that another
    arm lacks.
    """
    ids = {str(seed): run for run, seed in claim["runs"].get(name, {}).items()}
    values = {
        seed: _link(_bound(each["value"], each["censored"]), base, ids.get(seed))
        for seed, each in arm["readings"].items()
        if each["value"] is not None
    }
    common = set.intersection(*(set(each["readings"]) for each in claim["arms"].values()))
    counted = [text for seed, text in values.items() if seed in common]
    others = [text for seed, text in values.items() if seed not in common]
    mean = (
        ""
        if arm["mean"] is None or len(counted) < 2
        else f" {_bound(arm['mean'], arm['censored'])}"
    )
    listed = [", ".join(counted), f"not in every arm: {', '.join(others)}" if others else ""]
    return f"{_text(name)}<b>{mean}</b> ({'; '.join(filter(None, listed))})"


def _bound(value: float, censored: int) -> str:
    """A figure, which the true one is at least where readings are censored."""
    return ("≥ " if censored else "") + wording.number(value)


def _interval(claim: Results) -> str:
    """Estimate, interval, bounds of equivalence, the paper's figure and where nothing would differ,
    as a small SVG.
    """
    low, high = wording.bounds(claim)
    if claim["estimate"] is None:
        return ""
    scale = math.log if claim["ratio"] else float
    alone = claim["expect"] in wording.VALUES
    neutral = claim["bound"] if alone else (1.0 if claim["ratio"] else 0.0)
    marks = [claim["estimate"], low, high, claim["paper_delta"], neutral]
    if claim["expect"] == "same":
        marks += [1 / claim["bound"] if claim["ratio"] else -claim["bound"], claim["bound"]]
    known = [scale(mark) for mark in marks if mark is not None and (mark > 0 or not claim["ratio"])]
    least, span = min(known), max(known) - min(known) or 1.0

    def x(value: float) -> float:
        return round(EDGE + (GRAPH - 2 * EDGE) * (scale(value) - least) / span, 1)

    ends = (0 if low is None else x(low), GRAPH if high is None else x(high))
    parts = []
    if claim["expect"] == "same":
        left, right = x(marks[-2]), x(marks[-1])
        parts.append(
            f'<rect class="band" x="{left}" y="1" width="{right - left:.1f}" height="{2 * MIDDLE - 2}"/>'
        )
    if neutral is not None:
        parts.append(
            f'<line class="neutral" x1="{x(neutral)}" x2="{x(neutral)}" y1="0" y2="{2 * MIDDLE}"/>'
        )
    extent = " open" if None in (low, high) else ""
    parts.append(
        f'<line class="{claim["word"]}{extent}" x1="{ends[0]}" x2="{ends[1]}" y1="{MIDDLE}" y2="{MIDDLE}"/>'
    )
    parts.append(
        f'<circle class="{claim["word"]}" cx="{x(claim["estimate"])}" cy="{MIDDLE}" r="3.5"/>'
    )
    if claim["paper_delta"] is not None and (claim["paper_delta"] > 0 or not claim["ratio"]):
        at = x(claim["paper_delta"])
        parts.append(f'<path class="paper" d="M{at} {MIDDLE - 5}l5 5l-5 5l-5 -5z"/>')
    label = f"ours {wording.ours(claim)} {wording.interval(claim)}; the paper’s {wording.paper(claim) or 'not given'}"
    size = f'width="{GRAPH}" height="{2 * MIDDLE}" viewBox="0 0 {GRAPH} {2 * MIDDLE}"'
    return f'<svg role="img" aria-label="{_text(label)}" {size}>{"".join(parts)}</svg>'


# --- single runs ----------------------------------------------------------------------------------


def _runs(found: Results, base: str | None) -> list[str]:
    parts = [f"<p>{_text(wording.runs(found))}</p>", *_unfinished(found, base)]
    for run in found["singles"]:
        parts += [
            f"<h2>{_link(run['name'], base, run['id'])}</h2>",
            f"<p>{_text(wording.single(run))}</p>",
        ]
        if run["tests"]:
            rows = [_row(map(_text, wording.tested(test))) for test in run["tests"]]
            parts.append(
                _table(("protocol", "split", "top-1 error", "top-5 error"), rows, "The final test.")
            )
        if run["reported"]:
            rows = [_row(map(_text, wording.against_paper(result))) for result in run["reported"]]
            parts.append(_table(wording.AGAINST_PAPER, rows, wording.comparison(run)))
    return parts


# --- figures and pieces ---------------------------------------------------------------------------


def _figure(figure: Results) -> str:
    """A figure: drawn panels as one picture, pictures as they are."""
    images = []
    drawn = [panel for panel in figure["panels"] if panel["kind"] != "picture"]
    if drawn:
        alt = " ".join(map(svg.describe, drawn))
        images.append(f'<img alt="{_text(alt)}" src="{svg.data_uri(svg.draw(drawn))}">')
    for panel in figure["panels"]:
        if panel["kind"] == "picture":
            address = svg.data_uri(base64.b64decode(panel["png"]))
            image = f'<img class="pixels" alt="{_text(panel["alt"])}" width="{_text(panel["width"])}" src="{address}">'
            images.append(f'<div class="panel"><p>{_text(panel["title"])}</p>{image}</div>')
    caption = f"<b>{_text(figure['title'])}.</b> {_text(figure['text'])}"
    return f"<figure>\n{''.join(images)}\n<figcaption>{caption}</figcaption>\n</figure>"


def _table(header: Sequence[str], rows: Iterable[str], caption: str = "") -> str:
    heads = "".join(f'<th scope="col">{_text(name)}</th>' for name in header)
    said = f"<caption>{_text(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{said}\n<thead><tr>{heads}</tr></thead>\n{"".join(rows)}</table></div>'


def _row(cells: Iterable[str]) -> str:
    first, *others = cells
    return (
        f'<tr><th scope="row">{first}</th>{"".join(f"<td>{cell}</td>" for cell in others)}</tr>\n'
    )


def _list(label: str, items: Sequence[str]) -> str:
    return (
        f'<ul aria-label="{label}">{"".join(f"<li>{_text(item)}</li>" for item in items)}</ul>'
        if items
        else ""
    )


def _link(text: str, base: str | None, place: str | None) -> str:
    if base is None or place is None:
        return _text(text)
    return f'<a href="{_text(f"{base}/{place}" if place != "." else base)}">{_text(text)}</a>'


def _text(value: Any) -> str:
    return escaping.escape(str(value))
