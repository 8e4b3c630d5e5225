"""A train step as a run takes it, on a synthetic batch that lies on the devices: what `benchmark` measures.

Needs JAX, Flax, Optax and NumPy alone.
"""

import ast
import functools
import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_papers import counting, zoo
from cnn_papers.data import augment
from cnn_papers.data.statistics import Statistics
from cnn_papers.errors import UserError
from cnn_papers.training import mesh as meshes
from cnn_papers.training import optim
from cnn_papers.training.step import init_state, make_train_step

SGD = {  # for --model: what it costs does not depend on the values
    "lr": 1e-3,
    "momentum": 0.9,
    "momentum_form": "caffe",
    "nesterov": False,
    "weight_decay": 1e-4,
    "schedule": "constant",
    "warmup_epochs": 0.0,
    "lr_mults": (),
    "wd_mults": (),
    "max_norms": (),
}


class Workload(NamedTuple):
    """What the step consists of, in plain values.

    Attributes:
      model: arguments of the network's `Model`, `variant` and `dtype` among them.
      train_device: operations on the images, an op string of `data.device_ops`.
      optim: arguments of `optim.make_optimizer`, without those that tell of the run's length.
      devices: how many share the batch; -1 is all.
    """

    model_name: str
    model: dict[str, Any]
    image_shape: tuple[int, ...]
    batch_size: int
    train_device: str
    optim: dict[str, Any]
    aux_weight: float
    ema_decay: float
    accumulate: int
    devices: int

    def as_text(self) -> str:
        """For another process; `from_text` reads it."""
        return repr(tuple(self))


def from_text(text: str) -> Workload:
    """The workload that `as_text` wrote."""
    return Workload(*ast.literal_eval(text))


def from_config(config: Any, image_shape: tuple[int, ...]) -> Workload:
    """The train step of `config` (a ConfigDict) on images of `image_shape` (h, w, c)."""
    return Workload(
        model_name=config.model_name,
        model=config.model.to_dict(),
        image_shape=image_shape,
        batch_size=config.batch_size,
        train_device=config.data.train_device,
        optim={key: value for key, value in config.optim.to_dict().items() if key in optim.SETTINGS},
        aux_weight=config.loss.aux_weight,
        ema_decay=config.optim.ema_decay,
        accumulate=config.optim.accumulate,
        devices=config.mesh.data,
    )


def from_paper(model: str, variant: str | None, batch_size: int, image_size: int | None, dtype: str) -> Workload:
    """A network as its paper has it, trained by SGD with momentum on square images (None: as large as the paper's)."""
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
        optim=SGD | {"lr_batch": batch_size},
        aux_weight=0.3,
        ema_decay=0.0,
        accumulate=1,
        devices=-1,
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


def make_trainer(work: Workload) -> Callable[[int], None]:
    """A function that takes so many steps and waits for the last; its first call compiles.

    Raises:
      UserError: a network, an operation or a batch that cannot be.
    """
    mesh = meshes.make_mesh(work.devices)
    meshes.check_batch(mesh, work.batch_size, work.accumulate)
    model = zoo.build_model(work.model_name, **work.model)
    optimizer = optim.make_optimizer(
        counting.abstract_variables(model, work.image_shape)["params"],
        batch_size=work.batch_size,
        steps_per_epoch=1000.0,
        total_steps=1_000_000,
        **work.optim,
    )
    key, everywhere, over_data = jax.random.key(0), meshes.replicated(mesh), meshes.over_data(mesh)
    train_step = make_train_step(
        model,
        optimizer,
        augment.compose(work.train_device, _statistics(work.image_shape), key="data.train_device", train=True),
        aux_weight=work.aux_weight,
        ema_decay=work.ema_decay,
        accumulate=work.accumulate,
    )
    shardings = (everywhere, over_data, everywhere)
    step = jax.jit(train_step, in_shardings=shardings, out_shardings=everywhere, donate_argnums=0)
    init = functools.partial(init_state, model, optimizer, work.image_shape, ema=work.ema_decay > 0)
    state = jax.jit(init, out_shardings=everywhere)(key)
    batch = jax.device_put(synthetic_batch(work), over_data)

    def train(steps: int) -> None:
        nonlocal state
        for _ in range(steps):
            state, _ = step(state, batch, key)
        jax.block_until_ready(state)

    return train


def _statistics(shape: tuple[int, ...]) -> Statistics:
    """About those of noise."""
    channels, full = shape[-1], functools.partial(np.full, dtype=np.float32)
    return Statistics(
        mean=full(channels, 127.5),
        std=full(channels, 74.0),
        mean_image=full(shape, 127.5),
        eigenvalues=full(channels, 74.0**2),
        eigenvectors=np.eye(channels, dtype=np.float32),
    )
