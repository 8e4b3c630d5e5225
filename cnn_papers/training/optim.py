"""SGD with momentum as the papers write it.

Weight decay is added to the gradient, momentum has two forms, the learning rate may warm up, and
rates and decays can be multiplied by path. Frozen layers have no part in any of it.

Decay acts on every parameter, biases and the scale and shift of batch normalisation too, unless
`wd_mults` says otherwise. The papers speak of weights and do not mention the others. The released
files differ: Caffe's (bvlc_googlenet), matconvnet's and cuda-convnet's leave biases out and give
them twice the rate, SPP-net's gives them twice the rate only, and fb.resnet.torch decays all alike.
A recipe that follows one of the first sets `wd_mults` and `lr_mults`.
"""

import inspect
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnn_papers.errors import UserError
from cnn_papers.opstrings import Op, parse
from cnn_papers.training import freezing, schedules
from cnn_papers.training.multipliers import Multipliers, matches, multipliers


class OptimizerSettings(NamedTuple):
    """Options of the optimiser; the keys of `config.optim`.

    Attributes:
      lr, lr_batch: base learning rate for a batch of `lr_batch` images. It is scaled in proportion
        to the batch size.
      momentum_form: "caffe" keeps the learning rate inside the velocity, v ← μv + ε·g, w ← w − v
        (AlexNet §5, Caffe); "torch" outside, v ← μv + g, w ← w − ε·v (fb.resnet.torch). They differ
        once the rate changes.
      weight_decay: L2, added to the gradient before momentum; see above for the parameters.
      schedule: an op string of `training.schedules`.
      warmup_epochs: number of epochs over which the rate rises linearly from 0.
      warmup_until_error: (error, factor): until a report finds the mean training error, in percent,
        below `error`, the rate is multiplied by `factor` (ResNet §4.2: (80.0, 0.1)). () is off.
      constant_lr: regexes. The rate of a parameter whose whole path matches one does not follow the
        schedule, only warm-up and its multiplier (NIN's release drops the rate of weights only).
      lr_mults, wd_mults: (regex, factor) pairs. The first that matches the whole path of a
        parameter, such as `fc8/bias`, multiplies its rate or its decay. A rate times 0 is still
        computed, and momentum kept; `frozen` saves both.
      max_norms: (regex, limit) pairs. After each update, the weights of every output (the last
        axis) of a matching kernel are scaled down to a length of at most `limit` (Maxout §4, after
        Srebro & Shraibman 2005).
      frozen: a regular expression for whole names of layers, such as `conv.*`, whose parameters
        stay as they are; "" trains all.
    """

    lr: float
    lr_batch: int
    momentum: float = 0.9
    momentum_form: str = "caffe"
    nesterov: bool = False
    weight_decay: float = 0.0
    schedule: str = "constant"
    warmup_epochs: float = 0.0
    warmup_until_error: Sequence[float] = ()
    constant_lr: Sequence[str] = ()
    lr_mults: Multipliers = ()
    wd_mults: Multipliers = ()
    max_norms: Multipliers = ()
    frozen: str = ""

    @classmethod
    def from_config(cls, config: Any) -> "OptimizerSettings":
        """Takes each setting from the key of its name in `config.optim`."""
        return cls(**{name: config.optim[name] for name in cls._fields})


class LearningRate(NamedTuple):
    """The state of the learning rate.

    Attributes:
      count: number of updates made.
      factor, best_error, waited: of a plateau schedule: the product of its drops, the lowest error
        it has observed, and the number of evaluations in a row since then.
    """

    count: jax.Array
    factor: jax.Array
    best_error: jax.Array
    waited: jax.Array


class WarmUp(NamedTuple):
    """The state of a warm-up until an error: `over` is a scalar, whether it has ended."""

    over: jax.Array


class Optimizer(NamedTuple):
    """An optimiser in Optax's form, with access to its learning rate.

    Its `params` and `grads` are those that are trained, which `freezing.split` returns.

    Attributes:
      init: params -> state.
      update: (grads, state, params) -> (updates, state).
      learning_rate: state -> the rate of the next update.
      observe: (state, error) -> state; tells a plateau schedule the error of an evaluation (or
        another cost of the task's), and returns the state unchanged for any other schedule.
      observe_training: (state, error) -> state; tells a warm-up until an error the mean training
        error of a report, in percent, and returns the state unchanged without such a warm-up.
      frozen: the layers that are not trained.
    """

    init: Any
    update: Any
    learning_rate: Any
    observe: Any
    observe_training: Any = None
    frozen: freezing.Layers = frozenset()


def make_optimizer(
    params: Any,
    settings: OptimizerSettings,
    *,
    batch_size: int,
    steps_per_epoch: float,
    total_steps: int,
) -> Optimizer:
    """Returns the optimiser for the parameters `params` (arrays or shapes), frozen ones included.

    Raises:
      UserError: unknown schedule or momentum form, a warm-up until an error that is not a pair of
        positive numbers, a pattern that matches nothing, or no layer that is trained.
    """
    frozen = freezing.frozen_layers(params, settings.frozen)
    schedule = _one_schedule(settings.schedule)
    warmup_steps = settings.warmup_epochs * steps_per_epoch
    base = settings.lr * batch_size / settings.lr_batch

    def warmup(state: LearningRate) -> Any:
        return jnp.minimum((state.count + 1) / warmup_steps, 1.0) if warmup_steps else 1.0

    def rate(state: LearningRate) -> jax.Array:
        progress = schedules.Progress(state.count, steps_per_epoch, total_steps)
        return base * state.factor * warmup(state) * schedule(progress)

    def of_trained(tree: Any) -> Any:
        # A pattern may be of frozen parameters only: a recipe's multipliers are of all its layers.
        return freezing.split(tree, frozen)[0]

    lr_mults = of_trained(multipliers(params, settings.lr_mults, "optim.lr_mults"))
    is_constant = of_trained(matches(params, settings.constant_lr, "optim.constant_lr"))
    scale = _scale_by_rate(rate, lambda state: base * warmup(state), lr_mults, is_constant)
    jax.eval_shape(lambda: rate(rate_state(scale.init(params))))  # may refuse its numbers
    warm_until, warm_factor = _warm_up(settings.warmup_until_error)
    scaled = (scale, *([_scale_in_warmup(warm_factor)] if settings.warmup_until_error else []))
    decays = of_trained(multipliers(params, settings.wd_mults, "optim.wd_mults"))
    limits = of_trained(multipliers(params, settings.max_norms, "optim.max_norms", default=jnp.inf))
    transform = optax.chain(
        _add_decay(settings.weight_decay, decays),
        *_with_velocity(settings, scaled),
        optax.scale(-1.0),
        *([_limit_norms(limits)] if settings.max_norms else []),
    )

    def learning_rate(state: Any) -> jax.Array:
        now = rate(rate_state(state))
        if settings.warmup_until_error:
            now *= jnp.where(_node(state, WarmUp).over, 1.0, warm_factor)
        return now

    return Optimizer(
        transform.init,
        transform.update,
        learning_rate,
        _observer(schedule),
        _training_observer(warm_until),
        frozen,
    )


def _one_schedule(text: str) -> Op:
    parsed = parse(text, schedules, leading=1, key="optim.schedule")
    if len(parsed) != 1:
        raise UserError(f"config.optim.schedule names {len(parsed)} schedules; it takes one")
    return parsed[0]


def _with_velocity(settings: OptimizerSettings, scaled: Sequence[Any]) -> Sequence[Any]:
    """Returns `scaled`, which apply the rate, and the velocity, in the order of its form."""
    trace = optax.trace(settings.momentum, nesterov=settings.nesterov)
    orders = {"caffe": (*scaled, trace), "torch": (trace, *scaled)}
    if settings.momentum_form not in orders:
        raise UserError(
            f"config.optim.momentum_form is 'caffe' or 'torch', not '{settings.momentum_form}'"
        )
    return orders[settings.momentum_form]


def _warm_up(setting: Sequence[float]) -> tuple[float, float]:
    """Returns error and factor of `config.optim.warmup_until_error`."""
    if not setting:
        return 0.0, 1.0
    numbers = [value for value in setting if isinstance(value, int | float) and value > 0]
    if len(setting) != 2 or len(numbers) != 2:
        raise UserError(
            f"config.optim.warmup_until_error={tuple(setting)} takes (error in percent, factor), "
            "such as (80.0, 0.1), or () for none"
        )
    return numbers[0], numbers[1]


def _add_decay(weight_decay: float, mults: Any) -> optax.GradientTransformation:
    def add(grads: Any, params: Any) -> Any:
        return jax.tree.map(lambda g, w, mult: g + weight_decay * mult * w, grads, params, mults)

    return optax.stateless(add)


def _limit_norms(limits: Any) -> optax.GradientTransformation:
    def project(update: jax.Array, weights: jax.Array, limit: float) -> jax.Array:
        if limit == jnp.inf:
            return update
        new = weights + update
        length = jnp.sqrt(jnp.square(new).sum(tuple(range(new.ndim - 1)), keepdims=True))
        return new * jnp.minimum(1.0, limit / jnp.maximum(length, 1e-12)) - weights

    return optax.stateless(lambda updates, params: jax.tree.map(project, updates, params, limits))


def _scale_by_rate(
    rate: Any, start: Any, mults: Any, is_constant: Any
) -> optax.GradientTransformation:
    """Multiplies by `rate(state)`, or by `start(state)` where the rate is constant."""

    def init(params: Any) -> LearningRate:
        del params
        return LearningRate(jnp.int32(0), jnp.float32(1), jnp.float32(jnp.inf), jnp.int32(0))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        rates = {False: rate(state), True: start(state)}
        updates = jax.tree.map(
            lambda g, mult, constant: rates[constant] * mult * g, updates, mults, is_constant
        )
        return updates, state._replace(count=state.count + 1)

    return optax.GradientTransformation(init, update)


def _scale_in_warmup(factor: float) -> optax.GradientTransformation:
    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        now = jnp.where(state.over, 1.0, factor)
        return jax.tree.map(lambda g: now * g, updates), state

    return optax.GradientTransformation(lambda params: WarmUp(jnp.bool_(False)), update)


def rate_state(state: Any) -> LearningRate:
    """Returns the state of the learning rate in the state of an `Optimizer`."""
    return _node(state, LearningRate)


def _node(state: Any, kind: Any) -> Any:
    """Returns the part of an optimiser's state that is of type `kind`."""
    nodes = jax.tree.leaves(state, is_leaf=lambda node: isinstance(node, kind))
    return next(node for node in nodes if isinstance(node, kind))


def _changed(state: Any, kind: Any, change: Any) -> Any:
    """Returns `state` with its part of type `kind`, if it has one, changed by `change`."""
    return jax.tree.map(
        lambda node: change(node) if isinstance(node, kind) else node,
        state,
        is_leaf=lambda node: isinstance(node, kind),
    )


def _observer(schedule: Op) -> Any:
    """Returns `Optimizer.observe`: for `plateau`, it multiplies the factor when it is due."""
    if schedule.name != "plateau":
        return lambda state, error: state
    bound = inspect.signature(schedules.plateau).bind(None, *schedule.args, **schedule.kwargs)
    bound.apply_defaults()
    factor, patience = bound.arguments["factor"], bound.arguments["patience"]

    def after_evaluation(state: LearningRate, error: float) -> LearningRate:
        better = error < state.best_error
        waited = jnp.where(better, 0, state.waited + 1)
        drop = waited >= patience
        return state._replace(
            factor=jnp.where(drop, state.factor * factor, state.factor),
            best_error=jnp.minimum(state.best_error, error),
            waited=jnp.where(drop, 0, waited),
        )

    return lambda state, error: _changed(
        state, LearningRate, lambda node: after_evaluation(node, error)
    )


def _training_observer(until: float) -> Any:
    """Returns `Optimizer.observe_training`: it ends the warm-up at an error below `until`."""
    return lambda state, error: _changed(
        state, WarmUp, lambda node: WarmUp(node.over | (error < until))
    )
