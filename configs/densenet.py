"""DenseNet (Huang et al., CVPR 2017, arXiv:1608.06993).

python -m cnn_papers.main --config=configs/densenet.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/densenet.py:cifar10
    §4.2, with augmentation (C10+)
python -m cnn_papers.main --config=configs/densenet.py:imagenet2012
    §4.2, DenseNet-121
python -m cnn_papers.main --config=configs/densenet.py:torchvision
    for the weights that torchvision publishes
"""

from typing import Any

from cnn_papers.facts import Reported, top1_and_top5
from configs import common

FIELDS = {
    "blocks": tuple,
    "growth": int,
    "bottleneck": bool,
    "compression": float,
    "stem": str,
    "stem_features": int,
    "dropout": float,
    "memory_efficient": bool,
    "width": float,
}


def desk() -> Any:
    """DenseNet-BC with three layers a block."""
    # ours: three layers a block train in a minute
    config = common.base("densenet", "BC-40-12", 10, FIELDS | {"blocks": (3, 3, 3)})
    common.on_digits(config, side=32, epochs=6.0, lr=0.1)
    _sgd(config)
    return config


def cifar10() -> Any:
    """§4.2 with flips and shifts.

    For results without them, drop both from train_device and set model.dropout=0.2 (§4.2).
    """
    config = common.base("densenet", "BC-100-12", 10, FIELDS)  # Table 2
    _sgd(config)
    config.batch_size = 64  # §4.2
    config.total_epochs = 300.0  # §4.2
    config.data.name = "cifar10"  # §4.1
    config.data.train_device = "standardize|pad_crop(4)|flip"  # §4.1
    config.data.eval_device = "standardize"  # §4.1
    config.optim.lr, config.optim.lr_batch = 0.1, 64  # §4.2
    config.optim.schedule = "step_fractions(0.5, 0.75)"  # §4.2
    config.eval.every_epochs = 5.0  # ours: how often to look
    config.checkpoint.every_steps = 1000  # ours: how often to save
    return config


def imagenet2012() -> Any:
    """§4.2; the pipeline is fb.resnet.torch's, which the authors' README names.

    Where ours differs from its datasets/imagenet.lua: the logarithm of a window's aspect is drawn
    evenly, theirs is even between 3/4 and 4/3, then inverted half of the time; the directions and
    sizes of the colour noise are those of the training images, theirs are constants that were
    measured on a part of ImageNet.
    """
    config = common.base("densenet", "121", 1000, FIELDS)  # Table 1
    common.on_imagenet(
        config,
        # fb.resnet.torch: RandomSizedCrop(224), bicubic
        train_host="decode|area_aspect_crop(224, (0.08, 1.0), (0.75, 1.3333333333), 'bicubic')",
        # fb.resnet.torch: Scale(256), bicubic; CenterCrop(224)
        eval_host="decode|resize_short(256, 'bicubic')|center_crop(224)",
    )
    # fb.resnet.torch: ColorJitter .4, .4, .4; Lighting .1; ColorNormalize; HorizontalFlip
    config.data.train_device = f"{_JITTER}|pca_light(0.1)|{_NORMALISED}|flip"
    config.data.eval_device = _NORMALISED  # fb.resnet.torch: ColorNormalize
    # Table 3: 1 crop and 10; fb.resnet.torch, TenCrop: of the whole image at shorter side 256
    config.eval.protocol = "single_view|ten_crop(whole=True)"
    _sgd(config)
    config.batch_size = 256  # §4.2
    config.optim.bn_group = 64  # authors' README: -nGPU 4, each with its own statistics
    config.total_epochs = 90.0  # §4.2
    config.optim.lr, config.optim.lr_batch = 0.1, 256  # §4.2
    config.optim.schedule = "step_epochs(30, 60)"  # §4.2
    return config


def torchvision() -> Any:
    """For the weights of torchvision's densenet121.

    `--config.model.variant=161`, 169 or 201 for the others.
    """
    config = imagenet2012()
    config.model.variant = "121"  # torchvision's densenet121
    common.as_torchvision(config, **common.IMAGENET_COLOUR)  # torchvision's weights; ours: the rest
    return config


def _sgd(config: Any) -> None:
    config.optim.momentum = 0.9  # §4.2
    config.optim.momentum_form = "torch"  # the authors' implementation
    config.optim.nesterov = True  # §4.2
    config.optim.weight_decay = 1e-4  # §4.2; on all parameters, as the authors' implementation


# Factors are 1 ± 0.4, in random order; fb.resnet.torch does not clip.
_JITTER = "photometric((0.6, 1.4), (0.6, 1.4), (0.6, 1.4), clip=False)"
# The constants of fb.resnet.torch, which torchvision took over.
_NORMALISED = "normalize({mean}, {std})".format(**common.IMAGENET_COLOUR)


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`: desk (also for ""), cifar10, imagenet2012 or torchvision."""
    recipes = {
        "desk": desk,
        "cifar10": cifar10,
        "imagenet2012": imagenet2012,
        "torchvision": torchvision,
    }
    return common.choose(recipes, recipe, name="densenet", paper="imagenet2012")


_C10 = {  # Table 2, the column C10+
    "40-12": 5.24,
    "100-12": 4.10,
    "100-24": 3.74,
    "BC-100-12": 4.51,
    "BC-250-24": 3.62,
    "BC-190-40": 3.46,
}
REPORTED = (
    *(
        Reported(
            recipe="cifar10",
            variant=variant,
            metric="top1_error",
            value=error,
            data="cifar10[test]",
            protocol="trained on 50k, C10+",
            measured_by="single_view",
            source="Table 2",
        )
        for variant, error in _C10.items()
    ),
    *top1_and_top5(
        "imagenet2012",
        {"121": (25.02, 7.71), "169": (23.80, 6.85), "201": (22.58, 6.34), "264": (22.15, 6.12)},
        protocol="1 crop",
        measured_by="single_view",
        source="Table 3",
    ),
    *top1_and_top5(
        "imagenet2012",
        {"121": (23.61, 6.66), "169": (22.08, 5.92), "201": (21.46, 5.54), "264": (20.80, 5.29)},
        protocol="10 crops",
        measured_by="ten_crop(whole=True)",
        source="Table 3",
    ),
)
