"""Counts a network's parameters and multiply-adds by tracing, without compiling or allocating.

A network is a value, its fields, so that the same one is traced for the same images once.
"""

import functools
import math
from collections import Counter
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from cnn_papers.errors import UserError

TRACES = 256  # that are kept


class Layer(NamedTuple):
    """One row of the layer table; `shape` is its output for one image, without the batch axis."""

    name: str
    shape: tuple[int, ...]
    params: int
    macs: int


class Network(NamedTuple):
    """A network's layer table; the totals also cover parameters that no named layer holds."""

    input: tuple[int, ...]
    layers: tuple[Layer, ...]
    params: int
    macs: int


def abstract_variables(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Any]:
    """Returns the shapes of all variables for images of `input_shape` (h, w, c).

    Auxiliary heads are included.

    Raises:
      UserError: an image that the network cannot take.
    """
    return jax.tree.map(lambda leaf: leaf, _abstract_variables(model, input_shape))  # a copy


@functools.lru_cache(TRACES)
def _abstract_variables(model: nn.Module, input_shape: tuple[int, ...]) -> dict[str, Any]:
    rngs = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    try:
        return dict(jax.eval_shape(lambda image: model.init(rngs, image, train=True), image))
    except (ValueError, TypeError) as error:
        raise UserError(f"config.model: {error}") from error


def parameter_count(params: Any) -> int:
    """Returns the number of scalars in a tree of arrays or shapes."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


@functools.lru_cache(TRACES)
def count(model: nn.Module, input_shape: tuple[int, ...]) -> Network:
    """Counts `model` on one image of `input_shape` (h, w, c), in evaluation.

    Rows are the endpoints in the network's order, then other layers with parameters:
    normalisations, auxiliary heads. Multiply-adds are those of convolutions and matrix products, as
    the papers count them.

    Raises:
      UserError: an image that the network cannot take.
    """
    variables = abstract_variables(model, input_shape)
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    ends: dict[str, tuple[int, ...]] = {}

    def logits(variables: dict[str, Any], image: jax.Array) -> jax.Array:
        outputs: Any = model.apply(variables, image)
        logits, endpoints = outputs
        # a side effect, because JAX would sort a returned dict
        ends.update({name: end.shape[1:] for name, end in endpoints.items()})
        return logits

    params = {name: parameter_count(tree) for name, tree in variables["params"].items()}
    macs = Counter[str]()
    _add_macs(jax.make_jaxpr(logits)(variables, image).jaxpr, macs, (), 1, frozenset(params))
    rows = [Layer(name, shape, params.pop(name, 0), macs[name]) for name, shape in ends.items()]
    rows += [Layer(name, (), number, macs[name]) for name, number in params.items()]
    return Network(
        tuple(input_shape), tuple(rows), parameter_count(variables["params"]), macs.total()
    )


def _add_macs(
    program: core.Jaxpr,
    macs: Counter[str],
    outer: tuple[str, ...],
    times: int,
    names: frozenset[str],
) -> None:
    """Adds each equation's multiply-adds to the layer of `names` in whose scope it was traced."""
    for eqn in program.eqns:
        scope = outer + tuple(str(eqn.source_info.name_stack).split("/"))
        cost = equation_macs(eqn)
        if cost:
            macs[next((name for name in scope if name in names), "")] += cost * times
        repeats = eqn.params["length"] if eqn.primitive.name == "scan" else 1
        for inner in inner_programs(eqn):
            _add_macs(inner, macs, scope, times * repeats, names)


def equation_macs(eqn: Any) -> int:
    """Returns the multiply-adds of a convolution or matrix product, 0 for other operations."""
    if eqn.primitive.name == "conv_general_dilated":
        kernel = eqn.invars[1].aval.shape
        layout = eqn.params["dimension_numbers"].rhs_spec  # (out, in / groups, *spatial)
        return math.prod(eqn.outvars[0].aval.shape) * math.prod(kernel) // kernel[layout[0]]
    if eqn.primitive.name == "dot_general":
        (contracted, _), _ = eqn.params["dimension_numbers"]
        inner = math.prod(eqn.invars[0].aval.shape[axis] for axis in contracted)
        return math.prod(eqn.outvars[0].aval.shape) * inner
    return 0


def inner_programs(eqn: core.JaxprEqn) -> list[core.Jaxpr]:
    """Returns the programs that an equation calls (jit, remat, scan, custom derivatives, …).

    Of programs that stand for each other, such as those of several platforms, it is the last.
    """
    if eqn.primitive.name == "cond":
        return [eqn.params["branches"][-1].jaxpr]
    programs = []
    for value in jax.tree.leaves(
        list(eqn.params.values()), is_leaf=lambda v: hasattr(v, "eqns") or hasattr(v, "jaxpr")
    ):
        if hasattr(value, "jaxpr"):
            value = value.jaxpr
        if hasattr(value, "eqns"):
            programs.append(value)
    return programs
