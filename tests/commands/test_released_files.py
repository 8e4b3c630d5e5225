"""Recipes against the authors' released files: their constants as they stand there, converted."""

import functools
from typing import Any

import jax
import numpy as np
import pytest
from support.recipes import config_file

from cnn_papers import counting, zoo
from cnn_papers.models.googlenet import LRN_CONSTANTS
from cnn_papers.models.shared import layers
from cnn_papers.training.multipliers import multipliers
from cnn_papers.training.optim import LearningRate, OptimizerSettings, make_optimizer

TRAINING_IMAGES = 1_281_167  # ILSVRC-2012


@functools.cache
def fresh(name: str, recipe: str, side: int, **fields: Any) -> Any:
    """Returns the initial parameters of a recipe's network for square images, with `fields`."""
    config = config_file(name).get_config(recipe)
    model = zoo.build_model(config.model_name, **{**config.model, "dtype": "float32", **fields})
    image = np.zeros((1, side, side, 3), np.float32)
    return jax.jit(lambda key: model.init({"params": key, "dropout": key}, image, train=True))(
        jax.random.key(0)
    )["params"]


def by_path(tree: Any) -> dict[str, Any]:
    return {
        "/".join(key.key for key in path): np.asarray(leaf)
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def factors(name: str, recipe: str, key: str) -> dict[str, float]:
    """Returns the multipliers `config.optim.<key>` of a recipe by the path of its parameters."""
    config = config_file(name).get_config(recipe)
    model = zoo.build_model(config.model_name, **config.model)
    params = counting.abstract_variables(model, (224, 224, 3))["params"]
    return {
        path: float(value)
        for path, value in by_path(multipliers(params, config.optim[key], key)).items()
    }


def is_rate(node: Any) -> bool:
    return isinstance(node, LearningRate)


def rate_after(config: Any, images: int) -> float:
    """Returns the rate of a recipe for a batch of its own, after so many images."""
    steps_per_epoch = TRAINING_IMAGES / config.batch_size
    optimizer = make_optimizer(
        {"w": np.zeros(1, np.float32)},
        OptimizerSettings.from_config(config)._replace(lr_mults=(), wd_mults=()),
        batch_size=config.batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=round(config.total_epochs * steps_per_epoch),
    )
    state = optimizer.init({"w": np.zeros(1, np.float32)})
    count = np.int32(images // config.batch_size)
    state = jax.tree.map(
        lambda node: node._replace(count=count) if is_rate(node) else node, state, is_leaf=is_rate
    )
    return float(optimizer.learning_rate(state))


# --- BVLC/caffe: models/bvlc_googlenet ------------------------------------------------------------

# solver.prototxt, and the batch of train_val.prototxt
SOLVER = {
    "base_lr": 0.01,
    "stepsize": 320_000,
    "gamma": 0.96,
    "max_iter": 10_000_000,
    "momentum": 0.9,
    "weight_decay": 0.0002,
    "batch_size": 32,
}


def test_googlenet_has_the_optimiser_of_the_solver():
    config = config_file("googlenet").get_config("imagenet2012")
    epochs = SOLVER["batch_size"] / TRAINING_IMAGES  # of an iteration
    assert config.optim.lr == SOLVER["base_lr"]
    assert config.optim.lr_batch == SOLVER["batch_size"]
    assert config.optim.momentum == SOLVER["momentum"]
    assert config.optim.weight_decay == SOLVER["weight_decay"]
    assert config.total_epochs == round(SOLVER["max_iter"] * epochs) == 250
    assert round(SOLVER["stepsize"] * epochs, 2) == 7.99  # §6: every 8 epochs
    assert config.optim.schedule == f"exponential({SOLVER['gamma']}, every_epochs=8)"


def test_googlenet_ends_at_28_percent_of_its_rate():
    """After 31 drops: 0.96³¹ of 0.01, for a batch of 256 in place of 32."""
    config = config_file("googlenet").get_config("imagenet2012")
    last = rate_after(config, round(config.total_epochs * TRAINING_IMAGES) - config.batch_size)
    assert last == pytest.approx(0.01 * 256 / 32 * 0.96**31, rel=1e-5)
    assert round(0.96**31, 2) == 0.28


def test_googlenet_has_the_layers_of_train_val():
    """`lr_mult: 2, decay_mult: 0` for biases, `xavier`, `value: 0.2` except in classifiers."""
    rates, decays = (factors("googlenet", "imagenet2012", f"{key}_mults") for key in ("lr", "wd"))
    assert {path.rpartition("/")[2] for path in rates} == {"kernel", "bias"}
    for path in rates:
        assert (rates[path], decays[path]) == ((2, 0) if path.endswith("bias") else (1, 1))
    for path, value in by_path(fresh("googlenet", "imagenet2012", 64, num_classes=50)).items():
        layer, _, kind = path.rpartition("/")
        if kind == "bias":
            classifier = layer in ("fc", "aux_4a/fc2", "aux_4d/fc2")
            assert (value == np.float32(0.0 if classifier else 0.2)).all(), path
        else:
            bound = (3 / np.prod(value.shape[:-1])) ** 0.5  # xavier: uniform, variance 1/fan-in
            assert 0.97 * bound < np.abs(value).max() <= bound, path


def test_googlenet_normalises_as_train_val_does():
    """`local_size: 5, alpha: 0.0001, beta: 0.75`; Caffe divides alpha by n, and k is 1."""
    config = config_file("googlenet").get_config("imagenet2012")
    x = np.random.default_rng(0).normal(0, 100, (3, 64)).astype(np.float32)
    padded = np.pad(x**2, ((0, 0), (2, 2)))
    total = sum(padded[:, i : i + 64] for i in range(5))
    caffe = x / (1 + 0.0001 / 5 * total) ** 0.75
    ours = layers.local_response_norm(x, **LRN_CONSTANTS[config.model.lrn_constants])
    np.testing.assert_allclose(ours, caffe, rtol=1e-5)
    assert LRN_CONSTANTS["alexnet"] == {"k": 2.0, "alpha": 1e-4}


# --- ShaoqingRen/SPP_net: model-defs/Zeiler_conv5.prototxt ----------------------------------------

# `bias_filler`; every weight_filler has std 0.01, every layer `blobs_lr: 1.0, blobs_lr: 2.0`.
ZEILER_BIASES = {
    "conv1": 0,
    "conv2": 1,
    "conv3": 0,
    "conv4": 1,
    "conv5": 1,
    "fc6": 1,
    "fc7": 1,
    "fc8": 1,
}


def test_spp_net_starts_and_learns_as_its_released_file():
    rates, decays = (factors("spp", "imagenet2012", f"{key}_mults") for key in ("lr", "wd"))
    for path in rates:
        assert rates[path] == (2 if path.endswith("bias") else 1)
        assert decays[path] == 1  # the file has no weight_decay of its own for any
    params = fresh("spp", "imagenet2012", 96, width=0.25)
    assert {name: set(layer["bias"].tolist()) for name, layer in params.items()} == {
        name: {float(value)} for name, value in ZEILER_BIASES.items()
    }
    for name, layer in params.items():
        np.testing.assert_allclose(np.std(layer["kernel"]), 0.01, rtol=0.05, err_msg=name)


# --- vlfeat/matconvnet: examples/imagenet/cnn_imagenet_init.m -------------------------------------


@pytest.mark.parametrize("name", ["cnn_fms", "vgg"])
def test_oxfords_networks_learn_as_in_matconvnet(name):
    """`'learningRate', [1 2], 'weightDecay', [opts.weightDecay 0]`; weightDecay 0.0005."""
    rates, decays = (factors(name, "imagenet2012", f"{key}_mults") for key in ("lr", "wd"))
    for path in rates:
        assert (rates[path], decays[path]) == ((2, 0) if path.endswith("bias") else (1, 1))
    assert config_file(name).get_config("imagenet2012").optim.weight_decay == 0.0005


def test_cnn_f_starts_as_in_matconvnet():
    """`sc = 0.01/opts.scale` for weights, `zeros` for biases; the paper prints variance 10⁻²."""
    for weight_init, deviation in ((None, 0.01), ("paper", 0.01**0.5)):
        fields = {"width": 0.25} | ({"weight_init": weight_init} if weight_init else {})
        for name, layer in fresh("cnn_fms", "imagenet2012", 96, **fields).items():
            np.testing.assert_allclose(np.std(layer["kernel"]), deviation, rtol=0.05, err_msg=name)
            assert not np.any(layer["bias"])


# --- jhjin/overfeat-torch: run.lua, and the paper's own epochs ------------------------------------


@pytest.mark.parametrize("recipe", ["imagenet2012", "accurate"])
def test_overfeat_counts_five_crops_an_epoch(recipe):
    """§3.1: half the rate after epochs 30, 50, 60, 70 and 80 of five crops, five epochs of ours."""
    config = config_file("overfeat").get_config(recipe)
    drops = (30, 50, 60, 70, 80)
    assert config.total_epochs == 5 * 90
    for halvings, (start, end) in enumerate(zip((0, *drops), (*drops, 90), strict=True)):
        for epoch in (start + 0.01, end - 0.01):
            rate = rate_after(config, round(5 * epoch * TRAINING_IMAGES))
            assert rate == pytest.approx(0.05 * 0.5**halvings)
    for device in (config.data.train_device, config.data.eval_device):
        assert device.count("118.380948") == device.count("61.896913") == 3


# --- LeNet-5 §III-B -------------------------------------------------------------------------------


def test_lenets_rate_falls_as_the_papers():
    """Two passes at 0.0005, three at 0.0002, three at 0.0001, four at 0.00005, then 0.00001."""
    config = config_file("lenet").get_config("mnist")
    paper = [0.0005] * 2 + [0.0002] * 3 + [0.0001] * 3 + [0.00005] * 4 + [0.00001] * 8
    assert config.batch_size == config.optim.lr_batch == 1 and config.total_epochs == len(paper)
    rates = [rate_after(config, round((i + 0.5) * TRAINING_IMAGES)) for i in range(len(paper))]
    np.testing.assert_allclose(rates, config.optim.lr / 0.0005 * np.array(paper), rtol=1e-5)
