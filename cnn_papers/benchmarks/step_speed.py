"""Measures the train step: its speed and memory, and the speed of torchvision's network."""

from collections.abc import Callable
from typing import Any

import jax

from cnn_papers.benchmarks import timing, torchvision, workload
from cnn_papers.benchmarks.timing import Contender, Speed
from cnn_papers.benchmarks.workload import Workload


def measure(
    work: Workload,
    speeds_of: Callable[[dict[str, Contender], int], dict[str, Speed]],
    torch_name: str = "",
) -> dict[str, Any]:
    """Returns the speed and memory of the train step, as values of JSON.

    Args:
      speeds_of: (contenders by name, images a batch) -> their speeds by name.
      torch_name: torchvision's name of the network, to train it in turns with ours; "" for none.
    """
    network, bfloat16 = workload.network(work), work.model["dtype"] == "bfloat16"
    contenders = {"ours": workload.make_trainer(work)}
    contenders["ours"](1)
    results: dict[str, Any] = {"peak_memory": timing.peak_memory()._asdict()}
    if torch_name:
        contenders["torch"] = torchvision.make_trainer(
            torch_name,
            **workload.synthetic_batch(work),
            num_classes=workload.num_classes(work),
            parameters=network.params,
            settings=work.optim,
            aux_weight=work.step.aux_weight,
            bfloat16=bfloat16,
            platform=jax.default_backend(),
            threads=timing.cpu_threads(),
        )
    speeds = speeds_of(contenders, work.batch_size)
    rate = speeds["ours"].images_per_second
    flops = 3 * 2 * network.macs * rate  # the backward pass costs twice the forward pass
    results["train_step"] = {**speeds["ours"]._asdict(), "model_flops_per_second": flops}
    if torch_name:
        ratio = rate / speeds["torch"].images_per_second
        what = torchvision.description(torch_name, bfloat16=bfloat16)
        results["torchvision"] = {**speeds["torch"]._asdict(), "what": what, "ratio": ratio}
    return results
