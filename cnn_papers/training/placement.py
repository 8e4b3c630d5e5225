"""Places a network, its state and its train step on a mesh, as `config.mesh` asks.

Needs only JAX, Flax and Optax.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
from jax.sharding import Mesh

from cnn_papers import counting
from cnn_papers.data.augment import DeviceTransform
from cnn_papers.errors import UserError
from cnn_papers.models.shared import columns, fusion, kernel_gradients
from cnn_papers.parallel import mesh as meshes
from cnn_papers.training.optim import Optimizer, OptimizerSettings, make_optimizer
from cnn_papers.training.step import State, StepSettings, init_state, make_train_step


class Training(NamedTuple):
    """A network placed on a mesh, with its optimiser and train step.

    Attributes:
      net: the network as it is applied on the mesh.
      optimizer: the optimiser of its parameters.
      abstract: the shapes, types and shardings of its state.
      init: jitted, key -> a fresh state.
      step: jitted, (state, batch, key) -> (state, scalars); the state passed in is donated.
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
    task: Any,
    *,
    batch_size: int,
    steps_per_epoch: float,
    total_steps: int,
    shard_params: bool = False,
) -> Training:
    """Makes the train step of `model` over `mesh`, jitted but not compiled yet.

    Runs and `benchmark` both take their step from here.

    Args:
      image_shape: (h, w, c) of the images that `augment` returns.
      task: a module of `cnn_papers.tasks`.
      shard_params: split parameters and optimiser over the data axis (`config.mesh.shard_params`).

    Raises:
      UserError: the mesh cannot split the batch or the network, or the optimiser refuses its
        settings.
    """
    meshes.check_batch(mesh, batch_size, step_settings.accumulate)
    params = counting.abstract_variables(model, image_shape)["params"]
    optimizer = make_optimizer(
        params,
        optimizer_settings,
        batch_size=batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
    )
    net = over_mesh(model, mesh, bn_group=step_settings.bn_group)
    init = functools.partial(
        init_state,
        model,
        optimizer,
        image_shape,
        ema=step_settings.ema_decay > 0,
        totals=task.Totals,
    )
    state = jax.eval_shape(init, jax.random.key(0))
    abstract = _placed(state, mesh, split_layers(model), shard_params=shard_params)
    places, replicated = places_of(abstract), meshes.replicated(mesh)
    train_step = make_train_step(net, optimizer, augment, step_settings, task)
    if not step_settings.bn_group and [device.platform for device in mesh.devices.flat] == ["cpu"]:
        train_step = _on_one_cpu(train_step)
    step = jax.jit(
        train_step,
        in_shardings=(places, meshes.data_sharding(mesh), replicated),
        out_shardings=(places, replicated),
        donate_argnums=0,
    )
    return Training(net, optimizer, abstract, jax.jit(init, out_shardings=places), step)


def _on_one_cpu(train_step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns `train_step`, traced with what one CPU computes fastest."""

    @functools.wraps(train_step)
    def traced(*args: Any) -> Any:
        with kernel_gradients.on_one_cpu(), fusion.on_one_cpu():
            return train_step(*args)

    return traced


def over_mesh(model: nn.Module, mesh: Mesh, *, bn_group: int = 0) -> Any:
    """Returns `model` as it is applied on `mesh`; raises UserError if it has no such columns."""
    count = mesh.shape.get(meshes.COLUMN, 1)
    if count > 1 and not split_layers(model):
        raise UserError(
            f"config.mesh.column={count}: this network has no columns; "
            "1 disables column parallelism"
        )
    if count > 1 and bn_group:
        raise UserError("config.optim.bn_group and config.mesh.column cannot be combined")
    try:
        return columns.over(model, mesh)
    except ValueError as error:
        raise UserError(f"config.mesh.column={count}: {error}") from error


def split_layers(model: nn.Module) -> str:
    """Returns a regular expression for the layers that the mesh axis `column` splits.

    It is empty for a network without columns.
    """
    return getattr(model, "column_layers", "")


def places_of(abstract: Any) -> Any:
    """Returns the shardings of a tree of placed shapes, such as `Training.abstract`."""
    return jax.tree.map(lambda leaf: leaf.sharding, abstract)


def _placed(state: Any, mesh: Mesh, column_layers: str, *, shard_params: bool) -> Any:
    """Returns the shapes of `state` with their shardings on `mesh`."""
    shardings = meshes.shardings(mesh, state, columns=column_layers, shard_params=shard_params)

    def place(leaf: Any, sharding: Any) -> Any:
        return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)

    return jax.tree.map(place, state, shardings)
