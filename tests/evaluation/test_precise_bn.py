"""Batch-norm statistics recomputed over batches, against NumPy."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_papers.evaluation import precise_bn

draw = np.random.default_rng(0)
BATCHES = [{"image": draw.integers(0, 256, (8, 6, 5, 3), np.uint8)} for _ in range(7)]


class OneNorm(nn.Module):
    """Normalised colours, with dropout behind them, which changes no statistic."""

    momentum: float

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=self.momentum)(image)
        return nn.Dropout(0.5, deterministic=not train)(x).mean((1, 2)), {}


class TwoNorms(nn.Module):
    """The second sees what the first makes of a batch, and moves at another speed."""

    @nn.compact
    def __call__(self, image, *, train=False):
        x = nn.BatchNorm(use_running_average=not train, momentum=0.9, name="first")(image)
        return nn.BatchNorm(use_running_average=not train, momentum=0.5, name="second")(
            jnp.tanh(x)
        ).mean((1, 2)), {}


def variables_of(model):
    return model.init(jax.random.key(0), jnp.zeros((1, 6, 5, 3)), train=False)


def as_float(image, key):
    return image.astype(jnp.float32)


@pytest.mark.parametrize("momentum", [0.0, 0.9, 0.99, 0.999])
@pytest.mark.parametrize("scale", [1.0, 1e4])
@pytest.mark.parametrize("count", [1, 7])
def test_statistics_are_means_over_the_batches(momentum, scale, count):
    model = OneNorm(momentum)
    variables = variables_of(model)
    new = precise_bn.recompute(
        model, variables, lambda i, key: scale * as_float(i, key), iter(BATCHES[:count]), 3
    )
    images = [scale * batch["image"].astype(np.float64) for batch in BATCHES[:count]]
    stats = new["batch_stats"]["BatchNorm_0"]
    np.testing.assert_allclose(
        stats["mean"], np.mean([image.mean((0, 1, 2)) for image in images], 0), rtol=1e-4
    )
    np.testing.assert_allclose(
        stats["var"], np.mean([image.var((0, 1, 2)) for image in images], 0), rtol=1e-3
    )
    assert jax.tree.all(jax.tree.map(np.array_equal, new["params"], variables["params"]))


def test_the_moving_average_of_before_does_not_matter():
    model = OneNorm(0.9)
    variables = variables_of(model)
    other = {
        **variables,
        "batch_stats": jax.tree.map(lambda leaf: leaf + 5, variables["batch_stats"]),
    }
    stats = [
        precise_bn.recompute(model, given, as_float, BATCHES, 0)["batch_stats"]
        for given in (variables, other)
    ]
    jax.tree.map(np.testing.assert_array_equal, *stats)


def test_every_layer_has_its_own_speed_and_sees_normalised_batches():
    model = TwoNorms()
    new = precise_bn.recompute(model, variables_of(model), as_float, BATCHES, 0)["batch_stats"]
    images = [batch["image"].astype(np.float64) for batch in BATCHES]
    inner = [np.tanh((i - i.mean((0, 1, 2))) / np.sqrt(i.var((0, 1, 2)) + 1e-5)) for i in images]
    np.testing.assert_allclose(
        new["first"]["mean"], np.mean([i.mean((0, 1, 2)) for i in images], 0), rtol=1e-5
    )
    np.testing.assert_allclose(
        new["second"]["mean"], np.mean([x.mean((0, 1, 2)) for x in inner], 0), atol=1e-6
    )
    np.testing.assert_allclose(
        new["second"]["var"], np.mean([x.var((0, 1, 2)) for x in inner], 0), rtol=1e-4
    )


def test_a_layer_that_works_as_in_evaluation_keeps_its_statistics_and_normalises_by_them():
    model = TwoNorms()
    variables = variables_of(model)
    kept = {"mean": np.float32([100, 120, 140]), "var": np.float32([4e3, 5e3, 6e3])}
    variables["batch_stats"]["first"] = kept
    new = precise_bn.recompute(
        model, variables, as_float, BATCHES, 0, as_in_evaluation=frozenset({"first"})
    )["batch_stats"]
    jax.tree.map(np.testing.assert_array_equal, new["first"], kept)
    images = [batch["image"].astype(np.float64) for batch in BATCHES]
    inner = [np.tanh((i - kept["mean"]) / np.sqrt(kept["var"] + 1e-5)) for i in images]
    np.testing.assert_allclose(
        new["second"]["mean"], np.mean([x.mean((0, 1, 2)) for x in inner], 0), atol=1e-6
    )
    np.testing.assert_allclose(
        new["second"]["var"], np.mean([x.var((0, 1, 2)) for x in inner], 0), rtol=1e-4
    )


def test_augmentation_draws_anew_for_every_batch():
    seen = []

    def augment(image, key):
        jax.debug.callback(lambda bits: seen.append(tuple(bits.tolist())), jax.random.key_data(key))
        return as_float(image, key)

    model = OneNorm(0.9)
    precise_bn.recompute(model, variables_of(model), augment, BATCHES, 0)
    jax.effects_barrier()
    assert len(set(seen)) == len(seen) == len(BATCHES)
