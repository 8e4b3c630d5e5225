"""Analyses of a trained network: dead units, sizes of responses and gradients, distributions.

`config.eval.analyses` names them, joined by `|`. Each function takes a network, its variables,
float images [n, h, w, c] as the network takes them and int labels [n]. It returns float32 scalars
by name: the analysis itself under the name of the function, its parts (mostly layers) after a
slash. Networks need no code for it: layers are found by their endpoints, their parameters and what
Flax's modules return. Layers within a loop (`nn.scan`) are not found.
"""

import re
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict

from cnn_papers.errors import UserError
from cnn_papers.training import losses

WATCHED = 16  # units whose medians are returned one by one
Values = dict[str, jax.Array]


def dead_units(model: nn.Module, variables: Any, image: jax.Array, label: jax.Array) -> Values:
    """Returns the share of rectified units that are zero for every image and position.

    The units of a convolution are its filters. Of a maxout layer it is the share of pieces that are
    never the output of their unit (Maxout §8.2): never the largest, or never above zero if the unit
    has a constant 0 too.
    """
    seen, counts = _evaluate(model, variables, image), {}
    for name, end in _layers(variables, seen).items():
        pieces = seen.outputs[name].shape[-1] // end.shape[-1] if name in seen.outputs else 1
        if pieces > 1:
            z = seen.outputs[name].reshape(-1, end.shape[-1], pieces)
            chosen = (z == z.max(-1, keepdims=True)) & (
                z > jnp.where(_is_rectified(end), 0.0, -jnp.inf)
            )
            dead, units = ~chosen.any(0), jnp.float32(end.shape[-1] * pieces)
        else:
            units = jnp.where(_is_rectified(end), float(end.shape[-1]), 0.0)
            dead = (units > 0) & (end.reshape(-1, end.shape[-1]) <= 0).all(0)
        counts[name] = (dead.sum(), units)
    return _shares("dead_units", counts)


def saturated(model: nn.Module, variables: Any, image: jax.Array, label: jax.Array) -> Values:
    """Returns the share of outputs of rectified layers that are zero (Maxout §8.2).

    Outputs are counted over images, positions and units.
    """
    seen, counts = _evaluate(model, variables, image), {}
    for name, end in _layers(variables, seen).items():
        total = jnp.where(_is_rectified(end), float(end.size), 0.0)
        counts[name] = (jnp.where(total > 0, (end <= 0).sum(), 0), total)
    return _shares("saturated", counts)


def response_std(model: nn.Module, variables: Any, image: jax.Array, label: jax.Array) -> Values:
    """Returns standard deviations of the outputs of batch normalisations (ResNet Figure 7).

    They are taken before the nonlinearity and the addition. Of a network without batch
    normalisation they are those of convolutions and fully connected layers. The analysis itself is
    their mean.
    """
    seen = _evaluate(model, variables, image)
    normalised = {path for path, _ in _owners(variables.get("batch_stats", {}), "mean")}
    wanted = normalised or {path for path, _ in _owners(variables["params"], "kernel")}
    stds = {path: x.astype(jnp.float32).std() for path, x in seen.outputs.items() if path in wanted}
    return {"response_std": jnp.stack([*stds.values()]).mean(), **_named("response_std", stds)}


def gradient_norm(
    model: nn.Module, variables: Any, image: jax.Array, label: jax.Array, aux_weight: float = 0.0
) -> Values:
    """Returns norms of the training loss's gradient with respect to each kernel.

    The analysis itself is the first layer's. `aux_weight` is the weight of auxiliary heads. Every
    call draws the same dropout masks.
    """

    def loss_of(params: Any) -> jax.Array:
        (logits, ends), _ = _train(model, {**variables, "params": params}, image, jax.random.key(0))
        return losses.classification(logits, ends, label, aux_weight=aux_weight)

    grads = dict(_owners(jax.grad(loss_of)(variables["params"]), "kernel"))
    norms = {path: jnp.sqrt(jnp.square(grad).sum()) for path, grad in grads.items()}
    first = next(path for path in _evaluate(model, variables, image).outputs if path in norms)
    return {"gradient_norm": norms[first], **_named("gradient_norm", norms)}


def input_percentiles(
    model: nn.Module,
    variables: Any,
    image: jax.Array,
    label: jax.Array,
    layer: str = "",
    unit: int = 0,
) -> Values:
    """Returns the distribution of a nonlinearity's input, which is the output of `layer`.

    An empty `layer` is the last before the classifier. `p15`, `p50` and `p85` are percentiles of
    one unit over images and positions (Batch Normalization, Figure 1); `median/0`, `median/1`, …
    are the medians of the first WATCHED units. Over all units, the analysis itself is the root mean
    square of their medians, and `width` the mean distance from their 15th to their 85th percentile.
    """
    outputs = _evaluate(model, variables, image).outputs
    weighted = {
        path for leaf in ("kernel", "scale") for path, _ in _owners(variables["params"], leaf)
    }
    hidden = [path for path in outputs if path in weighted][:-1]
    layer = layer or hidden[-1]
    if layer not in outputs:
        raise UserError(
            f"config.eval.analyses: input_percentiles: there is no layer '{layer}'; "
            f"there are: {', '.join(hidden)}"
        )
    values = outputs[layer].astype(jnp.float32).reshape(-1, outputs[layer].shape[-1])
    if not 0 <= unit < values.shape[-1]:
        raise UserError(
            f"config.eval.analyses: input_percentiles: unit={unit} is not one of "
            f"the {values.shape[-1]} units of {layer}"
        )
    low, median, high = jnp.percentile(values, jnp.array([15.0, 50.0, 85.0]), axis=0)
    parts = {"p15": low[unit], "p50": median[unit], "p85": high[unit], "width": (high - low).mean()}
    parts |= {f"median/{i}": value for i, value in enumerate(median[:WATCHED])}
    offset = jnp.sqrt(jnp.square(median).mean())
    return {"input_percentiles": offset, **_named("input_percentiles", parts)}


def feature_reuse(model: nn.Module, variables: Any, image: jax.Array, label: jax.Array) -> Values:
    """Returns mean absolute weights between the layers of each dense block (DenseNet Figure 5).

    `block1/layer3/from0` is the weight of layer 3 on the block's input, `block1/out/from3` that of
    the transition or the classifier after the block on layer 3. The analysis itself is the weight
    on all sources but the nearest, divided by that on the nearest, averaged over the layers that
    have both.
    """
    params = variables["params"]
    blocks = [
        name for name in params if re.fullmatch(r"block\d+", name) and "layer2" in params[name]
    ]
    if not blocks:
        raise UserError(
            "config.eval.analyses: feature_reuse needs dense blocks, and this network has none"
        )
    parts, ratios = {}, []
    for name in blocks:
        block = params[name]
        layers = {f"layer{i}": block[f"layer{i}"] for i in range(1, len(block) + 1)}
        next_layer = params.get(name.replace("block", "transition"), params.get("fc"))
        kernels = {
            reader: _owners(tree, "kernel")[0][1]
            for reader, tree in {**layers, "out": next_layer}.items()
        }
        first, second = kernels["layer1"].shape[2], kernels["layer2"].shape[2]
        for reader, kernel in kernels.items():
            starts = [0, *range(first, kernel.shape[2], second - first)]
            sources = [jnp.abs(part).mean() for part in jnp.split(kernel, starts[1:], axis=2)]
            parts |= {f"{name}/{reader}/from{i}": weight for i, weight in enumerate(sources)}
            if len(sources) > 1:
                ratios.append(jnp.stack(sources[:-1]).mean() / sources[-1])
    return {"feature_reuse": jnp.stack(ratios).mean(), **_named("feature_reuse", parts)}


def dropout_average(
    model: nn.Module, variables: Any, image: jax.Array, label: jax.Array, masks: int = 32
) -> Values:
    """Returns how far the full network is from the mean of the networks that dropout makes of it.

    It is the Kullback-Leibler divergence of the network's prediction from the normalised geometric
    mean of the predictions under `masks` random masks, averaged over images (Maxout §7).
    """

    def dropped_out(key: jax.Array) -> jax.Array:
        return jax.nn.log_softmax(_train(model, variables, image, key)[0][0])

    mask_keys = jax.random.split(jax.random.key(0), masks)
    mean = jax.nn.log_softmax(jax.lax.map(dropped_out, mask_keys).mean(0))
    full = jax.nn.log_softmax(_evaluate(model, variables, image).logits)
    return {"dropout_average": (jnp.exp(mean) * (mean - full)).sum(-1).mean()}


class _Evaluation(NamedTuple):
    """One pass in evaluation: logits, endpoints, and outputs of modules by path, in call order."""

    logits: jax.Array
    ends: dict[str, jax.Array]
    outputs: dict[str, jax.Array]


def _evaluate(model: nn.Module, variables: Any, image: jax.Array) -> _Evaluation:
    result: Any = model.apply(
        variables, image, capture_intermediates=True, mutable=["intermediates"]
    )
    (logits, ends), captured = result
    calls: dict[Any, Any] = flatten_dict(captured["intermediates"])
    outputs = {
        "/".join(path[:-1]): x for path, (x, *_) in calls.items() if isinstance(x, jax.Array)
    }
    return _Evaluation(logits, ends, outputs)


def _train(model: nn.Module, variables: Any, image: jax.Array, key: jax.Array) -> Any:
    """Returns ((logits, endpoints), updates) as in training."""
    return model.apply(variables, image, train=True, rngs={"dropout": key}, mutable=["batch_stats"])


def _layers(variables: Any, seen: _Evaluation) -> dict[str, jax.Array]:
    """Returns the endpoints named as modules with parameters are: layers, not their pooling."""
    return {name: end for name, end in seen.ends.items() if name in variables["params"]}


def _owners(tree: Any, leaf: str) -> list[tuple[str, jax.Array]]:
    """Returns (path of the owner, value) of every leaf of `tree` that is called `leaf`."""
    flat: dict[Any, Any] = flatten_dict(tree)
    return [("/".join(path[:-1]), value) for path, value in flat.items() if path[-1] == leaf]


def _is_rectified(end: jax.Array) -> jax.Array:
    return (end >= 0).all()


def _shares(name: str, counts: dict[str, tuple[jax.Array, jax.Array]]) -> Values:
    """Returns the share over all layers, and that of each layer.

    `counts` are (number of such units, number of units) by layer; the share of no units is 0.
    """
    shares = {layer: some / jnp.maximum(total, 1) for layer, (some, total) in counts.items()}
    some, total = (jnp.stack(column).sum() for column in zip(*counts.values(), strict=True))
    return {name: some / jnp.maximum(total, 1), **_named(name, shares)}


def _named(name: str, parts: dict[str, jax.Array]) -> Values:
    return {f"{name}/{part}": value for part, value in parts.items()}
