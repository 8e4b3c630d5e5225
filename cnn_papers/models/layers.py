"""Layers that more than one paper uses, with the conventions of their time spelled out."""

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from flax.linen.dtypes import promote_dtype

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # He et al. 2015, arXiv:1502.01852, eq. 10


def build(
    module: Callable[..., nn.Module], variants: Mapping[str, Mapping[str, Any]], variant: str, fields: Mapping[str, Any]
) -> Any:
    """Makes `module` as `variants[variant]` says, with `fields` that are not None on top.

    Raises:
      ValueError: unknown variant (with the list) or a field the module does not have.
    """
    if variant not in variants:
        raise ValueError(f"unknown model.variant '{variant}'; there are: {', '.join(variants)}")
    given = {name: value for name, value in fields.items() if value is not None}
    known = set(inspect.signature(module).parameters) - {"parent", "name"}
    if unknown := sorted(set(given) - known):
        raise ValueError(f"unknown model field '{unknown[0]}'; there are: variant, {', '.join(sorted(known))}")
    return module(**{**variants[variant], **given})


def check_choices(model: Any, choices: Mapping[str, Sequence[Any]]) -> None:
    """Raises a ValueError, with the list, where a field of `model` is none of the values `choices` has for it."""
    for field, values in choices.items():
        if (value := getattr(model, field)) not in values:
            raise ValueError(f"unknown model.{field} '{value}'; there are: {', '.join(map(str, values))}")


def initialisers(weight_init: str, bias: float = 0.0) -> dict[str, Any]:
    """How AlexNet and its successors start: "paper" draws N(0, 0.01²) and sets biases to `bias` (AlexNet §5).

    "he" is He et al.'s normal with zero biases, which narrow networks on small images need to start learning.
    """
    if weight_init == "he":
        return {"kernel_init": he_normal, "bias_init": nn.initializers.zeros}
    return {"kernel_init": nn.initializers.normal(0.01), "bias_init": nn.initializers.constant(bias)}


def refuse_small_images(call: Callable[..., Any]) -> Callable[..., Any]:
    """Decorates a network's `__call__` (under `nn.compact`): an image too small for it is a ValueError.

    Too small means that an endpoint has no pixels left. The message names the first such layer and the smallest square
    image that works, found by tracing the network at other sizes; all of it happens before anything is computed when
    the call is jitted. `probing` returns what there is instead, empty maps included.
    """

    @functools.wraps(call)
    def checked(self: Any, image: jax.Array, *, probing: bool = False, **options: Any) -> Any:
        logits, ends = call(self, image, **options)
        empty = next((name for name, end in ends.items() if 0 in end.shape[1:3]), None)
        if probing or empty is None:
            return logits, ends
        h, w = image.shape[1:3]
        works = functools.partial(_has_pixels_everywhere, self, image, options)
        too_small, enough = min(h, w), max(1, 2 * min(h, w))
        while not works(enough):
            too_small, enough = enough, 2 * enough
        while enough - too_small > 1:
            middle = (too_small + enough) // 2
            too_small, enough = (too_small, middle) if works(middle) else (middle, enough)
        raise ValueError(
            f"an image of {h}×{w} is too small: {empty} has no pixels left; "
            f"the smallest square image this network takes is {enough}×{enough}"
        )

    return checked


def _has_pixels_everywhere(model: nn.Module, image: jax.Array, options: Mapping[str, Any], side: int) -> bool:
    """Whether `model` (bound to its parameters, or being initialised) has no empty endpoint at side×side pixels."""
    variables = {} if model.is_initializing() else model.variables
    rngs = {name: jax.random.key(0) for name in ("params", "dropout")}

    def endpoints(variables: Any, image: jax.Array) -> dict[str, jax.Array]:
        net = model.clone(parent=None)
        if variables:
            (_, ends), _ = net.apply(variables, image, rngs=rngs, mutable=True, probing=True, **options)
        else:
            (_, ends), _ = net.init_with_output(rngs, image, probing=True, **options)
        return ends

    probe = jax.ShapeDtypeStruct((1, side, side, image.shape[-1]), image.dtype)
    return not any(0 in end.shape[1:3] for end in jax.eval_shape(endpoints, variables, probe).values())


def local_response_norm(
    x: jax.Array, *, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> jax.Array:
    """b = a / (k + alpha · Σ a²)^beta, summed over the `n` neighbouring channels (AlexNet §3.3).

    `alpha` multiplies the plain sum, as the paper prints it. Caffe and torch divide `alpha` by `n` first: their
    alpha=5e-4 is this alpha=1e-4. Sums run in float32; the result has the dtype of `x`, shape [..., c] unchanged.
    """
    squares = jnp.square(x.astype(jnp.float32))
    before = n // 2
    padded = jnp.pad(squares, [(0, 0)] * (x.ndim - 1) + [(before, n - 1 - before)])
    total = sum(padded[..., i : i + x.shape[-1]] for i in range(n))
    return (x * (k + alpha * total) ** -beta).astype(x.dtype)


def max_pool(x: jax.Array, window: int, stride: int, *, padding: int = 0, ceil_mode: bool = False) -> jax.Array:
    """Max pooling of [n, h, w, c] over window×window at `stride`, `padding` pixels of -inf on every side.

    With `ceil_mode` the last window may hang over the lower and right edge, as Caffe's and cuda-convnet's do, but
    never starts beyond the padded input.
    """
    pads: Any = [
        (padding, padding + _overhang(size, window, stride, padding) if ceil_mode else padding) for size in x.shape[1:3]
    ]
    return nn.max_pool(x, (window, window), (stride, stride), pads)


def _overhang(size: int, window: int, stride: int, padding: int) -> int:
    """How many pixels the last window reaches over the lower edge when the output size is rounded up."""
    count = -(-(size + 2 * padding - window) // stride) + 1
    if (count - 1) * stride >= size + padding:  # it would start in the padding: Caffe drops it
        count -= 1
    return max(0, (count - 1) * stride + window - size - 2 * padding)


class FullyConnected(nn.Module):
    """A fully connected layer over a whole feature map, kept as a convolution.

    At initialisation the window is the map it sees, so [n, h, w, c] becomes [n, 1, 1, features]. Given a larger map
    later, the same parameters slide over it (VGG §3.2, OverFeat §3.5) and give [n, h - window + 1, …, features].
    """

    features: int
    kernel_init: nn.initializers.Initializer = he_normal
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: Any = None
    link: Callable[[jax.Array], jax.Array] | None = None  # what brings the input together: see columns.py

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.link(x) if self.link else x
        window = tuple(max(1, side) for side in x.shape[1:3])  # an empty map passes through: see refuse_small_images
        if self.has_variable("params", "kernel"):
            window = self.get_variable("params", "kernel").shape[:2]
        kernel = self.param("kernel", self.kernel_init, (*window, x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if tuple(window) == x.shape[1:3]:  # one position: a matrix product, which every backend runs best
            y = x.reshape(x.shape[0], -1) @ kernel.reshape(-1, self.features)
            return (y + bias[None])[:, None, None, :]
        y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC"))
        return y + bias[None, None, None]


class ColumnConv(nn.Module):
    """A convolution whose input and output channels fall into `columns` that do not see each other (AlexNet §3.5).

    The kernel is [h, w, c_in / columns, c_out]: column i owns the i-th slice of both channel axes. Written as one
    convolution a column, not with grouped convolutions: XLA's partitioner replicates those over a mesh
    (openxla/xla#47945), and on CPU they run several times slower.
    """

    features: int
    kernel_size: tuple[int, int]
    strides: tuple[int, int] = (1, 1)
    padding: Any = "VALID"
    columns: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = he_normal
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: Any = None
    link: Callable[[jax.Array], jax.Array] | None = None  # what brings the input together: see columns.py

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        x = self.link(x) if self.link else x
        shape = (*self.kernel_size, x.shape[-1] // self.columns, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        parts = zip(jnp.split(x, self.columns, -1), jnp.split(kernel, self.columns, -1), strict=True)
        y = jnp.concatenate([self._convolve(*part) for part in parts], -1)
        return y if bias is None else y + bias[None, None, None]

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, self.strides, self.padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


def pad(pixels: int) -> Sequence[tuple[int, int]]:
    """The same explicit padding on every side: 'SAME' pads unevenly at stride 2 (PyTorch and Caffe do not)."""
    return ((pixels, pixels), (pixels, pixels))


def pool_into_bins(x: jax.Array, m: int, reduce: Callable[..., jax.Array]) -> jax.Array:
    """[n, h, w, c] of any size to [n, m, m, c]: `reduce` (jnp.mean, jnp.max) over m×m bins, which cover every cell.

    Bin i along a side of a cells is [⌊i·a/m⌋, ⌈(i+1)·a/m⌉) (SPP-net, Appendix A; torch's adaptive pooling).
    """
    for axis in (1, 2):
        size = x.shape[axis]
        bins = [jax.lax.slice_in_dim(x, i * size // m, -(-(i + 1) * size // m), axis=axis) for i in range(m)]
        x = jnp.concatenate([reduce(part, axis, keepdims=True) for part in bins], axis)
    return x


def pyramid_pool(x: jax.Array, levels: tuple[int, ...]) -> jax.Array:
    """[n, h, w, c] of any size to [n, 1, 1, bins·c]: for each level m the maxima of m×m bins (SPP-net §2.2)."""
    largest = functools.partial(jnp.max, initial=-jnp.inf)  # of an empty map: see refuse_small_images
    return jnp.concatenate([pool_into_bins(x, m, largest).reshape(x.shape[0], 1, 1, -1) for m in levels], -1)


def window_features(
    feature_map: jax.Array, windows: jax.Array, levels: tuple[int, ...], *, stride: int, offset: float = 0.0
) -> jax.Array:
    """The pyramid over each window of one feature map: [h, w, c] and [k, 4] to [k, bins·c] (SPP-net §4.1, Appendix A).

    `windows` are left, top, right, bottom in image pixels; `stride` is S, the pixels from one cell to the next, and
    `offset` the first cell's centre, 0 if every layer pads ⌊size/2⌋. A window covers the cells whose centres lie inside
    it: left and top ⌊x/S⌋ + 1, right and bottom ⌈x/S⌉ - 1, cut off at the map's edges. One that holds no centre takes
    the cell at its middle, as the released code does. A bin costs four look-ups, whatever its size.
    """
    h, w, _ = feature_map.shape
    maxima = _block_maxima(_block_maxima(feature_map[None, None], 1, 3), 0, 2)
    m, row, column = np.array([(m, row, column) for m in levels for row in range(m) for column in range(m)]).T
    left, top, right, bottom = (windows - offset).T
    high, *ys = _blocks(*_bins(*_cells(top, bottom, stride, h), row, m))
    wide, *xs = _blocks(*_bins(*_cells(left, right, stride, w), column, m))
    features = jnp.stack([maxima[high, wide, y, x] for y in ys for x in xs]).max(0)
    return features.reshape(len(windows), -1)


def _cells(low: jax.Array, high: jax.Array, stride: int, size: int) -> tuple[jax.Array, jax.Array]:
    """The first and one past the last of `size` cells whose centres lie between two borders."""
    first = (low // stride).astype(jnp.int32) + 1  # not floor(low / stride): XLA multiplies by an inexact 1 / stride
    last = -(-high // stride).astype(jnp.int32) - 1
    middle = (first + last) // 2
    first, last = (jnp.where(first > last, middle, end).clip(0, size - 1) for end in (first, last))
    return first, last + 1


def _bins(start: jax.Array, stop: jax.Array, i: np.ndarray, m: np.ndarray) -> tuple[jax.Array, jax.Array]:
    """Starts and ends, [k, bins], of bin i of the m that `pyramid_pool` makes of the cells from `start` to `stop`."""
    start, size, i, m = start[:, None], (stop - start)[:, None], i[None], m[None]
    return start + i * size // m, start - (-(i + 1) * size // m)


def _blocks(start: jax.Array, stop: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The two blocks of 2^power cells that together cover the cells of a bin: power, and where each starts."""
    power = 31 - jax.lax.clz(stop - start)
    return power, start, stop - (1 << power)


def _block_maxima(x: jax.Array, table: int, axis: int) -> jax.Array:
    """Concatenates along `table` the maxima of 1, 2, 4, … cells along `axis` from each cell onwards."""
    blocks = [x]
    for power in range(x.shape[axis].bit_length() - 1):
        blocks.append(jnp.maximum(blocks[-1], jnp.roll(blocks[-1], -(2**power), axis)))  # no bin reads what wraps round
    return jnp.concatenate(blocks, table)
