"""Figures of a training set's images: pixel statistics and whitening, each computed once by a pass
and kept on disk.
"""

import hashlib
import logging
import os
import pathlib
import zipfile
import zlib
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from cnn_papers import files
from cnn_papers.data.progress import reported
from cnn_papers.data.split import DamagedExample, Split
from cnn_papers.errors import UserError

FILE = "statistics.npz"  # a run keeps its own under this name
WHITENING_VALUES = 64 * 64 * 3  # of an image; the covariance of larger ones takes gigabytes
PIXEL_ARRAYS = ("mean", "std", "mean_image", "eigenvalues", "eigenvectors")  # of `Statistics`
_WHITENING = "whitening_"  # prefix of the names of its arrays in a file


class Whitening(NamedTuple):
    """Figures of whole images as vectors of d = h·w·c values, float32, as they come to the
    operation `zca`.

    Attributes:
      mean: [d].
      eigenvalues, eigenvectors: [d] and [d, d] (columns) of their covariance, largest first.
    """

    mean: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray


class Statistics(NamedTuple):
    """Figures of a training set's pixels, float32, in 0 … 255.

    Attributes:
      mean, std: [c], over all pixels of all images.
      mean_image: [h, w, c].
      eigenvalues, eigenvectors: [c] and [c, c] (columns) of the covariance of a pixel's channels,
      largest first.
      whitening: None unless an operation asks for it.
      fingerprint: of the images and of what was done to them.
    """

    mean: np.ndarray
    std: np.ndarray
    mean_image: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray
    whitening: Whitening | None = None
    fingerprint: str = ""


def to_arrays(statistics: Statistics) -> list[np.ndarray]:
    """Returns all arrays of `statistics`, those of the whitening (if there is any) last."""
    pixels = [getattr(statistics, name) for name in PIXEL_ARRAYS]
    return [*pixels, *(statistics.whitening or ())]


def from_arrays(arrays: Sequence[np.ndarray], fingerprint: str) -> Statistics:
    """Returns the statistics that `to_arrays` took apart."""
    count = len(PIXEL_ARRAYS)
    pixels, whitening = arrays[:count], arrays[count:]
    return Statistics(
        *pixels,
        whitening=Whitening(*whitening) if whitening else None,
        fingerprint=fingerprint,
    )


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
    covariance = products / (count * mean_image.shape[0] * mean_image.shape[1]) - np.outer(
        mean, mean
    )
    values, vectors = np.linalg.eigh(covariance)
    variance = np.diag(covariance) * (
        np.diag(covariance) > 1e-6
    )  # rounding leaves 1e-11 of a constant channel
    spread, axes = np.maximum(values[::-1], 0), vectors[:, ::-1]
    return Statistics(
        _single(mean),
        _single(np.sqrt(variance)),
        _single(mean_image),
        _single(spread),
        _single(axes),
    )


def _single(figure: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(figure, np.float32)


def compute_whitening(batches: Iterable[np.ndarray]) -> Whitening:
    """One pass over `batches` of float [n, h, w, c], sums in float64, then one eigen-decomposition.

    Raises:
      UserError: images of more than WHITENING_VALUES values.
    """
    count, total, products = 0, np.zeros(()), np.zeros(())
    for images in batches:
        flat = np.asarray(images, np.float64).reshape(len(images), -1)
        if flat.shape[1] > WHITENING_VALUES:
            raise UserError(
                f"zca whitens images of up to {WHITENING_VALUES:,} values, not {flat.shape[1]:,}"
            )
        count += len(flat)
        total = total + flat.sum(0)
        products = products + flat.T @ flat
    mean = total / count
    values, vectors = np.linalg.eigh(products / count - np.outer(mean, mean))
    return Whitening(_single(mean), _single(np.maximum(values[::-1], 0)), _single(vectors[:, ::-1]))


def fingerprint(split: Split, ops: str) -> str:
    """Identifies the images that figures belong to: their number, the operations on them, a sample
    of the bytes.
    """
    digest = hashlib.sha256(
        repr((len(split.examples), ops, Statistics._fields)).encode()
    )  # and the form of the file
    for index in np.linspace(0, len(split.examples) - 1, 32).astype(int):
        try:
            digest.update(split.examples[int(index)]["image"])
        except DamagedExample:
            digest.update(b"damaged")
    return digest.hexdigest()[:16]


def load_or_compute(
    split: Split, host_ops: str, batches: Callable[[], Iterable[np.ndarray]]
) -> Statistics:
    """The statistics of `split` seen through `host_ops`: from disk where they are, else by one pass
    over `batches()`.

    They stand beside the data, or in the user's cache folder where the data may not be written to.
    """
    return _kept(
        split, host_ops, lambda: compute(_with_progress(batches(), split, "pixel statistics"))
    )


def with_whitening(
    statistics: Statistics, split: Split, ops: str, batches: Callable[[], Iterable[np.ndarray]]
) -> Statistics:
    """`statistics` with the whitening of `split` seen through `ops`, kept like them.

    Args:
      ops: host and device operations before `zca`, to know the images by.
      batches: the images that come to `zca`.
    """

    def whitened() -> Statistics:
        return statistics._replace(
            whitening=compute_whitening(_with_progress(batches(), split, "whitening"))
        )

    return _kept(split, ops, whitened)


def _with_progress(batches: Iterable[np.ndarray], split: Split, what: str) -> Iterable[np.ndarray]:
    logging.getLogger(__name__).info(
        "computing the %s of %s (%d images)", what, split.name, len(split.examples)
    )
    return reported(batches, len(split.examples), f"{what} of {split.name}", size=len)


def _kept(split: Split, ops: str, make: Callable[[], Statistics]) -> Statistics:
    """What was kept for these images, or what `make` makes, kept from now on."""
    mark = fingerprint(split, ops)
    folders = places(split)
    for file in (folder / f"{mark}.npz" for folder in folders):
        if file.is_file():
            statistics = load(file)
            if statistics.fingerprint != mark:
                raise UserError(
                    f"the statistics in {file} belong to other images than {split.name}: delete the file"
                )
            return statistics
    statistics = make()._replace(fingerprint=mark)
    for folder in folders:
        try:
            save(folder / f"{mark}.npz", statistics)
            break
        except OSError as error:
            logging.getLogger(__name__).info("statistics not kept in %s: %s", folder, error)
    return statistics


def places(split: Split) -> list[pathlib.Path]:
    """The folders where the figures of `split` may be kept: beside the data, in the user's cache."""
    location = pathlib.Path(split.location)
    beside = [location / ".statistics"]  # hidden, or it would be a class of images
    if location.is_dir() and not location.stat().st_mode & 0o222:
        beside = []  # root could write there, but it is marked read-only
    return [*beside, cache_folder() / "statistics"]


def cache_folder() -> pathlib.Path:
    """Where this project keeps what it can make again: $XDG_CACHE_HOME/cnn_papers,
    ~/.cache/cnn_papers by default.
    """
    return (
        pathlib.Path(os.environ.get("XDG_CACHE_HOME") or pathlib.Path.home() / ".cache")
        / "cnn_papers"
    )


def save(path: pathlib.Path, statistics: Statistics) -> None:
    """Writes the file at once or not at all, its folder too; UserError if it holds statistics of
    other images.
    """
    if path.is_file() and load(path).fingerprint != statistics.fingerprint:
        raise UserError(
            f"the statistics in {path} belong to other images than these: the data has changed since; start a new "
            "run in another folder"
        )
    arrays = statistics._asdict()
    if whitening := arrays.pop("whitening"):
        arrays |= {_WHITENING + name: array for name, array in whitening._asdict().items()}
    with files.replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def load(path: pathlib.Path) -> Statistics:
    """What `save` wrote; UserError for a file that is damaged or not there."""
    try:
        files.refuse_bomb(path)
        with path.open("rb") as data, np.load(data, allow_pickle=False) as file:
            whole = _WHITENING + "mean" in file
            whitening = (
                Whitening(*(file[_WHITENING + name] for name in Whitening._fields))
                if whole
                else None
            )
            pixels = (file[name] for name in Statistics._fields[:5])
            return Statistics(*pixels, whitening=whitening, fingerprint=str(file["fingerprint"]))
    except (
        OSError,
        ValueError,
        TypeError,
        KeyError,
        EOFError,
        MemoryError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        raise UserError(
            f"the statistics in {path} cannot be read ({error}); delete the file to compute them again"
        ) from error
