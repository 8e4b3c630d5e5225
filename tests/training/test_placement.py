"""The train step takes the gradients of convolutions that suit the devices it runs on."""

import jax
import pytest

from cnn_papers.benchmarks import workload
from cnn_papers.models.shared import kernel_gradients

TINY = {"variant": "cifar-8", "widths": (2, 2, 2), "dtype": "float32"}


@pytest.mark.parametrize(
    "devices, step_settings, of_one_cpu",
    [
        (1, {}, True),
        (1, {"accumulate": 2}, True),
        (1, {"bn_group": 4}, False),
        (2, {}, False),
    ],
)
def test_one_cpu_has_gradients_of_its_own(devices, step_settings, of_one_cpu, monkeypatch):
    """Not where images share statistics in groups, since `jax.vmap` would split the gradients."""
    traced, of_input = [], kernel_gradients._of_input

    def record(shape, *rest):
        traced.append(shape)
        return of_input(shape, *rest)

    monkeypatch.setattr(kernel_gradients, "_of_input", record)
    work = workload.from_paper("resnet", "cifar-8", 8, 8, "float32")
    settings = work.step._replace(**step_settings)
    work = work._replace(model=TINY, devices=devices, step=settings)
    step = workload.make_step(work)
    jax.eval_shape(step.train, step.abstract, workload.synthetic_batch(work), jax.random.key(0))
    assert len(traced) == (7 if of_one_cpu else 0)  # its 3×3 convolutions
