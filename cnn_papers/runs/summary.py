"""What a run prints at its start and its end."""

import importlib
import importlib.util
import pathlib
from typing import Any

import jax
from jax.sharding import Mesh

from cnn_papers import zoo
from cnn_papers.counting import Network
from cnn_papers.runs import inputs


def tree_bytes(tree: Any) -> int:
    """Bytes of a tree of arrays or shapes."""
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))


def errors(values: dict[str, float]) -> str:
    """Top-1 and top-5 error in words."""
    return f"top-1 error {values['top1_error']:.2f}%, top-5 error {values['top5_error']:.2f}%"


def show(
    config: Any, network: Network, data: inputs.Data, steps: int, mesh: Mesh, folder: pathlib.Path
) -> None:
    """Prints recipe, data, model against the paper's figures, devices and length."""
    facts = zoo.model_module(config.model_name).FACTS[config.model.variant]
    train, held_out = data.train, data.held_out
    place = "on the devices" if train.resident is not None else "streamed"
    size, paper_size = ("×".join(map(str, shape)) for shape in (network.input, facts.input))
    if others := train.image_shapes[1:]:
        size += f" and by epoch {', '.join('×'.join(map(str, shape)) for shape in others)}"
        size += f" ({1 + len(others)} programs)"
    of_processes = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
    recipe = f"{config.name}:{config.recipe}"
    if config.recipe != config.paper_recipe:
        recipe += f"  (the paper's own is configs/{config.name}.py:{config.paper_recipe})"
    lines = {
        "recipe": recipe,
        "data": f"{train.split.name}, {len(train):,} images, {place}; {held_out.split.name}, {len(held_out):,} images",
        "model": f"{config.model_name} '{config.model.variant}' at {size}, {config.model.dtype}",
        "parameters": f"{network.params:,}  (paper's network: {facts.params:,})",
        "multiply-adds": f"{network.macs:,}  (paper's network: {facts.macs:,} at {paper_size})",
        "devices": f"{mesh.size} × {mesh.devices.flat[0].device_kind}{of_processes}",
        "length": f"{steps:,} steps of {config.batch_size} images, {steps * config.batch_size / len(train):.1f} epochs",
        "workdir": str(folder),
    }
    for name, text in lines.items():
        print(f"{name:>14}  {text}", flush=True)


def show_result(config: Any, rows: list[dict[str, Any]]) -> None:
    """Prints the last and the best evaluation, and what the paper reports for its own recipe."""
    evaluations = [row for row in rows if "val/top1_error" in row]
    finite = [row for row in evaluations if "val/loss" in row] or evaluations
    for name, row in (
        ("last", evaluations[-1]),
        ("best", min(finite, key=lambda row: row["val/top1_error"])),
    ):
        values = {key.removeprefix("val/"): value for key, value in row.items()}
        print(f"{name:>14}  step {row['step']}: {errors(values)}")
    known = importlib.util.find_spec(
        f"configs.{config.name}"
    )  # not of a config file that lies elsewhere
    for result in importlib.import_module(known.name).REPORTED if known else ():
        mine = (config.recipe, config.data.name, config.model.variant)
        if (result.recipe, result.recipe, result.variant) == mine:  # no comparison on other data
            metric = result.metric.removeprefix("val/")
            print(
                f"{'paper':>14}  {metric} {result.value}% ({result.variant}, {result.protocol}, {result.source})"
            )
