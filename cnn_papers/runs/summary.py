"""Prints what a run consists of (data, parameters beside the paper's, length) and its result."""

import pathlib
from collections.abc import Sequence
from typing import Any

import jax
from jax.sharding import Mesh

from cnn_papers import counting, tasks, zoo
from cnn_papers.counting import Network
from cnn_papers.errors import listed
from cnn_papers.facts import Measure
from cnn_papers.runs import inputs, reported
from cnn_papers.runs.rows import Row, best_evaluation
from cnn_papers.training import freezing

SHOWN = 8  # the most layers or classes that one line names


def print_start(
    config: Any, network: Network, data: inputs.Data, steps: int, mesh: Mesh, folder: pathlib.Path
) -> None:
    """Prints recipe, data, classes, model against the paper's numbers, devices and length."""
    facts = zoo.model_module(config.model_name).FACTS[config.model.variant]
    train, held_out = data.train, data.held_out
    recipe = f"{config.name}:{config.recipe}"
    if config.recipe != config.paper_recipe:
        recipe += f"  (the paper's own is configs/{config.name}.py:{config.paper_recipe})"
    place = "on the devices" if train.resident is not None else "streamed"
    size, paper_size = ("×".join(map(str, shape)) for shape in (network.input, facts.input))
    if others := train.image_shapes[1:]:
        size += f" and by epoch {', '.join('×'.join(map(str, shape)) for shape in others)}"
        size += f" ({1 + len(others)} programs)"
    epochs = steps * config.batch_size / len(train)
    devices = f"{mesh.size} × {mesh.devices.flat[0].device_kind}"
    if jax.process_count() > 1:
        devices += f" of {jax.process_count()} processes"
    if split := [f"{axis} {size}" for axis, size in mesh.shape.items() if size > 1]:
        devices += f", {' × '.join(split)}"
    lines = {
        "recipe": recipe,
        "data": f"{train.split.name}, {len(train):,} images, {place}; "
        f"{held_out.split.name}, {len(held_out):,} images",
        "classes": _classes(data, config.model.num_classes),
        "model": f"{config.model_name} '{config.model.variant}' at {size}, {config.model.dtype}",
        "parameters": f"{network.params:,}  (paper's network: {facts.params:,})",
        "multiply-adds": f"{network.macs:,}  (paper's network: {facts.macs:,} at {paper_size})",
        "devices": devices,
        "length": f"{steps:,} steps of {config.batch_size} images, {epochs:.1f} epochs",
        "workdir": str(folder),
    }
    for name, text in lines.items():
        print(f"{name:>14}  {text}", flush=True)


def print_fine_tuning(
    params: Any,
    frozen: freezing.Layers,
    class_weights: Sequence[float],
    class_names: Sequence[str],
) -> None:
    """Prints the layers that are trained, if some are frozen, and the classes' weights, if any.

    Args:
      params: of the network, arrays or shapes.
      frozen: the layers that are not trained.
      class_weights: one for each output; empty if all classes weigh alike.
      class_names: in the order of the labels.
    """
    if frozen:
        layers = freezing.layers_of(params)
        trained = [layer for layer in layers if layer not in frozen]
        number = counting.parameter_count(freezing.split(params, frozen)[0])
        print(
            f"{'trains':>14}  {len(trained)} of {len(layers)} layers: {listed(trained, SHOWN)}; "
            f"{number:,} parameters",
            flush=True,
        )
    if class_weights:
        pairs = zip(class_names, class_weights, strict=False)  # outputs without a name follow
        by_weight = sorted(pairs, key=lambda pair: -pair[1])
        texts = [f"{name} {weight:.3g}" for name, weight in by_weight]
        print(f"{'class weights':>14}  {listed(texts, SHOWN)}", flush=True)


def print_split(params: Any) -> None:
    """Prints how many of the parameters a device holds, if a mesh splits them.

    Args:
      params: of the network, arrays on the mesh.
    """
    arrays = jax.tree.leaves(params)
    held = sum(array.addressable_shards[0].data.size for array in arrays)
    total = sum(array.size for array in arrays)
    if held < total:
        print(f"each device holds {held:,} of {total:,} parameters", flush=True)


def _classes(data: inputs.Data, outputs: int) -> str:
    """Returns the classes in words: number, names, images of the smallest and of the largest.

    Where objects are learnt, it is their number, of those that are not difficult.
    """
    names = data.train.split.class_names
    count = f"{len(names):,}" if len(names) == outputs else f"{len(names):,} (of {outputs} outputs)"
    text = f"{count}: {', '.join(names[:5])}{', …' if len(names) > 5 else ''}"
    if (images := data.train.class_counts()) is not None:
        images = images[: len(names)]
        least, most = int(images.argmin()), int(images.argmax())
        what = "objects" if data.train.counts_objects else "images"
        text += f"; {images[least]:,} {what} of each"
        if images[least] < images[most]:
            text = text.removesuffix(" of each")
            text += f" of {names[least]} to {images[most]:,} of {names[most]}"
    if (images := data.held_out.class_counts()) is not None:
        absent = [name for name, number in zip(names, images, strict=False) if not number]
        if absent:
            text += f"; none to evaluate of {listed(absent)}"
    return text


def print_result(evaluated: Sequence[Row], measures: Sequence[Measure]) -> None:
    """Prints the last and the best of the rows `evaluated`, by the first of `measures`."""
    best = best_evaluation(evaluated, measures[0]) or evaluated[-1]
    for name, row in (("last", evaluated[-1]), ("best", best)):
        texts = [m.text(row[f"val/{m.name}"]) for m in measures if f"val/{m.name}" in row]
        print(f"{name:>14}  step {row['step']}: {', '.join(texts)}")


def print_reported(config: Any, rows: list[Row]) -> None:
    """Prints what the paper reports for the recipe of a run, beside what the run has of the same.

    `rows` are those of its metrics.jsonl.
    """
    results = reported.of_run(config)
    follows = bool(results) and not reported.changes(config)
    measures = tasks.measures(config.task)
    for result in results:
        unit = measures[result.metric].unit
        value = f"{result.metric} {result.value:g}{unit}"
        ours = reported.ours(result, config, rows) if follows else None
        if ours is not None:
            value += f", ours {ours:.2f}{unit} ({ours - result.value:+.2f}) by {result.measured_by}"
        source = f"{result.variant}, {result.protocol}, {result.source}"
        print(f"{'paper':>14}  {value} ({source})")
