"""The claims of VGG."""

from typing import Any

from cnn_papers.facts import Claim, Scale
from configs.claims import common

# Smaller: an eighth as wide at 32 pixels, ten epochs of 4,000 digits of MNIST; without batch
# normalisation the deeper nets need easy images to start learning within minutes. He et al.'s
# initialisation, the paper's learning rate. In the first epoch the rate rises: without that, C
# stayed at chance with three seeds of six, B with one and D with one. With it, B, C, D and E learn
# with seed 100, C also with 101 and 102, D and E with 101; no claim uses these.
_DESK: dict[str, Any] = {
    "config": "configs/vgg.py",
    "data.name": "mnist",
    "data.train_split": "train[:4000]",
    "data.eval_split": "train[58000:]",
    "data.train_host": "decode|resize(32)",
    "data.eval_host": "decode|resize(32)",
    "data.train_device": "standardize|pad_crop(2)",
    "model.variant": "A",
    "batch_size": 32,
    "optim.lr": 0.01,
    "optim.lr_batch": 32,
    "optim.warmup_epochs": 1.0,
    "total_epochs": 10.0,
    "eval.every_epochs": 5.0,
    "checkpoint.every_steps": 1000,
}
# Smaller: half as wide at 32 pixels, CIFAR-10, seventy-four epochs as in the paper; He et al.'s
# initialisation.
_GPU: dict[str, Any] = {
    **common.CIFAR10,
    "config": "configs/vgg.py",
    "model.variant": "A",
    "model.width": 0.5,
    "batch_size": 128,
    "optim.lr": 0.01,
    "optim.lr_batch": 128,
    "optim.warmup_epochs": 1.0,
    "total_epochs": 74.0,
    "eval.every_epochs": 5.0,
}
_PAPER: dict[str, Any] = {"config": "configs/vgg.py:imagenet2012"}
_ALL = {"desk": Scale(_DESK), "gpu": Scale(_GPU), "paper": Scale(_PAPER)}
# The errors of Table 3 are of the sliding network, those of these claims of the central crop.
_SLIDING = "sliding over the image, at S = Q = 256"


def _nets(*variants: str) -> dict[str, dict[str, Any]]:
    return {variant: {"model.variant": variant} for variant in variants}


# Both are tested by the sliding network at Q = (S_min + S_max) / 2 as in Table 3: at 40 pixels, on
# ImageNet at 384.
_EVALUATED_AT_40 = {
    "data.eval_host": "decode|resize(40, method='bicubic')|center_crop(32)",
    "eval.protocol": "vgg_dense(40, step=8)|vgg_dense((32, 40, 48), step=8)",
}
_AT_40 = {
    "desk": Scale(_DESK | _EVALUATED_AT_40 | {"data.train_device": "standardize"}),
    "gpu": Scale(_GPU | _EVALUATED_AT_40 | {"data.train_device": "standardize|flip"}),
}
_JITTERED: dict[str, Any] = {
    "data.train_host": "decode|resize_short_between(32, 48, method='bicubic')|random_crop(32)",
}
_JITTER = {
    "one scale": {"data.train_host": "decode|resize(40, method='bicubic')|random_crop(32)"},
    "jitter": _JITTERED,
}
# All from random weights; the paper fine-tunes those with jitter from the network of S = 384.
_AT_384: dict[str, Any] = _PAPER | {
    "data.eval_host": "decode|resize_short(384)|center_crop(224)",
    "model.variant": "D",
    "eval.protocol": "vgg_dense(384)|vgg_dense((256, 384, 512))|vgg_both",
}
_JITTERED_ON_IMAGENET: dict[str, Any] = {
    "data.train_host": "decode|resize_short_between(256, 512)|random_crop(224)"
}
_JITTER_ON_IMAGENET = {
    "one scale": {"data.train_host": "decode|resize_short(384)|random_crop(224)"},
    "jitter": _JITTERED_ON_IMAGENET,
}

CLAIMS = {
    "vgg_deeper_is_better": Claim(
        statement="From 11 to 19 layers with weights (A, B, D, E) the error falls.",
        source="VGG §4.1, Table 3",
        arms=_nets("A", "B", "D", "E"),
        metric="last('val/top1_error')",
        expect="falling",
        paper=f"top-1 errors on ImageNet {_SLIDING}: 29.6 (A), 28.7 (B), 27.0 (D), 27.3 % (E)",
        scales=_ALL,
    ),
    "vgg_lrn": Claim(
        statement=(
            "Response normalisation after the first convolution changes the error of A by less "
            "than a point."
        ),
        source="VGG §4.1, Table 3",
        arms=_nets("A", "A-LRN"),
        metric="last('val/top1_error')",
        expect="same",
        bound=1.0,
        paper=(
            f"29.6 and 29.7 % top-1 error on ImageNet {_SLIDING}: no improvement; the bound is ours"
        ),
        scales=_ALL,
    ),
    "vgg_more_nonlinearity": Claim(
        statement="Three more 1×1 convolutions (C) lower the error of B.",
        source="VGG §4.1, Table 3",
        arms=_nets("B", "C"),
        metric="last('val/top1_error')",
        expect="lower",
        paper=f"28.7 and 28.1 % top-1 error on ImageNet {_SLIDING}",
        scales=_ALL,
    ),
    "vgg_spatial_context": Claim(
        statement="With 3×3 convolutions (D) in place of those 1×1 (C) the error is lower.",
        source="VGG §4.1, Table 3",
        arms=_nets("C", "D"),
        metric="last('val/top1_error')",
        expect="lower",
        paper=f"28.1 and 27.0 % top-1 error on ImageNet {_SLIDING}",
        scales=_ALL,
    ),
    "vgg_small_filters": Claim(
        statement=(
            "Pairs of 3×3 convolutions (B) err less than single 5×5 with the same view of the "
            "image."
        ),
        source="VGG §4.1",
        arms=_nets("B-5x5", "B"),
        metric="last('val/top1_error')",
        expect="lower",
        paper="the shallow net's top-1 error on ImageNet is 7 % higher (centre crop)",
        scales=_ALL | {"paper": Scale(_PAPER, paper_delta=-7.0)},
    ),
    "vgg_scale_jitter": Claim(
        statement=(
            "Training images at scales drawn at random give a lower error than images at their "
            "mean scale."
        ),
        source="VGG §4.1, Table 3",
        arms=_JITTER,
        metric="tested(0, 'top1_error')",
        expect="lower",
        paper=(
            "ImageNet, D at Q = 384: 26.8 % top-1 error with S = 384, 25.6 % with S in [256, 512]"
        ),
        scales=_AT_40 | {"paper": Scale(_AT_384, _JITTER_ON_IMAGENET, paper_delta=-1.2)},
    ),
    "vgg_test_scales": Claim(
        statement=(
            "Averaging over three scales of a test image has a lower error than the middle one "
            "alone."
        ),
        source="VGG §4.2, Tables 3 and 4",
        arms={"jitter": _JITTERED},  # the protocols test the same weights
        metric="tested_change(0, 1, 'top1_error')",
        expect="lower",
        paper=(
            "ImageNet, D, trained with scale jitter: 25.6 % top-1 error at Q = 384, 24.8 % at 256, "
            "384 and 512"
        ),
        scales=_AT_40
        | {"paper": Scale(_AT_384, {"jitter": _JITTERED_ON_IMAGENET}, paper_delta=-0.8)},
    ),
    "vgg_crops_and_dense": Claim(
        statement=(
            "Averaging crops and the sliding network has a lower error than the sliding network "
            "alone."
        ),
        source="VGG §4.3, Table 5",
        arms={"jitter": _JITTERED_ON_IMAGENET},
        metric="tested_change(1, 'vgg_both', 'top1_error')",
        expect="lower",
        paper="D: 24.8 % top-1 error sliding, 24.4 % with both",
        paper_delta=-0.4,
        scales={"paper": Scale(_AT_384)},
    ),
    "vgg_sliding_is_exact": Claim(
        statement=(
            "The fully connected layers applied as convolutions to a larger image score every "
            "window as they score it alone, up to rounding."
        ),
        source="VGG §3.2",
        arms={"D": {"model.variant": "D"}},
        metric="sliding_difference(128, 96)",
        expect="at_most",
        bound=1e-5,
        paper=(
            "says so without a figure; 1e-5 of the largest output is our bound for rounding in "
            "float32"
        ),
        scales={
            "exact": Scale({"config": "configs/vgg.py", "data.eval_host": "decode|resize(64)"})
        },
    ),
}
