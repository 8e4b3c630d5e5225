"""Pixel statistics and whitening of a training set, computed once by a pass and kept on disk."""

import contextlib
import hashlib
import logging
import os
import pathlib
from collections.abc import Callable, Iterable, Iterator, Sequence
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
    """Statistics of whole images as vectors of d = h·w·c values, float32.

    The images are those that the operation `zca` is given.

    Attributes:
      mean: [d].
      eigenvalues, eigenvectors: [d] and [d, d] (columns) of their covariance, largest first.
    """

    mean: np.ndarray
    eigenvalues: np.ndarray
    eigenvectors: np.ndarray


class Statistics(NamedTuple):
    """Statistics of a training set's pixels, float32; pixels are in 0 … 255.

    Attributes:
      mean, std: [c], over all pixels of all images.
      mean_image: [h, w, c], of the views of `eval_host`: on ImageNet of central crops.
      eigenvalues, eigenvectors: [c] and [c, c] (columns) of the covariance of a pixel's channels,
        largest first.
      whitening: None unless an operation needs it.
      fingerprint: identifies the images and the operations on them.
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
    """Computes statistics in one pass over `batches` of uint8 [n, h, w, c], sums in float64."""
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
    variance = np.diag(covariance)
    variance = variance * (variance > 1e-6)  # rounding leaves 1e-11 of a constant channel
    return Statistics(
        mean=_float32(mean),
        std=_float32(np.sqrt(variance)),
        mean_image=_float32(mean_image),
        eigenvalues=_float32(np.maximum(values[::-1], 0)),
        eigenvectors=_float32(vectors[:, ::-1]),
    )


def _float32(array: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(array, np.float32)


def compute_whitening(batches: Iterable[np.ndarray]) -> Whitening:
    """Computes whitening in one pass over `batches` of float [n, h, w, c], sums in float64.

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
    return Whitening(
        mean=_float32(mean),
        eigenvalues=_float32(np.maximum(values[::-1], 0)),
        eigenvectors=_float32(vectors[:, ::-1]),
    )


def fingerprint(split: Split, ops: str) -> str:
    """Returns a digest of the images that statistics belong to.

    It is of their number, the text `ops` of the operations on them, a sample of their bytes, all of
    their objects, and the fields of the file.
    """
    digest = hashlib.sha256(repr((len(split.examples), ops, Statistics._fields)).encode())
    for index in np.linspace(0, len(split.examples) - 1, 32).astype(int):
        try:
            digest.update(split.examples[int(index)]["image"])
        except DamagedExample:
            digest.update(b"damaged")
    for image in split.objects or ():
        for array in (image.boxes, image.classes, image.difficult, np.array(image.size)):
            digest.update(array.tobytes())
    return digest.hexdigest()[:16]


def load_or_compute(
    split: Split, host_ops: str, batches: Callable[[], Iterable[np.ndarray]]
) -> Statistics:
    """Returns the statistics of `split` after `host_ops`, the text of the host operations.

    They are read from disk if they were kept, else computed by a pass over `batches()` and kept:
    beside the data, or in the user's cache folder if the data cannot be written to.
    """

    def make() -> Statistics:
        return compute(_with_progress(batches(), split, "pixel statistics"))

    return _load_or_make(split, host_ops, make)


def with_whitening(
    statistics: Statistics, split: Split, ops: str, batches: Callable[[], Iterable[np.ndarray]]
) -> Statistics:
    """Returns `statistics` with the whitening of `split` after `ops`, kept as they are.

    Args:
      ops: the text of the host and device operations before `zca`, part of the fingerprint.
      batches: yields the images that `zca` is given.
    """

    def make() -> Statistics:
        whitening = compute_whitening(_with_progress(batches(), split, "whitening"))
        return statistics._replace(whitening=whitening)

    return _load_or_make(split, ops, make)


def _with_progress(batches: Iterable[np.ndarray], split: Split, what: str) -> Iterable[np.ndarray]:
    logging.getLogger(__name__).info(
        "computing the %s of %s (%d images)", what, split.name, len(split.examples)
    )
    return reported(batches, len(split.examples), f"{what} of {split.name}", size=len)


def _load_or_make(split: Split, ops: str, make: Callable[[], Statistics]) -> Statistics:
    """Returns the statistics that are kept for these images, or makes and keeps them."""
    digest = fingerprint(split, ops)
    if kept := _kept(split, digest):
        return kept
    with made_once(split, f"{digest}.npz"):
        if kept := _kept(split, digest):  # another process has made them
            return kept
        statistics = make()._replace(fingerprint=digest)
        for folder in places(split):
            try:
                save(folder / f"{digest}.npz", statistics)
                break
            except OSError as error:
                logging.getLogger(__name__).info("statistics not kept in %s: %s", folder, error)
        return statistics


def _kept(split: Split, digest: str) -> Statistics | None:
    """Returns the statistics that are kept under a digest, None if none are."""
    for folder in places(split):
        path = folder / f"{digest}.npz"
        if path.is_file():
            statistics = load(path)
            if statistics.fingerprint != digest:
                raise UserError(
                    f"the statistics in {path} belong to other images than {split.name}: "
                    "delete the file"
                )
            return statistics
    return None


@contextlib.contextmanager
def made_once(split: Split, name: str) -> Iterator[None]:
    """Waits until no other process makes the file `name` of `places`: runs may start at once."""
    with contextlib.ExitStack() as held:
        for folder in places(split):
            with contextlib.suppress(OSError):
                held.enter_context(files.one_at_a_time(folder / name))
                break
        yield


def places(split: Split) -> list[pathlib.Path]:
    """Returns the folders for statistics and proposals: beside the data, in the user's cache."""
    location = pathlib.Path(split.location)
    user_cache = cache_folder()
    cache = [user_cache / "statistics"] if user_cache else []
    if location.is_dir() and not location.stat().st_mode & 0o222:
        return cache  # root could write beside the data, but it is marked read-only
    return [location / ".statistics", *cache]  # hidden, or it would be a class of images


def cache_folder() -> pathlib.Path | None:
    """Returns the user's cache folder, $XDG_CACHE_HOME/cnn_papers or ~/.cache/cnn_papers.

    Returns None for a user without a home folder: whoever can write to a folder that all users
    share could put programs into it.
    """
    root = os.path.expanduser(os.environ.get("XDG_CACHE_HOME") or "~/.cache")
    return None if root.startswith("~") else pathlib.Path(root) / "cnn_papers"


def save(path: pathlib.Path, statistics: Statistics) -> None:
    """Writes statistics to `path` in one step, and makes its folder.

    Raises:
      UserError: as `check_same`.
    """
    check_same(path, statistics)
    arrays = statistics._asdict()
    if whitening := arrays.pop("whitening"):
        arrays |= {_WHITENING + name: array for name, array in whitening._asdict().items()}
    with files.replacing(path) as part, part.open("wb") as file:
        np.savez(file, **arrays)


def check_same(path: pathlib.Path, statistics: Statistics) -> None:
    """Raises UserError if `path` exists and has statistics of other images."""
    if path.is_file() and load(path).fingerprint != statistics.fingerprint:
        raise UserError(
            f"the statistics in {path} belong to other images than these: the data has changed "
            "since; start a new run in another folder"
        )


def load(path: pathlib.Path) -> Statistics:
    """Reads the statistics that `save` wrote; UserError for a file that is damaged or missing."""
    if not path.exists():
        raise UserError(
            f"{path} is missing, the statistics of the training images; "
            "the command that trained the run writes it again, also when the run is finished"
        )
    try:
        arrays = files.read_npz(path)
        names = [*PIXEL_ARRAYS]
        if _WHITENING + "mean" in arrays:
            names += [_WHITENING + name for name in Whitening._fields]
        return from_arrays([arrays[name] for name in names], str(arrays["fingerprint"]))
    except (ValueError, TypeError, KeyError) as error:
        raise UserError(
            f"the statistics in {path} cannot be read ({error}); "
            "delete the file to compute them again"
        ) from error
