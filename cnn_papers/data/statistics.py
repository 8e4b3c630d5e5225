"""Mean, deviation and colour covariance of a training set, computed once by a streaming pass and kept on disk."""

import hashlib
import logging
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np

from cnn_papers.data.sources import Split
from cnn_papers.errors import UserError

FILE = "statistics.npz"  # a run keeps its own under this name


class Statistics(NamedTuple):
    """Figures of a training set's pixels, float32, in 0 … 255.

    Attributes:
      mean, std: [c], over all pixels of all images.
      mean_image: [h, w, c].
      eigenvalues, eigenvectors: [c] and [c, c] (columns) of the covariance of a pixel's channels, largest first.
    """

    mean: np.ndarray
    std: np.ndarray
    mean_image: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray


def compute(batches: Iterable[np.ndarray]) -> Statistics:
    """One pass over `batches` of uint8 [n, h, w, c], sums in float64."""
    count, total, products = 0, np.zeros(()), np.zeros(())
    for images in batches:
        pixels = images.astype(np.float64)
        count += len(images)
        total = total + pixels.sum(0)
        flat = pixels.reshape(-1, pixels.shape[-1])
        products = products + flat.T @ flat
    mean_image = total / count
    mean = mean_image.mean((0, 1))
    covariance = products / (count * mean_image.shape[0] * mean_image.shape[1]) - np.outer(mean, mean)
    values, vectors = np.linalg.eigh(covariance)
    variance = np.diag(covariance) * (np.diag(covariance) > 1e-6)  # rounding leaves 1e-11 of a constant channel
    figures = (mean, np.sqrt(variance), mean_image, np.maximum(values[::-1], 0), vectors[:, ::-1])
    return Statistics(*(np.ascontiguousarray(figure, np.float32) for figure in figures))


def fingerprint(split: Split, host_ops: str) -> str:
    """Identifies the images that statistics belong to: their number, the operations on them, a sample of the bytes."""
    digest = hashlib.sha256(repr((len(split.examples), host_ops)).encode())
    for index in np.linspace(0, len(split.examples) - 1, 32).astype(int):
        digest.update(split.examples[int(index)]["image"])
    return digest.hexdigest()[:16]


def load_or_compute(split: Split, host_ops: str, batches: Callable[[], Iterable[np.ndarray]]) -> Statistics:
    """The statistics of `split` seen through `host_ops`: from disk where they are, else by one pass over `batches()`.

    They stand beside the data, or in the user's cache folder where the data may not be written to.
    """
    mark = fingerprint(split, host_ops)
    location = pathlib.Path(split.location)
    folders = [location / ".statistics", cache_folder() / "statistics"]  # hidden, or it would be a class of images
    if location.is_dir() and not location.stat().st_mode & 0o222:
        del folders[0]  # root could write there, but it is marked read-only
    for folder in folders:
        if (folder / f"{mark}.npz").is_file():
            return load(folder / f"{mark}.npz")
    logging.getLogger(__name__).info(
        "computing the pixel statistics of %s (%d images)", split.name, len(split.examples)
    )
    statistics = compute(batches())
    for folder in folders:
        try:
            save(folder / f"{mark}.npz", statistics)
            break
        except OSError as error:
            logging.getLogger(__name__).info("statistics not kept in %s: %s", folder, error)
    return statistics


def cache_folder() -> pathlib.Path:
    """Where this project keeps what it can make again: $XDG_CACHE_HOME/cnn_papers, ~/.cache/cnn_papers by default."""
    return pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache") / "cnn_papers"


def save(path: pathlib.Path, statistics: Statistics) -> None:
    """Writes the file at once or not at all, its folder too."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with part.open("wb") as file:
            np.savez(file, **statistics._asdict())
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def load(path: pathlib.Path) -> Statistics:
    """What `save` wrote; UserError for a file that is damaged or not there."""
    try:
        with path.open("rb") as data, np.load(data, allow_pickle=False) as file:
            return Statistics(**{name: file[name] for name in Statistics._fields})
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(
            f"the statistics in {path} cannot be read ({error}); delete the file to compute them again"
        ) from error
