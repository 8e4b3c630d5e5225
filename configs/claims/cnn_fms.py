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

# Smaller: a quarter as wide, on scenes of digits. The network is trained before on digits that are
# cut out of 3,000 other scenes.
_ON_SCENES: dict[str, Any] = {
    **common.SCENES,
    "config": "configs/cnn_fms.py",
    "model.lrn": False,
    "model.dropout": 0.0,  # behind dropout the narrow network does not begin to learn
    "model.conv1_stride": 2,
    "data.train_host": "decode|fit(64, 64)",
    "data.eval_host": "decode|fit(64, 64)",
    "data.train_device": "subtract_own_mean|scale(0.015625)",
    "data.eval_device": "subtract_own_mean|scale(0.015625)",
}
_ON_DIGITS = {
    **_ON_SCENES,
    "task": "classify",
    "data.train_split": "train[1000:4000]",
    "data.train_host": "decode|random_object(0.2, square=True)|fit(64, 64)",
    "data.eval_host": "decode|largest_object(0.2, square=True)|fit(64, 64)",
    "optim.lr": 0.02,
    "total_epochs": 6.0,
    "eval.every_epochs": 6.0,
}
_FEATURES = "conv.*|fc[67]"
_TUNED_DESK = {
    **_ON_SCENES,
    "start": _ON_DIGITS,
    "init_layers": _FEATURES,  # fc8 starts fresh
    "optim.lr": 0.002,
    "optim.lr_mults": (("fc8/kernel", 10.0), ("fc8/bias", 20.0), (".*/bias", 2.0)),
    "total_epochs": 8.0,
    "eval.every_epochs": 4.0,
    "eval.protocol": "svm('fc7')|svm('fc7', normalise=False)",
}
# The first protocol of every arm is the one that is compared.
_TUNED_PAPER: dict[str, Any] = {
    "config": "configs/cnn_fms.py:voc2007",
    "start": {"config": "configs/cnn_fms.py:imagenet2012", "model.variant": "S"},
    "init_layers": _FEATURES,
    "eval.protocol": (
        "svm('fc7', mirror=True, train='separate')"
        "|svm('fc7', mirror=True, train='separate', normalise=False)"
    ),
}
_FROZEN = {"optim.frozen": _FEATURES, "total_epochs": 1.0}
_IFV_PAPER = {
    "config": "configs/ifv.py:voc2007",
    "eval.protocol": "svm('fisher', mirror=True, train='separate')",
}
_FIRST_MAP = "tested(0, 'map')"


def _pre_trained(variant: str) -> dict[str, Any]:
    """Returns an arm whose features are those of ImageNet's `variant`."""
    start = {"config": "configs/cnn_fms.py:imagenet2012", "model.variant": variant}
    return {**_FROZEN, "model.variant": variant, "start": start}


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
    "cnn_fms_deep_above_shallow": Claim(
        statement=(
            "From a Fisher vector to a layer of a network that other images have trained, and to "
            "one fine-tuned to these, the average precision of SVMs rises."
        ),
        source="Return of the Devil, Table 2",
        arms={"shallow": {}, "deep": {}, "fine-tuned": {}},
        metric=_FIRST_MAP,
        expect="rising",
        paper=(
            "mAP on VOC 2007: 82.42 % of CNN-S fine-tuned by RNK, as SPP-net quotes it; from "
            "memory 79.7 before, and 68.0 of the best shallow one"
        ),
        scales={
            "desk": Scale(
                {},
                {
                    "shallow": common.SCENES_IFV,
                    "deep": _TUNED_DESK | _FROZEN,
                    "fine-tuned": _TUNED_DESK,
                },
            ),
            "paper": Scale(
                {},
                {
                    "shallow": _IFV_PAPER,
                    "deep": _TUNED_PAPER | _FROZEN,
                    "fine-tuned": _TUNED_PAPER,
                },
            ),
        },
    ),
    "cnn_fms_ranking": Claim(
        statement="Fine-tuned by ranking, the average precision is no lower, within a point.",
        source="Return of the Devil, Table 2",
        arms={"each class": {"loss.ranking": False}, "ranking": {"loss.ranking": True}},
        metric=_FIRST_MAP,
        expect="at_least",
        bound=-1.0,
        paper="mAP on VOC 2007: 82.42 % by ranking, as SPP-net quotes it; the bound is ours",
        scales={"desk": Scale(_TUNED_DESK), "paper": Scale(_TUNED_PAPER)},
    ),
    "cnn_fms_unit_length": Claim(
        statement="Features at unit length raise the average precision of SVMs on them.",
        source="Return of the Devil §2.2",
        arms={"one network": {}},
        metric="tested_change(1, 0, 'map')",
        expect="higher",
        paper="calls it essential, without a number",
        scales={
            "desk": Scale(_TUNED_DESK | _FROZEN),
            "paper": Scale(_TUNED_PAPER | _FROZEN),
        },
    ),
    "cnn_fms_svm_fc7_128": Claim(
        statement="SVMs on 128 units in place of 4,096 lose little average precision.",
        source="Return of the Devil, Table 2, from memory",
        arms={"4096": _pre_trained("M"), "128": _pre_trained("M-128")},
        metric=_FIRST_MAP,
        expect="at_least",
        bound=-4.0,
        paper="about 2 points of mAP on VOC 2007, from memory; the bound is ours",
        scales={"paper": Scale(_TUNED_PAPER)},
    ),
    "cnn_fms_svm_grayscale": Claim(
        statement="Without colour the average precision of SVMs is lower.",
        source="Return of the Devil, Table 2, from memory",
        arms={"colour": _pre_trained("F"), "gray": _pre_trained("F-gray")},
        metric=_FIRST_MAP,
        expect="lower",
        paper="about 3 points of mAP on VOC 2007, from memory",
        scales={"paper": Scale(_TUNED_PAPER)},
    ),
}
