"""Splits AlexNet's two columns over the mesh axis `column`, one column a device.

This is the paper's Figure 2. Under `jax.shard_map` every device runs the network with half of its
kernels (`holds_one=True`), and a layer that reads both columns gathers its input first. Nothing
else is sent in the forward pass but the statistics of batch normalisation.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

DATA, COLUMN = "data", "column"


class OverColumns(NamedTuple):
    """A network of two columns on a mesh with the axes `data` and `column`.

    Its `apply` is called like a Flax module's. The variables are the network's own, unsplit in
    shape; each kernel, bias and statistic is sharded along its last axis.
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
        """Returns what `model.apply` returns, logits and endpoints sharded over both axes.

        Dropout draws the mask that the network on one device draws.

        Raises:
          ValueError: an image that is too small for the network.
        """
        options = {"train": train, "rngs": rngs, "mutable": mutable}
        shapes = jax.eval_shape(lambda v, x: self.model.apply(v, x, **options), variables, image)
        one_column = self.model.clone(holds_one=True)

        def apply_one(variables: Any, image: jax.Array, rngs: Any) -> Any:
            return one_column.apply(variables, image, train=train, rngs=rngs, mutable=mutable)

        variable_specs = jax.tree.map(lambda leaf: channel_spec(leaf.ndim), variables)
        (logits, ends), updates = shapes if mutable else (shapes, None)
        out_specs: Any = (
            activation_spec(logits.ndim),
            {name: activation_spec(end.ndim) for name, end in ends.items()},
        )
        if mutable:
            out_specs = (out_specs, jax.tree.map(lambda leaf: channel_spec(leaf.ndim), updates))
        apply_all = jax.shard_map(
            apply_one,
            mesh=self.mesh,
            in_specs=(variable_specs, PartitionSpec(DATA), PartitionSpec()),
            out_specs=out_specs,
        )
        return apply_all(variables, image, rngs)


def over(model: Any, mesh: Mesh) -> Any:
    """Returns `model` with its columns over `mesh`, or as it is.

    A model of one column and a mesh without the axis `column` leave it as it is.

    Raises:
      ValueError: an axis whose length is not the number of columns, or a number of classes that
        does not divide into the columns.
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


def channel_spec(ndim: int) -> PartitionSpec:
    """Returns the sharding of a variable of `ndim` axes: the last axis over `column`."""
    return PartitionSpec(*[None] * (ndim - 1), COLUMN)


def activation_spec(ndim: int) -> PartitionSpec:
    """Returns the sharding of activations: examples over `data`, channels over `column`."""
    return PartitionSpec(DATA, *[None] * (ndim - 2), COLUMN)


def gather(x: jax.Array) -> jax.Array:
    """Returns the channels of both columns, [..., c] to [..., 2·c], inside `jax.shard_map`.

    These are the lines that cross in Figure 2.
    """
    return jax.lax.all_gather(x, COLUMN, axis=x.ndim - 1, tiled=True)


class Dropout(nn.Module):
    """`nn.Dropout`, whose mask does not depend on the mesh.

    With `holds_one`, each device draws the mask of the whole batch and both columns, as one device
    does, and takes its own part of it. A mask drawn by each device would change the run's numbers
    with the number of devices.
    """

    rate: float
    holds_one: bool = False

    @nn.compact
    def __call__(self, x: jax.Array, *, deterministic: bool) -> jax.Array:
        if self.rate == 0 or deterministic:
            return x
        if self.rate == 1:
            return jnp.zeros_like(x)
        shape, key = list(x.shape), self.make_rng("dropout")
        if self.holds_one:
            shape[0] *= jax.lax.axis_size(DATA)
            shape[-1] *= jax.lax.axis_size(COLUMN)
        kept = jax.random.bernoulli(key, 1 - self.rate, tuple(shape))
        if self.holds_one:
            start = [jnp.int32(0)] * x.ndim
            start[0] = jax.lax.axis_index(DATA) * x.shape[0]
            start[-1] = jax.lax.axis_index(COLUMN) * x.shape[-1]
            kept = jax.lax.dynamic_slice(kept, start, x.shape)
        return jnp.where(kept, x / (1 - self.rate), 0)
