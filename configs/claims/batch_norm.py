"""The claims of batch normalisation, tested on AlexNet's convolutions.

Without fc6 and fc7, every nonlinearity of variant `batch_norm` reads normalised values, as those of
the paper's do.
"""

from typing import Any

from cnn_papers.facts import Claim, Scale
from configs.claims import common

_CONVOLUTIONS: dict[str, Any] = {"model.without": ("fc6", "fc7")}
_DESK = common.ALEXNET_DESK | _CONVOLUTIONS | {"config": "configs/batch_norm.py"}
_GPU = common.ALEXNET_GPU | _CONVOLUTIONS | {"config": "configs/batch_norm.py"}
_PAPER = (
    common.ALEXNET_PAPER
    | _CONVOLUTIONS
    | {
        "config": "configs/batch_norm.py:imagenet2012",
        "total_epochs": 90.0,  # AlexNet's, for nets without normalisation too
        "optim.lr": 0.01,
        "optim.schedule": "plateau(0.1, patience=3)",
        "eval.precise_bn": 0,  # claims read evaluations in training
    }
)
_ALL = {"desk": Scale(_DESK), "gpu": Scale(_GPU), "paper": Scale(_PAPER)}
_FAST: dict[str, Any] = {"optim.lr": 0.05}  # five times the rate of every scale
_SIGMOID: dict[str, Any] = {"model.activation": "sigmoid"}
_WITHOUT: dict[str, Any] = {"model.variant": "paper", "model.lrn": False}  # of neither kind
_WITH: dict[str, Any] = {"model.variant": "batch_norm"}
# The inputs of conv5's units, analysed after every second epoch.
_OFTEN: dict[str, Any] = {"eval.every_epochs": 2.0}
_WATCHED = {
    "without": _OFTEN | _WITHOUT | {"eval.analyses": "input_percentiles('conv5')"},
    "with": _OFTEN | _WITH | {"eval.analyses": "input_percentiles('bn5')"},
}

CLAIMS = {
    "bn_sooner": Claim(
        (
            "With batch normalisation the training error falls to 60 % sooner, at the same "
            "learning rate."
        ),
        "Batch normalisation §4.2.2, Figure 2",
        {"without": _WITHOUT, "with": _WITH},
        "images_to('train/top1_error', 60.0)",
        "lower",
        (
            "on ImageNet Inception reaches 72.2 % accuracy in 13.3 instead of 31.0 million steps, "
            "×0.43"
        ),
        _ALL,
        ratio=True,
    ),
    "bn_higher_rates": Claim(
        (
            "At five times the learning rate, a net with batch normalisation has a lower error "
            "than one without."
        ),
        "Batch normalisation §4.2.2",
        {"without": _FAST | _WITHOUT, "with": _FAST | _WITH},
        "last('val/top1_error')",
        "lower",
        (
            "on ImageNet, at five times its rate, Inception ends at 73.0 % accuracy with, and "
            "breaks down without"
        ),
        _ALL,
    ),
    "bn_rates_are_sooner": Claim(
        (
            "With batch normalisation, five times the learning rate brings the training error to "
            "60 % sooner."
        ),
        "Batch normalisation §4.2.2, Figure 3",
        {"rate": _WITH, "five times": _FAST | _WITH},
        "images_to('train/top1_error', 60.0)",
        "lower",
        (
            "on ImageNet Inception reaches 72.2 % accuracy in 2.1 instead of 13.3 million steps, "
            "×0.16, with other changes too"
        ),
        _ALL,
        ratio=True,
    ),
    "bn_sigmoid": Claim(
        "Batch normalisation lets a deep net of sigmoid units learn.",
        "Batch normalisation §4.2.2",
        {"without": _SIGMOID | _WITHOUT, "with": _SIGMOID | _WITH},
        "last('val/top1_error')",
        "lower",
        "Inception with sigmoid units on ImageNet: 69.8 % accuracy with, chance without",
        _ALL,
    ),
    "bn_steadier": Claim(
        (
            "With batch normalisation the medians of what units read move less in training, "
            "relative to the spread of these values."
        ),
        "Batch normalisation §4.1, Figure 1",
        _WATCHED,
        "drift('input_percentiles/median', 'input_percentiles/width')",
        "lower",
        "a figure: the percentiles of one unit of a small net on MNIST",
        _ALL,
        ratio=True,
    ),
}
