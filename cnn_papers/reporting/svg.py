"""Draws the panels of a report as SVG, with matplotlib."""

import base64
import io
import itertools
from collections.abc import Sequence
from typing import Any

from cnn_papers.reporting.results import Heat, Lines

# Okabe and Ito's palette, which any colour vision tells apart; lines differ in style as well.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
STYLES = ("-", "--", "-.", ":", (0, (6, 1, 1, 1, 1, 1)))
MUTED = "#595959"
SETTINGS: dict[Any, Any] = {
    "svg.hashsalt": "cnn_papers",  # the same numbers give the same bytes
    "svg.fonttype": "path",  # nothing depends on the reader's fonts
    "font.size": 9,
    "axes.edgecolor": MUTED,
    "axes.labelcolor": "#222222",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 9.5,
    "axes.titlelocation": "left",
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.5,
}
DECIMALS = 2  # of a number in an alternative text
WIDTH, HEIGHT, IN_A_ROW = 3.7, 2.8, 3  # inches of a panel; panels side by side
LETTERS = 40  # of a legend above a panel, in a line


def draw(panels: Sequence[Lines | Heat]) -> str:
    """Returns the panels side by side as one SVG element, the same bytes for the same panels."""
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    across = min(len(panels), IN_A_ROW)
    down = -(-len(panels) // across)
    with matplotlib.rc_context(SETTINGS):
        figure = Figure(figsize=(WIDTH * across, HEIGHT * down), layout="constrained")
        FigureCanvasSVG(figure)
        places = figure.subplots(down, across, squeeze=False).ravel()
        shared = _have_same_lines(panels)
        for panel, axes in itertools.zip_longest(panels, places):
            if panel is None:
                axes.set_axis_off()
            elif isinstance(panel, Heat):
                _draw_heat(panel, axes)
            else:
                _draw_lines(panel, axes, legend=not shared)
        if shared:
            lines, names = places[0].get_legend_handles_labels()
            columns = max(1, LETTERS * across // (max(map(len, names)) + 8))
            figure.legend(lines, names, loc="outside upper left", ncols=columns)
        text = as_text(figure)
    return text[text.index("<svg") :]


def as_text(figure: Any) -> str:
    """Returns a figure of matplotlib as an SVG file's text, without a date or another origin."""
    file = io.StringIO()
    nothing = dict.fromkeys(("Date", "Creator", "Format", "Type"))
    figure.savefig(file, format="svg", metadata=nothing)
    return file.getvalue()


def data_uri(content: bytes, kind: str) -> str:
    """Returns the bytes of a file of the kind "png", "jpeg" or "svg+xml" as an address."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


def describe(panel: Lines | Heat) -> str:
    """Returns the alternative text of a panel."""
    if isinstance(panel, Heat):
        filled = [
            (value, i, j)
            for i, row in enumerate(panel.values)
            for j, value in enumerate(row)
            if value
        ]
        high, i, j = max(filled)
        rows, columns = len(panel.values), len(panel.values[0])
        where = f"{panel.y} {i + 1}, {panel.x} {j + 1}"
        return (
            f"{panel.title}: {panel.label}, {rows} by {columns}, "
            f"greatest at {where} ({high:.{DECIMALS}f})."
        )
    lines = [
        f"{line.name} from {line.mean[0]:,.{DECIMALS}f} to {line.mean[-1]:,.{DECIMALS}f}"
        for line in panel.series
    ]
    return f"{panel.title}: {panel.y} against {panel.x}. {'; '.join(lines)}."


def look(i: int) -> tuple[str, Any]:
    """Returns the colour and the style of line `i`; no two lines share both."""
    return COLOURS[i % len(COLOURS)], STYLES[(i + i // len(COLOURS)) % len(STYLES)]


def _have_same_lines(panels: Sequence[Lines | Heat]) -> bool:
    """Tells whether several panels have the same lines, so that one legend serves all."""
    names = [
        tuple(line.name for line in panel.series) for panel in panels if isinstance(panel, Lines)
    ]
    return len(names) == len(panels) > 1 and len(set(names)) == 1 and len(names[0]) > 1


def _draw_lines(panel: Lines, axes: Any, *, legend: bool) -> None:
    """Draws lines over their bands from the lowest to the highest seed."""
    from matplotlib.ticker import LogLocator, NullFormatter

    for i, line in enumerate(panel.series):
        colour, style = look(i)
        marker = "o" if len(line.x) < 12 and panel.limits is None else ""
        axes.plot(
            line.x,
            line.mean,
            color=colour,
            linestyle=style,
            marker=marker,
            markersize=3,
            label=line.name,
        )
        if line.low != line.high:
            axes.fill_between(line.x, line.low, line.high, color=colour, alpha=0.18, linewidth=0)
    if panel.level is not None:
        axes.axhline(panel.level, color=MUTED, linewidth=0.8, linestyle=(0, (4, 3)))
    if panel.log:
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(_number)
        axes.yaxis.set_minor_formatter(NullFormatter())
    elif min(min(line.low) for line in panel.series) >= 0:
        axes.set_ylim(bottom=0)
    else:
        axes.margins(y=0.45)  # room for the legend
    if panel.limits is not None:
        axes.set(xlim=panel.limits, ylim=panel.limits)
    axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    axes.xaxis.set_major_formatter(_number)
    axes.grid(alpha=0.25, linewidth=0.6)
    if legend and len(panel.series) > 1:
        axes.legend(loc="best")


def _number(value: float, position: int | None = None) -> str:
    """Returns the text of a tick: 20k for 20,000."""
    return f"{value / 1000:g}k" if abs(value) >= 10_000 else f"{value:g}"


def _draw_heat(panel: Heat, axes: Any) -> None:
    """Draws a matrix in cividis, whose shades look alike with any colour vision and in grey."""
    import numpy as np

    values = np.array(
        [[np.nan if value is None else value for value in row] for row in panel.values]
    )
    image = axes.imshow(
        np.ma.masked_invalid(values), cmap="cividis", vmin=0, aspect="auto", interpolation="nearest"
    )
    axes.figure.colorbar(image, ax=axes, label=panel.label)
    axes.set(title=panel.title, xlabel=panel.x, ylabel=panel.y)
    axes.set_xticks(_ticks(values.shape[1]), [str(i + 1) for i in _ticks(values.shape[1])])
    axes.set_yticks(_ticks(values.shape[0]), [str(i + 1) for i in _ticks(values.shape[0])])


def _ticks(count: int) -> range:
    """Returns at most twelve positions among `count`."""
    return range(0, count, -(-count // 12))
