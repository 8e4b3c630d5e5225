"""Places a network, its state and its train step on a mesh, as `config.mesh` asks; needs JAX, Flax
and Optax alone.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.sharding import Mesh

from cnn_papers import counting
from cnn_papers.data.augment import DeviceTransform
from cnn_papers.errors import UserError
from cnn_papers.models.shared import columns
from cnn_papers.parallel import mesh as meshes
from cnn_papers.training.optim import Optimizer, OptimizerSettings, make_optimizer
from cnn_papers.training.step import State, StepSettings, init_state, make_train_step


class Training(NamedTuple):
    """How a network is trained on its mesh.

    Attributes:
      net: the network as it is applied there.
      optimizer: what updates its parameters.
      abstract: the shapes and places of its state.
      init: jitted, key -> a fresh state.
      step: jitted, (state, batch, key) -> (state, scalars); the state given is donated.
    """

    net: Any
    optimizer: Optimizer
    abstract: State
    init: Any
    step: Any


def make_training(
    model: nn.Module,
    image_shape: tuple[int, ...],
    mesh: Mesh,
    augment: DeviceTransform,
    optimizer_settings: OptimizerSettings,
    step_settings: StepSettings,
    *,
    batch_size: int,
    steps_per_epoch: float,
    total_steps: int,
    shard_params: bool = False,
) -> Training:
    """Makes the train step of `model` over `mesh`, jitted and not compiled yet: the step of a run
    and of `benchmark`.

    Args:
      image_shape: (h, w, c) of what `augment` makes of a batch's uint8 images.
      shard_params: split parameters and optimiser over the data axis (`config.mesh.shard_params`).

    Raises:
      UserError: a batch or a network that the mesh cannot split, settings that the optimiser
      refuses.
    """
    meshes.check_batch(mesh, batch_size, step_settings.accumulate)
    params = counting.abstract_variables(model, image_shape)["params"]
    lengths = {
        "batch_size": batch_size,
        "steps_per_epoch": steps_per_epoch,
        "total_steps": total_steps,
    }
    optimizer = make_optimizer(params, optimizer_settings, **lengths)
    net = over_mesh(model, mesh, bn_group=step_settings.bn_group)
    init = functools.partial(
        init_state, model, optimizer, image_shape, ema=step_settings.ema_decay > 0
    )
    abstract = _placed(
        jax.eval_shape(init, jax.random.key(0)),
        mesh,
        split_layers(model),
        shard_params=shard_params,
    )
    places, everywhere = places_of(abstract), meshes.replicated(mesh)
    step = jax.jit(
        make_train_step(net, optimizer, augment, step_settings),
        in_shardings=(places, meshes.data_sharding(mesh), everywhere),
        out_shardings=(places, everywhere),
        donate_argnums=0,
    )
    return Training(net, optimizer, abstract, jax.jit(init, out_shardings=places), step)


def over_mesh(model: nn.Module, mesh: Mesh, *, bn_group: int = 0) -> Any:
    """Returns `model` as it is applied on `mesh`; UserError for a split that it does not have."""
    count = mesh.shape.get(meshes.COLUMN, 1)
    if count > 1 and not split_layers(model):
        raise UserError(
            f"config.mesh.column={count}: this network has no columns; 1 disables column parallelism"
        )
    if count > 1 and bn_group:
        raise UserError("config.optim.bn_group and config.mesh.column cannot be combined")
    try:
        return columns.over(model, mesh)
    except ValueError as error:
        raise UserError(f"config.mesh.column={count}: {error}") from error


def split_layers(model: nn.Module) -> str:
    """The layers that the mesh axis `column` splits, as a regular expression; empty for a network
    without columns.
    """
    return getattr(model, "column_layers", "")


def places_of(abstract: Any) -> Any:
    """The shardings of a tree of placed shapes, such as `Training.abstract`."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def _placed(state: Any, mesh: Mesh, column_layers: str, *, shard_params: bool) -> Any:
    """The shapes of `state` with their places on `mesh`."""
    places = meshes.shardings(mesh, state, columns=column_layers, shard_params=shard_params)
    return jax.tree.map(
        lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), state, places
    )
