"""Parses device operations and composes them into one function over a batch."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from cnn_papers import opstrings
from cnn_papers.boxes import NONE, Boxed, area, without_empty
from cnn_papers.data import device_ops
from cnn_papers.data.statistics import Statistics
from cnn_papers.errors import UserError
from cnn_papers.opstrings import Op, OpString

# (uint8 images [n, h, w, c], key) -> float32 images [n, h, w, c]; the same of `Boxed` images, whose
# boxes are [n, k, 4]
DeviceTransform = Callable[[Any, jax.Array], Any]


def augment_batch(
    augment: DeviceTransform, batch: dict[str, jax.Array], key: jax.Array
) -> dict[str, jax.Array]:
    """Returns `batch` with the images of `augment`, and with its boxes where these moved them.

    `boxes` [n, m, 4] and `proposals` [n, p, 4] move with the pixels of `image` [n, h, w, c]. One
    that is left no area becomes zeros, and its class in `classes` [n, m] `boxes.NONE`.
    """
    moved = [name for name in ("boxes", "proposals") if name in batch]
    if not moved:
        return {**batch, "image": augment(batch["image"], key)}
    counts = [batch[name].shape[1] for name in moved]
    boxes = jnp.concatenate([batch[name] for name in moved], 1)
    image, boxes = augment(Boxed(batch["image"], boxes), key)
    parts = jnp.split(without_empty(boxes), np.cumsum(counts)[:-1], axis=1)
    batch = {**batch, "image": image, **dict(zip(moved, parts, strict=True))}
    if "boxes" in batch:
        batch["classes"] = jnp.where(area(batch["boxes"]) > 0, batch["classes"], NONE)
    return batch


def parse_device(text: str, *, key: str) -> OpString:
    """Parses operations of `device_ops`; `key` is the config key of `text`, for messages."""
    return OpString(key, text, opstrings.parse(text, device_ops, leading=1, key=key))


def needs_statistics(device: OpString) -> bool:
    """Tells whether any operation of `device` needs statistics of the training images."""
    return any(op.needs("statistics") or op.needs("whitening") for op in device.ops)


def before_whitening(eval_device: OpString, train_device: OpString) -> OpString | None:
    """Returns the operations of evaluation before `zca`, whose results it whitens; None without it.

    Raises:
      UserError: a second `zca` in one op string; one in training that whitens other images than
        evaluation's, because there is none in evaluation or other operations come before it.
    """
    in_training = _deterministic_before_zca(train_device)
    in_evaluation = _deterministic_before_zca(eval_device)
    if in_training is not None and in_training != in_evaluation:
        raise UserError(
            "config.data.train_device whitens other images than config.data.eval_device: "
            "write the same operations before 'zca' in both, apart from random ones"
        )
    return None if in_evaluation is None else eval_device.first(len(in_evaluation))


def _deterministic_before_zca(device: OpString) -> list[Op] | None:
    """Returns the operations before `zca` that do not draw at random, None if there is no `zca`."""
    places = [i for i, op in enumerate(device.ops) if op.needs("whitening")]
    if len(places) > 1:
        raise UserError(
            f"config.{device.key} whitens twice: the second would need statistics of its own"
        )
    if not places:
        return None
    return [op for op in device.ops[: places[0]] if not op.needs("key")]


def compose(device: OpString, statistics: Statistics | None, *, train: bool) -> DeviceTransform:
    """Returns the operations of `device` as one function over a batch, with boxes or without.

    Every image gets its own key, and every operation its own of those.

    Raises:
      UserError: an operation that draws at random in evaluation. When the function is traced: an
        operation that images of this shape cannot have.
    """
    random_ops = [op.name for op in device.ops if op.needs("key")]
    if random_ops and not train:
        raise UserError(
            f"config.{device.key}: '{random_ops[0]}' is random, which evaluation may not be"
        )
    whitening = statistics.whitening if statistics else None

    def transform_image(image: Any, image_key: jax.Array) -> Any:
        image = _with_pixels(image, _pixels(image).astype(jnp.float32))
        op_keys = jax.random.split(image_key, max(1, len(device.ops)))
        for op, op_key in zip(device.ops, op_keys, strict=False):
            context = {"key": op_key, "statistics": statistics, "whitening": whitening}
            try:
                if op.name in device_ops.MOVES:
                    image = op(image, **context)
                else:
                    image = _with_pixels(image, op(_pixels(image), **context))
            except (TypeError, ValueError) as error:
                shape, reason = "×".join(map(str, image.shape)), str(error).splitlines()[0]
                raise UserError(
                    f"config.{device.key}: '{op.name}' fails on images of {shape}: {reason}"
                ) from error
        return image

    def transform_batch(images: Any, key: jax.Array) -> Any:
        return jax.vmap(transform_image)(images, jax.random.split(key, images.shape[0]))

    return transform_batch


def _pixels(image: Any) -> jax.Array:
    return image.pixels if isinstance(image, Boxed) else image


def _with_pixels(image: Any, pixels: jax.Array) -> Any:
    return image._replace(pixels=pixels) if isinstance(image, Boxed) else pixels
