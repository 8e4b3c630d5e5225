"""The claims of AlexNet."""

from typing import Any

from cnn_papers.facts import Claim, Scale
from configs.claims import common

# The network of Figure 1 on CIFAR-10. Smaller: half as wide at 16 pixels, eighty epochs of 1,024
# images, which it overfits.
_FOUR_LAYERS: dict[str, Any] = {
    **common.SMALL_CIFAR10,
    "config": "configs/alexnet.py:cifar10",
    "data.train_split": "train[:1024]",
    "data.train_host": "decode|resize(16)",
    "data.eval_host": "decode|resize(16)",
    "data.train_device": "subtract_mean_image",
    "data.eval_device": "subtract_mean_image",
    "model.width": 0.5,
    "model.lrn": False,
    "model.pool": (3, 2),
    "batch_size": 64,
    "total_epochs": 80.0,
    "eval.every_epochs": 20.0,
    "optim.lr": 0.003,
    "optim.lr_batch": 64,
    "optim.schedule": "cosine",
    "optim.weight_decay": 5e-4,
    "checkpoint.every_steps": 1000,
}
# In full width, on 45,000 images.
_FOUR_LAYERS_GPU = _FOUR_LAYERS | {
    "data.train_split": "train[:45000]",
    "data.eval_split": "train[45000:]",
    "eval.every_epochs": 5.0,
    "data.train_host": "decode|resize(32)",
    "data.eval_host": "decode|resize(32)",
    "model.width": 1.0,
    "total_epochs": 60.0,
}
_PAPER = Scale(common.ALEXNET_PAPER | {"config": "configs/alexnet.py:imagenet2012"})
_FOUR = {"desk": Scale(_FOUR_LAYERS), "gpu": Scale(_FOUR_LAYERS_GPU), "paper": _PAPER}
# Without regularisation and schedule.
_FIGURE_1 = {
    "optim.schedule": "constant",
    "optim.weight_decay": 0.0,
    "log_every_steps": 16,
    "eval.every_epochs": 60.0,
    "total_epochs": 120.0,
}

_FIVE = {
    "desk": Scale(common.ALEXNET_DESK | {"config": "configs/alexnet.py"}),
    "gpu": Scale(common.ALEXNET_GPU | {"config": "configs/alexnet.py"}),
    "paper": _PAPER,
}
_DROPOUT: dict[str, dict[str, Any]] = {
    "without": {"model.dropout": 0.0},
    "with": {"model.dropout": 0.5},
}


def _lower_error(statement: str, source: str, arms: Any, paper: str, scales: Any) -> Claim:
    """Returns the claim that the second arm has the lower error on held-out images."""
    return Claim(statement, source, arms, "last('val/top1_error')", "lower", paper, scales)


def _on_imagenet(scales: dict[str, Scale], delta: float) -> dict[str, Scale]:
    """Returns `scales` with the paper's difference where the data are those of the paper."""
    return scales | {"paper": scales["paper"]._replace(paper_delta=delta)}


def _windows(setting: dict[str, Any], side: int, size: int) -> Scale:
    """Returns `setting` with windows of `size` of images of `side` pixels, and their mirrors."""
    hosts = {"train_host": f"random_crop({size})", "eval_host": f"center_crop({size})"}
    hosts = {f"data.{key}": f"decode|resize({side})|{crop}" for key, crop in hosts.items()}
    hosts |= {
        "eval.protocol": f"single_view|ten_crop({size}, {side})",
        "data.train_device": "flip|subtract_mean_image",
    }
    return Scale(setting | hosts)


def _augmented(pixels: int) -> dict[str, dict[str, Any]]:
    plain = "subtract_mean_image"
    devices = {"neither": plain, "both": f"{plain}|flip|pad_crop({pixels})"}
    return {arm: {"data.train_device": device} for arm, device in devices.items()}


def _middle_layer(name: str) -> Claim:
    return _lower_error(
        f"Without {name}, one of the middle layers, the error is higher.",
        "AlexNet §7",
        {f"without {name}": {"model.without": (name,)}, "whole": {}},
        "about 2 points of top-1 error on ImageNet for any of the middle layers",
        _on_imagenet(_FIVE, -2.0),
    )


CLAIMS = {
    "relu_sooner": Claim(
        (
            "A net of rectified units reaches 25 % training error several times sooner than one of "
            "tanh units."
        ),
        "AlexNet §3.1, Figure 1",
        # Each at the rate, of rates a factor of two apart, that is soonest there (desk, seed 100).
        {
            "tanh": {"model.activation": "tanh", "optim.lr": 0.2},
            "relu": {"model.activation": "relu", "optim.lr": 0.006},
        },
        "images_to('train/top1_error', 25.0)",
        "lower",
        "six times sooner",
        {"desk": Scale(_FOUR_LAYERS | _FIGURE_1)},  # the rates are of this scale only
        paper_delta=1 / 6,
        paper_data="cifar10",
        ratio=True,
    ),
    "response_normalisation": _lower_error(
        "Response normalisation across channels lowers the error.",
        "AlexNet §3.3",
        {"without": {"model.lrn": False}, "with": {"model.lrn": True}},
        "from 13 % to 11 % on CIFAR-10 with four layers; 1.4 points of top-1 error on ImageNet",
        {
            "desk": _FOUR["desk"]._replace(paper_delta=-2.0),
            "gpu": _FOUR["gpu"]._replace(paper_delta=-2.0),
            "paper": _PAPER._replace(paper_delta=-1.4),
        },
    )._replace(paper_data="cifar10"),
    "overlapping_pooling": _lower_error(
        "Pooling windows that overlap lower the error.",
        "AlexNet §3.4",
        {"apart": {"model.pool": (2, 2)}, "overlapping": {"model.pool": (3, 2)}},
        "0.4 points of top-1 error on ImageNet",
        _on_imagenet(_FOUR, -0.4),
    ),
    "overlapping_pooling_overfits_less": Claim(
        (
            "With overlapping windows the error on held-out images is less far above that on "
            "training images."
        ),
        "AlexNet §3.4",
        {"apart": {"model.pool": (2, 2)}, "overlapping": {"model.pool": (3, 2)}},
        "gap('val/top1_error', 'train/top1_error')",
        "lower",
        "finds such nets slightly harder to overfit; no figure",
        _FOUR,
    ),
    "two_columns": _lower_error(
        "Two columns have a lower error than one column with half the kernels.",
        "AlexNet §3.2",
        {"one column": {"model.variant": "one_gpu"}, "two columns": {"model.variant": "paper"}},
        "1.7 points of top-1 error on ImageNet",
        _on_imagenet(_FIVE, -1.7),
    ),
    "conv3_is_needed": _middle_layer("conv3"),
    "conv4_is_needed": _middle_layer("conv4"),
    "dropout_is_slower": Claim(
        (
            "With dropout it takes longer until the error on held-out images, tested without it, "
            "has fallen to 70 %."
        ),
        "AlexNet §4.2",
        {arm: {"eval.every_epochs": 1.0, **dropout} for arm, dropout in _DROPOUT.items()},
        "images_to('val/top1_error', 70.0)",  # which both reach within a desk run
        "higher",
        "about twice the iterations to converge on ImageNet",
        _on_imagenet(_FIVE, 2.0),
        ratio=True,
    ),
    "dropout_overfits_less": Claim(
        "With dropout the loss on held-out images ends lower.",
        "AlexNet §4.2",
        _DROPOUT,
        "last('val/loss')",
        "lower",
        "substantial overfitting without; no figure",
        _FIVE,
    ),
    "crops_and_flips": _lower_error(
        "Training on random crops and their mirror images lowers the error.",
        "AlexNet §4.1",
        _augmented(2),
        "substantial overfitting without; no figure",
        {"desk": Scale(_FOUR_LAYERS), "gpu": Scale(_FOUR_LAYERS_GPU, _augmented(4))},
    ),
    "pca_colour": _lower_error(
        "Shifting colours along their principal components lowers the error.",
        "AlexNet §4.1",
        {
            "without": {"data.train_device": "flip|subtract_mean_image"},
            "with": {"data.train_device": "flip|pca_light(0.1)|subtract_mean_image"},
        },
        "over 1 point of top-1 error on ImageNet",
        _on_imagenet(_FOUR, -1.0),
    ),
    "ten_crops": Claim(
        "The mean over ten crops has a lower error than the centre alone.",
        "AlexNet §4.1, §6",
        {"ten crops": {}},
        "tested_change('single_view', 'ten_crop', 'top1_error')",
        "lower",
        "39.0 % top-1 error with one view, 37.5 % with ten, on ILSVRC-2010",
        {
            "desk": _windows(_FOUR_LAYERS, 18, 16),
            "gpu": _windows(_FOUR_LAYERS_GPU, 32, 28),
            "paper": _PAPER._replace(paper_delta=-1.5),
        },
    ),
    "weight_decay_helps_training": Claim(
        "Weight decay lowers the training error.",
        "AlexNet §5",
        {"without": {"optim.weight_decay": 0.0}, "with": {"optim.weight_decay": 5e-4}},
        "mean_last('train/top1_error', 3)",
        "lower",
        "says that it lowers the training error too; no figure",
        _FIVE,
    ),
    "he_starts_sooner": Claim(
        (
            "He et al.'s initial weights bring the training error to 60 % sooner than N(0, 0.01²) "
            "and biases of one."
        ),
        "AlexNet §5; He et al., arXiv:1502.01852, §2.2",
        {"paper": {"model.weight_init": "paper"}, "he": {"model.weight_init": "he"}},
        "images_to('train/top1_error', 60.0)",
        "lower",
        "no figure for this network",
        # not at the desk: an eighth as wide, N(0, 0.01²) is far too little
        {scale: _FIVE[scale] for scale in ("gpu", "paper")},
        ratio=True,
    ),
}
