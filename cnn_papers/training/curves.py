"""Draws curves.png, a run's loss and error over its steps."""

import pathlib

from cnn_papers.training.writer import METRICS, read_rows


def draw(workdir: pathlib.Path) -> pathlib.Path:
    """Draws `workdir`/curves.png from its metrics.jsonl."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_rows(workdir / METRICS)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name, label in zip(
        figure.subplots(1, 2), ("loss", "top1_error"), ("loss", "top-1 error (%)"), strict=True
    ):
        for side, text, style in (("train", "training", "-"), ("val", "evaluation", "o-")):
            points = [(row["step"], row[f"{side}/{name}"]) for row in rows if f"{side}/{name}" in row]
            if points:
                axes.plot(*zip(*points, strict=True), style, label=text, markersize=3)
        axes.set(xlabel="step", ylabel=label)
        axes.set_ylim(bottom=0)
        axes.grid(alpha=0.3)
        if axes.lines:
            axes.legend()
    path = workdir / "curves.png"
    figure.savefig(path, dpi=120)
    return path
