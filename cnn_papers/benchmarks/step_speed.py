"""Measures a network's train step and forward pass, in turns with torch's copy of the network."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from cnn_papers.benchmarks import timing, torchvision, workload
from cnn_papers.benchmarks.timing import Contender, Speed
from cnn_papers.benchmarks.torchvision import Rival
from cnn_papers.benchmarks.workload import Workload

STEP, FORWARD = "train_step", "forward"
PASSES = {STEP: 3, FORWARD: 1}  # the backward pass costs twice the forward pass


def measure(
    work: Workload,
    part: str,
    speeds_of: Callable[[dict[str, Contender], int], dict[str, Speed]],
    rivals: Sequence[Rival] = (),
) -> dict[str, Any]:
    """Returns the speed of the STEP or FORWARD pass, as values of JSON.

    A step has the `peak_memory` after its first. `versus` has for each rival, by how it runs, its
    speed, the `peak_bytes` of its first pass where torch counts them and, over the windows, the
    median `ratio` of our speed to its, with the smallest and the largest as `ratios`.

    Args:
      speeds_of: (contenders by name, images a batch) -> their speeds by name.
    """
    make_ours = workload.make_trainer if part == STEP else workload.make_forward
    contenders = {"ours": make_ours(work)}
    contenders["ours"](1)
    memory = {"peak_memory": timing.peak_memory()._asdict()} if part == STEP else {}
    rival_memory = {}
    for rival in rivals:

        def take_one(rival: Rival = rival) -> None:
            contenders[rival.how] = _make_rival(rival, work, part)
            contenders[rival.how](1)

        rival_memory[rival.how] = torchvision.peak_memory(take_one, rival.platform)
    speeds = speeds_of(contenders, work.batch_size)
    ours = speeds["ours"]
    macs = workload.network(work).macs
    results: dict[str, Any] = {
        **ours._asdict(),
        **memory,
        "model_flops_per_second": 2 * PASSES[part] * macs * ours.images_per_second,
    }
    if rivals:
        results["versus"] = {
            rival.how: {
                **speeds[rival.how]._asdict(),
                **timing.ratio(ours, speeds[rival.how]),
                "peak_bytes": rival_memory[rival.how],
                "what": torchvision.describe(rival),
            }
            for rival in rivals
        }
    return results


def rival(work: Workload, name: str, how: str) -> Rival:
    """Returns torch's network `name` with the outputs, parameters and numbers of `work`."""
    return Rival(
        name,
        how,
        num_classes=workload.num_classes(work),
        parameters=workload.network(work).params,
        bfloat16=work.model["dtype"] == "bfloat16",
        platform=jax.default_backend(),
        threads=timing.cpu_threads(),
    )


def _make_rival(rival: Rival, work: Workload, part: str) -> Contender:
    batch = workload.synthetic_batch(work)
    if part == FORWARD:
        return torchvision.make_forward(rival, batch["image"])
    return torchvision.make_trainer(
        rival, **batch, settings=work.optim, aux_weight=work.step.aux_weight
    )
