"""Device operations of `config.data`, on one image: float32 [h, w, c], values 0 … 255.

They are JAX functions, called under vmap inside the jitted step. An operation that draws at random
has a parameter `key`, a key of its own for this image and step. One that needs statistics of the
training set's pixels has a parameter `statistics`, of its whole images `whitening`. One that moves
pixels is listed in `MOVES`; it takes the image with its boxes, if it has any, and moves both.
"""

from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers import boxes
from cnn_papers.boxes import Boxed
from cnn_papers.data import mirror
from cnn_papers.data.statistics import Statistics, Whitening

Image = TypeVar("Image", jax.Array, Boxed)  # the same goes in and comes out
MOVES = ("flip", "pad_crop")
DESCRIPTORS = ("flip_descriptors",)  # those that take descriptors in place of an image

LUMA = (0.299, 0.587, 0.114)  # weights of red, green and blue in grey (ITU-R BT.601)


def flip(image: Image, *, key: jax.Array) -> Image:
    """Mirrors left to right with probability one half (AlexNet §4.1)."""
    is_mirrored = jax.random.bernoulli(key)
    return jax.tree.map(lambda a, b: jnp.where(is_mirrored, a, b), _mirrored(image), image)


def flip_descriptors(image: jax.Array, *, key: jax.Array) -> jax.Array:
    """Turns descriptors into those of the mirror image with probability one half.

    They are of `host_ops.dense_sift` or `host_ops.dense_colours`, [k, columns, 1].
    """
    return jnp.where(jax.random.bernoulli(key), mirror.descriptors(image), image)


def pad_crop(image: Image, pixels: int, *, key: jax.Array) -> Image:
    """Pads every side with zeros and crops a random window of the image's size (ResNet §4.2)."""
    top, left = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    return _padded_window(image, pixels, top, left)


def scale(image: jax.Array, factor: float) -> jax.Array:
    """Multiplies by `factor`, a literal: `scale(0.00392156862745098)` for 1/255."""
    return image * factor


def normalize(image: jax.Array, mean: tuple[float, ...], std: tuple[float, ...]) -> jax.Array:
    """Returns (image - mean) / std, with given values per channel, as published weights expect."""
    return (image - jnp.array(mean)[None, None]) / jnp.array(std)[None, None]


def subtract_mean(image: jax.Array, *, statistics: Statistics) -> jax.Array:
    """Subtracts the training set's mean colour (VGG §2.1)."""
    return image - statistics.mean[None, None]


def subtract_own_mean(image: jax.Array) -> jax.Array:
    """Subtracts the image's own mean colour."""
    return image - image.mean((0, 1), keepdims=True)


def permute_channels(image: jax.Array, *, key: jax.Array) -> jax.Array:
    """Puts the channels in a random order with probability one half, all orders equally likely."""
    chance_key, order_key = jax.random.split(key)
    permuted = jax.random.permutation(order_key, image, axis=-1)
    return jnp.where(jax.random.bernoulli(chance_key), permuted, image)


def invert(image: jax.Array, *, key: jax.Array) -> jax.Array:
    """Replaces every value x by 255 - x with probability one half."""
    return jnp.where(jax.random.bernoulli(key), 255 - image, image)


def subtract_mean_image(
    image: jax.Array, warp: bool = False, *, statistics: Statistics
) -> jax.Array:
    """Subtracts the training set's mean image, pixel by pixel (AlexNet §2, ResNet §4.2).

    The mean image is that of the views of `eval_host`, on ImageNet of central crops. It is the same
    for every crop, wherever that was taken. (AlexNet §2 subtracts before it crops, which takes the
    mean at the crop's place.) An image of another size needs `warp`, which resizes the mean image
    to that size, bilinearly (SPP-net, Appendix A).
    """
    mean_image = jnp.asarray(statistics.mean_image)
    if warp and mean_image.shape != image.shape:
        mean_image = jax.image.resize(
            mean_image, (*image.shape[:2], mean_image.shape[-1]), "linear"
        )
    return image - mean_image


def standardize(image: jax.Array, *, statistics: Statistics) -> jax.Array:
    """Scales channels to mean zero and deviation one over the training set (DenseNet §4.1)."""
    # A channel that never varies becomes zero.
    std = jnp.where(statistics.std > 0, statistics.std, 1)
    return (image - statistics.mean[None, None]) / std[None, None]


def pca_light(
    image: jax.Array, std: float = 0.1, *, key: jax.Array, statistics: Statistics
) -> jax.Array:
    """Adds [p1 p2 p3][α1 λ1, α2 λ2, α3 λ3]ᵀ to every pixel (AlexNet §4.1).

    α ~ N(0, std²) is drawn once per image and use. p and λ are eigenvectors and eigenvalues of the
    covariance of the training set's RGB values. The paper does not say in which unit, and λ grows
    with its square. Here the unit is white, as in later code (λ of ImageNet: 0.2175, 0.0188,
    0.0045), so that the first α λ is about 6 of 255 grey levels.
    """
    white = 255.0
    alpha = std * jax.random.normal(key, (image.shape[-1],))
    return image + (statistics.eigenvectors @ (alpha * statistics.eigenvalues))[None, None] / white


def photometric(
    image: jax.Array,
    brightness: tuple[float, float] = (0.5, 1.5),
    contrast: tuple[float, float] = (0.5, 1.5),
    saturation: tuple[float, float] = (0.5, 1.5),
    clip: bool = True,
    *,
    key: jax.Array,
) -> jax.Array:
    """Changes brightness, contrast and saturation by random factors, in random order.

    GoogLeNet §6 follows Howard (arXiv:1312.5402) in this. The factors are drawn evenly from their
    ranges. They move every pixel towards or away from black, the image's mean grey, and the pixel's
    own grey. After each change values are cut to 0 … 255, unless `clip` is false, as in the
    ColorJitter of fb.resnet.torch. A range of (1.0, 1.0) changes nothing.
    """
    order_key, factor_key = jax.random.split(key)
    low, high = jnp.array([brightness, contrast, saturation], jnp.float32).T
    factors = jax.random.uniform(factor_key, (3,), minval=low, maxval=high)
    for i in jax.random.permutation(order_key, 3):
        grey = image if image.shape[-1] == 1 else (image @ jnp.array(LUMA))[..., None]
        anchors = jnp.stack([jnp.zeros_like(grey), jnp.full_like(grey, grey.mean()), grey])
        image = anchors[i] + factors[i] * (image - anchors[i])
        image = jnp.clip(image, 0, 255) if clip else image
    return image


def gcn(image: jax.Array, scale: float = 1.0, sqrt_bias: float = 0.0) -> jax.Array:
    """Normalises global contrast: subtracts the image's mean and scales its norm to `scale`.

    This is as in the Maxout authors' code (pylearn2, expr/preprocessing.py), which has scale 55 for
    CIFAR: the divisor is sqrt(sqrt_bias + Σ x²) / scale. An image of one colour becomes zero.
    """
    centered = image - image.mean()
    divisor = jnp.sqrt(sqrt_bias + (centered**2).sum()) / scale
    rounding = 1e-6 * jnp.abs(image).max() * image.size**0.5 / scale
    return jnp.where(divisor > rounding, centered / jnp.maximum(divisor, 1e-30), 0)


def zca(image: jax.Array, bias: float = 0.1, *, whitening: Whitening) -> jax.Array:
    """Whitens the image as a whole: (x - mean) V (Λ + bias)^-½ Vᵀ.

    V Λ Vᵀ is the covariance of the training images as they are given to this operation. This is as
    in the Maxout authors' code (pylearn2, datasets/preprocessing.py, ZCA), whose bias is 0.1.
    """
    if image.size != whitening.mean.size:
        raise ValueError(f"the whitening is of images of {whitening.mean.size} values")
    vectors = whitening.eigenvectors
    # NumPy computes the matrix once, when the operation is traced.
    matrix = (vectors / np.sqrt(whitening.eigenvalues + bias)) @ vectors.T
    centered = image.reshape(-1) - whitening.mean
    return jnp.matmul(centered, matrix, precision=jax.lax.Precision.HIGHEST).reshape(image.shape)


def lcn(image: jax.Array, size: int = 7, sigma: float = 2.0, center: bool = True) -> jax.Array:
    """Normalises the local contrast of each channel (Jarrett et al., ICCV 2009, §2).

    Means are over a Gaussian window of size×size, with zeros outside the image. The window's mean
    is subtracted; the result is divided by the window's root mean square, or by the mean of these
    over the image if it is larger. If `center` is false, the mean square is that of the values
    before the subtraction, as in the Maxout authors' code (pylearn2, datasets/preprocessing.py).
    """
    offsets = np.arange(size) - size // 2
    line = np.exp(-(offsets**2) / (2 * sigma**2))
    window = (np.outer(line, line) / line.sum() ** 2).astype(np.float32)

    def averaged(values: jax.Array) -> jax.Array:
        return jax.lax.conv_general_dilated(
            values[..., None],
            window[..., None, None],
            (1, 1),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )[..., 0]

    channels = jnp.moveaxis(image, -1, 0)
    centered = channels - averaged(channels)
    deviation = jnp.sqrt(jnp.maximum(averaged((centered if center else channels) ** 2), 0))
    divisor = jnp.maximum(deviation, deviation.mean((1, 2), keepdims=True))
    return jnp.moveaxis(centered / jnp.maximum(divisor, 1e-4), 0, -1)


# --- moves of pixels, and of the boxes on them ----------------------------------------------------


def _mirrored(image: Image) -> Image:
    if isinstance(image, Boxed):
        width = image.shape[1]
        return Boxed(_mirrored(image.pixels), boxes.mirror(image.boxes, width))
    return mirror.images(image)


def _padded_window(image: Image, pixels: int, top: jax.Array, left: jax.Array) -> Image:
    """Returns the window at `top` and `left`, of the image's size, of the padded image."""
    if isinstance(image, Boxed):
        window = _padded_window(image.pixels, pixels, top, left)
        moved = boxes.shift(image.boxes, pixels - top, pixels - left)
        return Boxed(window, boxes.clip(moved, *image.shape[:2]))
    padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
    return jax.lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), image.shape)
