"""How fast training batches come to the devices, beside other libraries' pipelines, and whether
memory grows.
"""

import itertools
import os
import pathlib
import resource
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from cnn_papers.benchmarks import other_pipelines
from cnn_papers.data.pipeline import Pipeline, parse_host
from cnn_papers.data.sources import open_split
from cnn_papers.parallel import mesh as meshes
from cnn_papers.runs import inputs

RIVALS_SEE = 4096  # images at most: they hold them in memory
Contender = Callable[[int], None]  # takes so many batches


def results(
    config: Any, measure: Callable[..., Any], against: Sequence[str], growth_batches: int
) -> dict[str, Any]:
    """The speed of the input pipeline of `config` (a ConfigDict), and what else is asked for.

    Args:
      measure: (contenders by name, images a batch) -> their speeds by name, taken in turns.
      against: rivals (`rivals.RIVALS`).
      growth_batches: how many batches memory is watched over; 0 for none.
    """
    mesh = meshes.make_mesh(config.mesh.data)
    split = open_split(config.data.name, config.data.train_split, config.data.data_dir)
    train_host = parse_host(config.data.train_host, key="data.train_host")
    pipeline = inputs.open_pipeline(
        split, config, train_host, mesh, max_skips=config.data.max_skips
    )
    other_pipelines.check(against, pipeline.ops)
    streamed = pipeline
    contenders = {"input": _taking(_batches(pipeline, config))}
    if pipeline.resident is not None:
        limits = {"max_skips": config.data.max_skips, "resident": "never"}
        streamed = inputs.open_pipeline(split, config, train_host, mesh, **limits)
        contenders["streamed"] = _taking(_batches(streamed, config))
    if against:
        examples = split.examples[:RIVALS_SEE]
        images, labels = ([example[key] for example in examples] for key in ("image", "label"))
        work = other_pipelines.Work(
            images, labels, pipeline.ops, config.batch_size, os.cpu_count() or 1
        )
        for name in against:
            theirs = other_pipelines.batches(name, work)
            contenders[name] = _taking(jax.device_put(batch, streamed.sharding) for batch in theirs)
    speeds = measure(contenders, config.batch_size)
    ours = speeds.pop("input")
    found = {
        "from": "disk" if pipeline.resident is None else "a split on the devices",
        **ours._asdict(),
    }
    if "streamed" in speeds:
        slow = speeds.pop("streamed")
        found["streamed"] = {
            **slow._asdict(),
            "ratio": ours.images_per_second / slow.images_per_second,
        }
        ours = slow  # what rivals do
    for name, speed in speeds.items():
        ratio = ours.images_per_second / speed.images_per_second
        found.setdefault("versus", {})[name] = {
            **speed._asdict(),
            "what": other_pipelines.describe(name),
            "ratio": ratio,
        }
    if growth_batches:
        found["memory"] = growth(_batches(streamed, config), growth_batches)
    return found


def growth(batches: Iterator[Any], count: int) -> dict[str, int]:
    """Bytes of this process after a tenth of `count` batches and after all."""
    take = _taking(batches)
    take(count // 10)
    early = process_bytes()
    take(count - count // 10)
    return {"batches": count, "bytes_after_a_tenth": early, "bytes_at_the_end": process_bytes()}


def process_bytes() -> int:
    """Memory this process has now; where the system does not say, the most it has had."""
    statm = pathlib.Path("/proc/self/statm")
    if statm.exists():
        return int(statm.read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (
        1 if sys.platform == "darwin" else 1024
    )


def _batches(pipeline: Pipeline, config: Any) -> Iterator[Any]:
    return pipeline.train_batches(config.batch_size, seed=config.seed, steps=range(10**9))


def _taking(batches: Iterator[Any]) -> Contender:
    def take(count: int) -> None:
        for batch in itertools.islice(batches, count):
            jax.block_until_ready(batch)

    return take
