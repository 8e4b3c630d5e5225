"""Reads or fits the weights that a run starts from.

`config.init_from` is a file, a name on the hub or the folder of a run. `fitting` fits layers that
are not trained.
"""

import logging
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax

from cnn_papers import zoo
from cnn_papers.data.pipeline import Pipeline
from cnn_papers.errors import UserError, listed
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes
from cnn_papers.runs import workdir
from cnn_papers.training.step import State
from cnn_papers.weights import convert, fitting, hub, trained, weight_files


def read_or_fit(config: Any, model: nn.Module, train: Pipeline) -> convert.Flat:
    """Returns the arrays of `read`, and those of layers that are fitted to images of `train`.

    Layers that `config.init_from` brings are not fitted.

    Raises:
      UserError: as `read` and `fitting.fit`; layers to fit that would be trained, or that a run
        has fitted to other descriptors.
    """
    fitted = fitting.layers_to_fit(model)
    fitting.check_frozen(model, config.optim.frozen)
    arrays = read(config, model, train.image_shape, train.split.class_names)
    taken = {convert.layer_of(path) for path in arrays}
    place = pathlib.Path(config.init_from)
    if taken & {*fitted} and place.is_dir():
        fitting.check_descriptors(place, trained.open_run(place).config, config)
    if {*fitted} <= taken:
        return arrays
    return arrays | fitting.fit(model, train, config.seed)


def read(
    config: Any, model: nn.Module, image_shape: tuple[int, ...], class_names: tuple[str, ...]
) -> convert.Flat:
    """Returns the arrays of `config.init_from` that `model` starts from, by path; {} if it is "".

    Prints the number of layers taken and the names of those that stay fresh. The layers that give
    the classes stay fresh if the weights are of other classes, or of the same in another order,
    unless `config.init_layers` names layers.

    Args:
      config: of the run.
      model, image_shape: the network, and (h, w, c) of its images.
      class_names: of the training split, by label.

    Raises:
      UserError: there is no such run, there are no such weights, or they do not fit the network.
    """
    if not config.init_from:
        print(f"starts from fresh weights of seed {config.seed}")
        if config.optim.frozen:
            layers = map(convert.layer_of, convert.abstract(model, image_shape))
            _warn_of_frozen(layers, model, config.optim.frozen)
        return {}
    check_exists(config)
    place = pathlib.Path(config.init_from)
    source = _open(place, config, model, image_shape)
    arrays, fresh = convert.select(
        source, model, image_shape, layers=config.init_layers, other_head=True
    )
    named = source.class_names
    classes = named or trained.classes_of_file(class_names, config.model.num_classes)
    head, reason = set[str](), ""
    if not named or classes != class_names:
        head = _head(model, image_shape) & {convert.layer_of(path) for path in arrays}
    if head and classes and classes != class_names:
        reason = f"; its classes are others ({workdir.difference(classes, class_names)})"
        if config.init_layers:
            reason += f", and config.init_layers takes {', '.join(sorted(head))} all the same"
        else:
            arrays = {
                path: array for path, array in arrays.items() if convert.layer_of(path) not in head
            }
            fresh = sorted({*fresh, *head})
    elif head:
        reason = "; it does not name its classes, which are taken to be those of this run"
    taken = len({convert.layer_of(path) for path in arrays})
    rest = f"; fresh: {', '.join(fresh)}" if fresh else ""
    print(f"starts from {taken} layers of {place}{rest}{reason}")
    _warn_of_frozen(fresh, model, config.optim.frozen)
    return arrays


def check_exists(config: Any) -> None:
    """Raises UserError if there is nothing at `config.init_from`; downloads weights of the hub.

    A run asks this before it opens its data, of which proposals and statistics may take long.
    """
    place = hub.local_path(config.init_from)
    if not place.exists():
        raise UserError(
            f"config.init_from: there is no run or weights file {place} to start from; "
            "train it first, or name another"
        )


def _open(
    place: pathlib.Path, config: Any, model: nn.Module, image_shape: tuple[int, ...]
) -> convert.Source:
    """Returns the weights in a file or in the folder of a run."""
    if not place.is_dir():
        return weight_files.source(place, config.model_name, model, image_shape)
    run = trained.open_run(place)
    donor = zoo.build_model(run.config.model_name, **run.config.model)
    variables = trained.read_variables(place, run, donor, meshes.make_mesh())[2]
    return convert.from_variables(variables, donor, place=str(place), class_names=run.class_names)


def _head(model: Any, image_shape: tuple[int, ...]) -> set[str]:
    """Returns the layers of `model` whose shapes depend on the number of classes."""
    shapes, others = (
        {path: array.shape for path, array in convert.abstract(network, image_shape).items()}
        for network in (model, model.clone(num_classes=model.num_classes + 1))
    )
    return {convert.layer_of(path) for path, shape in shapes.items() if shape != others[path]}


def _warn_of_frozen(fresh: Iterable[str], model: nn.Module, pattern: str) -> None:
    """Warns if `pattern` (`config.optim.frozen`) freezes layers that start from random weights."""
    random = {*fresh} - {*fitting.layers_to_fit(model)}
    frozen = sorted(layer for layer in random if re.fullmatch(pattern, layer))
    if frozen:
        logging.getLogger(__name__).warning(
            "no weights are read for layers that config.optim.frozen keeps as they are, at random: "
            "%s",
            listed(frozen, 4),
        )


def insert(state: State, arrays: convert.Flat, model: nn.Module) -> State:
    """Returns a fresh `state` of `model` with `arrays` of `read` in their places."""
    if not arrays:
        return state
    variables = convert.put(
        {"params": state.params, "batch_stats": state.batch_stats}, arrays, model
    )
    new = state._replace(**variables, ema=state.ema and variables["params"])
    return processes.put(new, jax.tree.map(lambda old: old.sharding, state))
