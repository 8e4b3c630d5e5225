"""Device operations composed into one function over a batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cnn_papers.data import device_ops
from cnn_papers.data.statistics import Statistics
from cnn_papers.errors import UserError
from cnn_papers.opstrings import parse

Transform = Callable[[jax.Array, jax.Array], jax.Array]  # (uint8 images [n, h, w, c], key) -> float32 images


def needs_statistics(text: str, *, key: str = "data") -> bool:
    """Whether the op string `text` asks for figures of the training set."""
    return any(op.needs("statistics") for op in parse(text, device_ops, leading=1, key=key))


def compose(text: str, statistics: Statistics | None, *, key: str, train: bool) -> Transform:
    """The function of the op string `text` over a batch.

    Every image gets its own key, and every operation its own of those.

    Raises:
      UserError: a bad op string; operations that draw at random in evaluation. When it is traced: operations that
        images of this shape cannot have.
    """
    ops = parse(text, device_ops, leading=1, key=key)
    if drawing := [op.name for op in ops if op.needs("key") and not train]:
        raise UserError(f"config.{key}: '{drawing[0]}' is random, which evaluation may not be")

    def one(image: jax.Array, image_key: jax.Array) -> jax.Array:
        image = image.astype(jnp.float32)
        for op, op_key in zip(ops, jax.random.split(image_key, max(1, len(ops))), strict=False):
            try:
                image = op(image, key=op_key, statistics=statistics)
            except (TypeError, ValueError) as error:
                shape, reason = "×".join(map(str, image.shape)), str(error).splitlines()[0]
                raise UserError(f"config.{key}: '{op.name}' fails on images of {shape}: {reason}") from error
        return image

    return lambda images, key: jax.vmap(one)(images, jax.random.split(key, len(images)))
