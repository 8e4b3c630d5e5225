"""The claims of ResNet."""

from typing import Any

from cnn_papers.facts import Claim, Scale
from configs.claims import common

_ANALYSES = "response_std|gradient_norm"
# Smaller: 8, 14 and 26 layers half as wide at 16 pixels, six epochs of 5,120 images of CIFAR-10.
_DESK: dict[str, Any] = {
    **common.SMALL_CIFAR10,
    "config": "configs/resnet.py",
    "data.train_host": "decode|resize(16)",
    "data.train_device": "standardize|pad_crop(2)|flip",
    "data.eval_host": "decode|resize(16)",
    "model.width": 0.5,
    "optim.lr": 0.1,
    "total_epochs": 6.0,
    "log_every_steps": 40,
    "eval.every_epochs": 2.0,
    "eval.analyses": _ANALYSES,
}
# §4.2 in full.
_GPU: dict[str, Any] = {"config": "configs/resnet.py:cifar10", "eval.analyses": _ANALYSES}
_PAPER: dict[str, Any] = {"config": "configs/resnet.py:imagenet2012"}


def _nets(*variants: str) -> dict[str, dict[str, Any]]:
    return {variant.removeprefix("cifar-"): {"model.variant": variant} for variant in variants}


def _small(*kinds: str) -> dict[str, dict[str, Any]]:
    """Returns overrides that make of cifar-8 such nets as "plain 26" or "A 26", by name."""
    nets = {}
    for kind in kinds:
        shortcut, layers = kind.split()
        blocks = ((int(layers) - 2) // 6,) * 3
        nets[kind] = {"model.shortcut": shortcut.replace("plain", "none"), "model.blocks": blocks}
    return nets


def _scales(
    desk: dict[str, Any],
    gpu: dict[str, Any],
    paper: dict[str, Any] | None = None,
    delta: float | None = None,
) -> dict[str, Scale]:
    """Returns the scales of a claim; `delta` is the paper's for the nets of scale gpu.

    The paper's errors on ImageNet are of 10 crops, ours of single views: no delta is comparable.
    """
    at = {"desk": Scale(_DESK, desk), "gpu": Scale(_GPU, gpu, delta)}
    return at | ({"paper": Scale(_PAPER, paper)} if paper else {})


# §4.2: 110 layers start at a tenth of the rate, until the training error is below 80 %.
_110: dict[str, Any] = {"config": "configs/resnet.py:cifar10_110"}
_PLAIN, _RESIDUAL = _small("plain 8", "plain 26"), _small("A 8", "A 26")

CLAIMS = {
    "resnet_plain_degrades": Claim(
        statement="A plain network with more layers has a higher training error.",
        source="ResNet §4.1, §4.2, Figures 4 and 6",
        arms=_nets("cifar-plain-20", "cifar-plain-56"),
        metric="mean_last('train/top1_error', 3)",
        expect="higher",
        paper=(
            "curves; on ImageNet 27.94 % validation error (10 crops) with 18 layers, 28.54 % with "
            "34"
        ),
        scales=_scales(
            _PLAIN, _nets("cifar-plain-20", "cifar-plain-56"), _nets("plain-18", "plain-34")
        ),
    ),
    "resnet_residual_gains": Claim(
        statement="A residual network with more layers has a lower error.",
        source="ResNet §4.1, §4.2, Tables 2 and 6",
        arms=_nets("cifar-20", "cifar-56"),
        metric="last('val/top1_error')",
        expect="lower",
        paper=(
            "CIFAR-10: 8.75 % with 20 layers, 6.97 % with 56; ImageNet (10 crops): 27.88 % with "
            "18, 25.03 % with 34"
        ),
        scales=_scales(
            _RESIDUAL, _nets("cifar-20", "cifar-56"), _nets("18-A", "34-A"), 6.97 - 8.75
        ),
    ),
    "resnet_residual_trains": Claim(
        statement="A residual network with more layers has a lower training error.",
        source="ResNet §4.1, §4.2, Figures 4 and 6",
        arms=_nets("cifar-20", "cifar-56"),
        metric="mean_last('train/top1_error', 3)",
        expect="lower",
        paper="curves",
        scales=_scales(_RESIDUAL, _nets("cifar-20", "cifar-56"), _nets("18-A", "34-A")),
    ),
    "resnet_residual_against_plain": Claim(
        statement=(
            "Identity shortcuts, which add no parameter, lower the error of a deep plain network."
        ),
        source="ResNet §4.1, Table 3",
        arms=_nets("cifar-plain-56", "cifar-56"),
        metric="last('val/top1_error')",
        expect="lower",
        paper="ImageNet, 34 layers, 10 crops: 28.54 % top-1 error plain, 25.03 % with shortcuts A",
        scales=_scales(
            _small("plain 26", "A 26"),
            _nets("cifar-plain-56", "cifar-56"),
            _nets("plain-34", "34-A"),
        ),
    ),
    "resnet_shortcuts": Claim(
        statement=(
            "From shortcuts A to B to C, with more and more projections, the error falls a little."
        ),
        source="ResNet §4.1, Table 3",
        arms=_nets("cifar-56", "cifar-56-B", "cifar-56-C"),
        metric="last('val/top1_error')",
        expect="falling",
        paper="ImageNet, 34 layers, 10 crops: 25.03 (A), 24.52 (B), 24.19 % (C), -0.42 a step",
        scales=_scales(
            _small("A 26", "B 26", "C 26"),
            _nets("cifar-56", "cifar-56-B", "cifar-56-C"),
            _nets("34-A", "34", "34-C"),
        ),
    ),
    "resnet_plain_gradients": Claim(
        statement=(
            "With batch normalisation the gradient does not vanish in a deep plain network: at the "
            "first layer its norm is within ten times that of a shallow one."
        ),
        source="ResNet §4.1",
        arms=_nets("cifar-plain-20", "cifar-plain-56"),
        metric="analysis('gradient_norm')",
        expect="same",
        bound=10.0,
        paper="finds healthy norms, without a figure; the bound is ours",
        scales=_scales(_PLAIN, _nets("cifar-plain-20", "cifar-plain-56")),
        ratio=True,
    ),
    "resnet_shortcuts_are_free": Claim(
        statement="Identity shortcuts add no parameter to a plain network.",
        source="ResNet §3.2, §4.1",
        arms=_nets("plain-34", "34-A"),
        metric="parameters()",
        expect="same",
        bound=0.5,
        paper="says so",
        paper_delta=0.0,
        scales={"exact": Scale(_PAPER)},
    ),
    "resnet_152_takes_less_than_vgg": Claim(
        statement="ResNet-152 takes fewer multiply-adds than VGG-16.",
        source="ResNet §3.3, §4.1",
        arms={
            "VGG-16": {"config": "configs/vgg.py:imagenet2012", "model.variant": "D"},
            "ResNet-152": _PAPER | {"model.variant": "152"},
        },
        metric="multiply_adds()",
        expect="lower",
        paper="11.3 against 15.3 billion",
        paper_delta=11.3 / 15.3,
        scales={"exact": Scale({})},
        ratio=True,
    ),
    "resnet_warm_up": Claim(
        statement=(
            "Started at a tenth of the rate until then, 110 layers reach 80 % training error "
            "sooner."
        ),
        source="ResNet §4.2",
        arms={"110": _110 | {"optim.warmup_until_error": ()}, "warmed up": _110},
        metric="images_to('train/top1_error', 80.0)",
        expect="lower",
        paper="finds the full rate slightly too large to start with; at a tenth, about 400 steps",
        scales={"gpu": Scale(_GPU)},
        ratio=True,
    ),
    "resnet_small_responses": Claim(
        statement=(
            "The layers of a residual network respond less strongly than those of the plain one."
        ),
        source="ResNet §4.2, Figure 7",
        arms=_nets("cifar-plain-56", "cifar-56"),
        metric="analysis('response_std')",
        expect="lower",
        paper="curves of standard deviations by layer",
        scales=_scales(_small("plain 26", "A 26"), _nets("cifar-plain-56", "cifar-56")),
        ratio=True,
    ),
    "resnet_deeper_smaller_responses": Claim(
        statement="The layers of a residual network respond less the more of them there are.",
        source="ResNet §4.2, Figure 7",
        arms=_nets("cifar-20", "cifar-56", "cifar-110"),
        metric="analysis('response_std')",
        expect="falling",
        paper="curves of standard deviations by layer",
        scales=_scales(
            _small("A 8", "A 14", "A 26"), _nets("cifar-20", "cifar-56") | {"110": _110}
        ),
        ratio=True,
    ),
}
