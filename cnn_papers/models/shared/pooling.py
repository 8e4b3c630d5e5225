"""Max pooling, adaptive bins, spatial pyramids and the pooling of windows."""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np


def max_pool(
    x: jax.Array, window: int, stride: int, *, padding: int = 0, ceil_mode: bool = False
) -> jax.Array:
    """Max pooling of [n, h, w, c] over window×window at `stride`, `padding` pixels of -inf on every
    side.

    With `ceil_mode` the last window may hang over the lower and right edge, as Caffe's and
    cuda-convnet's do, but never starts beyond the padded input.
    """
    pads: Any = [
        (padding, padding + _overhang(size, window, stride, padding) if ceil_mode else padding)
        for size in x.shape[1:3]
    ]
    return nn.max_pool(x, (window, window), (stride, stride), pads)


def _overhang(size: int, window: int, stride: int, padding: int) -> int:
    """How many pixels the last window reaches over the lower edge when the output size is rounded
    up.
    """
    count = -(-(size + 2 * padding - window) // stride) + 1
    if (count - 1) * stride >= size + padding:  # it would start in the padding: Caffe drops it
        count -= 1
    return max(0, (count - 1) * stride + window - size - 2 * padding)


def pool_into_bins(x: jax.Array, m: int, reduce: Callable[..., jax.Array]) -> jax.Array:
    """[n, h, w, c] of any size to [n, m, m, c]: `reduce` (jnp.mean, jnp.max) over m×m bins, which
    cover every cell.

    Bin i along a side of a cells is [⌊i·a/m⌋, ⌈(i+1)·a/m⌉) (SPP-net, Appendix A; torch's adaptive
    pooling).
    """
    for axis in (1, 2):
        size = x.shape[axis]
        bins = [
            jax.lax.slice_in_dim(x, i * size // m, -(-(i + 1) * size // m), axis=axis)
            for i in range(m)
        ]
        x = jnp.concatenate([reduce(part, axis, keepdims=True) for part in bins], axis)
    return x


def pyramid_pool(x: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """[n, h, w, c] of any size to [n, 1, 1, bins·c]: for each level m the maxima of m×m bins
    (SPP-net §2.2).
    """
    largest = functools.partial(
        jnp.max, initial=-jnp.inf
    )  # of an empty map: see refuse_small_images
    return jnp.concatenate(
        [pool_into_bins(x, m, largest).reshape(x.shape[0], 1, 1, -1) for m in levels], -1
    )


def window_features(
    feature_map: jax.Array,
    windows: jax.Array,
    levels: tuple[int, ...],
    *,
    stride: int,
    offset: float = 0.0,
) -> jax.Array:
    """The pyramid over each window of one feature map: [h, w, c] and [k, 4] to [k, bins·c] (SPP-net
    §4.1, Appendix A).

    `windows` are left, top, right, bottom in image pixels; `stride` is S, the pixels from one cell
    to the next, and `offset` the first cell's centre, 0 if every layer pads ⌊size/2⌋. A window
    covers the cells whose centres lie inside
    it: left and top ⌊x/S⌋ + 1, right and bottom ⌈x/S⌉ - 1, cut off at the map's edges. One that
    holds no centre takes the cell at its middle, as the released code does. A bin costs four
    look-ups, whatever its size.
    """
    h, w, _ = feature_map.shape
    maxima = _block_maxima(_block_maxima(feature_map[None, None], 1, 3), 0, 2)
    m, row, column = np.array(
        [(m, row, column) for m in levels for row in range(m) for column in range(m)]
    ).T
    left, top, right, bottom = (windows - offset).T
    high, *ys = _blocks(*_bins(*_cells(top, bottom, stride, h), row, m))
    wide, *xs = _blocks(*_bins(*_cells(left, right, stride, w), column, m))
    features = jnp.stack([maxima[high, wide, y, x] for y in ys for x in xs]).max(0)
    return features.reshape(len(windows), -1)


def _cells(low: jax.Array, high: jax.Array, stride: int, size: int) -> tuple[jax.Array, jax.Array]:
    """The first and one past the last of `size` cells whose centres lie between two borders."""
    first = (low // stride).astype(
        jnp.int32
    ) + 1  # not floor(low / stride): XLA multiplies by an inexact 1 / stride
    last = -(-high // stride).astype(jnp.int32) - 1
    middle = (first + last) // 2
    first, last = (jnp.where(first > last, middle, end).clip(0, size - 1) for end in (first, last))
    return first, last + 1


def _bins(
    start: jax.Array, stop: jax.Array, i: np.ndarray, m: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """Starts and ends, [k, bins], of bin i of the m that `pyramid_pool` makes of the cells from
    `start` to `stop`.
    """
    start, size, i, m = start[:, None], (stop - start)[:, None], i[None], m[None]
    return start + i * size // m, start - (-(i + 1) * size // m)


def _blocks(start: jax.Array, stop: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The two blocks of 2^power cells that together cover the cells of a bin: power, and where each
    starts.
    """
    power = 31 - jax.lax.clz(stop - start)
    return power, start, stop - (1 << power)


def _block_maxima(x: jax.Array, table: int, axis: int) -> jax.Array:
    """Concatenates along `table` the maxima of 1, 2, 4, … cells along `axis` from each cell
    onwards.
    """
    blocks = [x]
    for power in range(x.shape[axis].bit_length() - 1):
        blocks.append(
            jnp.maximum(blocks[-1], jnp.roll(blocks[-1], -(2**power), axis))
        )  # no bin reads what wraps round
    return jnp.concatenate(blocks, table)
