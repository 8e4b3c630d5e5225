"""Operations on one image on the device (JAX, under vmap inside the jitted step): float32 [h, w, c], values 0 … 255.

An operation that draws at random names `key`, its own key for this image and step; one that needs figures of the
training set names `statistics`.
"""

import jax
import jax.numpy as jnp

from cnn_papers.data.statistics import Statistics


def flip(image: jax.Array, *, key: jax.Array) -> jax.Array:
    """Mirrored left to right with probability one half (AlexNet §4.1)."""
    return jnp.where(jax.random.bernoulli(key), image[:, ::-1], image)


def pad_crop(image: jax.Array, pixels: int, *, key: jax.Array) -> jax.Array:
    """Zero padding on every side, then a random window of the image's own size (ResNet §4.2: 4 pixels)."""
    top, left = jax.random.randint(key, (2,), 0, 2 * pixels + 1)
    padded = jnp.pad(image, ((pixels, pixels), (pixels, pixels), (0, 0)))
    return jax.lax.dynamic_slice(padded, (top, left, jnp.zeros_like(top)), image.shape)


def scale(image: jax.Array, factor: float) -> jax.Array:
    """Multiplied by `factor`; `scale(1/255)` is written scale(0.00392156862745098)."""
    return image * factor


def subtract_mean(image: jax.Array, *, statistics: Statistics) -> jax.Array:
    """The training set's mean colour subtracted (VGG §2.1)."""
    return image - statistics.mean[None, None]


def subtract_mean_image(image: jax.Array, *, statistics: Statistics) -> jax.Array:
    """The training set's mean image subtracted, pixel by pixel (AlexNet §2, ResNet §4.2)."""
    return image - statistics.mean_image


def standardize(image: jax.Array, *, statistics: Statistics) -> jax.Array:
    """Each channel to mean zero and standard deviation one over the training set (DenseNet §4.1)."""
    std = jnp.where(statistics.std > 0, statistics.std, 1)  # a channel that never varies stays at zero
    return (image - statistics.mean[None, None]) / std[None, None]


def pca_light(image: jax.Array, std: float = 0.1, *, key: jax.Array, statistics: Statistics) -> jax.Array:
    """Adds [p1 p2 p3][α1 λ1, α2 λ2, α3 λ3]ᵀ to every pixel, α ~ N(0, std²) once per image and use (AlexNet §4.1).

    p and λ are eigenvectors and eigenvalues of the covariance of the training set's RGB values.
    """
    alpha = std * jax.random.normal(key, (image.shape[-1],))
    return image + (statistics.eigenvectors @ (alpha * statistics.eigenvalues))[None, None]
