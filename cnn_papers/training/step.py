"""One training step and one evaluation step, as pure functions of arrays."""

from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnn_papers.data.augment import DeviceTransform
from cnn_papers.training import losses
from cnn_papers.training.optim import Optimizer

Batch = dict[str, jax.Array]


class StepSettings(NamedTuple):
    """What a train step does besides the network and the optimiser; the keys of `config.loss` and
    `config.optim`.

    Attributes:
      aux_weight: of the losses of auxiliary heads (GoogLeNet §5).
      ema_decay: of the running average of the parameters (GoogLeNet §6); 0 keeps none.
      accumulate: parts that a batch is worked through in, each with its own batch statistics.
      bn_group: images that share batch statistics, as on one GPU of several; 0 is the whole part.
      max_loss: a step with a larger loss is left out and counted, as one that is not finite is; 0
        leaves out none.
    """

    aux_weight: float = 0.0
    ema_decay: float = 0.0
    accumulate: int = 1
    bn_group: int = 0
    max_loss: float = 0.0

    @classmethod
    def from_config(cls, config: Any) -> "StepSettings":
        """Takes each setting from the key of its name in `config.loss` or `config.optim`."""
        values = {**config.loss, **config.optim}
        return cls(**{name: values[name] for name in cls._fields})


class Totals(NamedTuple):
    """Sums over the finite steps since the last report, kept with the state so that a resumed run
    reports the same.
    """

    steps: jax.Array
    loss: jax.Array
    top1_error: jax.Array
    grad_norm: jax.Array


class State(NamedTuple):
    """Everything a run continues from.

    Attributes:
      step: steps taken, skipped ones too: the position in the data.
      params, batch_stats, opt_state: of the model and the optimiser.
      ema: running average of `params` (GoogLeNet §6), or None.
      skipped, skipped_in_a_row: steps that left everything else as it was, their outcome not being
      finite, or a spike.
      totals: for the next report.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    skipped: jax.Array
    skipped_in_a_row: jax.Array
    totals: Totals


def init_state(
    model: nn.Module,
    optimizer: Optimizer,
    image_shape: tuple[int, ...],
    key: jax.Array,
    *,
    ema: bool,
) -> State:
    """A fresh state for images of `image_shape` (h, w, c)."""
    params_key, dropout_key = jax.random.split(key)
    rngs: Any = {"params": params_key, "dropout": dropout_key}
    variables = model.init(rngs, jnp.zeros((1, *image_shape)), train=True)
    params, stats = variables["params"], variables.get("batch_stats", {})
    average = jax.tree.map(jnp.copy, params) if ema else None
    zero = jnp.int32(0)
    return State(zero, params, stats, optimizer.init(params), average, zero, zero, zero_totals())


def zero_totals() -> Totals:
    """Totals of no step."""
    return Totals(jnp.int32(0), jnp.float32(0), jnp.float32(0), jnp.float32(0))


def make_train_step(
    model: Any,
    optimizer: Optimizer,
    augment: DeviceTransform,
    settings: StepSettings,
) -> Callable[[State, Batch, jax.Array], tuple[State, dict[str, jax.Array]]]:
    """The pure function (state, batch, key) -> (state, scalars).

    `model` is a network, or one over a mesh, with Flax's `apply`. `batch` holds uint8 `image` [n,
    h, w, c] and int32 `label` [n]. With `settings.bn_group` the moving averages see the mean over
    the groups. `key` is the run's; each step folds its number in.

    A step whose loss, gradient norm, new parameters or new statistics are not finite (an activation
    whose square overflows gives a finite loss and an infinite variance), or whose loss is above a
    positive `settings.max_loss`, leaves parameters, statistics, optimiser and average as they were
    and is counted.
    """

    def apply(variables: Any, image: jax.Array, key: jax.Array) -> Any:
        return model.apply(
            variables, image, train=True, rngs={"dropout": key}, mutable=["batch_stats"]
        )

    apply = _in_groups(apply, settings.bn_group) if settings.bn_group else apply

    def loss_of(
        params: Any, stats: Any, image: jax.Array, label: jax.Array, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        (logits, endpoints), updates = apply({"params": params, "batch_stats": stats}, image, key)
        loss = losses.classification(logits, endpoints, label, aux_weight=settings.aux_weight)
        return loss, (updates.get("batch_stats", {}), losses.errors(logits, label, 1).mean())

    def train_step(
        state: State, batch: Batch, key: jax.Array
    ) -> tuple[State, dict[str, jax.Array]]:
        augment_key, dropout_key = jax.random.split(jax.random.fold_in(key, state.step))
        image, label = augment(batch["image"], augment_key), batch["label"]
        grad = jax.value_and_grad(loss_of, has_aux=True)
        if settings.accumulate == 1:
            (loss, (stats, error)), grads = grad(
                state.params, state.batch_stats, image, label, dropout_key
            )
        else:
            loss, stats, error, grads = _accumulated(
                grad, state, image, label, dropout_key, settings.accumulate
            )
        norm = optax.tree.norm(grads)
        rate = optimizer.learning_rate(state.opt_state)
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        decay = settings.ema_decay
        ema = state.ema and jax.tree.map(
            lambda a, p: decay * a + (1 - decay) * p, state.ema, params
        )
        good = _all_finite((loss, norm, params, stats))
        if settings.max_loss:
            good &= loss <= settings.max_loss
        totals = jax.tree.map(jnp.add, state.totals, Totals(jnp.int32(1), loss, 100 * error, norm))
        new = state._replace(
            params=params, batch_stats=stats, opt_state=opt_state, ema=ema, totals=totals
        )
        state = jax.tree.map(lambda new, old: jnp.where(good, new, old), new, state)._replace(
            step=state.step + 1,
            skipped=state.skipped + ~good,
            skipped_in_a_row=jnp.where(good, 0, state.skipped_in_a_row + 1),
        )
        scalars = {"loss": loss, "top1_error": 100 * error, "grad_norm": norm, "lr": rate}
        return state, scalars | {"skipped_in_a_row": state.skipped_in_a_row}

    return train_step


def _in_groups(apply: Any, size: int) -> Any:
    """`apply` on each `size` images by themselves; the updates of the statistics are averaged."""

    def grouped(variables: Any, image: jax.Array, key: jax.Array) -> Any:
        images = image.reshape(-1, size, *image.shape[1:])
        outputs, updates = jax.vmap(apply, (None, 0, 0))(
            variables, images, jax.random.split(key, len(images))
        )
        whole = jax.tree.map(lambda x: x.reshape(image.shape[0], *x.shape[2:]), outputs)
        return whole, jax.tree.map(lambda x: x.mean(0), updates)

    return grouped


def _all_finite(tree: Any) -> jax.Array:
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(tree)]).all()


def _accumulated(
    grad: Any, state: State, image: jax.Array, label: jax.Array, key: jax.Array, parts: int
) -> tuple[jax.Array, Any, jax.Array, Any]:
    """Means of loss, error and gradient over `parts` parts of the batch, one after the other."""

    def split(x: jax.Array) -> jax.Array:
        # Rows go to the parts in turn, so that every part stays spread over the devices as the
        # batch is.
        return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

    def add(carry: Any, part: Any) -> tuple[Any, None]:
        stats, sums = carry
        (loss, (stats, error)), grads = grad(state.params, stats, *part)
        return (stats, jax.tree.map(jnp.add, sums, (loss, error, grads))), None

    zeros = (jnp.float32(0), jnp.float32(0), jax.tree.map(jnp.zeros_like, state.params))
    parted = (split(image), split(label), jax.random.split(key, parts))
    (stats, sums), _ = jax.lax.scan(add, (state.batch_stats, zeros), parted)
    loss, error, grads = jax.tree.map(lambda total: total / parts, sums)
    return loss, stats, error, grads


def make_predict_step(
    model: Any, normalise: DeviceTransform
) -> Callable[[Any, jax.Array], jax.Array]:
    """The pure function (variables, uint8 images [n, h, w, c]) -> class logits float32 [n,
    classes].
    """

    def predict(variables: Any, image: jax.Array) -> jax.Array:
        return model.apply(variables, normalise(image, jax.random.key(0)))[0]

    return predict
