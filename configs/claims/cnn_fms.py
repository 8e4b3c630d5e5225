"""The claims of Return of the Devil in the Details (CNN-F, CNN-M, CNN-S)."""

from typing import Any

from cnn_papers.facts import Claim, Scale
from configs.claims import common

# CIFAR-10, enlarged so that the paper's strides leave the deeper layers more than one cell.
_SMALL: dict[str, Any] = {
    "config": "configs/cnn_fms.py",
    "model.variant": "F",
    "data.train_host": "decode|resize(64)",
    "data.eval_host": "decode|resize(64)",
}
# Smaller: a quarter as wide at 64 pixels, thirty epochs of 1,024 images of CIFAR-10. On a CPU,
# response normalisation would take longer than the convolutions.
_DESK: dict[str, Any] = {
    **common.SMALL_CIFAR10,
    **_SMALL,
    "model.lrn": False,
    "data.train_split": "train[:1024]",
    "total_epochs": 30.0,
    "eval.every_epochs": 10.0,
}
# Smaller: half as wide at 64 pixels, CIFAR-10, sixty epochs.
_GPU: dict[str, Any] = {
    **common.CIFAR10,
    **_SMALL,
    "model.width": 0.5,
    "batch_size": 128,
    "optim.lr": 0.01,
    "optim.lr_batch": 128,
    "total_epochs": 60.0,
    "eval.every_epochs": 5.0,
}
_PAPER: dict[str, Any] = {"config": "configs/cnn_fms.py:imagenet2012", "model.variant": "F"}
_ALL = {"desk": Scale(_DESK), "gpu": Scale(_GPU), "paper": Scale(_PAPER)}
_AUGMENTED = {
    "none": {"data.train_device": "standardize"},
    "flip": {"data.train_device": "standardize|flip"},
    "crop and flip": {"data.train_device": "standardize|pad_crop(8)|flip"},
}
# A quarter of 128 units learns nothing behind dropout.
_TO_128 = {
    "1024": {"model.variant": "M"},
    "128": {"model.variant": "M-128", "model.fc7_units": 512},
}
_CENTRE = "decode|resize_short(256)|center_crop(224)"
_AUGMENTED_ON_IMAGENET = {
    "none": {"data.train_host": _CENTRE, "data.train_device": "subtract_mean_image"},
    "flip": {"data.train_host": _CENTRE, "data.train_device": "flip|subtract_mean_image"},
    "crop and flip": {"data.train_device": "flip|subtract_mean_image"},
}

CLAIMS = {
    "cnn_fms_augmentation": Claim(
        statement=(
            "From no augmentation to mirror images to mirror images of random crops the error "
            "falls."
        ),
        source="after Return of the Devil §3.3, Table 2",
        arms=_AUGMENTED,
        metric="last('val/top1_error')",
        expect="falling",
        paper=(
            "another experiment, of SVMs on CNN-M's features of VOC 2007's images: about 1 point "
            "of mAP by flips, 3 by crops and flips"
        ),
        scales=_ALL | {"paper": Scale(_PAPER, _AUGMENTED_ON_IMAGENET)},
    ),
    "cnn_fms_grayscale": Claim(
        statement="Without colour the error is higher.",
        source="after Return of the Devil, Table 2",
        arms={"colour": {"model.variant": "F"}, "gray": {"model.variant": "F-gray"}},
        metric="last('val/top1_error')",
        expect="higher",
        paper=(
            "another experiment, of SVMs on CNN-M's features of VOC 2007's images: about 3 points "
            "of mAP"
        ),
        scales=_ALL,
    ),
    "cnn_fms_slower_is_better": Claim(
        statement="From the fast network to the medium to the slow the error falls.",
        source="Return of the Devil, Table 3",
        arms={net: {"model.variant": net} for net in "FMS"},
        metric="last('val/top1_error')",
        expect="falling",
        paper="top-5 errors on ILSVRC-2012 by 10 crops: 16.7 (F), 13.7 (M), 13.1 % (S)",
        scales=_ALL,
    ),
    "cnn_fms_fast_is_faster": Claim(
        statement="The fast network takes the fewest multiply-adds, the slow one the most.",
        source="Return of the Devil §3.2, Table 1",
        arms={net: {"model.variant": net} for net in "FMS"},
        metric="multiply_adds()",
        expect="rising",
        paper="names them fast, medium and slow",
        scales={"exact": Scale(_PAPER)},
        ratio=True,
    ),
    "cnn_fms_fc7_1024": Claim(
        statement=(
            "With 1,024 units in the last hidden layer instead of 4,096 the error is the same, "
            "within a point."
        ),
        source="Return of the Devil, Table 2; the authors' published networks",
        arms={"4096": {"model.variant": "M"}, "1024": {"model.variant": "M-1024"}},
        metric="last('val/top1_error')",
        expect="same",
        bound=1.0,
        paper="top-5 error 13.7 % on ILSVRC-2012 by 10 crops with either; the bound is ours",
        scales=_ALL,
    ),
    "cnn_fms_fc7_128": Claim(
        statement="With 128 units in the last hidden layer instead of 4,096 the error is higher.",
        source="Return of the Devil, Table 2; the authors' published networks",
        arms={"4096": {"model.variant": "M"}, "128": {"model.variant": "M-128"}},
        metric="last('val/top1_error')",
        expect="higher",
        paper="top-5 error 13.7 and 15.6 % on ILSVRC-2012 by 10 crops",
        scales=_ALL | {"desk": Scale(_DESK, _TO_128)},
    ),
}
