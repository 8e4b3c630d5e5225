"""A network, its state and its train step on a mesh, as `config.mesh` asks; needs JAX, Flax and Optax alone."""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.sharding import Mesh

from cnn_papers import zoo
from cnn_papers.errors import UserError
from cnn_papers.models.shared import columns
from cnn_papers.parallel import mesh as meshes
from cnn_papers.training.optim import Optimizer
from cnn_papers.training.step import Preprocess, State, init_state, make_train_step


class Training(NamedTuple):
    """How a network is trained on its mesh.

    Attributes:
      net: the network as it is applied there.
      abstract: the shapes and places of its state.
      init: jitted, key -> a fresh state.
      step: jitted, (state, batch, key) -> (state, scalars); the state given is donated.
    """

    net: Any
    abstract: State
    init: Any
    step: Any


def training(
    model_name: str,
    model: nn.Module,
    image_shape: tuple[int, ...],
    mesh: Mesh,
    optimizer: Optimizer,
    preprocess: Preprocess,
    *,
    aux_weight: float,
    ema_decay: float,
    accumulate: int,
    bn_group: int,
    shard_params: bool,
    max_loss: float = 0.0,
) -> Training:
    """The train step of `model` over `mesh`, jitted and not compiled yet; the settings are those of `config`."""
    net = over_mesh(model_name, model, mesh, bn_group=bn_group)
    step = make_train_step(
        net,
        optimizer,
        preprocess,
        aux_weight=aux_weight,
        ema_decay=ema_decay,
        accumulate=accumulate,
        bn_group=bn_group,
        max_loss=max_loss,
    )
    init = functools.partial(init_state, model, optimizer, image_shape, ema=ema_decay > 0)
    abstract = placed(model_name, jax.eval_shape(init, jax.random.key(0)), mesh, shard_params=shard_params)
    places, everywhere = places_of(abstract), meshes.replicated(mesh)
    given = (places, meshes.data_sharding(mesh), everywhere)
    step = jax.jit(step, in_shardings=given, out_shardings=(places, everywhere), donate_argnums=0)
    return Training(net, abstract, jax.jit(init, out_shardings=places), step)


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
