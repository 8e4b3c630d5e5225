"""Mirrors images, and the descriptors of images, from left to right; NumPy's and JAX's arrays."""

from collections.abc import Callable
from typing import Any, TypeVar

Array = TypeVar("Array")  # of NumPy or JAX: the same goes in and comes out

BINS, ORIENTATIONS = 4, 8  # of a descriptor of SIFT: 4×4 places, 8 orientations each
SIFT = BINS * BINS * ORIENTATIONS


def for_input_of(model: Any) -> Callable[[Array], Array]:
    """Returns the function that mirrors what `model` takes: `images` or `descriptors`."""
    return descriptors if getattr(model, "takes_descriptors", False) else images


def images(image: Any) -> Any:
    """Returns images [..., h, w, c] mirrored."""
    return image[..., ::-1, :]


def descriptors(image: Any) -> Any:
    """Returns descriptors [..., k, columns, 1] of `host_ops` as of the mirror image.

    The bins change places from left to right, orientation i becomes 4 - i of 8, and x becomes
    255 - x. Rows of zeros stay zeros.
    """
    arrays = image.__array_namespace__()
    values, y, x = image[..., :-2, :], image[..., -2:-1, :], image[..., -1:, :]
    first_colour = values.shape[-2] // SIFT * SIFT  # colours, which are fewer, follow SIFT
    mirrored = []
    if first_colour:
        turned = [(ORIENTATIONS // 2 - i) % ORIENTATIONS for i in range(ORIENTATIONS)]
        mirrored.append(_mirrored(values[..., :first_colour, :], arrays.asarray(turned)))
    if first_colour < values.shape[-2]:
        mirrored.append(_mirrored(values[..., first_colour:, :], slice(None)))
    is_present = (values > 0).any(axis=-2, keepdims=True)
    return arrays.concatenate([*mirrored, y, arrays.where(is_present, 255 - x, x)], axis=-2)


def _mirrored(values: Any, order: Any) -> Any:
    """Returns one kind of descriptors [..., v, 1] mirrored, the values of a bin in a new order."""
    bins = values.reshape(*values.shape[:-2], BINS, BINS, values.shape[-2] // BINS**2)
    return bins[..., ::-1, :][..., order].reshape(values.shape)
