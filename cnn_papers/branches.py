"""Finds the branches inside a network's layers by following the data through its traced program."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.extend import core

from cnn_papers import counting

Place = tuple[str, str]  # a layer and a module directly inside it, "" for the layer's own kernel
IMAGE = ("", "")


class Structure(NamedTuple):
    """What is inside the layers of a network.

    Attributes:
      branches: of each layer with several modules that multiply, or with one and a path around it.
        A branch has these modules from the input on; one without any is `()`: it passes the input
        on, or pools it.
      dense: the layers of more than two modules of which each reads all before it. In others, a
        module reads the one before it in its branch.
      groups: of each layer with a kernel of its own, how many parts of the channels it convolves
        separately; 1 reads all channels.
    """

    branches: dict[str, tuple[tuple[counting.Layer, ...], ...]]
    dense: frozenset[str]
    groups: dict[str, int]


def find(model: nn.Module, input_shape: tuple[int, ...]) -> Structure:
    """Returns the structure of `model` on one image of `input_shape` (h, w, c), in evaluation.

    Raises:
      UserError: an image that the network cannot take.
    """
    variables = counting.abstract_variables(model, input_shape)
    image = jax.ShapeDtypeStruct((1, *input_shape), jnp.float32)
    shapes: dict[tuple[str, ...], tuple[int, ...]] = {}
    ends: list[str] = []

    def keep_shape(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        output = call(*arguments, **keywords)
        if context.method_name == "__call__" and hasattr(output, "shape"):
            shapes[context.module.path] = output.shape[1:]
        return output

    def endpoints(image: jax.Array, variables: Any) -> list[jax.Array]:
        with nn.intercept_methods(keep_shape):
            outputs: Any = model.apply(variables, image)
        ends.extend(outputs[1])
        return list(outputs[1].values())

    program = jax.make_jaxpr(endpoints)(image, variables).jaxpr
    flow = _Flow(variables["params"])
    nothing = [frozenset[Place]()] * (len(program.invars) - 1)
    sources = flow.follow(program, [frozenset([IMAGE]), *nothing], (), 1)
    branches, dense = {}, set[str]()
    for layer, last in zip(ends, sources, strict=True):
        parts = {
            place: counting.Layer(
                place[1],
                shapes.get(place, ()),
                counting.parameter_count(variables["params"][layer][place[1]]),
                flow.macs[place],
            )
            for place in flow.reads
            if place[0] == layer and place[1]
        }
        has_bypass = any(place[0] != layer for place in last)
        if len(parts) + has_bypass > 1:
            branches[layer] = (*_chains(parts, flow.reads), *[()] * has_bypass)
        before = (set(list(parts)[:i]) <= flow.reads[place] for i, place in enumerate(parts))
        if len(parts) > 2 and all(before):
            dense.add(layer)
    return Structure(
        branches, frozenset(dense), {layer: flow.calls[layer, part] for layer, part in flow.own()}
    )


def _chains(
    parts: Mapping[Place, counting.Layer], reads: Mapping[Place, set[Place]]
) -> list[tuple[counting.Layer, ...]]:
    """Returns the parts of a layer as chains: a part follows the last one that it reads."""
    order = list(parts)
    chains: list[list[Place]] = []
    for place in order:
        inside = sorted(reads[place] & parts.keys(), key=order.index)
        chain = next((chain for chain in chains if inside and chain[-1] == inside[-1]), None)
        if chain is None:
            chains.append([place])
        else:
            chain.append(place)
    return [tuple(parts[place] for place in chain) for chain in chains]


class _Flow:
    """Which kernels read the outputs of which.

    Attributes:
      reads: of each place, those whose outputs it reads, in the order of the program.
      macs: multiply-adds of each place, for one image.
      calls: convolutions and matrix products of each place.
    """

    def __init__(self, params: Mapping[str, Any]):
        self.params = params
        self.reads: dict[Place, set[Place]] = {}
        self.macs = Counter[Place]()
        self.calls = Counter[Place]()

    def own(self) -> list[Place]:
        """Returns the places of kernels that a layer holds itself."""
        return [place for place in self.reads if place[0] and not place[1]]

    def follow(
        self,
        program: core.Jaxpr,
        inputs: Sequence[frozenset[Place]],
        outer: tuple[str, ...],
        times: int,
    ) -> list[frozenset[Place]]:
        """Returns the places that each output of `program` comes from, given those of its inputs.

        `outer` is the scope of the program, which runs `times` times.
        """
        known = dict(zip(program.invars, inputs, strict=True))

        def sources(atom: Any) -> frozenset[Place]:
            return frozenset() if hasattr(atom, "val") else known.get(atom, frozenset())

        for eqn in program.eqns:
            scope = outer + tuple(str(eqn.source_info.name_stack).split("/"))
            read = [sources(atom) for atom in eqn.invars]
            every = frozenset[Place]().union(*read)
            written = [every] * len(eqn.outvars)
            repeats = eqn.params["length"] if eqn.primitive.name == "scan" else 1
            operands = read[1:] if eqn.primitive.name == "cond" else read  # without its index
            for inner in counting.inner_programs(eqn):
                if len(inner.invars) == len(operands) and len(inner.outvars) == len(written):
                    written = self.follow(inner, operands, scope, times * repeats)
            if cost := counting.equation_macs(eqn):
                place = self._place(scope)
                self.reads.setdefault(place, set()).update(every - {place})
                self.macs[place] += cost * times
                self.calls[place] += 1
                written = [frozenset([place])] * len(eqn.outvars)
            known.update(zip(eqn.outvars, written, strict=True))
        return [sources(atom) for atom in program.outvars]

    def _place(self, scope: tuple[str, ...]) -> Place:
        """Returns the layer, and the module directly inside it, in whose scope an equation is."""
        layer = next((name for name in scope if name in self.params), "")
        inside = scope[scope.index(layer) + 1 :] if layer else ()
        modules = self.params.get(layer, {})
        part = next((name for name in inside if hasattr(modules.get(name), "keys")), "")
        return layer, part
