"""Convolutions of a train step on one CPU, with programs of their own for the gradients."""

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.models.shared import layers

BLOCK = 2**18  # values of the output's gradient: 1 MB of float32, half of a core's second cache
SMALLEST = 2 * BLOCK  # an output of fewer values is one block
WIDE = 256  # output channels from which products are faster than blocks
_ORDER = ("NHWC", "HWIO", "NHWC")


def on_one_cpu() -> AbstractContextManager[None]:
    """Returns a context in which `layers.Conv` computes as is fastest on one CPU.

    Convolutions have the gradients of `convolve`. Those of 1×1 are products of matrices without a
    choice by platform, which took an eighth of the time to trace GoogLeNet's step.

    It is for tracing a step that runs on one CPU. Over a mesh, blocks would cut across devices.
    Under `jax.vmap`, as with `config.optim.bn_group`, each group would get a gradient of its own.
    """

    def intercept(
        call: Callable[..., Any], args: Any, kwargs: Any, context: nn.module.InterceptorContext
    ) -> Any:
        conv = context.module
        if not isinstance(conv, layers.Conv) or context.method_name != "convolve":
            return call(*args, **kwargs)
        if conv.size > 1:
            return convolve(*args, conv.stride, conv.padding)
        return layers.product(conv.stride, *args) if conv.padding == 0 else call(*args, **kwargs)

    return nn.intercept_methods(intercept)


@functools.partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def convolve(x: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Returns `layers.convolve`, with other programs for its gradients.

    XLA runs a convolution on CPU fast in one order of axes only, and brings it into that order only
    outside of loops. In a loop, as with `config.optim.accumulate` or a network's `scan`, JAX's
    gradients were 6 to 11 times slower than these, which are written in that order.

    The kernel's gradient is a product over all positions of a batch. XLA computes it as one
    convolution, whose window is the whole map, and reads all of it again for every few rows of the
    result. Where it does not fit the cache, sums over blocks that do fit are faster: 2.3 times for
    an output of [8, 56, 56, 64]. To 256 channels and more, a matrix product for each position of
    the kernel is faster again, 1.2 to 1.5 times.
    """
    return layers.convolve(x, kernel, stride, padding)


def _forward(
    x: jax.Array, kernel: jax.Array, stride: int, padding: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array]]:
    return layers.convolve(x, kernel, stride, padding), (x, kernel)


def _backward(
    stride: int, padding: int, saved: tuple[jax.Array, jax.Array], gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    x, kernel = saved
    of_x = _of_input(x.shape, kernel, gradient, stride, padding)
    x = jnp.pad(x, [(0, 0), *layers.pad(padding), (0, 0)])
    if kernel.shape[-1] >= WIDE:
        of_kernel_by = _of_kernel_by_products
    elif gradient.size >= SMALLEST:
        of_kernel_by = _of_kernel_in_blocks
    else:
        of_kernel_by = _of_kernel_at_once
    of_kernel = of_kernel_by(x, gradient, stride, kernel.shape[0])
    return of_x, of_kernel.astype(kernel.dtype)


convolve.defvjp(_forward, _backward)


def _of_input(
    shape: tuple[int, ...], kernel: jax.Array, gradient: jax.Array, stride: int, padding: int
) -> jax.Array:
    """Returns the gradient of an input of `shape`: the kernel, turned round, over `gradient`."""
    before = kernel.shape[0] - 1 - padding
    pads = [
        (before, side + kernel.shape[0] - 2 - (count - 1) * stride - before)
        for side, count in zip(shape[1:3], gradient.shape[1:3], strict=True)
    ]
    return jax.lax.conv_general_dilated(
        gradient,
        kernel[::-1, ::-1].swapaxes(2, 3),
        (1, 1),
        pads,
        lhs_dilation=(stride, stride),
        dimension_numbers=_ORDER,
    )


def _of_kernel_at_once(x: jax.Array, gradient: jax.Array, stride: int, size: int) -> jax.Array:
    """Returns the gradient of a size×size kernel; `x` is padded already.

    Channels are the images of this convolution, and images its channels.
    """
    height, width = ((count - 1) * stride + size for count in gradient.shape[1:3])
    return jax.lax.conv_general_dilated(
        x[:, :height, :width].transpose(3, 1, 2, 0),
        gradient.transpose(1, 2, 0, 3),
        (1, 1),
        "VALID",
        rhs_dilation=(stride, stride),
        dimension_numbers=_ORDER,
        preferred_element_type=jnp.float32,
    ).transpose(1, 2, 0, 3)


def _of_kernel_by_products(x: jax.Array, gradient: jax.Array, stride: int, size: int) -> jax.Array:
    """Returns the gradient of a size×size kernel; `x` is padded already.

    Each position of the kernel meets every `stride`-th row and column of `x`. That part is copied
    before its product with all of `gradient`, which pays where a copied value meets many channels.
    """
    height, width, features = gradient.shape[1:]
    gradient = gradient.reshape(-1, features)

    def at(row: int, column: int) -> jax.Array:
        rows = slice(row, row + (height - 1) * stride + 1, stride)
        columns = slice(column, column + (width - 1) * stride + 1, stride)
        part = x[:, rows, columns].reshape(-1, x.shape[-1])
        return jax.lax.dot_general(
            part, gradient, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32
        )

    return jnp.stack(
        [jnp.stack([at(row, column) for column in range(size)]) for row in range(size)]
    )


def _of_kernel_in_blocks(x: jax.Array, gradient: jax.Array, stride: int, size: int) -> jax.Array:
    """Returns the gradient of a size×size kernel in blocks; `x` is padded already.

    At stride 2 the kernel's even rows meet even rows of `x` only: every `stride`-th row and column
    of both make a convolution of stride 1.
    """
    height, width, features = gradient.shape[1:]
    result = jnp.zeros((size, size, x.shape[-1], features), jnp.float32)
    for row in range(min(stride, size)):
        for column in range(min(stride, size)):
            rows, columns = (len(range(start, size, stride)) for start in (row, column))
            part = x[:, row::stride, column::stride]
            part = part[:, : height + rows - 1, : width + columns - 1]
            total = _sum_of_blocks(part, gradient)
            result = result.at[row::stride, column::stride].set(total)
    return result


def _sum_of_blocks(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Returns Σ x[i, y + r, x + s, c] · gradient[i, y, x, f] as [r, s, c, f] in float32.

    The images are laid one below the other, and the gradient's rows are padded with zeros to the
    rows of `x`, so that a block is a number of rows, wherever an image ends.
    """
    count, height, width, channels = x.shape
    _, inner_height, inner_width, features = gradient.shape
    overlap, total_rows = height - inner_height, count * height
    rows = min(total_rows, max(1, BLOCK // (inner_width * features)))
    blocks = -(-total_rows // rows)
    beyond = blocks * rows - total_rows
    gradient = jnp.pad(gradient, [(0, 0), (0, overlap), (0, 0), (0, 0)])
    gradient = gradient.reshape(total_rows, inner_width, features)
    gradient = jnp.pad(gradient, [(0, beyond), (0, 0), (0, 0)])
    x = jnp.pad(x.reshape(total_rows, width, channels), [(0, beyond + overlap), (0, 0), (0, 0)])

    def add_block(block: jax.Array, total: jax.Array) -> jax.Array:
        part = jax.lax.dynamic_slice_in_dim(x, block * rows, rows + overlap)
        window = jax.lax.dynamic_slice_in_dim(gradient, block * rows, rows)
        return total + jax.lax.conv_general_dilated(
            part.transpose(2, 0, 1)[..., None],
            window[:, :, None],
            (1, 1),
            "VALID",
            dimension_numbers=_ORDER,
            preferred_element_type=jnp.float32,
        )

    shape = (channels, overlap + 1, width - inner_width + 1, features)
    total = jax.lax.fori_loop(0, blocks, add_block, jnp.zeros(shape, jnp.float32))
    return total.transpose(1, 2, 0, 3)
