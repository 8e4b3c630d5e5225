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
import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from cnn_papers.errors import UserError
from cnn_papers.opstrings import Op, parse
from cnn_papers.training import freezing, schedules

Multipliers = Sequence[tuple[str, float]]


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


class Optimizer(NamedTuple):
    """An optimiser in Optax's form, with access to its learning rate.

    Its `params` and `grads` are those that are trained, which `freezing.split` returns.

    Attributes:
      init: params -> state.
      update: (grads, state, params) -> (updates, state).
      learning_rate: state -> the rate of the next update.
      observe: (state, error) -> state; tells a plateau schedule the error of an evaluation, and
        returns the state unchanged for any other schedule.
      frozen: the layers that are not trained.
    """

    init: Any
    update: Any
    learning_rate: Any
    observe: Any
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
      UserError: unknown schedule or momentum form, a pattern that matches nothing, or no layer
        that is trained.
    """
    frozen = freezing.frozen_layers(params, settings.frozen)
    parsed = parse(settings.schedule, schedules, leading=1, key="optim.schedule")
    if len(parsed) != 1:
        raise UserError(f"config.optim.schedule names {len(parsed)} schedules; it takes one")
    (schedule,) = parsed
    warmup_steps = settings.warmup_epochs * steps_per_epoch
    base = settings.lr * batch_size / settings.lr_batch

    def by_path(patterns: Multipliers, key: str, default: float = 1.0) -> Any:
        # A pattern may be of frozen parameters only: a recipe's multipliers are of all its layers.
        return freezing.split(multipliers(params, patterns, key, default), frozen)[0]

    def rate(state: LearningRate) -> jax.Array:
        progress = schedules.Progress(state.count, steps_per_epoch, total_steps)
        warmup = jnp.minimum((state.count + 1) / warmup_steps, 1.0) if warmup_steps else 1.0
        return base * state.factor * warmup * schedule(progress)

    trace = optax.trace(settings.momentum, nesterov=settings.nesterov)
    scale = _scale_by_rate(rate, by_path(settings.lr_mults, "optim.lr_mults"))
    jax.eval_shape(lambda: rate(rate_state(scale.init(params))))  # may refuse its numbers
    orders = {"caffe": (scale, trace), "torch": (trace, scale)}
    if settings.momentum_form not in orders:
        raise UserError(
            f"config.optim.momentum_form is 'caffe' or 'torch', not '{settings.momentum_form}'"
        )
    decays = by_path(settings.wd_mults, "optim.wd_mults")
    limits = by_path(settings.max_norms, "optim.max_norms", default=jnp.inf)
    transform = optax.chain(
        _add_decay(settings.weight_decay, decays),
        *orders[settings.momentum_form],
        optax.scale(-1.0),
        *([_limit_norms(limits)] if settings.max_norms else []),
    )
    return Optimizer(
        transform.init,
        transform.update,
        lambda state: rate(rate_state(state)),
        _observer(schedule),
        frozen,
    )


def multipliers(params: Any, patterns: Multipliers, key: str, default: float = 1.0) -> Any:
    """Returns a tree like `params` with the factor of the first pattern that matches each path.

    It has `default` where none matches.

    Raises:
      UserError: `patterns` (of `config.<key>`) are not pairs of a regular expression and a number,
        or one of them is the first match of no parameter.
    """
    _check_patterns(patterns, key)
    used = set()

    def factor(path: Any, _: Any) -> float:
        for pattern, value in patterns:
            if re.fullmatch(pattern, _name(path)):
                used.add(pattern)
                return float(value)
        return default

    tree = jax.tree_util.tree_map_with_path(factor, params)
    if unused := [pattern for pattern, _ in patterns if pattern not in used]:
        names = [_name(path) for path, _ in jax.tree_util.tree_leaves_with_path(params)]
        raise UserError(
            f"config.{key}: '{unused[0]}' matches no parameter that an earlier pattern does not; "
            f"parameters are named like {', '.join(names[:4])}"
        )
    return tree


def _name(path: Any) -> str:
    return "/".join(str(part.key) for part in path)


def _check_patterns(patterns: Any, key: str) -> None:
    for pair in patterns:
        if not (
            isinstance(pair, tuple | list)
            and [type(part) for part in pair] in ([str, float], [str, int])
        ):
            raise UserError(
                f"config.{key}={patterns!r} takes ((regex, factor), …), such as (('fc8/.*', 10.0),)"
            )
        try:
            re.compile(pair[0])
        except re.error as error:
            raise UserError(
                f"config.{key}: '{pair[0]}' is not a regular expression: {error}"
            ) from error


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


def _scale_by_rate(rate: Any, mults: Any) -> optax.GradientTransformation:
    def init(params: Any) -> LearningRate:
        del params
        return LearningRate(jnp.int32(0), jnp.float32(1), jnp.float32(jnp.inf), jnp.int32(0))

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        del params
        now = rate(state)
        updates = jax.tree.map(lambda g, mult: now * mult * g, updates, mults)
        return updates, state._replace(count=state.count + 1)

    return optax.GradientTransformation(init, update)


def _is_rate(node: Any) -> bool:
    return isinstance(node, LearningRate)


def rate_state(state: Any) -> LearningRate:
    """Returns the state of the learning rate in the state of an `Optimizer`."""
    return next(node for node in jax.tree.leaves(state, is_leaf=_is_rate) if _is_rate(node))


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

    def observe(state: Any, error: float) -> Any:
        return jax.tree.map(
            lambda node: after_evaluation(node, error) if _is_rate(node) else node,
            state,
            is_leaf=_is_rate,
        )

    return observe
