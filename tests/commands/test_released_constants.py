"""Constants of files that authors released, and our recipes, by the conversion between them."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cnn_papers.models import maxout as maxout_nets
from cnn_papers.opstrings import parse
from cnn_papers.training import schedules
from cnn_papers.training.optim import OptimizerSettings, make_optimizer
from configs import densenet, maxout, nin, resnet

# --- Network in Network: mavenlin/cuda-convnet, NIN/*_params --------------------------------------

# epsW, epsB, momW and momB, wc of most layers; epsW and epsB of cccp6; coeff of the loss
NIN_PARAMS = {
    "cifar10": (1.0, 2.0, 0.9, 0.00001, 0.1, 0.2, 0.1),
    "cifar100": (0.01, 0.02, 0.9, 0.001, 0.01, 0.02, 2.0),
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
    config = nin.get_config(recipe)
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


@pytest.mark.parametrize(("recipe", "decay"), [("cifar10", 1e-4), ("cifar100", 5e-4)])
def test_nins_factor_of_decay_is_wc_by_coeff(recipe, decay):
    eps_w, eps_b, momentum, wc, last_w, last_b, coeff = NIN_PARAMS[recipe]
    optim = nin.get_config(recipe).optim
    assert optim.lr == pytest.approx(eps_w * coeff)
    assert optim.weight_decay == decay == pytest.approx(wc / coeff)
    assert optim.momentum == momentum and optim.wd_mults == ((".*/bias", 0.0),)
    mults = {
        path: next((m for pattern, m in optim.lr_mults if re.fullmatch(pattern, path)), 1.0)
        for path in ("conv1/kernel", "conv1/bias", "cccp6/kernel", "cccp6/bias")
    }
    expected = [rate / eps_w for rate in (eps_w, eps_b, last_w, last_b)]
    assert list(mults.values()) == pytest.approx(expected)


# --- Maxout: lisa-lab/pylearn2, scripts/papers/maxout/*.yaml --------------------------------------


def test_maxouts_decay_of_an_epoch_is_that_of_its_updates():
    """mnist_pi.yaml: the rate is divided by 1.000004 an update; 50,000 images are 500 updates."""
    optim = maxout.get_config("mnist").optim
    (schedule,) = parse(optim.schedule, schedules, leading=1, key="optim.schedule")
    assert (schedule.args, schedule.kwargs) == ((0.998,), {"every_epochs": 1})
    assert abs(1.000004**-500 - 0.998) < 3e-6
    assert (optim.lr, maxout.get_config("mnist").batch_size) == (0.1, 100)


@pytest.mark.parametrize(
    ("recipe", "lr", "last", "over", "epochs"),
    [
        ("cifar10", 0.17, 0.01, 500, 785.0),  # cifar10_no_aug.yaml
        ("cifar10_augmented", 0.17, 0.01, 500, 474.0),  # cifar10.yaml
        ("svhn", 0.2, 0.001, 250, 142.0 + 100),  # svhn.yaml: best at 142, patience 100
    ],
)
def test_maxouts_convolutional_files(recipe, lr, last, over, epochs):
    config = maxout.get_config(recipe)
    (schedule,) = parse(config.optim.schedule, schedules, leading=1, key="optim.schedule")
    assert (config.optim.lr, schedule.args, schedule.kwargs) == (lr, (last,), {"epochs": over})
    assert (config.batch_size, config.total_epochs) == (128, epochs)
    norms = {"h0": 0.9, "h1": 1.9365, "h2": 1.9365, "h3": 1.9, "y": 1.9365}
    for layer, norm in norms.items():
        first = next(
            value
            for pattern, value in config.optim.max_norms
            if re.fullmatch(pattern, f"{layer}/kernel")
        )
        assert first == norm == maxout_nets.MAX_NORM[config.model.variant][layer]
        scale = 0.05 if layer in ("h0", "h1", "h2") else 1.0
        mults = [
            m for pattern, m in config.optim.lr_mults if re.fullmatch(pattern, f"{layer}/bias")
        ]
        assert (mults or [1.0])[0] == scale
    padded = "|pad_crop(8)|flip" if recipe == "cifar10_augmented" else ""  # pad_randomized: 8
    assert config.data.train_device == config.data.eval_device + padded


# --- fb.resnet.torch, datasets/imagenet.lua -------------------------------------------------------


def test_densenets_pipeline_is_fb_resnet_torchs():
    config = densenet.get_config("imagenet2012")
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


# --- ResNet ---------------------------------------------------------------------------------------


def test_resnets_batches_are_split_as_on_the_papers_gpus():
    """§4.2: two GPUs; the authors' README: eight, with statistics on each."""
    for recipe, gpus in (("cifar10", 2), ("cifar10_110", 2), ("imagenet2012", 8)):
        config = resnet.get_config(recipe)
        assert config.batch_size // config.optim.bn_group == gpus


def test_only_110_layers_wait_at_a_tenth_of_the_rate():
    waiting = resnet.get_config("cifar10_110")
    assert (waiting.model.variant, waiting.optim.warmup_until_error) == ("cifar-110", (80.0, 0.1))
    assert waiting.optim.schedule == "step(32000, 48000)"
    assert resnet.get_config("cifar10").optim.warmup_until_error == ()
