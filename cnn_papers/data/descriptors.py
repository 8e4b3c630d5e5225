"""Descriptors of an image on a regular grid, at several scales: SIFT, and statistics of colours.

Lowe: Distinctive Image Features from Scale-Invariant Keypoints. IJCV 60(2), 2004.
Clinchant, Csurka, Perronnin, Renders: XRCE's Participation to ImagEval. 2007.

A descriptor of SIFT has 4×4 bins in space and 8 of orientation. On a grid its sums are separable: a
pixel's weight in a bin is a product of one in its row and one in its column. `_sift` sums rows,
then columns; it computes what OpenCV's `SIFT.compute` does for upright keypoints. OpenCV smooths by
one fixed amount whatever a keypoint's size, so a scale is made by resizing the image.

A descriptor of colours has the mean and the standard deviation of red, green and blue in the same
4×4 bins, of which each pixel is in one.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import cv2
import numpy as np

from cnn_papers.data import image_files

BINS = 4  # along each side
ORIENTATIONS = 8
CHANNELS = 3
_SMOOTHING = (1.6**2 - 0.5**2) ** 0.5  # Lowe §3.3: to 1.6 pixels, from the 0.5 of a camera
_LARGEST = 0.2  # §6.1: of a value of the unit vector
_WHITE = 512  # OpenCV's unit, in which nearly all values are below 255
_ROUNDING = 1e-3  # grey levels; a smaller gradient is the rounding of an area of one colour


def dense(
    image: np.ndarray, kinds: Sequence[str], step: int, bin_size: int, scales: tuple[float, ...]
) -> np.ndarray:
    """Returns the descriptors of uint8 [h, w, c], uint8 [k, columns], scale by scale, row by row.

    A row has the values of each kind, bin by bin, and the place y, x of the descriptor's centre as
    0 … 255: 130 columns of SIFT, 98 of colours, 226 of both. A row without any value, such as one
    of an area of one colour where there are no colours, is zero.

    Args:
      image: RGB or grey.
      kinds: names of KINDS, in their order.
      step: pixels between descriptors.
      bin_size: pixels of a bin.
      scales: factors by which the image is resized.
    """
    converted = {name: KINDS[name].convert(image) for name in kinds}
    parts = []
    for scale in scales:
        height, width = scaled(image.shape, scale)
        rows, columns = grid(height, step, bin_size), grid(width, step, bin_size)
        if not len(rows) or not len(columns):
            continue
        image_files.check_pixels(height, width, "cannot be scaled")
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        values = []
        for name, pixels in converted.items():
            resized = cv2.resize(pixels, (width, height), interpolation=interpolation)
            values.append(KINDS[name].describe(resized, rows, columns, bin_size))
        places = np.stack(
            np.meshgrid(rows / max(1, height - 1), columns / max(1, width - 1), indexing="ij"), -1
        )
        places = np.rint(255 * places).astype(np.uint8).reshape(-1, 2)
        places[~np.any([part.any(1) for part in values], 0)] = 0
        parts.append(np.concatenate([*values, places], 1))
    columns_of_all = sum(KINDS[name].values for name in kinds) + 2
    return np.concatenate(parts) if parts else np.zeros((0, columns_of_all), np.uint8)


def count(shape: tuple[int, ...], step: int, bin_size: int, scales: tuple[float, ...]) -> int:
    """Returns the number of descriptors that `dense` gives of an image of `shape` (h, w)."""
    sizes = [scaled(shape, scale) for scale in scales]
    return sum(len(grid(h, step, bin_size)) * len(grid(w, step, bin_size)) for h, w in sizes)


def scaled(shape: tuple[int, ...], scale: float) -> tuple[int, int]:
    """Returns (h, w) times `scale`, at least one pixel each."""
    return max(1, round(scale * shape[0])), max(1, round(scale * shape[1]))


def grid(length: int, step: int, bin_size: int) -> np.ndarray:
    """Returns the centres, int [n], along a side of `length`, as far from one end as the other.

    The bins of each lie within the side, but for half a pixel.
    """
    free = length - BINS * bin_size
    if free < 0:
        return np.zeros(0, np.int64)
    first = (length - 1 - free // step * step) // 2
    return first + step * np.arange(free // step + 1)


# --- SIFT -----------------------------------------------------------------------------------------


def _grey(image: np.ndarray) -> np.ndarray:
    grey = image[..., 0] if image.shape[2] == 1 else cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    return grey.astype(np.float32)


def _sift(grey: np.ndarray, rows: np.ndarray, columns: np.ndarray, bin_size: int) -> np.ndarray:
    return _normalised(_sums(_gradients(grey), rows, columns, bin_size))


def _gradients(grey: np.ndarray) -> np.ndarray:
    """Returns the gradients of float32 [h, w] as [h, w, 8], shared between two orientations each.

    Those of the outermost pixels are zero. The y axis points up.
    """
    grey = cv2.GaussianBlur(grey, (0, 0), _SMOOTHING)
    across, upward = np.zeros_like(grey), np.zeros_like(grey)
    across[1:-1, 1:-1] = grey[1:-1, 2:] - grey[1:-1, :-2]
    upward[1:-1, 1:-1] = grey[:-2, 1:-1] - grey[2:, 1:-1]
    length, angle = cv2.cartToPolar(across, upward)
    length[length < _ROUNDING] = 0
    orientation = (angle * np.float32(ORIENTATIONS / (2 * np.pi))).ravel()
    below = np.floor(orientation)
    part = orientation - below
    pixel, lower = np.arange(grey.size), below.astype(np.int64) % ORIENTATIONS
    gradients = np.zeros((grey.size, ORIENTATIONS), np.float32)
    gradients[pixel, lower] = (1 - part) * length.ravel()
    gradients[pixel, (lower + 1) % ORIENTATIONS] = part * length.ravel()
    return gradients.reshape(*grey.shape, ORIENTATIONS)


def _sums(
    gradients: np.ndarray, rows: np.ndarray, columns: np.ndarray, bin_size: int
) -> np.ndarray:
    """Returns the weighted sums of [h, w, 8] in the bins around every (row, column), [k, 128]."""
    height, width, _ = gradients.shape
    by_row = _along(gradients.reshape(height, -1), rows, bin_size)  # [rows, bins, w · 8]
    by_row = by_row.reshape(-1, width, ORIENTATIONS).swapaxes(0, 1)
    both = _along(by_row.reshape(width, -1), columns, bin_size)  # [columns, bins, rows · bins · 8]
    both = both.reshape(len(columns), BINS, len(rows), BINS, ORIENTATIONS)
    return both.transpose(2, 0, 3, 1, 4).reshape(-1, BINS * BINS * ORIENTATIONS)


def _along(values: np.ndarray, centers: np.ndarray, bin_size: int) -> np.ndarray:
    """Returns the weighted sums of [length, m] in the four bins around each centre, [n, 4, m]."""
    offsets = np.arange(-BINS * bin_size, BINS * bin_size + 1) / bin_size  # in bins
    middles = np.arange(BINS) - (BINS - 1) / 2
    # Shared between neighbouring bins; a Gaussian of half the descriptor's width (§6.1).
    weights = np.maximum(0, 1 - np.abs(offsets - middles[:, None]))
    weights = weights * np.exp(-(offsets**2) / (2 * (BINS / 2) ** 2))
    taps, reach = weights.shape[1], weights.shape[1] // 2
    padded = np.pad(values, ((reach, reach), (0, 0)))
    step = int(centers[1] - centers[0]) if len(centers) > 1 else 1
    row, column = padded.strides
    windows = np.lib.stride_tricks.as_strided(
        padded[centers[0] :],
        (len(centers), taps, values.shape[1]),
        (step * row, row, column),
        writeable=False,
    )
    return weights.astype(np.float32) @ windows


def _normalised(sums: np.ndarray) -> np.ndarray:
    """Returns unit vectors without large values, uint8 [k, 128] (§6.1); zeros stay zeros."""
    for largest in (_LARGEST, np.inf):
        norm = np.sqrt(np.square(sums).sum(1, keepdims=True))
        sums = np.minimum(sums / np.maximum(norm, np.finfo(np.float32).eps), largest)
    return np.minimum(np.rint(_WHITE * sums), 255).astype(np.uint8)


# --- colours --------------------------------------------------------------------------------------


def _rgb(image: np.ndarray) -> np.ndarray:
    return np.broadcast_to(image, (*image.shape[:2], CHANNELS)).astype(np.float32)


def _colours(rgb: np.ndarray, rows: np.ndarray, columns: np.ndarray, bin_size: int) -> np.ndarray:
    """Returns means and twice the deviations, 0 … 255, of float32 [h, w, 3], as uint8 [k, 96]."""

    def means(values: np.ndarray) -> np.ndarray:
        by_corner = cv2.boxFilter(values, cv2.CV_64F, (bin_size, bin_size), anchor=(0, 0))
        of_bins = by_corner[top[:, None, :, None], left[None, :, None, :]]
        return of_bins.reshape(-1, BINS * BINS, CHANNELS)

    starts = bin_size * np.arange(-BINS // 2, BINS // 2) + 1  # of the bins about a centre
    top, left = rows[:, None] + starts, columns[:, None] + starts
    mean = means(rgb)
    deviation = np.sqrt(np.maximum(0, means(rgb**2) - mean**2))
    values = np.concatenate([mean, 2 * deviation], 2).reshape(len(mean), -1)
    return np.minimum(np.rint(values), 255).astype(np.uint8)


class _Kind(NamedTuple):
    """One kind of descriptors: its values, and how they are made of an image.

    Attributes:
      values: of a descriptor.
      convert: makes of uint8 [h, w, c] the pixels that are resized.
      describe: makes of them and of rows, columns and size of the bins uint8 [k, values].
    """

    values: int
    convert: Callable[[np.ndarray], np.ndarray]
    describe: Callable[[np.ndarray, np.ndarray, np.ndarray, int], np.ndarray]


KINDS = {
    "sift": _Kind(BINS * BINS * ORIENTATIONS, _grey, _sift),
    "colours": _Kind(BINS * BINS * 2 * CHANNELS, _rgb, _colours),
}
