"""Reads the weights that a run starts from: `config.init_from`, a file or the folder of a run."""

import pathlib
from typing import Any

import flax.linen as nn
import jax

from cnn_papers import zoo
from cnn_papers.errors import UserError
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
      UserError: there is no such run, there are no such weights, or they do not fit the network.
    """
    if not config.init_from:
        return {}
    place = pathlib.Path(config.init_from)
    if not place.exists() and not place.suffix:
        raise UserError(
            f"config.init_from: there is no run {place} to start from; "
            "train it first, or name its folder or a weights file"
        )
    if place.is_dir():
        run = trained.open_run(place)
        donor = zoo.build_model(run.config.model_name, **run.config.model)
        variables = trained.read_variables(place, run, donor, meshes.make_mesh())[2]
        source = convert.from_variables(variables, donor, place=str(place))
    else:
        source = convert.from_torch(
            weight_files.read(place), config.model_name, model, image_shape, place=str(place)
        )
    arrays, fresh = convert.select(
        source, model, image_shape, layers=config.init_layers, other_head=True
    )
    taken = len({convert.layer_of(path) for path in arrays})
    rest = f"; fresh: {', '.join(fresh)}" if fresh else ""
    print(f"starts from {taken} layers of {place}{rest}")
    return arrays


def insert(state: State, arrays: convert.Flat, model: nn.Module) -> State:
    """Returns a fresh `state` of `model` with `arrays` of `read` in their places."""
    if not arrays:
        return state
    variables = convert.put(
        {"params": state.params, "batch_stats": state.batch_stats}, arrays, model
    )
    new = state._replace(**variables, ema=state.ema and variables["params"])
    return processes.put(new, jax.tree.map(lambda old: old.sharding, state))
