"""Max pooling, adaptive bins, spatial pyramids and pyramids over windows of a map."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers.models.shared import fusion


def max_pool(
    x: jax.Array, window: int, stride: int, *, padding: int = 0, ceil_mode: bool = False
) -> jax.Array:
    """Returns maxima of [n, h, w, c] over window×window pixels at `stride`.

    Every side is padded by `padding` pixels of -inf. With `ceil_mode` the output size is rounded
    up: the last window may extend beyond the lower and right edge, as in Caffe and cuda-convnet,
    which `nn.max_pool` does not do. It never starts in the lower or right padding.
    """
    pads = [
        (padding, padding + _overhang(size, window, stride, padding) if ceil_mode else padding)
        for size in x.shape[1:3]
    ]
    x = jnp.pad(x, [(0, 0), *pads, (0, 0)], constant_values=-jnp.inf)
    if min(x.shape[1:3]) < window:  # no window: see refuse_small_images
        rows, columns = (max(0, (size - window) // stride + 1) for size in x.shape[1:3])
        return x[:, :rows, :columns]
    return _window_maxima(x, window, stride)


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _window_maxima(x: jax.Array, window: int, stride: int) -> jax.Array:
    """Returns the maxima of the windows that lie within [n, h, w, c].

    They are the maxima of window² strided slices of `x`, one for each place in a window. XLA
    compiles that to one loop on CPU; its own pooling does not fuse with the layer before it, and
    finds the gradient by a scatter, which took half of GoogLeNet's step. Here the gradient is a sum
    of window² padded selections. As in `nn.max_pool`, the first maximum of a window takes it all.
    """
    return functools.reduce(jnp.maximum, _slices(x, window, stride))


def _window_maxima_forward(
    x: jax.Array, window: int, stride: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    maxima: Any = _window_maxima(x, window, stride)
    return maxima, (x, maxima)


def _window_maxima_backward(
    window: int, stride: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array]:
    x, maxima = saved
    find = functools.partial(_first_maxima, window, stride)
    spread = functools.partial(_spread, window, stride, x.shape[1:3])
    if not fusion.is_on_one_cpu():
        return (spread(find(x, maxima), gradient),)

    def place_of_first(x: jax.Array, maxima: jax.Array) -> jax.Array:
        places = jnp.full(maxima.shape, window**2)  # of no pixel, as where the maximum is NaN
        for place, first in enumerate(find(x, maxima)):
            places = jnp.where(first, place, places)
        return places

    def spread_places(places: jax.Array, gradient: jax.Array) -> jax.Array:
        return spread([places == place for place in range(window**2)], gradient)

    places = fusion.apart(place_of_first, x, maxima)
    return (fusion.apart(spread_places, places, gradient),)


def _first_maxima(window: int, stride: int, x: jax.Array, maxima: jax.Array) -> list[jax.Array]:
    """Returns, for each place in a window, row by row, where it holds the first maximum."""
    taken = jnp.zeros(maxima.shape, bool)
    firsts = []
    for values in _slices(x, window, stride):
        first = (values == maxima) & ~taken
        taken |= first
        firsts.append(first)
    return firsts


def _spread(
    window: int,
    stride: int,
    sides: tuple[int, ...],
    firsts: Sequence[jax.Array],
    gradient: jax.Array,
) -> jax.Array:
    """Returns the gradient of a map of `sides` from that of its windows and `_first_maxima`."""
    zero = jnp.zeros((), gradient.dtype)
    parts = []
    for place, first in enumerate(firsts):
        pads = [
            (offset, size - offset - (count - 1) * stride - 1, stride - 1)
            for offset, size, count in zip(
                divmod(place, window), sides, gradient.shape[1:3], strict=True
            )
        ]
        part = jnp.where(first, gradient, zero)
        parts.append(jax.lax.pad(part, zero, [(0, 0, 0), *pads, (0, 0, 0)]))
    # In this order a pixel adds up its windows as a loop over the windows would.
    return functools.reduce(jnp.add, reversed(parts))


_window_maxima.defvjp(_window_maxima_forward, _window_maxima_backward)


def _slices(x: jax.Array, window: int, stride: int) -> list[jax.Array]:
    """Returns, for each place in a window, row by row, the pixels at that place of all windows."""
    rows, columns = ((size - window) // stride + 1 for size in x.shape[1:3])
    return [
        jax.lax.slice(
            x,
            (0, row, column, 0),
            (
                x.shape[0],
                row + (rows - 1) * stride + 1,
                column + (columns - 1) * stride + 1,
                x.shape[3],
            ),
            (1, stride, stride, 1),
        )
        for row in range(window)
        for column in range(window)
    ]


def _overhang(size: int, window: int, stride: int, padding: int) -> int:
    """Returns by how many pixels the last window extends beyond the edge in ceil mode."""
    count = -(-(size + 2 * padding - window) // stride) + 1
    if (count - 1) * stride >= size + padding:  # it would start in the padding: Caffe drops it
        count -= 1
    return max(0, (count - 1) * stride + window - size - 2 * padding)


def pool_into_bins(x: jax.Array, m: int, reduce: Callable[..., jax.Array]) -> jax.Array:
    """Applies `reduce` (jnp.mean, jnp.max) to m×m bins of [n, h, w, c]; returns [n, m, m, c].

    Bin i along a side of a cells is [⌊i·a/m⌋, ⌈(i+1)·a/m⌉): bins cover every cell of a map of any
    size and may overlap (SPP-net, Appendix A; torch's adaptive pooling). No pooling of one window
    and stride has these bins.
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
    """Returns the maxima of m×m bins for each level m: [n, h, w, c] to [n, 1, 1, bins·c].

    The map has any size (SPP-net §2.2).
    """
    largest = functools.partial(jnp.max, initial=-jnp.inf)  # empty map: see refuse_small_images
    pooled = [pool_into_bins(x, m, largest).reshape(x.shape[0], 1, 1, -1) for m in levels]
    return jnp.concatenate(pooled, -1)


def window_features(
    feature_map: jax.Array,
    windows: jax.Array,
    levels: tuple[int, ...],
    *,
    stride: int,
    offset: float = 0.0,
) -> jax.Array:
    """Returns the pyramid over each window of one feature map (SPP-net §4.1, Appendix A).

    Args:
      feature_map: [h, w, c].
      windows: [k, 4], boxes `[y1, x1, y2, x2]` in image pixels. A window covers the cells whose
        centres lie inside it: from ⌊x/S⌋ + 1 (left, top) to ⌈x/S⌉ - 1 (right, bottom), cut off at
        the map's edges. One that holds no centre takes the cell at its middle, as in the released
        code.
      levels: the pyramid's bins per side.
      stride: S, the image pixels from one cell to the next.
      offset: the first cell's centre in image pixels, 0 if every layer pads ⌊size/2⌋.

    Returns:
      [k, bins·c]. Windows have sizes that only the arrays tell, so they cannot be sliced: maxima
      over blocks of 2^i × 2^j cells are computed once, and a bin takes four of them, whatever its
      size.
    """
    h, w, _ = feature_map.shape
    maxima = _block_maxima(_block_maxima(feature_map[None, None], 1, 3), 0, 2)
    m, row, column = np.array(
        [(m, row, column) for m in levels for row in range(m) for column in range(m)]
    ).T
    top, left, bottom, right = (windows - offset).T
    high, *ys = _blocks(*_bins(*_cells(top, bottom, stride, h), row, m))
    wide, *xs = _blocks(*_bins(*_cells(left, right, stride, w), column, m))
    features = jnp.stack([maxima[high, wide, y, x] for y in ys for x in xs]).max(0)
    return features.reshape(len(windows), -1)


def _cells(low: jax.Array, high: jax.Array, stride: int, size: int) -> tuple[jax.Array, jax.Array]:
    """Returns the first of `size` cells with centres between two borders, and one past the last."""
    # floor(low / stride) would be wrong when compiled: XLA multiplies by an inexact 1 / stride
    first = (low // stride).astype(jnp.int32) + 1
    last = -(-high // stride).astype(jnp.int32) - 1
    middle = (first + last) // 2
    first, last = (jnp.where(first > last, middle, end).clip(0, size - 1) for end in (first, last))
    return first, last + 1


def _bins(
    start: jax.Array, stop: jax.Array, i: np.ndarray, m: np.ndarray
) -> tuple[jax.Array, jax.Array]:
    """Returns starts and ends, [k, bins], of bin i of m between the cells `start` and `stop`.

    The bins are those of `pool_into_bins`.
    """
    start, size, i, m = start[:, None], (stop - start)[:, None], i[None], m[None]
    return start + i * size // m, start - (-(i + 1) * size // m)


def _blocks(start: jax.Array, stop: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Returns `power` and the starts of two blocks of 2^power cells that together cover a bin."""
    power = 31 - jax.lax.clz(stop - start)
    return power, start, stop - (1 << power)


def _block_maxima(x: jax.Array, table: int, axis: int) -> jax.Array:
    """Stacks along `table` the maxima of the 1, 2, 4, … cells along `axis` from each cell on."""
    blocks = [x]
    for power in range(x.shape[axis].bit_length() - 1):
        # no bin reads the maxima that wrap round
        blocks.append(jnp.maximum(blocks[-1], jnp.roll(blocks[-1], -(2**power), axis)))
    return jnp.concatenate(blocks, table)
