"""Mirrors images, and the descriptors of images, from left to right; NumPy's and JAX's arrays."""

from collections.abc import Callable
from typing import Any, TypeVar

Array = TypeVar("Array")  # of NumPy or JAX: the same goes in and comes out

BINS, ORIENTATIONS = 4, 8  # of a descriptor: 4×4 places, 8 orientations each; then y and x


def for_input_of(model: Any) -> Callable[[Array], Array]:
    """Returns the function that mirrors what `model` takes: `images` or `descriptors`."""
    return descriptors if getattr(model, "takes_descriptors", False) else images


def images(image: Any) -> Any:
    """Returns images [..., h, w, c] mirrored."""
    return image[..., ::-1, :]


def descriptors(image: Any) -> Any:
    """Returns descriptors [..., k, 130, 1] of `host_ops.dense_sift` as of the mirror image.

    The bins change places from left to right, orientation i becomes 4 - i of 8, and x becomes
    255 - x. Rows of zeros stay zeros.
    """
    arrays = image.__array_namespace__()
    values, y, x = image[..., :-2, :], image[..., -2:-1, :], image[..., -1:, :]
    bins = values.reshape(*values.shape[:-2], BINS, BINS, ORIENTATIONS)
    orientations = [(ORIENTATIONS // 2 - i) % ORIENTATIONS for i in range(ORIENTATIONS)]
    mirrored = bins[..., ::-1, :][..., arrays.asarray(orientations)].reshape(values.shape)
    is_present = (values > 0).any(axis=-2, keepdims=True)
    return arrays.concatenate([mirrored, y, arrays.where(is_present, 255 - x, x)], axis=-2)
