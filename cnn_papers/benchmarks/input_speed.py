"""Measures the input pipeline: its speed, those of other libraries, and its memory."""

import itertools
import os
import pathlib
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from cnn_papers.benchmarks import other_pipelines
from cnn_papers.benchmarks.timing import Contender, Speed
from cnn_papers.data.pipeline import Pipeline, parse_host
from cnn_papers.data.split import Split
from cnn_papers.errors import UserError
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import inputs, splits

OTHERS_READ = 4096  # images at most: other libraries hold them in memory


def measure(
    config: Any,
    speeds_of: Callable[[dict[str, Contender], int], dict[str, Speed]],
    others: Sequence[str],
    growth_batches: int,
) -> dict[str, Any]:
    """Returns the speed of the input pipeline of `config` (a ConfigDict), as values of JSON.

    Beside it stand, where they are asked for or differ from it, the speed of the same split
    streamed from disk, those of other libraries, and the memory over many batches.

    Args:
      speeds_of: (contenders by name, images a batch) -> their speeds by name.
      others: names of `other_pipelines.LIBRARIES`.
      growth_batches: number of batches that memory is watched over; 0 for none.
    """
    mesh = meshes.make_mesh(config.mesh.data)
    split = splits.open_one(config, config.data.train_split)
    train_host = parse_host(config.data.train_host, key="data.train_host")
    options = {"max_skips": config.data.max_skips}
    pipeline = inputs.open_pipeline(split, config, train_host, mesh, **options)
    other_pipelines.check(others, pipeline.reader.ops)
    if others and pipeline.reader.has_boxes:
        raise UserError(
            f"--input_versus: other libraries read images with labels here, and {split.name} is "
            "read with boxes"
        )
    contenders = {"input": _contender(_batches(pipeline, config))}
    streamed = pipeline
    if pipeline.resident is not None:
        options["resident"] = "never"
        streamed = inputs.open_pipeline(split, config, train_host, mesh, **options)
        contenders["streamed"] = _contender(_batches(streamed, config))
    if others:
        work = _work(split, pipeline, config.batch_size)
        for name in others:
            batches = other_pipelines.batches(name, work)
            contenders[name] = _contender(
                jax.device_put(batch, streamed.sharding) for batch in batches
            )
    speeds = speeds_of(contenders, config.batch_size)
    results = _compared(speeds, resident=pipeline.resident is not None)
    if growth_batches:
        results["memory"] = growth(_batches(streamed, config), growth_batches)
    return results


def _work(split: Split, pipeline: Pipeline, batch_size: int) -> other_pipelines.Work:
    """Returns the work of `pipeline` for other libraries, on the first images of `split`."""
    examples = split.examples[:OTHERS_READ]
    images, labels = ([example[key] for example in examples] for key in ("image", "label"))
    return other_pipelines.Work(
        images, labels, pipeline.reader.ops, batch_size, os.cpu_count() or 1
    )


def _compared(speeds: dict[str, Speed], *, resident: bool) -> dict[str, Any]:
    """Returns the speeds with their ratios; other libraries are compared with ours streamed."""
    speeds = dict(speeds)
    ours = speeds.pop("input")
    results = {"from": "a split on the devices" if resident else "disk", **ours._asdict()}
    if "streamed" in speeds:
        streamed = speeds.pop("streamed")
        results["streamed"] = _against(ours, streamed)
        ours = streamed
    if speeds:
        results["versus"] = {
            name: _against(ours, speed, what=other_pipelines.describe(name))
            for name, speed in speeds.items()
        }
    return results


def _against(ours: Speed, other: Speed, **facts: str) -> dict[str, Any]:
    ratio = ours.images_per_second / other.images_per_second
    return {**other._asdict(), **facts, "ratio": ratio}


def growth(batches: Iterator[Any], count: int) -> dict[str, int]:
    """Returns the bytes of this process after a tenth of `count` batches and after all."""
    take = _contender(batches)
    take(count // 10)
    early = process_bytes()
    take(count - count // 10)
    return {"batches": count, "bytes_after_a_tenth": early, "bytes_at_the_end": process_bytes()}


def process_bytes() -> int:
    """Returns the memory of this process, or its peak where the system tells only that."""
    statm = pathlib.Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _batches(pipeline: Pipeline, config: Any) -> Iterator[Any]:
    return pipeline.train_batches(config.batch_size, seed=config.seed, steps=range(10**9))


def _contender(batches: Iterator[Any]) -> Contender:
    def take(count: int) -> None:
        for batch in itertools.islice(batches, count):
            jax.block_until_ready(batch)

    return take
