"""A train step as a run takes it, on a synthetic batch that lies on the devices: what `benchmark`
measures.

Needs JAX, Flax, Optax and NumPy alone.
"""

import ast
import functools
import inspect
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_papers import counting, zoo
from cnn_papers.data import augment
from cnn_papers.data.statistics import Statistics, Whitening
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes
from cnn_papers.training.optim import OptimizerSettings
from cnn_papers.training.placement import make_training
from cnn_papers.training.step import StepSettings


class Workload(NamedTuple):
    """What the step consists of, in plain values.

    Attributes:
      model: arguments of the network's `Model`, `variant` and `dtype` among them.
      train_device: operations on the images, an op string of `data.device_ops`.
      devices: how many share the batch; -1 is all.
      column, shard_params: as in `config.mesh`.
      steps_per_epoch, total_steps: of the schedule; what a step costs does not depend on them.
    """

    model_name: str
    model: dict[str, Any]
    image_shape: tuple[int, ...]
    batch_size: int
    train_device: str
    optim: OptimizerSettings
    step: StepSettings
    devices: int = -1
    column: int = 1
    shard_params: bool = False
    steps_per_epoch: float = 1000.0
    total_steps: int = 1_000_000

    def as_text(self) -> str:
        """For another process; `from_text` reads it."""
        return repr(tuple(self._replace(optim=tuple(self.optim), step=tuple(self.step))))


def from_text(text: str) -> Workload:
    """The workload that `as_text` wrote."""
    work = Workload(*ast.literal_eval(text))
    return work._replace(optim=OptimizerSettings(*work.optim), step=StepSettings(*work.step))


def from_config(config: Any, image_shape: tuple[int, ...]) -> Workload:
    """The train step of `config` (a ConfigDict) on images of `image_shape` (h, w, c)."""
    return Workload(
        model_name=config.model_name,
        model=config.model.to_dict(),
        image_shape=image_shape,
        batch_size=config.batch_size,
        train_device=config.data.train_device,
        optim=OptimizerSettings.from_config(config),
        step=StepSettings.from_config(config),
        devices=config.mesh.data,
        column=config.mesh.column,
        shard_params=config.mesh.shard_params,
    )


def from_paper(
    model: str, variant: str | None, batch_size: int, image_size: int | None, dtype: str
) -> Workload:
    """A network as its paper has it, trained by SGD with momentum on square images (None: as large
    as the paper's).
    """
    module = zoo.model_module(model)
    variant = variant or str(inspect.signature(module.Model).parameters["variant"].default)
    if variant not in module.FACTS:
        raise UserError(f"{model} has no variant '{variant}'; there are: {', '.join(module.FACTS)}")
    height, width, channels = module.FACTS[variant].input
    return Workload(
        model_name=model,
        model={"variant": variant, "dtype": dtype},
        image_shape=(image_size or height, image_size or width, channels),
        batch_size=batch_size,
        train_device="scale(0.0078125)",
        optim=OptimizerSettings(lr=1e-3, lr_batch=batch_size, weight_decay=1e-4),
        step=StepSettings(aux_weight=0.3),
    )


def network(work: Workload) -> counting.Network:
    """The layers, parameters and multiply-adds of the network."""
    return counting.count(zoo.build_model(work.model_name, **work.model), work.image_shape)


def num_classes(work: Workload) -> int:
    """The width of the network's head."""
    model: Any = zoo.build_model(work.model_name, **work.model)
    return model.num_classes


def synthetic_batch(work: Workload) -> dict[str, np.ndarray]:
    """Noise: uint8 `image` [n, h, w, c] and int32 `label` [n]."""
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (work.batch_size, *work.image_shape), np.uint8)
    return {"image": image, "label": rng.integers(0, num_classes(work), work.batch_size, np.int32)}


class Step(NamedTuple):
    """A train step on its mesh: jitted (state, batch, key), and its first state's maker and shapes."""

    mesh: jax.sharding.Mesh
    train: Any
    init: Any
    abstract: Any


def make_step(work: Workload, devices: Sequence[Any] | None = None) -> Step:
    """The train step of `work`, jitted and not compiled yet, on `devices` (None: those there are).

    Raises:
      UserError: a network, an operation, a batch or a mesh that cannot be.
    """
    mesh = meshes.make_mesh(work.devices, work.column, devices)
    train_device = augment.parse_device(work.train_device, key="data.train_device")
    whitens = augment.before_whitening(train_device, train_device) is not None
    statistics = _statistics(work.image_shape, whitens)
    training = make_training(
        zoo.build_model(work.model_name, **work.model),
        work.image_shape,
        mesh,
        augment.compose(train_device, statistics, train=True),
        work.optim,
        work.step,
        batch_size=work.batch_size,
        steps_per_epoch=work.steps_per_epoch,
        total_steps=work.total_steps,
        shard_params=work.shard_params,
    )
    return Step(mesh, training.step, training.init, training.abstract)


def make_trainer(work: Workload, devices: Sequence[Any] | None = None) -> Callable[[int], None]:
    """A function that takes so many steps and waits for the last; its first call compiles. As
    `make_step` else.
    """
    step, key = make_step(work, devices), jax.random.key(0)
    state = step.init(key)
    batch = processes.put(synthetic_batch(work), meshes.data_sharding(step.mesh))

    def train(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, _ = step.train(state, batch, key)
        jax.block_until_ready(state)

    return train


def _statistics(shape: tuple[int, ...], whitens: bool) -> Statistics:
    """About those of noise."""
    full = functools.partial(np.full, dtype=np.float32)
    channels, values = shape[-1], int(np.prod(shape))
    eye = functools.partial(np.eye, dtype=np.float32)
    return Statistics(
        mean=full(channels, 127.5),
        std=full(channels, 74.0),
        mean_image=full(shape, 127.5),
        eigenvalues=full(channels, 74.0**2),
        eigenvectors=eye(channels),
        whitening=Whitening(full(values, 0.0), full(values, 1.0), eye(values)) if whitens else None,
    )
