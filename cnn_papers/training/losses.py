"""Losses over logits and auxiliary logits."""

import jax
import jax.numpy as jnp
import optax


def cross_entropy(logits: jax.Array, label: jax.Array) -> jax.Array:
    """Mean softmax cross-entropy of float32 logits [n, classes] and int32 labels [n]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, label).mean()


def classification(
    logits: jax.Array, endpoints: dict[str, jax.Array], label: jax.Array, *, aux_weight: float
) -> jax.Array:
    """Cross-entropy, plus `aux_weight` times that of every endpoint named `aux_…` (GoogLeNet §5:
    0.3 each).
    """
    loss = cross_entropy(logits, label)
    for name, aux_logits in endpoints.items():
        if name.startswith("aux_"):
            loss += aux_weight * cross_entropy(aux_logits, label)
    return loss


def errors(logits: jax.Array, label: jax.Array, k: int) -> jax.Array:
    """1.0 where the label is not among the `k` highest logits (all, if there are fewer), float32
    [n].

    Logits that are not finite count as wrong: a network that diverged has no opinion.
    """
    _, best = jax.lax.top_k(logits, min(k, logits.shape[-1]))
    right = (best == label[:, None]).any(-1) & jnp.isfinite(logits).all(-1)
    return 1.0 - right.astype(jnp.float32)
