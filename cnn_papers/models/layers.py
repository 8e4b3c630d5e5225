"""Layers that more than one paper uses, with the conventions of their time spelled out."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")  # He et al. 2015, arXiv:1502.01852, eq. 10


def build(
    module: Callable[..., nn.Module], variants: Mapping[str, Mapping[str, Any]], variant: str, fields: dict
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
    pads = [
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

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        window = x.shape[1:3]
        if self.has_variable("params", "kernel"):
            window = self.get_variable("params", "kernel").shape[:2]
        kernel = self.param("kernel", self.kernel_init, (*window, x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
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

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (*self.kernel_size, x.shape[-1] // self.columns, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel, bias = nn.dtypes.promote_dtype(x, kernel, bias, dtype=self.dtype)
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
