"""Builds the train step and the forward pass that `benchmark` measures, on a synthetic batch.

Both are what a run takes.

Needs only JAX, Flax, Optax and NumPy.
"""

import ast
import functools
import inspect
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from cnn_papers import counting, tasks, zoo
from cnn_papers.data import augment
from cnn_papers.data.augment import DeviceTransform
from cnn_papers.data.statistics import Statistics, Whitening
from cnn_papers.errors import UserError
from cnn_papers.opstrings import OpString
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes
from cnn_papers.training.optim import OptimizerSettings
from cnn_papers.training.placement import make_training, over_mesh
from cnn_papers.training.step import StepSettings, make_predict_step

OBJECTS, PROPOSALS = 3, 500  # boxes of a synthetic image, for a task that finds boxes


class Workload(NamedTuple):
    """A train step in plain values, so that it can be handed to another process.

    Attributes:
      model: arguments of the network's `Model`, `variant` and `dtype` among them.
      image_shape: (h, w, c) of the images of a batch.
      train_device, eval_device: operations on the images in training and in evaluation, op strings
        of `data.device_ops`.
      devices: number of devices that the batch is split over; -1 is all.
      column, shard_params: as in `config.mesh`.
      steps_per_epoch, total_steps: for the schedule; the cost of a step does not depend on them.
      task: a module of `cnn_papers.tasks`.
    """

    model_name: str
    model: dict[str, Any]
    image_shape: tuple[int, ...]
    batch_size: int
    train_device: str
    eval_device: str
    optim: OptimizerSettings
    step: StepSettings
    devices: int = -1
    column: int = 1
    shard_params: bool = False
    steps_per_epoch: float = 1000.0
    total_steps: int = 1_000_000
    task: str = "classify"

    def on_mesh(self, mesh: dict[str, int]) -> "Workload":
        """Returns this workload on a mesh that `parse_mesh` returned."""
        return self._replace(devices=mesh["data"], column=mesh.get("column", 1))

    def as_text(self) -> str:
        """Returns the workload as text for another process; `from_text` reads it."""
        return repr(tuple(self._replace(optim=tuple(self.optim), step=tuple(self.step))))


def from_text(text: str) -> Workload:
    """Returns the workload that `as_text` wrote."""
    work = Workload(*ast.literal_eval(text))
    return work._replace(optim=OptimizerSettings(*work.optim), step=StepSettings(*work.step))


def from_config(config: Any, image_shape: tuple[int, ...]) -> Workload:
    """Returns the train step of `config` (a ConfigDict) on images of `image_shape` (h, w, c).

    It weighs all classes alike, since their weights may need the data.
    """
    return Workload(
        model_name=config.model_name,
        model=config.model.to_dict(),
        image_shape=image_shape,
        batch_size=config.batch_size,
        train_device=config.data.train_device,
        eval_device=config.data.eval_device,
        optim=OptimizerSettings.from_config(config),
        step=StepSettings.from_config(config),
        devices=config.mesh.data,
        column=config.mesh.column,
        shard_params=config.mesh.shard_params,
        task=config.task,
    )


def from_paper(
    model: str, variant: str | None, batch_size: int, image_size: int | None, dtype: str
) -> Workload:
    """Returns the train step of a network as its paper has it, by SGD with momentum.

    Args:
      variant: of `model`; None is its default.
      image_size: height and width of the images, in pixels; None is the paper's.

    Raises:
      UserError: there is no such network or variant.
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
        eval_device="scale(0.0078125)",
        optim=OptimizerSettings(lr=1e-3, lr_batch=batch_size, weight_decay=1e-4),
        step=StepSettings(aux_weight=0.3),
    )


def parse_mesh(text: str) -> dict[str, int]:
    """Returns `data:4,column:2` as {"data": 4, "column": 2}."""
    if not re.fullmatch(r"data:[1-9]\d{0,3}(,column:[1-9]\d?)?", text):
        raise UserError(f"--mesh={text}: write data:4 or data:4,column:2")
    return {name: int(count) for name, count in (part.split(":") for part in text.split(","))}


def mesh_size(mesh: dict[str, int]) -> int:
    """Returns the number of devices of a mesh that `parse_mesh` returned."""
    return mesh["data"] * mesh.get("column", 1)


def network(work: Workload) -> counting.Network:
    """Returns the layers, parameters and multiply-adds of the network."""
    return counting.count(zoo.build_model(work.model_name, **work.model), work.image_shape)


def num_classes(work: Workload) -> int:
    """Returns the number of classes of the network's head."""
    model: Any = zoo.build_model(work.model_name, **work.model)
    return model.num_classes


def synthetic_batch(work: Workload) -> dict[str, np.ndarray]:
    """Returns a batch of noise: uint8 `image` [n, h, w, c] and int32 `label` [n].

    For a task of several labels it has int8 `labels` [n, classes] in place of one, for a task that
    finds boxes objects and proposals.
    """
    rng = np.random.default_rng(0)
    image = rng.integers(0, 256, (work.batch_size, *work.image_shape), np.uint8)
    task = tasks.task_module(work.task)
    classes = num_classes(work) - task.BACKGROUND
    if task.NEEDS == "boxes":
        return {"image": image, **_synthetic_objects(rng, work, classes)}
    if task.NEEDS == "labels":
        return {"image": image, "labels": rng.integers(-1, 2, (work.batch_size, classes), np.int8)}
    return {"image": image, "label": rng.integers(0, classes, work.batch_size, np.int32)}


def _synthetic_objects(
    rng: np.random.Generator, work: Workload, classes: int
) -> dict[str, np.ndarray]:
    """Returns OBJECTS boxes with classes, and PROPOSALS boxes, at random in every image."""
    size = np.array(work.image_shape[:2], np.float32)
    corners = rng.uniform(0, size, (work.batch_size, OBJECTS + PROPOSALS, 2, 2))
    boxes = np.sort(corners, axis=2).reshape(work.batch_size, -1, 4).astype(np.float32)
    shape = (work.batch_size, OBJECTS)
    return {
        "boxes": boxes[:, :OBJECTS],
        "classes": rng.integers(0, classes, shape, np.int32),
        "difficult": np.zeros(shape, bool),
        "size": np.tile(np.array(work.image_shape[:2], np.int32), (work.batch_size, 1)),
        "proposals": boxes[:, OBJECTS:],
    }


def synthetic_augment(work: Workload) -> DeviceTransform:
    """Returns the operations of `work.train_device`, with statistics like those of uniform noise.

    Raises:
      UserError: an operation that does not exist or does not take its arguments.
    """
    train_device = augment.parse_device(work.train_device, key="data.train_device")
    return augment.compose(train_device, _statistics(work, train_device), train=True)


def synthetic_normalise(work: Workload) -> DeviceTransform:
    """Returns the same for `work.eval_device`."""
    eval_device = augment.parse_device(work.eval_device, key="data.eval_device")
    return augment.compose(eval_device, _statistics(work, eval_device), train=False)


def _statistics(work: Workload, device: OpString) -> Statistics:
    full = functools.partial(np.full, dtype=np.float32)
    eye = functools.partial(np.eye, dtype=np.float32)
    shape, channels = work.image_shape, work.image_shape[-1]
    values, whitening = int(np.prod(shape)), None
    if augment.before_whitening(device, device) is not None:
        whitening = Whitening(full(values, 0.0), full(values, 1.0), eye(values))
    return Statistics(
        mean=full(channels, 127.5),
        std=full(channels, 74.0),
        mean_image=full(shape, 127.5),
        eigenvalues=full(channels, 74.0**2),
        eigenvectors=eye(channels),
        whitening=whitening,
    )


class Step(NamedTuple):
    """A train step on its mesh.

    Attributes:
      train: jitted, (state, batch, key) -> (state, scalars); the state passed in is donated.
      init: jitted, key -> a fresh state.
      abstract: the shapes, types and shardings of the state.
    """

    mesh: jax.sharding.Mesh
    train: Any
    init: Any
    abstract: Any


def make_step(work: Workload, devices: Sequence[Any] | None = None) -> Step:
    """Returns the train step of `work`, jitted but not compiled yet.

    Args:
      devices: those to use instead of this process's, such as devices to compile for only.

    Raises:
      UserError: the network, an operation, the batch or the mesh is impossible.
    """
    mesh = meshes.make_mesh(work.devices, work.column, devices)
    training = make_training(
        zoo.build_model(work.model_name, **work.model),
        work.image_shape,
        mesh,
        synthetic_augment(work),
        work.optim,
        work.step,
        tasks.task_module(work.task),
        batch_size=work.batch_size,
        steps_per_epoch=work.steps_per_epoch,
        total_steps=work.total_steps,
        shard_params=work.shard_params,
    )
    return Step(mesh, training.step, training.init, training.abstract)


def make_trainer(work: Workload, devices: Sequence[Any] | None = None) -> Callable[[int], None]:
    """Returns a function that takes a given number of steps and waits for the last.

    Its first call compiles. Arguments and errors are those of `make_step`.
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


class Network(NamedTuple):
    """A network with random weights on its mesh, and the operations on images in evaluation."""

    model: Any
    variables: Any
    normalise: DeviceTransform
    mesh: jax.sharding.Mesh


def make_network(work: Workload) -> Network:
    """Returns the network of `work` as it is evaluated.

    Raises:
      UserError: the network, an operation or the mesh is impossible.
    """
    mesh = meshes.make_mesh(work.devices, work.column)
    model: Any = zoo.build_model(work.model_name, **work.model)
    image = np.zeros((1, *work.image_shape), np.float32)
    variables = jax.jit(model.init)(jax.random.key(0), image)
    variables = processes.put(variables, meshes.replicated(mesh))
    return Network(over_mesh(model, mesh), variables, synthetic_normalise(work), mesh)


def make_forward(work: Workload) -> Callable[[int], None]:
    """Returns a function that computes the logits of a batch, as in evaluation, that many times.

    It waits for the last. Its first call compiles. Errors are those of `make_network`.
    """
    network = make_network(work)
    meshes.check_batch(network.mesh, work.batch_size)
    predict = jax.jit(make_predict_step(network.model, network.normalise))
    image = processes.put(synthetic_batch(work)["image"], meshes.data_sharding(network.mesh))

    def forward(batches: int) -> None:
        jax.block_until_ready([predict(network.variables, image) for _ in range(batches)])

    return forward
