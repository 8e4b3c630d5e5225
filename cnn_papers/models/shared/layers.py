"""Layers that more than one paper uses, with the conventions of their time spelled out."""

from collections.abc import Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

he_normal = nn.initializers.variance_scaling(
    2.0, "fan_in", "normal"
)  # He et al. 2015, arXiv:1502.01852, eq. 10


def initialisers(weight_init: str, bias: float = 0.0) -> dict[str, Any]:
    """How AlexNet and its successors start: "paper" draws N(0, 0.01²) and sets biases to `bias`
    (AlexNet §5).

    "he" is He et al.'s normal with zero biases, which narrow networks on small images need to start
    learning.
    """
    if weight_init == "he":
        return {"kernel_init": he_normal, "bias_init": nn.initializers.zeros}
    return {
        "kernel_init": nn.initializers.normal(0.01),
        "bias_init": nn.initializers.constant(bias),
    }


def local_response_norm(
    x: jax.Array, *, n: int = 5, k: float = 2.0, alpha: float = 1e-4, beta: float = 0.75
) -> jax.Array:
    """b = a / (k + alpha · Σ a²)^beta, summed over the `n` neighbouring channels (AlexNet §3.3).

    `alpha` multiplies the plain sum, as the paper prints it. Caffe and torch divide `alpha` by `n`
    first: their alpha=5e-4 is this alpha=1e-4. Sums run in float32; the result has the dtype of
    `x`, shape [..., c] unchanged.
    """
    squares = jnp.square(x.astype(jnp.float32))
    before = n // 2
    padded = jnp.pad(squares, [(0, 0)] * (x.ndim - 1) + [(before, n - 1 - before)])
    total = sum(padded[..., i : i + x.shape[-1]] for i in range(n))
    return (x * (k + alpha * total) ** -beta).astype(x.dtype)


class FullyConnected(nn.Module):
    """A fully connected layer over a whole feature map, kept as a convolution.

    At initialisation the window is the map it sees, so [n, h, w, c] becomes [n, 1, 1, features].
    Given a larger map later, the same parameters slide over it (VGG §3.2, OverFeat §3.5) and give
    [n, h - window + 1, …, features].
    """

    features: int
    kernel_init: nn.initializers.Initializer = he_normal
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        window = tuple(
            max(1, side) for side in x.shape[1:3]
        )  # an empty map passes through: see refuse_small_images
        if self.has_variable("params", "kernel"):
            window = self.get_variable("params", "kernel").shape[:2]
        kernel = self.param("kernel", self.kernel_init, (*window, x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if (
            tuple(window) == x.shape[1:3]
        ):  # one position: a matrix product, which every backend runs best
            y = x.reshape(x.shape[0], -1) @ kernel.reshape(-1, self.features)
            return (y + bias[None])[:, None, None, :]
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + bias[None, None, None]


class ColumnConv(nn.Module):
    """A convolution whose input and output channels fall into `columns` that do not see each other
    (AlexNet §3.5).

    The kernel is [h, w, c_in / columns, c_out]: column i owns the i-th slice of both channel axes.
    Written as one convolution a column, not with grouped convolutions: XLA's partitioner replicates
    those over a mesh (openxla/xla#47945), and on CPU they run several times slower.
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
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        parts = zip(
            jnp.split(x, self.columns, -1), jnp.split(kernel, self.columns, -1), strict=True
        )
        y = jnp.concatenate([self._convolve(*part) for part in parts], -1)
        return y if bias is None else y + bias[None, None, None]

    def _convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            x, kernel, self.strides, self.padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )


def pad(pixels: int) -> Sequence[tuple[int, int]]:
    """The same explicit padding on every side: 'SAME' pads unevenly at stride 2 (PyTorch and Caffe
    do not).
    """
    return ((pixels, pixels), (pixels, pixels))
