"""Figures of a report as numbers, from the rows of its runs.

The metric that a claim is judged by decides its figure: errors over the images seen for claims
about training, the parts of an analysis for claims about the inside of a network. Other analyses
of the runs are drawn once per paper. `network_figures` adds the figures that need the network.
"""

import importlib
import importlib.util
import pathlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from cnn_papers import tasks
from cnn_papers.claims import catalogue, metrics
from cnn_papers.claims.loading import Sweep
from cnn_papers.claims.metrics import Finished
from cnn_papers.claims.plan import EXACT
from cnn_papers.facts import Claim
from cnn_papers.opstrings import Op, parse
from cnn_papers.reporting import detection_figures, merging_figure, network_figures
from cnn_papers.reporting.results import Figure, Heat, Line, Lines, Row

POINTS = 80  # of a line, at most
SERIES = 3  # arms from which a claim is about a series
SIDES = {"train": "training", "val": "test"}

Runs = Mapping[str, Mapping[str, Finished]]  # by arm and id, in the order of seeds


def of_claims(sweep: Sweep, changed: Collection[str]) -> list[Figure]:
    """Returns the figures of the claims of a sweep whose arms all have a finished run.

    Claims whose names are in `changed` are left out.
    """
    figures: list[Figure] = []
    for file, claims in catalogue.claims_of().items():
        requested = {
            name: (claim, _runs(sweep, name))
            for name, claim in claims.items()
            if sweep.scales[name] not in (None, EXACT) and name not in changed
        }
        complete = {
            name: (claim, runs) for name, (claim, runs) in requested.items() if all(runs.values())
        }
        figures += _of_file(file, complete, sweep.folder)
    return figures


def of_run(path: pathlib.Path, config: Any, rows: Sequence[Row]) -> list[Figure]:
    """Returns the curves of a run, what it finds if it was tested, its first layer's filters."""
    panels, headline = [], tasks.task_module(config.task).HEADLINE
    for kind in ("loss", headline.name):
        names = {SIDES[side]: f"{side}/{kind}" for side in ("train", "val")}
        bands = [_band(label, [rows], name, config.batch_size) for label, name in names.items()]
        if any(bands):
            panels.append(_lines(_label(config, kind), _label(config, kind), bands))
    title = f"{path.resolve().name}: configs/{config.name}.py:{config.recipe}"
    curves = _figure(title, f"Loss and {headline.words} over the images seen.", panels)
    found = detection_figures.of_run(title, path, config)
    found += merging_figure.of_run(title, path, config)
    return curves + found + network_figures.filters(f"{title}: filters of the first layer", path)


def title_of(file: str) -> str:
    """Returns the paper of a file of claims: the first line of the config file of that name.

    It is the first line of the file of claims itself if there is no such config file.
    """
    spec = importlib.util.find_spec(f"configs.{file}")
    spec = spec or importlib.util.find_spec(f"configs.claims.{file}")
    text = importlib.import_module(spec.name).__doc__ if spec else None
    return (text or file).partition("\n")[0].rstrip(".")


def label_of(file: str, name: str) -> str:
    """Returns the name of a claim in words, for a place that names its paper already."""
    return name.removeprefix(f"{file}_").replace("_", " ")


def _of_file(
    file: str, requested: Mapping[str, tuple[Claim, Runs]], folder: pathlib.Path
) -> list[Figure]:
    """Returns the figures of a paper: its curves, one for each analysis, those of the networks."""
    paper = title_of(file).partition(" (")[0]
    curves, analyses, texts, drawn = {}, [], [], set[str]()
    for name, (claim, runs) in requested.items():
        (op,) = parse(claim.metric, metrics, leading=1, key="metric")
        title = label_of(file, name)
        statement = f"{claim.statement} ({claim.source})"
        if curve := _curve(title, op, runs):
            curves[name] = curve
            texts.append(f"{title.capitalize()}: {statement}{_diverged(runs)}")
        if op.name in ("analysis", "drift"):
            kind = op.args[0].partition("/")[0]
            analyses += _analysis(f"{paper}: {title}", statement, kind, name, runs)
            drawn.add(kind)
    for name, (claim, runs) in requested.items():
        for kind in sorted(_analysed(runs) - drawn):
            text = f"In the runs of the claim: {claim.statement} ({claim.source})"
            analyses += _analysis(f"{paper}: {kind.replace('_', ' ')}", text, kind, name, runs)
            drawn.add(kind)
    text = "Means over seeds, in a band from the lowest to the highest. " + " ".join(texts)
    runs_by_id = {
        job_id: run
        for _, runs in requested.values()
        for arm in runs.values()
        for job_id, run in arm.items()
    }
    networks = network_figures.of_paper(paper, runs_by_id, folder)
    return _figure(paper, text, [*curves.values()], [*curves]) + analyses + networks


def _analysis(title: str, text: str, kind: str, claim: str, runs: Runs) -> list[Figure]:
    """Returns the figure of an analysis, if it has one."""
    if kind not in ANALYSES:
        return []
    return _figure(title, text, ANALYSES[kind](title.partition(": ")[2], kind, runs), [claim])


def _analysed(runs: Runs) -> set[str]:
    """The kinds of analysis in the rows of the last arm."""
    rows = [row for run in [*runs.values()][-1].values() for row in run.rows]
    return {key.split("/")[1] for row in rows for key in row if key.startswith("analysis/")}


def _runs(sweep: Sweep, name: str) -> Runs:
    """The finished runs of a claim that have rows."""
    return {
        arm: {
            job.id: run
            for job in jobs
            if isinstance(run := sweep.runs.get(job.id), Finished) and run.rows
        }
        for arm, jobs in sweep.arms[name].items()
    }


def _figure(
    title: str, text: str, panels: Sequence[Lines | Heat], claims: Sequence[str] = ()
) -> list[Figure]:
    """A figure of `panels`, which illustrates `claims`; none without any panel."""
    return [Figure(title, text, panels, claims)] if panels else []


# --- curves ---------------------------------------------------------------------------------------


def _curve(title: str, op: Op, runs: Runs) -> Lines | None:
    """The curve that the metric `op` of a claim reads; None if it is not about training."""
    texts = [value for value in op.args if isinstance(value, str)]
    name = next((text for text in texts if text.startswith(("train/", "val/"))), "")
    about_training = op.name == "images_to" or name.startswith("train/") or len(runs) >= SERIES
    if not name or not about_training:
        return None
    bands = []
    for arm, by_id in runs.items():
        batch_size = next(iter(by_id.values())).config.batch_size
        bands.append(_band(arm, [run.rows for run in by_id.values()], name, batch_size))
    if not any(bands):
        return None
    side, _, kind = name.partition("/")
    level = op.args[1] if op.name == "images_to" else None
    label = _label(next(iter(next(iter(runs.values())).values())).config, kind)
    return _lines(title, f"{SIDES[side]} {label}", bands, level)


def _label(config: Any, kind: str) -> str:
    """Returns the label of an axis for a measure of a run's task, or for `loss`."""
    measure = tasks.measures(config.task).get(kind)
    return measure.label if measure else kind


def _diverged(runs: Runs) -> str:
    """Says how many runs' curves end early; "" if none does."""
    all_runs = [run for by_id in runs.values() for run in by_id.values()]
    diverged = sum(run.outcome == "diverged" for run in all_runs)
    if not diverged:
        return ""
    return (
        f" {diverged} of its {len(all_runs)} runs diverged; "
        "past their ends, means and bands are of the others."
    )


def _lines(
    title: str, label: str, bands: Sequence[Line | None], level: float | None = None
) -> Lines:
    return Lines(title, "training images seen", label, [band for band in bands if band], level)


def _band(label: str, seeds: Sequence[Sequence[Row]], name: str, batch_size: int) -> Line | None:
    """Mean, lowest and highest value of `name` over seeds, by the number of training images seen.

    A step needs a value of one seed only. Steps are thinned to POINTS.
    """
    values: dict[int, list[float]] = {}
    for rows in seeds:
        for row in rows:
            if name in row:
                values.setdefault(row["step"], []).append(row[name])
    if not values:
        return None
    steps = sorted(values)
    count, last = min(POINTS, len(steps)), len(steps) - 1
    kept = [steps[round(i * last / max(1, count - 1))] for i in range(count)]
    return _line(label, [step * batch_size for step in kept], [values[step] for step in kept])


def _line(label: str, x: Sequence[int], values: Sequence[Sequence[float]]) -> Line:
    """A line of the values of seeds at each x."""
    means = [sum(column) / len(column) for column in values]
    return Line(label, x, means, [*map(min, values)], [*map(max, values)])


# --- analyses -------------------------------------------------------------------------------------


def _parts(run: Finished, kind: str) -> dict[str, float]:
    """The parts of a run's last analysis `kind` by layer, numbered layers in their order."""
    start = f"analysis/{kind}/"
    row = next((row for row in reversed(run.rows) if any(key.startswith(start) for key in row)), {})
    keys = [key for key in sorted(row, key=_in_order) if key.startswith(start)]
    return {key.removeprefix(start): row[key] for key in keys}


def _in_order(name: str) -> list[Any]:
    """A sorting key by which layer2 comes before layer10."""
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d+)", name)]


def _by_layer(title: str, kind: str, runs: Runs) -> list[Lines]:
    """One value of every layer at the end of training, over the seeds in which it was finite."""
    lines = []
    for arm, by_id in runs.items():
        seeds = [_parts(run, kind) for run in by_id.values()]
        layers = sorted({layer for seed in seeds for layer in seed}, key=_in_order)
        columns = [[seed[layer] for seed in seeds if layer in seed] for layer in layers]
        if columns:
            lines.append(_line(arm, range(1, len(columns) + 1), columns))
    if not lines:
        return []
    label = kind.replace("_", " ")
    return [Lines(title, "layer", label, lines, log=kind == "gradient_norm")]


def _percentiles(title: str, kind: str, runs: Runs) -> list[Lines]:
    """A unit's 15th, 50th and 85th percentile over training, of the first seed of each arm."""
    panels = []
    for arm, by_id in runs.items():
        run = next(iter(by_id.values()))
        bands = [
            _band(f"{p}th percentile", [run.rows], f"analysis/{kind}/p{p}", run.config.batch_size)
            for p in (85, 50, 15)
        ]
        if any(bands):
            panels.append(_lines(arm, "input of a nonlinearity", bands))
    return panels


def _reuse(title: str, kind: str, runs: Runs) -> list[Heat]:
    """Mean weights by which layers (columns) of a dense block read earlier ones (rows)."""
    seeds = [_parts(run, kind) for run in [*runs.values()][-1].values()]
    names = sorted({name for seed in seeds for name in seed}, key=_in_order)
    keys = [name.split("/") for name in names]
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
        panels.append(
            Heat(
                title=block,
                x="reading layer (the last: behind the block)",
                y="source (1: the block's input)",
                label="mean absolute weight",
                values=values,
            )
        )
    return panels


def _mean(values: Sequence[float | None]) -> float | None:
    finite = [value for value in values if value is not None]
    return sum(finite) / len(finite) if finite else None


ANALYSES: dict[str, Callable[[str, str, Runs], Sequence[Lines | Heat]]] = {
    "response_std": _by_layer,
    "gradient_norm": _by_layer,
    "dead_units": _by_layer,
    "input_percentiles": _percentiles,
    "feature_reuse": _reuse,
}
