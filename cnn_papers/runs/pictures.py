"""Draws a run's learning curves and the kernels of a first layer."""

import pathlib
from typing import Any

import cv2
import jax
import numpy as np

from cnn_papers import files
from cnn_papers.errors import UserError
from cnn_papers.facts import Measure
from cnn_papers.parallel import processes
from cnn_papers.runs.rows import METRICS, read_rows

LEGIBLE = 5  # least width and height of a filter, in pixels, for a picture
IN_A_ROW, WIDE = 16, 960  # filters in a row of a file, its width in pixels, about


def first_kernels(params: Any, channels: int, columns: int = 1) -> list[np.ndarray]:
    """Returns the kernels [h, w, channels, n] of the convolution that reads the image, by column.

    Args:
      params: of the network.
      channels: of the image.
      columns: of the network; each has its own share of the kernels.

    Returns an empty list if no convolution reads so many channels.
    """
    kernels = [
        leaf for leaf in jax.tree.leaves(params) if leaf.ndim == 4 and leaf.shape[2] == channels
    ]
    if not kernels:
        return []
    return np.split(processes.gathered(kernels[0]).astype(np.float32), columns, -1)


def filter_grid(kernel: np.ndarray, columns: int = 8, zoom: int = 6) -> np.ndarray:
    """Returns kernels [h, w, c, n] as one uint8 RGB image, `columns` side by side.

    Each kernel is scaled to the full range, and enlarged `zoom` times.
    """
    h, w, c, n = kernel.shape
    low, high = kernel.min((0, 1, 2)), kernel.max((0, 1, 2))
    scaled = (255 * (kernel - low) / np.maximum(high - low, 1e-12)).astype(np.uint8)
    scaled = scaled if c == 3 else np.repeat(scaled.mean(2, keepdims=True).astype(np.uint8), 3, 2)
    columns = min(columns, n)
    rows = -(-n // columns)
    grid = np.full((rows * (h + 1) - 1, columns * (w + 1) - 1, 3), 255, np.uint8)
    for i in range(n):
        top, left = i // columns * (h + 1), i % columns * (w + 1)
        grid[top : top + h, left : left + w] = scaled[..., i]
    return grid.repeat(zoom, 0).repeat(zoom, 1)


def draw_filters(path: pathlib.Path, params: Any, channels: int, columns: int = 1) -> str:
    """Writes a network's first kernels as a PNG; returns in words what is in the picture.

    Each kernel is stretched over its own range. Those of a column are below those of the column
    before it. The file is replaced if it exists. Arguments are those of `first_kernels`.

    Raises:
      UserError: no convolution reads the image, its kernels are smaller than LEGIBLE pixels, or
        `path` cannot be written.
    """
    by_column = first_kernels(params, channels, columns)
    if not by_column:
        raise UserError("no convolution of this network reads the image: it has no filters to draw")
    height, width, _, count = by_column[0].shape
    if min(height, width) < LEGIBLE:
        raise UserError(
            f"the first layer's filters of {height}×{width} pixels are too small to draw: "
            f"{LEGIBLE}×{LEGIBLE} is the least"
        )
    grids = [filter_grid(kernels, columns=IN_A_ROW, zoom=1) for kernels in by_column]
    between = np.full((height // 2, grids[0].shape[1], 3), 255, np.uint8)
    image = np.concatenate([part for grid in grids for part in (between, grid)][1:])
    zoom = max(1, round(WIDE / image.shape[1]))
    encoded = cv2.imencode(".png", image.repeat(zoom, 0).repeat(zoom, 1)[..., ::-1])[1]
    with files.atomic_write(path) as part:
        part.write_bytes(encoded.tobytes())
    of_column = f" in each of {columns} columns" if columns > 1 else ""
    return f"{count} filters of {height}×{width} pixels{of_column}"


def draw_curves(workdir: pathlib.Path, headline: Measure) -> pathlib.Path:
    """Draws the loss and `headline` in metrics.jsonl over steps; returns the path of the PNG."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = read_rows(workdir / METRICS)
    figure = Figure(figsize=(9, 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    labels = {"loss": "loss", headline.name: headline.label}
    for axes, (name, label) in zip(figure.subplots(1, 2), labels.items(), strict=True):
        for side, text, style in (("train", "training", "-"), ("val", "evaluation", "o-")):
            points = [
                (row["step"], row[f"{side}/{name}"]) for row in rows if f"{side}/{name}" in row
            ]
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
