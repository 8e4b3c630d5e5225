"""Computes the least that a train step can send over a mesh, by layer.

What a compiled program sends is compared with it.
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
from cnn_papers.training import freezing, placement
from cnn_papers.training.step import State

FLOAT32 = 4  # bytes


class _Call(NamedTuple):
    """A call of a layer with a kernel, for one image.

    Attributes:
      name: of the layer.
      inputs, outputs: number of activations that it takes and gives.
      reads_all: whether each output channel reads every input channel.
    """

    name: str
    inputs: int
    outputs: int
    reads_all: bool


def least_bytes(work: Workload, abstract: State, mesh: Mesh) -> Counter[str]:
    """Returns the bytes that each device must receive in one step, by layer; "" is outside layers.

    They follow from the network only, and are counted as `collectives` counts those of a program
    (for a reduce-scatter, the size of the whole before it):

    - Over `data`, the gradient of every parameter that a device works with is summed once, in the
      type it is computed in (float32: 4 bytes a parameter). With `shard_params`, a parameter that
      is split is gathered once too. Frozen layers have no gradient.
    - Batch normalisation over the global batch sums two numbers a channel forward. The two that it
      sums backward are the gradients of its scale and bias.
    - Over `column`, a layer that reads both columns gathers its input (the activations of this
      device's images), and the gradient of that input is summed back. A layer that is not split
      itself may sum its output instead.
    - The loss and the error are summed over `data`: two numbers.

    Left out are the few numbers an image that a softmax over split classes takes, and the norm of
    the gradient over split parameters.
    """
    width = np.dtype(work.model["dtype"]).itemsize
    sent = Counter[str]()
    if mesh.shape[DATA] > 1:
        sent[""] = 2 * FLOAT32
        statistics = jax.tree_util.tree_leaves_with_path(abstract.batch_stats)
        normalisations = {path[:-1] for path, _ in statistics}  # they compute in float32
        frozen = freezing.frozen_layers(abstract.params, work.optim.frozen)
        for path, leaf in jax.tree_util.tree_leaves_with_path(abstract.params):
            times = (DATA in leaf.sharding.spec) + (_layer(path) not in frozen)
            size = FLOAT32 if path[:-1] in normalisations else width
            sent[path[0].key] += times * _worked_with(leaf) * size
        for path, leaf in statistics:
            if work.step.move_frozen_statistics or _layer(path) not in frozen:
                sent[path[0].key] += _worked_with(leaf) * FLOAT32
    if mesh.shape.get(COLUMN, 1) > 1:
        images = work.batch_size // mesh.shape[DATA]
        for name, numbers in _between_columns(work):
            sent[name] += images * numbers * width
    return sent


def _layer(path: Any) -> str:
    """Returns the layer of the path of a parameter or statistic."""
    return "/".join(part.key for part in path[:-1])


def _worked_with(leaf: Any) -> int:
    """Returns the size of a parameter or statistic that a device works with.

    It is that of the device's column, gathered over `data`.
    """
    held = math.prod(leaf.sharding.shard_shape(leaf.shape))
    return held * (leaf.sharding.mesh.shape[DATA] if DATA in leaf.sharding.spec else 1)


def _between_columns(work: Workload) -> list[tuple[str, int]]:
    """Returns the number of values an image that each layer needs from the other columns.

    Those of the forward and the backward pass are added.
    """
    numbers, split, first = [], False, True
    model = zoo.build_model(work.model_name, **work.model)
    split_layers = placement.split_layers(model)
    for call in _calls(work, model):
        splits = re.fullmatch(split_layers, call.name) is not None
        forward = backward = 0
        if call.reads_all and split:
            forward = call.inputs if splits else min(call.inputs, call.outputs)
        if call.reads_all and splits and not first:  # nobody needs the gradient of the image
            backward = call.inputs
        numbers.append((call.name, forward + backward))
        split, first = splits, False
    return numbers


def _calls(work: Workload, model: nn.Module) -> list[_Call]:
    """Returns the calls of layers with a kernel, in order; networks with columns are chains."""
    variables, calls = counting.abstract_variables(model, work.image_shape), []

    def record(call: Any, arguments: Any, keywords: Any, context: Any) -> Any:
        result, module = call(*arguments, **keywords), context.module
        is_layer = context.method_name == "__call__" and len(module.path) == 1
        if is_layer and module.has_variable("params", "kernel"):
            image, channels = arguments[0], module.get_variable("params", "kernel").shape[-2]
            calls.append(_Call(module.name, image.size, result.size, channels == image.shape[-1]))
        return result

    with nn.intercept_methods(record):
        image = jax.ShapeDtypeStruct((1, *work.image_shape), np.float32)
        jax.eval_shape(functools.partial(model.apply, train=False), variables, image)
    return calls
