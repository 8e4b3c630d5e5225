"""Evaluation: every example of a split counts once, whatever the batch and the devices."""

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers.data.pipeline import Pipeline, parse_host
from cnn_papers.data.split import Split
from cnn_papers.evaluation import single_view
from cnn_papers.parallel.mesh import data_sharding, make_mesh, replicated
from cnn_papers.tasks import classify
from cnn_papers.training.step import StepSettings

N, CLASSES = 37, 7
KERNEL = np.random.default_rng(1).normal(size=(12, CLASSES)).astype(np.float32)


class Linear:
    """A network of one matrix product."""

    def apply(self, variables, image):
        return image.reshape(len(image), -1).astype(jnp.float32) / 64 @ variables["kernel"], {}


STEP = jax.jit(classify.make_eval_step(Linear(), lambda image, key: image, StepSettings()))


def _examples():
    draw = np.random.default_rng(0)
    return draw.integers(0, 256, (N, 2, 2, 3), np.uint8), draw.integers(0, CLASSES, N)


def _pipeline(devices: int, resident: str) -> Pipeline:
    images, labels = _examples()
    examples = [
        {
            "image": cv2.imencode(".png", image[..., ::-1])[1].tobytes(),
            "label": int(label),
            "id": str(i),
        }
        for i, (image, label) in enumerate(zip(images, labels, strict=True))
    ]
    split = Split(
        name="test", examples=examples, class_names=tuple(map(str, range(CLASSES))), location=""
    )
    mesh = make_mesh(devices)
    return Pipeline(
        split,
        parse_host("decode", key="data.eval_host"),
        num_classes=CLASSES,
        resident=resident,
        sharding=data_sharding(mesh),
        replicated=replicated(mesh),
    )


def _by_hand() -> dict[str, float]:
    images, labels = _examples()
    logits = images.reshape(N, -1).astype(np.float64) / 64 @ KERNEL
    losses = np.log(np.exp(logits).sum(1)) - logits[np.arange(N), labels]
    rank = (logits > logits[np.arange(N), labels][:, None]).sum(1)
    return {
        "loss": losses.mean(),
        "top1_error": 100 * (rank >= 1).mean(),
        "top5_error": 100 * (rank >= 5).mean(),
    }


@pytest.mark.parametrize(
    "devices, batch_size",
    [(1, 1), (1, 5), (1, 37), (1, 64), (2, 6), (2, 7), (8, 8), (8, 5), (8, 40)],
)
@pytest.mark.parametrize("resident", ["always", "never"])
def test_every_example_counts_once(devices, batch_size, resident):
    pipeline = _pipeline(devices, resident)
    variables = jax.device_put({"kernel": KERNEL}, pipeline.replicated)
    values = single_view.evaluate(STEP, variables, pipeline.eval_batches(batch_size), N)
    expected = _by_hand()
    assert values.keys() == expected.keys()
    assert (
        values["top1_error"] == expected["top1_error"]
        and values["top5_error"] == expected["top5_error"]
    )
    assert values["loss"] == pytest.approx(expected["loss"], rel=1e-6)


def test_the_figures_are_not_trivial():
    assert 0 < _by_hand()["top5_error"] < _by_hand()["top1_error"] < 100


def test_what_fills_up_a_batch_does_not_count_even_where_it_is_not_a_number():
    images, labels = _examples()
    batch = {"image": images.astype(np.float32), "label": labels, "mask": np.arange(N) < 30}
    clean = STEP({"kernel": KERNEL}, batch)
    batch["image"][30:] = np.nan
    assert jax.device_get(STEP({"kernel": KERNEL}, batch)) == jax.device_get(clean)
    assert float(clean["count"]) == 30


def test_logits_that_are_not_finite_are_wrong_and_the_loss_says_so():
    images, labels = _examples()
    batch = {"image": images, "label": labels, "mask": np.ones(N, bool)}
    values = single_view.evaluate(STEP, {"kernel": KERNEL * np.nan}, [batch], N)
    assert values["top1_error"] == values["top5_error"] == 100 and np.isnan(values["loss"])


@pytest.mark.parametrize("total", [N - 1, N + 1])
def test_a_wrong_total_is_refused(total):
    batches = _pipeline(1, "always").eval_batches(10)
    with pytest.raises(AssertionError, match=rf"evaluated 37.0 of {total} examples"):
        single_view.evaluate(STEP, {"kernel": KERNEL}, batches, total)


def test_no_batch_at_all_is_refused():
    with pytest.raises(AssertionError, match="of 37 examples"):
        single_view.evaluate(STEP, {"kernel": KERNEL}, [], N)
