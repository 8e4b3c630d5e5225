"""Device operations composed into one function over a batch."""

from collections.abc import Callable

import jax
import jax.numpy as jnp

from cnn_papers.data import device_ops
from cnn_papers.data.statistics import Statistics
from cnn_papers.errors import UserError
from cnn_papers.opstrings import parse, split

DeviceTransform = Callable[
    [jax.Array, jax.Array], jax.Array
]  # (uint8 images [n, h, w, c], key) -> float32 images


def needs_statistics(text: str, *, key: str = "data") -> bool:
    """Whether the op string `text` asks for figures of the training set."""
    ops = parse(text, device_ops, leading=1, key=key)
    return any(op.needs("statistics") or op.needs("whitening") for op in ops)


def before_whitening(eval_device: str, train_device: str) -> str | None:
    """The operations of evaluation before `zca`: whitening is of the images that they make. None if
    there is none.

    Raises:
      UserError: a second `zca`, one in training alone, one that comes after other operations in
      training.
    """
    known = {}
    for key, text in (("train_device", train_device), ("eval_device", eval_device)):
        ops = parse(text, device_ops, leading=1, key=f"data.{key}")
        places = [i for i, op in enumerate(ops) if op.needs("whitening")]
        if len(places) > 1:
            raise UserError(
                f"config.data.{key} whitens twice: the second would need figures of its own"
            )
        known[key] = [op for op in ops[: places[0]] if not op.needs("key")] if places else None
    if known["train_device"] not in (None, known["eval_device"]):
        raise UserError(
            "config.data.train_device whitens other images than config.data.eval_device: write the same operations "
            "before 'zca' in both, apart from random ones"
        )
    return (
        None
        if known["eval_device"] is None
        else "|".join(split(eval_device)[: len(known["eval_device"])])
    )


def compose(text: str, statistics: Statistics | None, *, key: str, train: bool) -> DeviceTransform:
    """The function of the op string `text` over a batch.

    Every image gets its own key, and every operation its own of those.

    Raises:
      UserError: a bad op string; operations that draw at random in evaluation. When it is traced:
        operations that images of this shape cannot have.
    """
    ops = parse(text, device_ops, leading=1, key=key)
    whitening = statistics.whitening if statistics else None
    if drawing := [op.name for op in ops if op.needs("key") and not train]:
        raise UserError(f"config.{key}: '{drawing[0]}' is random, which evaluation may not be")

    def one(image: jax.Array, image_key: jax.Array) -> jax.Array:
        image = image.astype(jnp.float32)
        for op, op_key in zip(ops, jax.random.split(image_key, max(1, len(ops))), strict=False):
            try:
                image = op(image, key=op_key, statistics=statistics, whitening=whitening)
            except (TypeError, ValueError) as error:
                shape, reason = "×".join(map(str, image.shape)), str(error).splitlines()[0]
                raise UserError(
                    f"config.{key}: '{op.name}' fails on images of {shape}: {reason}"
                ) from error
        return image

    return lambda images, key: jax.vmap(one)(images, jax.random.split(key, images.shape[0]))
