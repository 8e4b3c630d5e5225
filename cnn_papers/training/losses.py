"""Losses over logits and auxiliary logits."""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import optax


def cross_entropy(
    logits: jax.Array, label: jax.Array, image_weights: jax.Array | None = None
) -> jax.Array:
    """Returns the mean softmax cross-entropy of float32 logits [n, classes], int32 labels [n].

    The loss of each image is multiplied by its weight in `image_weights`, float32 [n].
    """
    loss = optax.softmax_cross_entropy_with_integer_labels(logits, label)
    return loss.mean() if image_weights is None else (image_weights * loss).mean()


def classification(
    logits: jax.Array,
    endpoints: dict[str, jax.Array],
    label: jax.Array,
    image_weights: jax.Array | None = None,
    *,
    aux_weight: float,
) -> jax.Array:
    """Returns the cross-entropy, plus `aux_weight` times that of every endpoint named `aux_…`.

    GoogLeNet §5 gives each auxiliary head a weight of 0.3.
    """
    loss = cross_entropy(logits, label, image_weights)
    for name, aux_logits in endpoints.items():
        if name.startswith("aux_"):
            loss += aux_weight * cross_entropy(aux_logits, label, image_weights)
    return loss


def weights_of_images(class_weights: Sequence[float], label: jax.Array) -> jax.Array | None:
    """Returns a weight for each image of a batch, float32 [n]; None without `class_weights`.

    It is that of the image's class, over the mean of the batch: the mean of so weighted losses is
    Σ w·loss / Σ w, as in torch's `CrossEntropyLoss(weight=…)`, also where it is computed in parts.
    """
    if not class_weights:
        return None
    weights = jnp.asarray(class_weights, jnp.float32)[label]
    return weights / weights.mean()


def errors(logits: jax.Array, label: jax.Array, k: int) -> jax.Array:
    """Returns the top-k error of each image, float32 [n].

    It is 1.0 where the label is not among the `k` highest logits (or all, if there are fewer) and
    where a logit is not finite, as a network that has diverged predicts nothing.
    """
    _, best = jax.lax.top_k(logits, min(k, logits.shape[-1]))
    right = (best == label[:, None]).any(-1) & jnp.isfinite(logits).all(-1)
    return 1.0 - right.astype(jnp.float32)
