"""The figures of a report as numbers: those that the runs there are can be drawn as.

Which figure belongs to a claim follows from the metric it is judged by: errors over the images seen
for what is claimed of training, the parts of an analysis for what is claimed of the inside of a
network. What else runs were analysed by is drawn once a paper. Where the run's network itself is
needed, `portraits` opens it.
"""

import importlib
import importlib.util
import pathlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from cnn_papers.claims import catalogue, metrics, plan, readings
from cnn_papers.claims.metrics import Finished
from cnn_papers.facts import Claim
from cnn_papers.opstrings import Op, parse
from cnn_papers.reporting import network_figures
from cnn_papers.runs import workdir
from cnn_papers.runs.rows import METRICS, read_rows

POINTS = 80  # of a line, at most
SERIES = 3  # arms from which a claim is one of a series
NAMES = {"top1_error": "top-1 error (%)", "top5_error": "top-5 error (%)", "loss": "loss"}
SIDES = {"train": "training", "val": "test"}

Panel = dict[str, Any]
Figure = dict[str, Any]
Runs = Mapping[str, Mapping[str, Finished]]  # by arm and id, in the order of seeds


def of_claims(
    scales: Mapping[str, str | None], seeds: Sequence[int], folder: pathlib.Path
) -> list[Figure]:
    """The figures of the claims asked in the sweep of `folder`, whose scale is None where they were
    not.
    """
    found: list[Figure] = []
    for file, known in catalogue.claims_of().items():
        ran = {
            name: (claim, _ran(claim, scale, seeds, folder))
            for name, claim in known.items()
            if (scale := scales[name]) not in (None, plan.EXACT)
        }
        found += _of_file(
            file, {name: pair for name, pair in ran.items() if all(pair[1].values())}, folder
        )
    return found


def of_runs(runs: Sequence[pathlib.Path]) -> list[Figure]:
    """The curves of each run, and what its first layer has learnt."""
    found = []
    for run in runs:
        about = workdir.read_run(run)
        rows = read_rows(run / METRICS)
        assert about is not None
        panels = []
        for kind in ("loss", "top1_error"):
            series = [
                _band(SIDES[side], [rows], f"{side}/{kind}", about.config.batch_size)
                for side in ("train", "val")
            ]
            panels += (
                [_lines(NAMES[kind], NAMES[kind], [line for line in series if line])]
                if any(series)
                else []
            )
        title = f"{run.resolve().name}: configs/{about.config.name}.py:{about.config.recipe}"
        found += [_figure(title, "Loss and error over the images seen.", panels)] if panels else []
        found += network_figures.filters(f"{title}: filters of the first layer", run)
    return found


def title_of(file: str) -> str:
    """The paper of a file of claims: as the config file of that name says it, else as its own first
    line does.
    """
    known = importlib.util.find_spec(f"configs.{file}") or importlib.util.find_spec(
        f"configs.claims.{file}"
    )
    text = importlib.import_module(known.name).__doc__ if known else None
    return (text or file).partition("\n")[0].rstrip(".")


def label_of(file: str, name: str) -> str:
    """The name of a claim in words, for where its paper is named already."""
    return name.removeprefix(f"{file}_").replace("_", " ")


def _of_file(
    file: str, ran: Mapping[str, tuple[Claim, Runs]], folder: pathlib.Path
) -> list[Figure]:
    """The figures of one paper: its curves together, then a figure for each analysis, then the
    networks' own.
    """
    paper = title_of(file).partition(" (")[0]
    curves, others, words, drawn = [], [], [], set[str]()
    for name, (claim, runs) in ran.items():
        (op,) = parse(claim.metric, metrics, leading=1, key="metric")
        title = label_of(file, name)
        if panel := _curve(title, op, runs):
            curves.append(panel)
            words.append(
                f"{title.capitalize()}: {claim.statement} ({claim.source}){_cut_short(runs)}"
            )
        if op.name in ("analysis", "drift"):
            kind = op.args[0].partition("/")[0]
            others += _inside(
                f"{paper}: {title}", f"{claim.statement} ({claim.source})", kind, runs
            )
            drawn.add(kind)
    for claim, runs in ran.values():
        for kind in sorted(_analysed(runs) - drawn):
            about = f"In the runs of the claim: {claim.statement} ({claim.source})"
            others += _inside(f"{paper}: {kind.replace('_', ' ')}", about, kind, runs)
            drawn.add(kind)
    text = "Means over seeds, in a band from the lowest to the highest. " + " ".join(words)
    found = [_figure(paper, text, curves)] if curves else []
    every = {
        each: run for _, runs in ran.values() for of in runs.values() for each, run in of.items()
    }
    return found + others + network_figures.of_paper(paper, every, folder)


def _inside(title: str, text: str, kind: str, runs: Runs) -> list[Figure]:
    """The figure of an analysis, if there is one."""
    panels = ANALYSES[kind](title.partition(": ")[2], kind, runs) if kind in ANALYSES else []
    return [_figure(title, text, panels)] if panels else []


def _analysed(runs: Runs) -> set[str]:
    """What the last arm was analysed by."""
    rows = [row for run in [*runs.values()][-1].values() for row in run.rows]
    return {key.split("/")[1] for row in rows for key in row if key.startswith("analysis/")}


def _ran(claim: Claim, scale: str, seeds: Sequence[int], folder: pathlib.Path) -> Runs:
    """The finished runs of a claim."""
    found: dict[str, dict[str, Finished]] = {}
    for arm, jobs in plan.jobs(claim, scale, seeds).items():
        runs = {job.id: readings.finished(folder, job) for job in jobs}
        found[arm] = {id: run for id, run in runs.items() if run is not None and run.rows}
    return found


def _figure(title: str, text: str, panels: Sequence[Panel]) -> Figure:
    return {"title": title, "text": text, "panels": list(panels)}


# --- curves ---------------------------------------------------------------------------------------


def _curve(title: str, op: Op, runs: Runs) -> Panel | None:
    """The curve that a claim of training is read off; None where it is of something else."""
    name = next(
        (
            value
            for value in op.args
            if isinstance(value, str) and value.startswith(("train/", "val/"))
        ),
        "",
    )
    if not name or not (op.name == "images_to" or name.startswith("train/") or len(runs) >= SERIES):
        return None
    series = []
    for arm, of in runs.items():
        batch_size = next(iter(of.values())).config.batch_size
        series.append(_band(arm, [run.rows for run in of.values()], name, batch_size))
    side, _, kind = name.partition("/")
    label = f"{SIDES[side]} {NAMES.get(kind, kind)}"
    level = op.args[1] if op.name == "images_to" else None
    return _lines(title, label, [line for line in series if line], level) if any(series) else None


def _cut_short(runs: Runs) -> str:
    """How many seeds' curves end early; "" of none."""
    every = [run for of in runs.values() for run in of.values()]
    diverged = sum(run.outcome == "diverged" for run in every)
    text = f" {diverged} of its {len(every)} runs diverged; past their ends, means and bands are of the others."
    return text if diverged else ""


def _lines(
    title: str, label: str, series: Sequence[Panel], level: float | None = None, log: bool = False
) -> Panel:
    x = "training images seen"
    return {
        "kind": "lines",
        "title": title,
        "x": x,
        "y": label,
        "series": list(series),
        "level": level,
        "log": log,
    }


def _band(
    arm: str, seeds: Sequence[Sequence[Mapping[str, Any]]], name: str, batch_size: int
) -> Panel | None:
    """Mean, lowest and highest of `name` over seeds at each step that one of them has; thinned to
    POINTS.
    """
    values: dict[int, list[float]] = {}
    for rows in seeds:
        for row in rows:
            if name in row:
                values.setdefault(row["step"], []).append(row[name])
    if not values:
        return None
    steps = sorted(values)
    last = len(steps) - 1
    kept = [
        steps[round(i * last / max(1, min(POINTS, len(steps)) - 1))]
        for i in range(min(POINTS, len(steps)))
    ]
    band = {"mean": [sum(values[step]) / len(values[step]) for step in kept]}
    band |= {
        "low": [min(values[step]) for step in kept],
        "high": [max(values[step]) for step in kept],
    }
    return {"name": arm, "x": [step * batch_size for step in kept], **band}


# --- analyses -------------------------------------------------------------------------------------


def _parts(run: Finished, kind: str) -> dict[str, float]:
    """The parts of the last analysis `kind` of a run by layer, those of like names in the order of
    their numbers.
    """
    start = f"analysis/{kind}/"
    row = next((row for row in reversed(run.rows) if any(key.startswith(start) for key in row)), {})
    return {
        key.removeprefix(start): row[key]
        for key in sorted(row, key=_in_order)
        if key.startswith(start)
    }


def _in_order(name: str) -> list[Any]:
    """Numbers count as such: layer2 before layer10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _by_layer(title: str, kind: str, runs: Runs) -> list[Panel]:
    """One figure of every layer, at the end of training; what was not finite is of the seeds that
    have it.
    """
    series = []
    for arm, of in runs.items():
        seeds = [_parts(run, kind) for run in of.values()]
        layers = sorted({layer for seed in seeds for layer in seed}, key=_in_order)
        columns = [[seed[layer] for seed in seeds if layer in seed] for layer in layers]
        if columns:
            band = {
                "mean": [sum(c) / len(c) for c in columns],
                "low": [*map(min, columns)],
                "high": [*map(max, columns)],
            }
            series.append({"name": arm, "x": [*range(1, len(columns) + 1)], **band})
    if not series:
        return []
    panel = _lines(title, kind.replace("_", " "), series, log=kind == "gradient_norm")
    return [panel | {"x": "layer"}]


def _percentiles(title: str, kind: str, runs: Runs) -> list[Panel]:
    """A unit's 15th, 50th and 85th percentile over training, for the first seed of each arm."""
    panels = []
    for arm, of in runs.items():
        run = next(iter(of.values()))
        size = run.config.batch_size
        series = [
            _band(f"{p}th percentile", [run.rows], f"analysis/{kind}/p{p}", size)
            for p in (85, 50, 15)
        ]
        panels += (
            [_lines(arm, "input of a nonlinearity", [line for line in series if line])]
            if any(series)
            else []
        )
    return panels


def _reuse(title: str, kind: str, runs: Runs) -> list[Panel]:
    """How much each layer (column) of a dense block reads of each before it (row), averaged over
    seeds.
    """
    seeds = [_parts(run, kind) for run in [*runs.values()][-1].values()]
    keys = [
        key.split("/") for key in sorted({key for seed in seeds for key in seed}, key=_in_order)
    ]
    panels = []
    for block in dict.fromkeys(key[0] for key in keys):
        readers = sorted(
            {key[1] for key in keys if key[0] == block},
            key=lambda name: (name == "out", _in_order(name)),
        )
        sources = sorted({key[2] for key in keys if key[0] == block}, key=_in_order)
        values = [
            [
                _mean([seed.get(f"{block}/{reader}/{source}") for seed in seeds])
                for reader in readers
            ]
            for source in sources
        ]
        axes = {
            "x": "reading layer (the last: behind the block)",
            "y": "source (1: the block's input)",
        }
        panels.append(
            {
                "kind": "heat",
                "title": block,
                **axes,
                "label": "mean absolute weight",
                "values": values,
            }
        )
    return panels


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else None


ANALYSES: dict[str, Callable[[str, str, Runs], list[Panel]]] = {
    "response_std": _by_layer,
    "gradient_norm": _by_layer,
    "dead_units": _by_layer,
    "input_percentiles": _percentiles,
    "feature_reuse": _reuse,
}
