"""The train step and the predict step, as pure functions of arrays."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax

from cnn_papers.data.augment import DeviceTransform, augment_batch
from cnn_papers.errors import UserError, did_you_mean
from cnn_papers.training import freezing
from cnn_papers.training.optim import Optimizer

Batch = dict[str, jax.Array]
Settings = TypeVar("Settings")
# float32 images, the network's other arguments by name, and what the task's loss compares with
Examples = tuple[jax.Array, dict[str, jax.Array], Any]


class StepSettings(NamedTuple):
    """Options of the train step; the keys of `config.loss`, and some of `config.optim`.

    Attributes:
      aux_weight: weight of the losses of auxiliary heads (GoogLeNet §5).
      class_weights: a number for each output of the head, which weighs the losses of its images;
        () weighs all alike.
      ranking: where an image has several labels, the loss is of pairs of images, not of images.
      ema_decay: decay of the running average of the parameters (GoogLeNet §6); 0 keeps no average.
      accumulate: number of parts that a batch is split into. They are worked through one after the
        other, each with its own batch statistics.
      bn_group: number of images that share batch statistics, as on one of several GPUs; 0 means all
        images of a part.
      max_loss: a step whose loss is larger is skipped, like one that is not finite; 0 sets no
        limit.
      move_frozen_statistics: batch normalisation in frozen layers goes on by the statistics of the
        batch, and its moving averages move. Otherwise it works as in evaluation.
      boxes: the keys of `config.boxes` with their values, for a task that finds boxes.
    """

    aux_weight: float = 0.0
    class_weights: tuple[float, ...] = ()
    ranking: bool = False
    ema_decay: float = 0.0
    accumulate: int = 1
    bn_group: int = 0
    max_loss: float = 0.0
    move_frozen_statistics: bool = False
    boxes: tuple[tuple[str, Any], ...] = ()

    @classmethod
    def from_config(cls, config: Any, class_weights: tuple[float, ...] = ()) -> "StepSettings":
        """Takes each setting from the key of its name in `config.loss`, `config.optim` or `config`.

        `class_weights` are those of `config.loss.class_weights` as numbers, which follow from the
        data too.
        """
        boxes = tuple(sorted(config.get("boxes", {}).items()))
        values = {**config.loss, **config.optim, "class_weights": class_weights, "boxes": boxes}
        return cls(**{name: values[name] for name in cls._fields})

    def boxes_as(self, kind: type[Settings]) -> Settings:
        """Returns `boxes` as a NamedTuple of a task, whose fields are the keys that it knows.

        Raises:
          UserError: an unknown key.
        """
        values, known = dict(self.boxes), inspect.signature(kind).parameters
        if unknown := sorted(set(values) - set(known)):
            hint = did_you_mean(unknown[0], known)
            raise UserError(
                f"config.boxes.{unknown[0]} is no setting of this task; "
                f"{f'{hint} ' if hint else ''}there are: {', '.join(known)}"
            )
        return kind(**values)


class State(NamedTuple):
    """Everything that a run continues from.

    Attributes:
      step: number of steps taken, skipped ones included; also the position in the data.
      params, batch_stats, opt_state: variables of the network, and state of the optimiser.
      ema: running average of `params` (GoogLeNet §6), or None.
      skipped, skipped_in_a_row: number of steps that were skipped because their outcome was not
        finite or their loss too large.
      totals: sums since the last report, without skipped steps, in the task's `Totals`. A resumed
        run reports the same means.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any
    ema: Any
    skipped: jax.Array
    skipped_in_a_row: jax.Array
    totals: Any


def init_state(
    model: nn.Module,
    optimizer: Optimizer,
    image_shape: tuple[int, ...],
    key: jax.Array,
    *,
    ema: bool,
    totals: Any,
) -> State:
    """Returns a fresh state for images of `image_shape` (h, w, c); `totals` is a task's type."""
    params_key, dropout_key = jax.random.split(key)
    rngs: Any = {"params": params_key, "dropout": dropout_key}
    variables = model.init(rngs, jnp.zeros((1, *image_shape)), train=True)
    params, stats = variables["params"], variables.get("batch_stats", {})
    average = jax.tree.map(jnp.copy, params) if ema else None
    opt_state = optimizer.init(freezing.split(params, optimizer.frozen)[0])
    zero = jnp.int32(0)
    return State(zero, params, stats, opt_state, average, zero, zero, zero_totals(totals))


def zero_totals(totals: Any) -> Any:
    """Returns the totals of no steps; `totals` is a task's type.

    Each is an array of its own, since a step donates them all.
    """
    sums = {name: jnp.float32(0) for name in totals._fields if name != "steps"}
    return totals(steps=jnp.int32(0), **sums)


def make_train_step(
    model: Any, optimizer: Optimizer, augment: DeviceTransform, settings: StepSettings, task: Any
) -> Callable[[State, Batch, jax.Array], tuple[State, dict[str, jax.Array]]]:
    """Returns the pure function (state, batch, key) -> (state, scalars).

    A step is skipped if its loss, its gradient's norm, its new parameters or its new statistics
    are not finite (an activation whose square overflows gives a finite loss and an infinite
    variance), or if its loss exceeds a positive `settings.max_loss`. A skipped step is counted and
    leaves parameters, statistics, optimiser, average and totals as they were. Every step leaves
    the parameters of frozen layers, their average and, unless they may move, their statistics.

    Args:
      model: a network, or one over a mesh, with Flax's `apply`.
      augment: turns the uint8 `image` [n, h, w, c] of a batch into float32 images; boxes of the
        batch move with the pixels. A batch also holds what the task learns, such as int32 `label`
        [n]. `key` is that of the run; each step folds its number into it.
      task: a module of `cnn_papers.tasks`, for its `prepare`, `loss`, `scalars` and `Totals`.
    """
    frozen = optimizer.frozen
    gradient = _make_gradient(
        model, settings, task, frozenset() if settings.move_frozen_statistics else frozen
    )

    def train_step(
        state: State, batch: Batch, key: jax.Array
    ) -> tuple[State, dict[str, jax.Array]]:
        step_key = jax.random.fold_in(key, state.step)
        augment_key, dropout_key = jax.random.split(step_key)
        task_key = jax.random.fold_in(step_key, 2)  # the two above are as they always were
        batch = augment_batch(augment, batch, augment_key)
        examples = (batch["image"], *task.prepare(model, batch, settings, task_key))
        trained, kept = freezing.split(state.params, frozen)
        (loss, (batch_stats, means)), grads = gradient(
            trained, kept, state.batch_stats, examples, dropout_key
        )
        norm = optax.tree.norm(grads)
        one = task.Totals(steps=jnp.int32(1), loss=loss, grad_norm=norm, **task.scalars(means))

        def updated() -> State:
            totals = jax.tree.map(jnp.add, state.totals, one)
            new = _optimized(state, grads, optimizer, settings.ema_decay)
            return new._replace(batch_stats=batch_stats, totals=totals)

        trained = freezing.split(updated().params, frozen)[0]
        good = _all_finite((loss, norm, trained, batch_stats))
        if settings.max_loss:
            good &= loss <= settings.max_loss
        rate = optimizer.learning_rate(state.opt_state)
        state = _updated_if(good, updated, state)
        scalars = {"loss": loss, **task.scalars(means), "grad_norm": norm, "lr": rate}
        return state, scalars | {"skipped_in_a_row": state.skipped_in_a_row}

    return train_step


def make_predict_step(
    model: Any, normalise: DeviceTransform
) -> Callable[[Any, jax.Array], jax.Array]:
    """Returns the pure function (variables, images) -> logits.

    The images are uint8 [n, h, w, c], the logits float32 [n, classes].
    """

    def predict(variables: Any, image: jax.Array) -> jax.Array:
        return model.apply(variables, normalise(image, jax.random.key(0)))[0]

    return predict


def _make_gradient(
    model: Any, settings: StepSettings, task: Any, as_in_evaluation: freezing.Layers
) -> Callable[..., Any]:
    """Returns (trained, kept, batch_stats, examples, key) -> ((loss, (batch_stats, means)), grads).

    `trained` and `kept` are parameters; the gradient is by `trained`. `means` are the task's, by
    the names of its scalars. Batch normalisation in the layers `as_in_evaluation` uses its moving
    averages, which stay.
    """

    def apply(variables: Any, image: jax.Array, arguments: Any, key: jax.Array) -> Any:
        with freezing.with_moving_averages(as_in_evaluation):
            return model.apply(
                variables,
                image,
                train=True,
                rngs={"dropout": key},
                mutable=["batch_stats"],
                **arguments,
            )

    apply = _in_groups(apply, settings.bn_group) if settings.bn_group else apply

    def loss_of(
        trained: Any, kept: Any, batch_stats: Any, examples: Examples, key: jax.Array
    ) -> tuple[jax.Array, Any]:
        image, arguments, targets = examples
        variables = {"params": freezing.join(trained, kept), "batch_stats": batch_stats}
        (outputs, endpoints), updates = apply(variables, image, arguments, key)
        loss, means = task.loss(outputs, endpoints, targets, settings)
        # Those that stay are the old ones to the bit, which a mean over groups need not be.
        moved = freezing.split(updates.get("batch_stats", {}), as_in_evaluation)[0]
        batch_stats = freezing.join(moved, freezing.split(batch_stats, as_in_evaluation)[1])
        return loss, (batch_stats, means)

    gradient = jax.value_and_grad(loss_of, has_aux=True)
    if settings.accumulate == 1:
        return gradient
    names = [name for name in task.Totals._fields if name not in ("steps", "loss", "grad_norm")]
    return _in_parts(gradient, settings.accumulate, names)


def _in_groups(apply: Any, size: int) -> Any:
    """Returns `apply` with batch statistics of each `size` images; their updates are averaged."""

    def grouped(variables: Any, image: jax.Array, arguments: Any, key: jax.Array) -> Any:
        groups = jax.tree.map(lambda x: x.reshape(-1, size, *x.shape[1:]), (image, arguments))
        keys = jax.random.split(key, len(groups[0]))
        outputs, updates = jax.vmap(apply, (None, 0, 0, 0))(variables, *groups, keys)
        joined = jax.tree.map(lambda x: x.reshape(image.shape[0], *x.shape[2:]), outputs)
        return joined, jax.tree.map(lambda x: x.mean(0), updates)

    return grouped


def _in_parts(gradient: Callable[..., Any], parts: int, names: Sequence[str]) -> Callable[..., Any]:
    """Returns `gradient` over `parts` parts of the batch, one after the other.

    Loss, gradient and the task's means, those of `names`, are means over the parts; the statistics
    pass from part to part.
    """

    def split(x: jax.Array) -> jax.Array:
        # The parts take rows in turn, so that each stays spread over the devices, as the batch is.
        return x.reshape(-1, parts, *x.shape[1:]).swapaxes(0, 1)

    def accumulated(
        trained: Any, kept: Any, batch_stats: Any, examples: Examples, key: jax.Array
    ) -> Any:
        def add(carry: Any, part: Any) -> tuple[Any, None]:
            stats, sums = carry
            (loss, (stats, means)), grads = gradient(trained, kept, stats, *part)
            return (stats, jax.tree.map(jnp.add, sums, (loss, means, grads))), None

        zero_means = {name: jnp.float32(0) for name in names}
        zeros = (jnp.float32(0), zero_means, jax.tree.map(jnp.zeros_like, trained))
        parted = (jax.tree.map(split, examples), jax.random.split(key, parts))
        (batch_stats, sums), _ = jax.lax.scan(add, (batch_stats, zeros), parted)
        loss, means, grads = jax.tree.map(lambda total: total / parts, sums)
        return (loss, (batch_stats, means)), grads

    return accumulated


def _optimized(state: State, grads: Any, optimizer: Optimizer, ema_decay: float) -> State:
    """Returns `state` with parameters, optimiser and average one update further."""
    trained, kept = freezing.split(state.params, optimizer.frozen)
    updates, opt_state = optimizer.update(grads, state.opt_state, trained)
    trained = optax.apply_updates(trained, updates)
    ema = state.ema
    if ema:
        average, kept_average = freezing.split(ema, optimizer.frozen)
        ema = freezing.join(_moved_average(average, trained, ema_decay), kept_average)
    return state._replace(params=freezing.join(trained, kept), opt_state=opt_state, ema=ema)


def _moved_average(average: Any, params: Any, decay: float) -> Any:
    return jax.tree.map(lambda a, p: decay * a + (1 - decay) * p, average, params)


def _all_finite(tree: Any) -> jax.Array:
    """Tells whether all values are finite: only then are their products with zero zero.

    XLA sums on CPU without an array of what is finite, which took twice as long. Every array of the
    state reads the result. XLA repeats cheap operations, here the sum over hundreds of arrays, in
    each program that reads it, but not a square root: without it, compiling the step of
    DenseNet-121 took six times as long and twice the memory.
    """
    zeros = jnp.stack([(0 * leaf).sum() for leaf in jax.tree.leaves(tree)])
    return jnp.sqrt(zeros.sum()) == 0


def _updated_if(good: jax.Array, updated: Callable[[], State], state: State) -> State:
    """Returns `updated()` if the step was good, else `state`, with the step counted.

    On CPU the update is computed once more, in a branch, which writes it over the old state: to
    select, XLA would keep the new parameters, and pass over all arrays again. The optimiser's part
    of AlexNet's step took 2.4 times as long. An accelerator selects, and waits for no branch.
    """

    def branch() -> State:
        return jax.lax.cond(good, updated, lambda: state)

    def select() -> State:
        return jax.tree.map(lambda new, old: jnp.where(good, new, old), updated(), state)

    kept = jax.lax.platform_dependent(cpu=branch, default=select)
    return kept._replace(
        step=state.step + 1,
        skipped=state.skipped + ~good,
        skipped_in_a_row=jnp.where(good, 0, state.skipped_in_a_row + 1),
    )
