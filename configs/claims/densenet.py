"""The claims of DenseNet."""

from typing import Any

from cnn_papers.facts import Claim, Scale
from configs.claims import common

_SMALL: dict[str, Any] = common.SMALL_CIFAR10 | {
    "data.train_host": "decode|resize(16)",
    "data.train_device": "standardize|pad_crop(2)|flip",
    "data.eval_host": "decode|resize(16)",
    "optim.lr": 0.1,
    "total_epochs": 5.0,
    "eval.every_epochs": 2.5,
}
# Smaller: DenseNet-BC with three layers a block at 16 pixels, five epochs of 5,120 images of
# CIFAR-10.
_DESK: dict[str, Any] = _SMALL | {"config": "configs/densenet.py"}
# §4.2, with a smaller network.
_GPU: dict[str, Any] = {"config": "configs/densenet.py:cifar10", "model.variant": "BC-40-12"}
_SPLITS = {key: common.CIFAR10[key] for key in ("data.train_split", "data.eval_split")}
_TRAINED = {"desk": Scale(_DESK), "gpu": Scale(_GPU | _SPLITS)}
_PLAIN_IMAGES: dict[str, Any] = {"data.train_device": "standardize"}
_WATCHED = {"eval.analyses": "feature_reuse"}
# Only 1,024 images, so that regularisation matters, in as many steps as the others take.
_FEW: dict[str, Any] = {
    "data.train_split": "train[:1024]",
    "total_epochs": 25.0,
    "eval.every_epochs": 12.5,
}
_DROPOUT = {"without": {"model.dropout": 0.0}, "with": {"model.dropout": 0.2}}
# §4.4 changes only the network: ResNets are trained by DenseNet's recipe, as by the authors' code.
_AGAINST = {
    "ResNet-101": {"model_name": "resnet", "model.variant": "101-v1.5"},
    "DenseNet-201": {"model.variant": "201"},
}
_ON_IMAGENET: dict[str, Any] = {"config": "configs/densenet.py:imagenet2012"}

CLAIMS = {
    "densenet_fewer_parameters": Claim(
        statement="DenseNet-201 has fewer parameters than ResNet-101, which errs as much.",
        source="DenseNet §4.4, Figure 3",
        arms=_AGAINST,
        metric="parameters()",
        expect="lower",
        paper="20 million against more than 40",
        paper_delta=0.5,
        scales={"exact": Scale(_ON_IMAGENET)},
        ratio=True,
    ),
    "densenet_201_like_resnet_101": Claim(
        statement="DenseNet-201 errs as much as ResNet-101, within half a point.",
        source="DenseNet §4.4, Figure 3",
        arms=_AGAINST,
        metric="last('val/top1_error')",
        expect="same",
        bound=0.5,
        paper="about the same error, read off a curve; the bound is ours",
        scales={"paper": Scale(_ON_IMAGENET)},
    ),
    "densenet_parameter_efficiency": Claim(
        statement=(
            "DenseNet-BC has a lower error than a pre-activation ResNet with half as many "
            "parameters again or more."
        ),
        source="DenseNet §5, Figure 4",
        arms={
            "ResNet-29": {"model_name": "resnet", "model.variant": "cifar-pre-29"},
            "DenseNet-BC": _WATCHED,
        },
        metric="last('val/top1_error')",
        expect="lower",
        paper="a third of a ResNet's parameters for the same error, read off curves",
        scales={
            "desk": Scale(
                _DESK,
                {
                    "ResNet-11": {
                        "model_name": "resnet",
                        "model.variant": "cifar-pre-29",
                        "model.blocks": (1, 1, 1),
                    },
                    "DenseNet-BC": _WATCHED,
                },
            ),
            "gpu": _TRAINED["gpu"],
        },
    ),
    "densenet_feature_reuse": Claim(
        statement=(
            "Layers read from all layers of their block: the weights on distant ones are, on "
            "average, at least a tenth of those on the nearest."
        ),
        source="DenseNet §5, Figure 5",
        arms={"DenseNet-40": _WATCHED},
        metric="analysis('feature_reuse')",
        expect="at_least",
        bound=0.1,
        paper=(
            "a heat map; the bound is ours, and new weights start at one, from where a desk run "
            "would not move them"
        ),
        scales={"gpu": Scale(_GPU | _SPLITS | {"model.variant": "40-12"})},
    ),
    "densenet_dropout": Claim(
        statement="On images without augmentation dropout of 0.2 lowers the error.",
        source="DenseNet §4.2",
        arms=_DROPOUT,
        metric="last('val/top1_error')",
        expect="lower",
        paper="adds it there and there alone; gives no figure without it",
        scales={
            "desk": Scale(_DESK | _PLAIN_IMAGES | _FEW),
            "gpu": Scale(_GPU | _SPLITS | _PLAIN_IMAGES),
        },
    ),
}
