"""Reads the weights that a run starts from: `config.init_from`, a file or the folder of a run."""

import logging
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import flax.linen as nn
import jax

from cnn_papers import zoo
from cnn_papers.parallel import mesh as meshes
from cnn_papers.parallel import processes
from cnn_papers.training.step import State
from cnn_papers.weights import convert, trained, weight_files


def read(config: Any, model: nn.Module, image_shape: tuple[int, ...]) -> convert.Flat:
    """Returns the arrays of `config.init_from` that `model` starts from, by path; {} if it is "".

    Prints the number of layers taken and the names of those that stay fresh.

    Args:
      config: of the run.
      model, image_shape: the network, and (h, w, c) of its images.

    Raises:
      UserError: there are no such weights, or they do not fit the network.
    """
    if not config.init_from:
        if config.optim.frozen:
            layers = map(convert.layer_of, convert.abstract(model, image_shape))
            _warn_of_frozen(layers, config.optim.frozen)
        return {}
    place = pathlib.Path(config.init_from)
    if place.is_dir():
        run = trained.open_run(place)
        donor = zoo.build_model(run.config.model_name, **run.config.model)
        variables = trained.read_variables(place, run, donor, meshes.make_mesh())[2]
        source = convert.from_variables(variables, donor, place=str(place))
    else:
        source = weight_files.source(place, config.model_name, model, image_shape)
    arrays, fresh = convert.select(
        source, model, image_shape, layers=config.init_layers, other_head=True
    )
    taken = len({convert.layer_of(path) for path in arrays})
    rest = f"; fresh: {', '.join(fresh)}" if fresh else ""
    print(f"starts from {taken} layers of {place}{rest}")
    _warn_of_frozen(fresh, config.optim.frozen)
    return arrays


def _warn_of_frozen(fresh: Iterable[str], pattern: str) -> None:
    """Warns if `pattern` (`config.optim.frozen`) freezes layers that start from random weights."""
    frozen = sorted({layer for layer in fresh if re.fullmatch(pattern, layer)})
    if frozen:
        more = f", and {len(frozen) - 4} more" if len(frozen) > 4 else ""
        logging.getLogger(__name__).warning(
            "no weights are read for layers that config.optim.frozen keeps as they are, at random: "
            "%s%s",
            ", ".join(frozen[:4]),
            more,
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
