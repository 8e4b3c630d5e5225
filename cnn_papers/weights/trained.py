"""Opens a trained network: from the folder of a run, or from a file of published weights."""

import functools
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np

from cnn_papers import tasks, zoo
from cnn_papers.data import augment, statistics, tfds, voc_folders
from cnn_papers.data.folders import folder_splits
from cnn_papers.data.sources import VOC, open_split
from cnn_papers.data.split import Split, with_classes_of
from cnn_papers.data.tfds import find_builder
from cnn_papers.errors import UserError, listed
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes
from cnn_papers.runs import inputs, splits
from cnn_papers.runs.checkpoint import read_model
from cnn_papers.runs.workdir import SavedRun, read_run
from cnn_papers.training.optim import Optimizer
from cnn_papers.training.step import State, init_state
from cnn_papers.weights import weight_files

IMAGENET_CLASSES = 1000


class Trained(NamedTuple):
    """A trained network.

    Attributes:
      description: network, data set and source of the weights in words.
      config: a locked ConfigDict, the run's or that of the file.
      model, variables: the network; its variables are replicated over `mesh`.
      mesh: of all devices.
      normalise: (uint8 images [n, h, w, c], key) -> float32 images of evaluation.
      image_shape: (h, w, c) of the images of evaluation.
      class_names: of its first outputs or, mostly, of all; () if they are unknown.
      step: of the checkpoint; 0 for weights from a file.
      trained_on: name of the data set, or for a file that of the config.
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
    trained_on: str = ""

    @property
    def output_names(self) -> tuple[str, ...]:
        """A name for each output: that of its class, or its number."""
        outputs, known = self.config.model.num_classes, len(self.class_names)
        return (*self.class_names, *(f"output {i}" for i in range(known, outputs)))


def from_run(folder: pathlib.Path, overrides: Mapping[str, Any] | None = None) -> Trained:
    """Opens the run in `folder` at its best checkpoint, or its last if none has been evaluated.

    Args:
      folder: of the run.
      overrides: change the config of the run, by dotted key.

    Raises:
      UserError: there is no run or no checkpoint, or it is damaged.
    """
    run, mesh = open_run(folder), meshes.make_mesh()
    config, data = run.config, run.config.data
    trained_on = data.name
    with config.unlocked(), config.ignore_type():  # a run may be older than a key
        for key, value in (overrides or {}).items():
            group, _, name = key.rpartition(".")
            groups = group.split(".") if group else []
            parent = functools.reduce(lambda node, part: node.get(part), groups, config)
            if parent is None:
                raise UserError(f"{folder} holds a run that is older than config.{group}")
            parent[name] = value
    model = zoo.build_model(config.model_name, **config.model)
    eval_device = augment.parse_device(data.eval_device, key="data.eval_device")
    pixel_statistics = None
    if augment.needs_statistics(eval_device):
        pixel_statistics = statistics.load(folder / statistics.FILE)
    normalise = augment.compose(eval_device, pixel_statistics, train=False)
    place, step, variables = read_variables(folder, run, model, mesh)
    network = f"{config.model_name} '{config.model.variant}'"
    return Trained(
        f"{network} trained on {trained_on}, step {step} in {place}",
        config,
        model,
        variables,
        mesh,
        normalise,
        run.eval_image,
        run.class_names[: config.model.num_classes],
        step,
        trained_on,
    )


def from_file(path: str | pathlib.Path, config: Any) -> Trained:
    """Opens the network of `config` (a ConfigDict) with the weights in a file.

    `path` may also be their name on the hub.

    Raises:
      UserError: the file cannot be read or is of another network, or a device operation needs
        statistics of training images, which no file contains.
    """
    data = config.data
    eval_device = augment.parse_device(data.eval_device, key="data.eval_device")
    if augment.needs_statistics(eval_device):
        raise UserError(
            f"config.data.eval_device='{data.eval_device}' needs statistics of training images, "
            "which a weights file does not contain: write them as normalize((R, G, B), (R, G, B)), "
            "mean and deviation in 0 … 255, or take the recipe ':torchvision' of the config file"
        )
    model, mesh = zoo.build_model(config.model_name, **config.model), meshes.make_mesh()
    variables, classes = read_file(path, config, model)
    if not classes:
        outputs = config.model.num_classes
        classes = classes_of_file(class_names_of(data), outputs)
        if classes and classes != classes_of_file((), outputs):
            logging.getLogger(__name__).info(
                "%s does not name its classes: its outputs are taken for those of %s, in their "
                "order",
                path,
                data.name,
            )
    return Trained(
        describe_file(path, config),
        config,
        model,
        processes.put(variables, meshes.replicated(mesh)),
        mesh,
        augment.compose(eval_device, None, train=False),
        inputs.configured_input(config),
        classes,
        trained_on=data.name,
    )


def read_file(
    path: str | pathlib.Path, config: Any, model: nn.Module
) -> tuple[dict[str, Any], tuple[str, ...]]:
    """Returns what `weight_files.read_variables` does for `model`, the network of `config`."""
    shape = inputs.configured_input(config, "train_host")
    return weight_files.read_variables(path, config.model_name, model, shape)


def describe_file(path: str | pathlib.Path, config: Any) -> str:
    """Returns the network of `config` and the file of its weights in words."""
    return f"{config.model_name} '{config.model.variant}' with the weights of {path}"


def open_run(folder: pathlib.Path) -> SavedRun:
    """Returns the run in `folder`.

    Raises:
      UserError: there is no run, or one of an older version.
    """
    run = read_run(folder)
    if run is None:
        raise UserError(f"there is no run in {folder}: give the folder of a training")
    if not (run.train_image and run.eval_image):
        raise UserError(
            f"{folder}/run.json is of an older version: "
            "run the training command again, which rewrites it"
        )
    return run


def read_variables(
    folder: pathlib.Path, run: SavedRun, model: nn.Module, mesh: jax.sharding.Mesh
) -> tuple[pathlib.Path, int, dict[str, Any]]:
    """Returns the folder of checkpoints that was read, the step, and its variables over `mesh`."""
    has_best = any((folder / "best").glob("[0-9]*"))
    place = folder / ("best" if has_best else "checkpoints")
    step, variables = read_model(place, _abstract_state(model, run.config, run.train_image, mesh))
    return place, step, variables


def _abstract_state(model: nn.Module, config: Any, image_shape: Sequence[int], mesh: Any) -> State:
    """Returns the shapes of the state of a run without its optimiser, replicated over `mesh`."""
    no_optimizer = Optimizer(lambda params: None, None, None, None)
    init = functools.partial(
        init_state,
        model,
        no_optimizer,
        tuple(image_shape),
        jax.random.key(0),
        ema=config.optim.ema_decay > 0,
        totals=tasks.task_module(config.task).Totals,
    )
    placed = functools.partial(jax.ShapeDtypeStruct, sharding=meshes.replicated(mesh))
    return jax.tree.map(lambda leaf: placed(leaf.shape, leaf.dtype), jax.eval_shape(init))


def open_labelled(network: Trained, split: str) -> Split:
    """Opens a split of the network's data set, with the labels that its classes have in its head.

    It has the proposals that the network's config names.

    Raises:
      UserError: no such split, or a class that the network does not know.
    """
    opened = splits.open_one_to_test(network.config, split)
    if not network.class_names:
        logging.getLogger(__name__).info(
            "the names of this network's classes are unknown: class i of %s is taken for output i",
            opened.name,
        )
    labelled = with_classes_of(opened, network.class_names, network=network.description)
    return splits.with_proposals(labelled, network.config)


def open_trained_on(network: Trained) -> Split:
    """Opens the split that the network was trained on, with the labels of its head.

    It is that of the run, also where the test is on another data set, and has the proposals that
    the network's config names.

    Raises:
      UserError: the data is missing, or has a class that the network does not know.
    """
    config = network.config
    split = splits.open_one(config, config.data.train_split, name=network.trained_on)
    labelled = with_classes_of(split, network.class_names, network=network.description)
    return splits.with_proposals(labelled, network.config)


def order_of_outputs(first: Trained, other: Trained) -> np.ndarray:
    """Returns the numbers of the outputs of `other`, int [classes], in the order of `first`.

    Outputs of one class belong together or, if a network's classes are unknown, of one number.

    Raises:
      UserError: the networks are of different classes.
    """
    ours, theirs = first.output_names, other.output_names
    by_name = first.class_names and other.class_names
    if len(ours) != len(theirs) or (by_name and set(ours) != set(theirs)):
        only = sorted(set(ours) ^ set(theirs))
        raise UserError(
            f"{first.description} and {other.description} are of different classes and cannot be "
            f"averaged; only one of them has {listed(only)}"
        )
    return np.array([theirs.index(name) for name in ours] if by_name else range(len(ours)))


def class_names_of(data: Any) -> tuple[str, ...]:
    """Returns the classes of `data.name`, which need not be prepared; a folder must exist."""
    if data.name.startswith("folder:"):
        splits = folder_splits(data.name.removeprefix("folder:"))
        return open_split(data.name, "train" if "train" in splits else min(splits)).class_names
    if data.name.startswith(VOC):
        return voc_folders.class_names_of(data.name.removeprefix(VOC), data.train_split)
    return tfds.class_names_of(find_builder(data.name, data.data_dir).info.features)


def classes_of_file(names: tuple[str, ...], outputs: int) -> tuple[str, ...]:
    """Returns the classes of a weights file that does not name them; () if they are unknown.

    They are the classes `names` of the config's data set if there is one for each output. 1,000
    outputs are ImageNet's classes if `names` are of another number or have one of its WordNet ids.

    Args:
      names: of the config's data set.
      outputs: number of outputs of the network.
    """
    if outputs == IMAGENET_CLASSES:
        imagenet = find_builder("imagenet2012").info.features["label"].names
        if len(names) != outputs or not set(names).isdisjoint(imagenet):
            return tuple(imagenet)
    return names if len(names) == outputs else ()
