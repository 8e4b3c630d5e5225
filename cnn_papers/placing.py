"""How a network and its state lie on a mesh, as `config.mesh` asks; needs JAX and Flax alone."""

from typing import Any

import flax.linen as nn
import jax
from jax.sharding import Mesh

from cnn_papers import zoo
from cnn_papers.errors import UserError
from cnn_papers.models import columns
from cnn_papers.training import mesh as meshes


def over_mesh(model_name: str, model: nn.Module, mesh: Mesh, *, bn_group: int = 0) -> Any:
    """`model` as it is applied on `mesh`; UserError for a split that it does not have."""
    count = mesh.shape.get(meshes.COLUMN, 1)
    if count > 1 and not split_layers(model_name):
        having = ", ".join(name for name in zoo.model_names() if split_layers(name))
        raise UserError(f"config.mesh.column={count}: {model_name} has no columns; {having} have")
    if count > 1 and bn_group:
        raise UserError("config.optim.bn_group and config.mesh.column do not go together")
    try:
        return columns.over(model, mesh)
    except ValueError as error:
        raise UserError(f"config.mesh.column={count}: {error}") from error


def placed(model_name: str, state: Any, mesh: Mesh, *, shard_params: bool) -> Any:
    """The shapes of `state` with their places on `mesh`."""
    places = meshes.shardings(mesh, state, columns=split_layers(model_name), shard_params=shard_params)
    return jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), state, places)


def places_of(abstract: Any) -> Any:
    """The shardings of a tree that `placed` made."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def split_layers(model_name: str) -> str:
    """The layers that the mesh axis `column` splits, as a regular expression; empty for a network without columns."""
    return getattr(zoo.model_module(model_name), "COLUMNS", "")
