"""The least that a train step can send over a mesh, by layer, to hold what a compiled program sends
against.
"""

import functools
import math
import re
from collections import Counter
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import numpy as np
from jax.sharding import Mesh

from cnn_papers import counting, zoo
from cnn_papers.benchmarks.workload import Workload
from cnn_papers.parallel.mesh import COLUMN, DATA
from cnn_papers.training import placement
from cnn_papers.training.step import State

FLOAT32 = 4  # bytes


class _Call(NamedTuple):
    """What a layer with a kernel takes and gives for one image, in numbers, and whether it reads
    all of its input.
    """

    name: str
    takes: int
    gives: int
    reads_all: bool


def least(work: Workload, abstract: State, mesh: Mesh) -> Counter[str]:
    """Bytes that each device must come to hold through others in one step, by layer; "" is outside
    the network.

    Counted from the network alone, as `collectives` counts a program (the size of the whole before
    a reduce-scatter):

    - Over `data`, the gradient of every parameter that a device works with is summed once, in the
      type it is computed in (float32: 4 bytes a parameter). With `shard_params`, a parameter that
      is split is gathered once too.
    - Batch normalisation over the global batch sums two numbers a channel forward. The two it sums
      backward are the gradients of its scale and bias.
    - Over `column`, a layer that reads both columns gathers its input, the paper's activations of
      this device's images, and the gradient of that input is summed back. One that is not split
      itself may sum what it gives instead.
    - The loss and the error are summed over `data`: two numbers. The few numbers an image that a
      softmax over split classes takes, and the gradient's norm over split parameters, are left out.
    """
    width = np.dtype(work.model["dtype"]).itemsize
    sent = Counter[str]()
    if mesh.shape[DATA] > 1:
        sent[""] = 2 * FLOAT32
        normalised = {
            path[:-1] for path, _ in jax.tree_util.tree_leaves_with_path(abstract.batch_stats)
        }
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract.params):
            times = 2 if DATA in leaf.sharding.spec else 1
            sent[path[0].key] += (
                times * _worked_with(leaf) * (FLOAT32 if path[:-1] in normalised else width)
            )
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract.batch_stats):
            sent[path[0].key] += _worked_with(leaf) * FLOAT32
    if mesh.shape.get(COLUMN, 1) > 1:
        images = work.batch_size // mesh.shape[DATA]
        for name, numbers in _between_columns(work):
            sent[name] += images * numbers * width
    return sent


def _worked_with(leaf: Any) -> int:
    """Numbers of a parameter or statistic that a device works with: its column's, gathered over
    `data`.
    """
    held = math.prod(leaf.sharding.shard_shape(leaf.shape))
    return held * (leaf.sharding.mesh.shape[DATA] if DATA in leaf.sharding.spec else 1)


def _between_columns(work: Workload) -> list[tuple[str, int]]:
    """Numbers an image that each layer's device needs from the other columns, forward and backward
    together.
    """
    found, split, first = [], False, True
    model = zoo.build_model(work.model_name, **work.model)
    split_layers = placement.split_layers(model)
    for call in _calls(work, model):
        splits = re.fullmatch(split_layers, call.name) is not None
        forward = backward = 0
        if call.reads_all and split:
            forward = call.takes if splits else min(call.takes, call.gives)
        if call.reads_all and splits and not first:  # nobody needs the gradient of the image
            backward = call.takes
        found.append((call.name, forward + backward))
        split, first = splits, False
    return found


def _calls(work: Workload, model: nn.Module) -> list[_Call]:
    """The layers with a kernel in the order they are called; networks with columns are chains."""
    variables, calls = counting.abstract_variables(model, work.image_shape), []

    def look(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        result, module = call(*arguments, **keywords), context.module
        if (
            context.method_name == "__call__"
            and len(module.path) == 1
            and module.has_variable("params", "kernel")
        ):
            image, channels = arguments[0], module.get_variable("params", "kernel").shape[-2]
            calls.append(_Call(module.name, image.size, result.size, channels == image.shape[-1]))
        return result

    with nn.intercept_methods(look):
        image = jax.ShapeDtypeStruct((1, *work.image_shape), np.float32)
        jax.eval_shape(functools.partial(model.apply, train=False), variables, image)
    return calls
