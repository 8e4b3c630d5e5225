"""Recipes against their sources: constants as they stand there, and the conversion to ours.

The sources are files that authors released, and schedules that papers print.
"""

import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from support.recipes import config_file

from cnn_papers import counting, zoo
from cnn_papers.models import maxout as maxout_nets
from cnn_papers.models.googlenet import LRN_CONSTANTS
from cnn_papers.models.shared import layers
from cnn_papers.opstrings import Op, parse
from cnn_papers.training import schedules
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


def schedule_of(config: Any) -> Op:
    (schedule,) = parse(config.optim.schedule, schedules, leading=1, key="optim.schedule")
    return schedule


# --- Network in Network: mavenlin/cuda-convnet, NIN/*_params --------------------------------------

# epsW, epsB, momW and momB, wc of most layers; epsW and epsB of cccp6; coeff of the loss
NIN_PARAMS = {
    "cifar10": (1.0, 2.0, 0.9, 0.00001, 0.1, 0.2, 0.1),
    "cifar100": (0.01, 0.02, 0.9, 0.001, 0.01, 0.02, 2.0),
    "desk": (1.0, 2.0, 0.9, 0.00001, 0.1, 0.2, 0.1),  # mnist_params
}
NET = {
    name: {"kernel": np.float32(values), "bias": np.float32(values[:1])}
    for name, values in {"conv1": [1.0, -2.0], "cccp6": [0.5, 3.0]}.items()
}


def cuda_convnet(recipe, gradients, drop_at):
    """The parameters after each update by cuda-convnet's rule (weights.cuh, layer.cu).

    `gradients` are of the mean loss, which the layers scale by coeff and by epsW or epsB.
    """
    eps_w, eps_b, momentum, wc, last_w, last_b, coeff = NIN_PARAMS[recipe]
    rates = {"conv1": (eps_w, eps_b), "cccp6": (last_w, last_b)}
    weights = jax.tree.map(np.float64, NET)
    inc, path = jax.tree.map(np.zeros_like, weights), []
    for i, grads in enumerate(gradients):
        for layer, (rate, bias_rate) in rates.items():
            rate = rate / 10 if i >= drop_at else rate  # the README edits epsW, and not epsB
            for name, eps, decay in (("kernel", rate, wc), ("bias", bias_rate, 0.0)):
                inc[layer][name] *= momentum
                inc[layer][name] += eps * coeff * grads[layer][name]
                inc[layer][name] -= decay * eps * weights[layer][name]
                weights[layer][name] = weights[layer][name] + inc[layer][name]
        path.append(jax.tree.map(np.copy, weights))
    return path


@pytest.mark.parametrize("recipe", ["cifar10", "cifar100"])
def test_nin_updates_as_cuda_convnet_does(recipe):
    """Its gradients point downhill; ours uphill."""
    config = config_file("nin").get_config(recipe)
    drop, other = map(int, re.findall(r"\d+", config.optim.schedule))
    assert (drop, other, config.total_epochs) == (200, 230, 260.0)  # README
    settings = OptimizerSettings.from_config(config)
    settings = settings._replace(schedule="step_epochs(6)")
    optimizer = make_optimizer(NET, settings, batch_size=128, steps_per_epoch=1.0, total_steps=12)
    draw = np.random.default_rng(0)
    gradients = [
        jax.tree.map(lambda w: draw.normal(size=w.shape).astype(np.float32), NET) for _ in range(12)
    ]
    params = jax.tree.map(jnp.asarray, NET)
    state = optimizer.init(params)
    for grads, theirs in zip(gradients, cuda_convnet(recipe, gradients, 6), strict=True):
        uphill = jax.tree.map(np.negative, grads)
        updates, state = optimizer.update(uphill, state, params)
        params = optax.apply_updates(params, updates)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=2e-6), params, theirs)


@pytest.mark.parametrize(
    ("recipe", "decay"), [("cifar10", 1e-4), ("cifar100", 5e-4), ("desk", 1e-4)]
)
def test_nins_factor_of_decay_is_wc_by_coeff(recipe, decay):
    eps_w, eps_b, momentum, wc, last_w, last_b, coeff = NIN_PARAMS[recipe]
    optim = config_file("nin").get_config(recipe).optim
    if recipe != "desk":  # the rate there is ours
        assert optim.lr == pytest.approx(eps_w * coeff)
    assert optim.weight_decay == decay == pytest.approx(wc / coeff)
    assert (optim.momentum, optim.momentum_form) == (momentum, "caffe")
    rates = {"conv1": (eps_w, eps_b), "cccp6": (last_w, last_b)}
    assert by_path(multipliers(NET, optim.lr_mults, "optim.lr_mults")) == pytest.approx(
        {
            f"{layer}/{kind}": rate / eps_w
            for layer, pair in rates.items()
            for kind, rate in zip(("kernel", "bias"), pair, strict=True)
        }
    )
    for path, value in by_path(multipliers(NET, optim.wd_mults, "optim.wd_mults")).items():
        assert value == (0 if path.endswith("bias") else 1)


# --- Maxout: lisa-lab/pylearn2, scripts/papers/maxout/*.yaml --------------------------------------


def test_maxouts_decay_of_an_epoch_is_that_of_its_updates():
    """mnist_pi.yaml: the rate is divided by 1.000004 an update; 50,000 images are 500 updates."""
    config = config_file("maxout").get_config("mnist")
    schedule = schedule_of(config)
    assert (schedule.args, schedule.kwargs) == ((0.998,), {"every_epochs": 1})
    assert abs(1.000004**-500 - 0.998) < 3e-6
    assert (config.optim.lr, config.batch_size) == (0.1, 100)


@pytest.mark.parametrize(
    ("recipe", "lr", "last", "over", "epochs"),
    [
        ("cifar10", 0.17, 0.01, 500, 785.0),  # cifar10_no_aug.yaml
        ("cifar10_augmented", 0.17, 0.01, 500, 474.0),  # cifar10.yaml
        ("svhn", 0.2, 0.001, 250, 142.0 + 100),  # svhn.yaml: best at 142, patience 100
    ],
)
def test_maxouts_convolutional_files(recipe, lr, last, over, epochs):
    config = config_file("maxout").get_config(recipe)
    schedule = schedule_of(config)
    assert (config.optim.lr, schedule.args, schedule.kwargs) == (lr, (last,), {"epochs": over})
    assert (config.batch_size, config.total_epochs) == (128, epochs)
    padded = "|pad_crop(8)|flip" if recipe == "cifar10_augmented" else ""  # pad_randomized: 8
    assert config.data.train_device == config.data.eval_device + padded
    norms = {"h0": 0.9, "h1": 1.9365, "h2": 1.9365, "h3": 1.9, "y": 1.9365}  # max_…_norm
    net = {layer: {"kernel": 0, "bias": 0} for layer in norms}
    limits = by_path(multipliers(net, config.optim.max_norms, "", default=math.inf))
    rates = by_path(multipliers(net, config.optim.lr_mults, ""))
    for layer, norm in norms.items():
        assert (limits[f"{layer}/kernel"], limits[f"{layer}/bias"]) == (norm, math.inf)
        assert norm == maxout_nets.MAX_NORM[config.model.variant][layer]
        scale = 0.05 if layer in ("h0", "h1", "h2") else 1.0  # W_lr_scale, b_lr_scale
        assert rates[f"{layer}/kernel"] == rates[f"{layer}/bias"] == scale


@pytest.mark.parametrize(
    ("recipe", "last"),
    [("mnist", 0.7), ("cifar10", 0.6), ("cifar10_augmented", 0.65), ("svhn", 0.6)],
)
def test_maxouts_files_share_dropout_and_raise_the_momentum(recipe, last):
    """`input_include_probs: .8`, `input_scales: 1.`, `irange: .005`; `init_momentum: .5`."""
    config = config_file("maxout").get_config(recipe)
    net = zoo.build_model(config.model_name, **config.model)
    # 0.8 of the input stay; 0.5 of the other layers, pylearn2's default
    assert (net.input_dropout, net.dropout, net.rescale_input) == (0.2, 0.5, False)
    assert (net.weight_init, net.init_range) == ("paper", 0.005)
    assert 0.5 < config.optim.momentum <= last  # ours is constant
    assert config.optim.weight_decay == 0 and not config.optim.nesterov


# --- fb.resnet.torch, datasets/imagenet.lua -------------------------------------------------------


def test_densenets_pipeline_is_fb_resnet_torchs():
    config = config_file("densenet").get_config("imagenet2012")
    mean = ", ".join(f"{255 * value:g}" for value in (0.485, 0.456, 0.406))
    std = ", ".join(f"{255 * value:g}" for value in (0.229, 0.224, 0.225))
    normalised = f"normalize(({mean}), ({std}))"
    jitter = ", ".join([f"({1 - 0.4:g}, {1 + 0.4:g})"] * 3)  # brightness, contrast, saturation
    assert config.data.train_device == (
        f"photometric({jitter}, clip=False)|pca_light(0.1)|{normalised}|flip"
    )
    assert config.data.eval_device == normalised
    aspect = f"(0.75, {math.floor(4 / 3 * 1e10) / 1e10})"
    crop = f"area_aspect_crop(224, (0.08, 1.0), {aspect}, 'bicubic')"
    assert config.data.train_host == f"decode|{crop}"
    assert config.data.eval_host == "decode|resize_short(256, 'bicubic')|center_crop(224)"
    assert config.eval.protocol == "single_view|ten_crop(whole=True)"
    assert config.batch_size // config.optim.bn_group == 4  # README of DenseNet: -nGPU 4
    optim = config.optim  # train.lua: nesterov, dampening 0, weightDecay of all parameters
    assert (optim.momentum, optim.nesterov, optim.momentum_form) == (0.9, True, "torch")
    assert (optim.weight_decay, optim.wd_mults) == (1e-4, ())


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


# --- ResNet ---------------------------------------------------------------------------------------


def test_resnets_batches_are_split_as_on_the_papers_gpus():
    """§4.2: two GPUs; the authors' README: eight, with statistics on each."""
    for recipe, gpus in (("cifar10", 2), ("cifar10_110", 2), ("imagenet2012", 8)):
        config = config_file("resnet").get_config(recipe)
        assert config.batch_size // config.optim.bn_group == gpus


def test_only_110_layers_wait_at_a_tenth_of_the_rate():
    waiting = config_file("resnet").get_config("cifar10_110")
    assert (waiting.model.variant, waiting.optim.warmup_until_error) == ("cifar-110", (80.0, 0.1))
    assert waiting.optim.schedule == "step(32000, 48000)"
    assert config_file("resnet").get_config("cifar10").optim.warmup_until_error == ()


# --- LeNet-5 §III-B -------------------------------------------------------------------------------


def test_lenets_rate_falls_as_the_papers():
    """Two passes at 0.0005, three at 0.0002, three at 0.0001, four at 0.00005, then 0.00001."""
    config = config_file("lenet").get_config("mnist")
    paper = [0.0005] * 2 + [0.0002] * 3 + [0.0001] * 3 + [0.00005] * 4 + [0.00001] * 8
    assert config.batch_size == config.optim.lr_batch == 1 and config.total_epochs == len(paper)
    rates = [rate_after(config, round((i + 0.5) * TRAINING_IMAGES)) for i in range(len(paper))]
    np.testing.assert_allclose(rates, config.optim.lr / 0.0005 * np.array(paper), rtol=1e-5)
