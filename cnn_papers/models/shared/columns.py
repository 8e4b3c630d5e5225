"""A network of two columns over the mesh axis `column`: each device holds one, and they meet where
they are linked.

The paper's Figure 2, written out: every device runs the network with half of its kernels
(`inside=True`) under `jax.shard_map`, and a layer that reads both columns gathers its input first.
Nothing else is sent in the forward pass.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

DATA, COLUMN = "data", "column"


class OverColumns(NamedTuple):
    """A network of two columns on a mesh with the axes `data` and `column`; `apply` is a Flax
    module's.

    The variables are the network's own, whole; each kernel, bias and statistic is split along its
    last axis.
    """

    model: Any
    mesh: Mesh

    def apply(
        self,
        variables: Any,
        image: jax.Array,
        *,
        train: bool = False,
        rngs: dict[str, jax.Array] | None = None,
        mutable: Any = False,
    ) -> Any:
        """What `model.apply` gives, its logits [n, classes] and endpoints split over both axes.

        Dropout draws what the network on one device draws. Raises a ValueError for an image too
        small for the network.
        """
        plain = {"train": train, "rngs": rngs, "mutable": mutable}
        shapes = jax.eval_shape(lambda v, x: self.model.apply(v, x, **plain), variables, image)
        local = self.model.clone(inside=True)

        def column(variables: Any, image: jax.Array, rngs: Any) -> Any:
            return local.apply(variables, image, train=train, rngs=rngs, mutable=mutable)

        split = jax.tree.map(lambda leaf: last_axis(leaf.ndim), variables)
        (logits, ends), updates = shapes if mutable else (shapes, None)
        outputs: Any = (rows(logits.ndim), {name: rows(end.ndim) for name, end in ends.items()})
        if mutable:
            outputs = (outputs, jax.tree.map(lambda leaf: last_axis(leaf.ndim), updates))
        over = jax.shard_map(
            column,
            mesh=self.mesh,
            in_specs=(split, PartitionSpec(DATA), PartitionSpec()),
            out_specs=outputs,
        )
        return over(variables, image, rngs)


def over(model: Any, mesh: Mesh) -> Any:
    """`model` itself, or on a mesh with the axis `column` its columns over it, if it has two.

    Raises:
      ValueError: an axis of another length, classes that do not divide into the columns.
    """
    if COLUMN not in mesh.shape or getattr(model, "columns", 1) == 1:
        return model
    if mesh.shape[COLUMN] != model.columns:
        raise ValueError(f"the network has {model.columns} columns")
    if model.num_classes % model.columns:
        raise ValueError(
            f"model.num_classes={model.num_classes} does not divide into {model.columns} columns"
        )
    return OverColumns(model, mesh)


def last_axis(ndim: int) -> PartitionSpec:
    """Split along the last of `ndim` axes over `column`."""
    return PartitionSpec(*[None] * (ndim - 1), COLUMN)


def rows(ndim: int) -> PartitionSpec:
    """Examples over `data`, channels over `column`."""
    return PartitionSpec(DATA, *[None] * (ndim - 2), COLUMN)


def link(x: jax.Array) -> jax.Array:
    """The channels of both columns, [..., c] to [..., 2·c]: the lines that cross in Figure 2."""
    return jax.lax.all_gather(x, COLUMN, axis=x.ndim - 1, tiled=True)


class Dropout(nn.Module):
    """`nn.Dropout`; with `inside`, each device takes its part of the mask that one device would
    have drawn.
    """

    rate: float
    inside: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        if self.rate == 0 or deterministic:
            return x
        if self.rate == 1:
            return jnp.zeros_like(x)
        shape, key = list(x.shape), self.make_rng("dropout")
        if self.inside:
            shape[0] *= jax.lax.axis_size(DATA)
            shape[-1] *= jax.lax.axis_size(COLUMN)
        kept = jax.random.bernoulli(key, 1 - self.rate, tuple(shape))
        if self.inside:
            start = [jnp.int32(0)] * x.ndim
            start[0] = jax.lax.axis_index(DATA) * x.shape[0]
            start[-1] = jax.lax.axis_index(COLUMN) * x.shape[-1]
            kept = jax.lax.dynamic_slice(kept, start, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0)
