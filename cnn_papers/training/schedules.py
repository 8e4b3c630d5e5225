"""Learning-rate schedules, named in `config.optim.schedule`.

Each returns the factor on the base learning rate, a float32 scalar. Its first argument is the
progress of training; the others come from the op string. Warm-up is not a schedule but a factor on
all of them: see `optim.py`.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from cnn_papers.errors import UserError


class Progress(NamedTuple):
    """The progress of training.

    Attributes:
      step: number of steps taken, a traced scalar.
      steps_per_epoch, total_steps: the length of an epoch and of the whole training, in steps.
    """

    step: jax.Array
    steps_per_epoch: float
    total_steps: int


def constant(progress: Progress) -> jax.Array:
    """Returns 1."""
    return jnp.ones_like(progress.step, jnp.float32)


def step(progress: Progress, *boundaries: int, factor: float = 0.1) -> jax.Array:
    """Multiplies the rate by `factor` at each of the given steps."""
    return _staircase(progress.step, boundaries, factor)


def step_epochs(
    progress: Progress, *boundaries: float, factor: float | tuple[float, ...] = 0.1
) -> jax.Array:
    """Multiplies the rate by `factor` at each of the given epochs.

    A tuple has a factor for each of them, in order (LeNet-5 §III-B).
    """
    return _staircase(progress.step / progress.steps_per_epoch, boundaries, factor)


def step_fractions(progress: Progress, *boundaries: float, factor: float = 0.1) -> jax.Array:
    """Multiplies the rate by `factor` at each of the given fractions of the whole training.

    DenseNet §4.2: 0.5 and 0.75.
    """
    return _staircase(progress.step / progress.total_steps, boundaries, factor)


def exponential(progress: Progress, factor: float, every_epochs: float = 1.0) -> jax.Array:
    """Multiplies the rate by `factor` every `every_epochs` epochs (GoogLeNet §6: 0.96 every 8)."""
    drops = jnp.floor(progress.step / (progress.steps_per_epoch * every_epochs))
    return factor**drops


def linear(progress: Progress, last: float, epochs: float) -> jax.Array:
    """Falls linearly to `last` of the base rate over `epochs` epochs, then stays there.

    From the released configurations of Maxout's authors.
    """
    done = jnp.minimum(progress.step / (progress.steps_per_epoch * epochs), 1.0)
    return 1 - (1 - last) * done


def poly(progress: Progress, power: float = 0.5) -> jax.Array:
    """Returns (1 - t)^power, with t from 0 to 1 over the whole training (Caffe's policy)."""
    return (1 - jnp.minimum(progress.step / progress.total_steps, 1.0)) ** power


def cosine(progress: Progress) -> jax.Array:
    """Falls from 1 to 0 along half a cosine over the whole training.

    Loshchilov & Hutter, arXiv:1608.03983.
    """
    return 0.5 * (1 + jnp.cos(jnp.pi * jnp.minimum(progress.step / progress.total_steps, 1.0)))


def plateau(progress: Progress, factor: float = 0.1, patience: int = 3) -> jax.Array:
    """Multiplies the rate by `factor` when `patience` evaluations have not lowered the error.

    AlexNet §5. The drops follow evaluations, not steps: `Optimizer.observe` makes them, and this
    function returns 1.
    """
    return jnp.ones_like(progress.step, jnp.float32)


def _staircase(
    position: jax.Array, boundaries: tuple[float, ...], factor: float | tuple[float, ...]
) -> jax.Array:
    if not boundaries:
        return jnp.ones_like(position, jnp.float32)
    passed = position >= jnp.asarray(boundaries, jnp.float32)
    if not isinstance(factor, tuple):
        return jnp.asarray(factor, jnp.float32) ** passed.sum()
    if len(factor) != len(boundaries):
        raise UserError(
            f"config.optim.schedule has {len(factor)} factors for {len(boundaries)} drops of the "
            "rate; it takes one for each, or a single number"
        )
    return jnp.where(passed, jnp.asarray(factor, jnp.float32), 1).prod()
