"""Losses over logits and auxiliary logits, and errors."""

from collections.abc import Callable, Sequence

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
    """Returns the cross-entropy of logits and auxiliary heads, as `with_auxiliary_heads` does."""
    return with_auxiliary_heads(
        lambda scores: cross_entropy(scores, label, image_weights), logits, endpoints, aux_weight
    )


def with_auxiliary_heads(
    loss_of: Callable[[jax.Array], jax.Array],
    logits: jax.Array,
    endpoints: dict[str, jax.Array],
    aux_weight: float,
) -> jax.Array:
    """Returns the loss of the logits, plus `aux_weight` times that of every endpoint `aux_…`.

    GoogLeNet §5 gives each auxiliary head a weight of 0.3.
    """
    loss = loss_of(logits)
    for name, aux_logits in endpoints.items():
        if name.startswith("aux_"):
            loss += aux_weight * loss_of(aux_logits)
    return loss


def hinge_of_images(scores: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns, of each class, the sum of max(0, 1 - y·s) over images and their number, [classes].

    Args:
      scores: s, float32 [n, classes].
      labels: y, int8 [n, classes], 1 or -1; an image whose label is 0 does not count.
    """
    hinges = jax.nn.relu(1 - labels * scores)
    counted = labels != 0
    return jnp.where(counted, hinges, 0).sum(0), counted.sum(0)


def hinge_of_pairs(scores: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Returns, of each class, the sum of max(0, 1 - (p - q)) over pairs and their number.

    p and q are the scores of a positive and of a negative image of the class. The arguments are
    those of `hinge_of_images`; the memory is that of n·n·classes numbers.
    """
    positive, negative = labels > 0, labels < 0
    hinges = jax.nn.relu(1 - (scores[:, None] - scores[None]))
    counted = positive[:, None] & negative[None]
    return jnp.where(counted, hinges, 0).sum((0, 1)), positive.sum(0) * negative.sum(0)


def mean_hinge(
    sums: jax.Array, counts: jax.Array, class_weights: Sequence[float] = ()
) -> jax.Array:
    """Returns the sum over classes of their mean hinge; 0 for a class without any term.

    Args:
      sums, counts: of each class, as the functions above return them.
      class_weights: of each class, a factor; () weighs all alike.
    """
    means = sums / jnp.maximum(counts, 1)
    return (jnp.asarray(class_weights, jnp.float32) * means if class_weights else means).sum()


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
