"""A network with its weights, from a run or from a file of published ones."""

import functools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax

from cnn_papers import zoo
from cnn_papers.data import augment, statistics
from cnn_papers.data.sources import open_split
from cnn_papers.data.tfds import find_builder
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes
from cnn_papers.runs import inputs
from cnn_papers.runs.checkpoint import read_model
from cnn_papers.runs.workdir import read_run
from cnn_papers.training.optim import Optimizer
from cnn_papers.training.step import State, init_state
from cnn_papers.weights import convert, weight_files


class Trained(NamedTuple):
    """A trained network.

    Attributes:
      description: network, data set and where the weights come from, in words.
      config: the run's, a locked ConfigDict.
      model, variables: to apply; the variables are replicated over `mesh`.
      normalise: (uint8 images [n, h, w, c], key) to the float32 images of evaluation.
      image_shape: (h, w, c) of the images of evaluation.
      class_names: one for every output.
      step: of the checkpoint; 0 of weights from a file.
    """

    description: str
    config: Any
    model: nn.Module
    variables: dict[str, Any]
    mesh: jax.sharding.Mesh
    normalise: augment.DeviceTransform
    image_shape: tuple[int, ...]
    class_names: tuple[str, ...]
    step: int = 0


def from_run(folder: pathlib.Path, overrides: Mapping[str, Any] | None = None) -> Trained:
    """The network of the run in `folder` at its best checkpoint, at its last where it has not been
    evaluated yet.

    `overrides` change the run's config, by dotted key.

    Raises:
      UserError: no run, no checkpoint, a damaged one.
    """
    run, mesh = open_run(folder), meshes.make_mesh()
    trained_on = run["config"].data.name
    config, data = run["config"], run["config"].data
    with config.unlocked(), config.ignore_type():  # a run may be older than a key
        for key, value in (overrides or {}).items():
            *parents, last = key.split(".")
            functools.reduce(lambda node, name: node[name], parents, config)[last] = value
    model = zoo.build_model(config.model_name, **config.model)
    eval_device = augment.parse_device(data.eval_device, key="data.eval_device")
    figures = (
        statistics.load(folder / statistics.FILE) if augment.needs_statistics(eval_device) else None
    )
    normalise = augment.compose(eval_device, figures, train=False)
    place, step, variables = read_variables(folder, run, model, mesh)
    network = f"{config.model_name} '{config.model.variant}'"
    return Trained(
        f"{network} trained on {trained_on}, step {step} in {place}",
        config,
        model,
        variables,
        mesh,
        normalise,
        tuple(run["eval_image"]),
        _padded(run["class_names"], config),
        step,
    )


def from_file(path: pathlib.Path, config: Any) -> Trained:
    """The network of `config` (a ConfigDict) with the weights in a file.

    Raises:
      UserError: a file that cannot be read or is of another network; device operations that need
        figures of a training set, which come with no file.
    """
    data = config.data
    eval_device = augment.parse_device(data.eval_device, key="data.eval_device")
    if augment.needs_statistics(eval_device):
        raise UserError(
            f"config.data.eval_device='{data.eval_device}' needs figures of the training images, which weights from a "
            "file come without: write them as normalize((R, G, B), (R, G, B)), mean and deviation in 0 … 255, or take "
            "the recipe ':torchvision' of the config file"
        )
    model, mesh = zoo.build_model(config.model_name, **config.model), meshes.make_mesh()
    shape = inputs.configured_input(config, "train_host")
    source = convert.from_torch(
        weight_files.read(path), config.model_name, model, shape, place=str(path)
    )
    arrays, _ = convert.select(source, model, shape)
    return Trained(
        f"{config.model_name} '{config.model.variant}' with the weights of {path}",
        config,
        model,
        processes.put(convert.put({}, arrays, model), meshes.replicated(mesh)),
        mesh,
        augment.compose(eval_device, None, train=False),
        inputs.configured_input(config),
        _names_of_head(_class_names(data.name, data.data_dir), config.model.num_classes),
    )


def open_run(folder: pathlib.Path) -> dict[str, Any]:
    """What `run.json` in `folder` holds; UserError where there is no run, or one of an older
    version.
    """
    run = read_run(folder)
    if run is None:
        raise UserError(f"there is no run in {folder}: give the folder of a training")
    if not run.keys() >= {"class_names", "train_image", "eval_image"}:
        raise UserError(
            f"{folder}/run.json is of an older version: run the training command again, which rewrites it"
        )
    return run


def read_variables(
    folder: pathlib.Path, run: dict[str, Any], model: nn.Module, mesh: jax.sharding.Mesh
) -> tuple[pathlib.Path, int, dict[str, Any]]:
    """Which checkpoints, the step, and its variables over `mesh`."""
    place = folder / ("best" if any((folder / "best").glob("[0-9]*")) else "checkpoints")
    step, variables = read_model(
        place, _abstract_state(model, run["config"], run["train_image"], mesh)
    )
    return place, step, variables


def _abstract_state(model: nn.Module, config: Any, image_shape: Sequence[int], mesh: Any) -> State:
    """The shapes of what a run of `config` trains, without its optimiser, replicated over `mesh`."""
    no_optimizer = Optimizer(lambda params: None, None, None, None)
    ema = config.optim.ema_decay > 0
    init = functools.partial(
        init_state, model, no_optimizer, tuple(image_shape), jax.random.key(0), ema=ema
    )
    placed = functools.partial(jax.ShapeDtypeStruct, sharding=meshes.replicated(mesh))
    return jax.tree.map(lambda leaf: placed(leaf.shape, leaf.dtype), jax.eval_shape(init))


def _class_names(name: str, data_dir: str) -> Sequence[str]:
    """The classes of a data set, which need not be prepared; a folder must be there."""
    if name.startswith("folder:"):
        return open_split(name, "train").class_names
    features = find_builder(name, data_dir).info.features
    return features["label"].names if "label" in features else ()


def _names_of_head(names: Sequence[str], outputs: int) -> tuple[str, ...]:
    """The data set's names if they are of as many classes: a file does not say what its outputs
    mean.
    """
    return tuple(names) if len(names) == outputs else tuple(f"output {i}" for i in range(outputs))


def _padded(names: Sequence[str], config: Any) -> tuple[str, ...]:
    """A name for every output of the head."""
    outputs = config.model.num_classes
    return (*names[:outputs], *(f"output {i}" for i in range(len(names), outputs)))
