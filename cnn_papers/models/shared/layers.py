"""Layers and initialisers that several papers use, in the conventions of their time."""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

# He et al. 2015, arXiv:1502.01852, eq. 10. Flax's `he_normal` draws from a truncated normal.
he_normal = nn.initializers.variance_scaling(2.0, "fan_in", "normal")

# Initial weights of VGG and of CNN-F, -M and -S, with zero biases. Both papers print "variance
# 10⁻²" (VGG §3.1, Return of the Devil §3.2), a deviation of 0.1. "caffe" takes the number for the
# deviation, as AlexNet does and the group's matconvnet (examples/imagenet/cnn_imagenet_init.m). It
# is the default: the logits of photographs, whose mean colour is subtracted, begin at 0.01 in CNN-F
# then, but with a deviation of 0.1 at 280,000, and in VGG's A at 60 million.
VISUAL_GEOMETRY_GROUP = {
    "caffe": nn.initializers.normal(0.01),
    "paper": nn.initializers.normal(0.1),
    "glorot": nn.initializers.glorot_uniform(),
    "he": he_normal,
}


def initialisers(weight_init: str, bias: float = 0.0) -> dict[str, Any]:
    """Returns `kernel_init` and `bias_init` of AlexNet and its successors.

    "paper" draws from N(0, 0.01²) and sets biases to `bias` (AlexNet §5). "he" is He et al.'s
    normal with zero biases, which narrow networks on small images need to start learning.
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
    """Returns b = a / (k + alpha · Σ a²)^beta over `n` neighbouring channels (AlexNet §3.3).

    `x` is [..., c]; the result has its shape and dtype, and the sum is in float32. `alpha`
    multiplies the plain sum, as the paper prints it. Caffe and torch divide `alpha` by `n` first:
    their alpha=5e-4 is this alpha=1e-4. Flax has no such layer.
    """
    squares = jnp.square(x.astype(jnp.float32))
    before = n // 2
    padded = jnp.pad(squares, [(0, 0)] * (x.ndim - 1) + [(before, n - 1 - before)])
    total = sum(padded[..., i : i + x.shape[-1]] for i in range(n))
    return (x * (k + alpha * total) ** -beta).astype(x.dtype)


class FullyConnected(nn.Module):
    """A fully connected layer over a whole feature map, kept as a convolution.

    At initialisation the window is the whole map: [n, h, w, c] becomes [n, 1, 1, features]. Over a
    larger map the same parameters slide (VGG §3.2, OverFeat §3.5) and give
    [n, h - window + 1, …, features]; `nn.Dense` on a flattened map cannot.
    """

    features: int
    kernel_init: nn.initializers.Initializer = he_normal
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        window = tuple(max(1, side) for side in x.shape[1:3])  # empty: see refuse_small_images
        if self.has_variable("params", "kernel"):
            window = self.get_variable("params", "kernel").shape[:2]
        kernel = self.param("kernel", self.kernel_init, (*window, x.shape[-1], self.features))
        bias = self.param("bias", self.bias_init, (self.features,))
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        if tuple(window) == x.shape[1:3]:
            # one position: every backend runs a matrix product faster than this convolution
            y = x.reshape(x.shape[0], -1) @ kernel.reshape(-1, self.features)
            return (y + bias[None])[:, None, None, :]
        y = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), "VALID", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        return y + bias[None, None, None]


class Conv(nn.Module):
    """A convolution of size×size windows, in `groups` that do not read each other's channels.

    The kernel is [size, size, c_in / groups, features]; with groups (AlexNet §3.5), group i owns
    the i-th slice of both channel axes. Every side is padded by `padding` zeros, as in Caffe and
    PyTorch; Flax's "SAME" pads unevenly at stride 2.

    `nn.Conv` computes the same. This layer is faster on CPU: a 1×1 convolution is a matrix product
    there, whose gradient for the kernel needs no transposed copy of the activations, and each group
    is a convolution of its own. XLA's grouped convolution is several times slower there, and its
    partitioner replicates it over a mesh (openxla/xla#47945).
    """

    features: int
    size: int
    stride: int = 1
    padding: int = 0
    groups: int = 1
    use_bias: bool = True
    kernel_init: nn.initializers.Initializer = he_normal
    bias_init: nn.initializers.Initializer = nn.initializers.zeros
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        shape = (self.size, self.size, x.shape[-1] // self.groups, self.features)
        kernel = self.param("kernel", self.kernel_init, shape)
        bias = self.param("bias", self.bias_init, (self.features,)) if self.use_bias else None
        x, kernel, bias = promote_dtype(x, kernel, bias, dtype=self.dtype)
        inputs = jnp.split(x, self.groups, -1)
        kernels = jnp.split(kernel, self.groups, -1)
        outputs = [self.convolve(*pair) for pair in zip(inputs, kernels, strict=True)]
        y = jnp.concatenate(outputs, -1)
        return y if bias is None else y + bias[None, None, None]

    def convolve(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """Returns the convolution of one group, without bias."""
        if self.size == 1 and self.padding == 0:
            return _pointwise(x, kernel, self.stride)
        return convolve(x, kernel, self.stride, self.padding)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _pointwise(x: jax.Array, kernel: jax.Array, stride: int) -> jax.Array:
    """Returns the convolution of [n, h, w, c] with [1, 1, c, f]: on CPU by `product`.

    XLA's compiler for GPUs (of JAX 0.11.2) aborts on products like those of ResNet-50.
    """
    return _on_platform(product, _one_by_one, stride, x, kernel)


def _pointwise_forward(
    x: jax.Array, kernel: jax.Array, stride: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    output: Any = _pointwise(x, kernel, stride)
    return output, (x, kernel)


def _pointwise_backward(
    stride: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    def gradients_of(layer: Callable[..., jax.Array]) -> Callable[..., Any]:
        return lambda stride, x, kernel, gradient: jax.vjp(
            functools.partial(layer, stride), x, kernel
        )[1](gradient)

    on_cpu, elsewhere = gradients_of(product), gradients_of(_one_by_one)
    return _on_platform(on_cpu, elsewhere, stride, *saved, gradient)


_pointwise.defvjp(_pointwise_forward, _pointwise_backward)


def _on_platform(
    on_cpu: Callable[..., Any], elsewhere: Callable[..., Any], stride: int, *arrays: jax.Array
) -> Any:
    """Returns one of two functions of `stride` and `arrays`, chosen as the program is lowered."""
    return jax.lax.platform_dependent(
        *arrays,
        cpu=functools.partial(on_cpu, stride),
        default=functools.partial(elsewhere, stride),
    )


def product(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    """Returns the convolution of [n, h, w, c] with [1, 1, c, f] as a product of two matrices.

    XLA on CPU copies the output's gradient, transposed, before it contracts three axes for the
    kernel's gradient; those copies took a fifth of ResNet-50's step. It contracts one axis in
    place.
    """
    x = x[:, ::stride, ::stride]
    return (x.reshape(-1, x.shape[-1]) @ kernel[0, 0]).reshape(*x.shape[:-1], kernel.shape[-1])


def _one_by_one(stride: int, x: jax.Array, kernel: jax.Array) -> jax.Array:
    return convolve(x, kernel, stride, 0)


def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Returns the convolution of [n, h, w, c] with [size, size, c, f], padded by zeros."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pad(padding),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def pad(pixels: int) -> Sequence[tuple[int, int]]:
    """Returns padding of `pixels` on every side, as in Caffe and PyTorch.

    Flax's "SAME" pads unevenly at stride 2.
    """
    return ((pixels, pixels), (pixels, pixels))
