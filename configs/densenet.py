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
    config = common.base("densenet", "BC-40-12", 10, FIELDS | {"blocks": (3, 3, 3)})
    common.on_digits(config, side=32, epochs=6.0, lr=0.1)
    _sgd(config)
    return config


def cifar10() -> Any:
    """§4.2 with flips and shifts.

    For results without them, drop both from train_device and set model.dropout=0.2 (§4.2).
    """
    config = common.base("densenet", "BC-100-12", 10, FIELDS)
    _sgd(config)
    config.batch_size = 64  # §4.2
    config.total_epochs = 300.0  # §4.2
    config.data.name = "cifar10"
    config.data.train_device = "standardize|pad_crop(4)|flip"  # §4.1
    config.data.eval_device = "standardize"  # §4.1
    config.optim.lr, config.optim.lr_batch = 0.1, 64  # §4.2
    config.optim.schedule = "step_fractions(0.5, 0.75)"  # §4.2
    config.eval.every_epochs = 5.0
    config.checkpoint.every_steps = 1000
    return config


def imagenet2012() -> Any:
    """§4.2; the pipeline is fb.resnet.torch's, which it names."""
    config = common.base("densenet", "121", 1000, FIELDS)
    common.on_imagenet(
        config,
        train_host="decode|area_aspect_crop(224, (0.08, 1.0), (0.75, 1.3333333333))",
        eval_host="decode|resize_short(256)|center_crop(224)",  # Table 3: single crop
    )
    config.data.train_device = "flip|pca_light(0.1)|standardize"
    config.data.eval_device = "standardize"
    config.eval.protocol = "single_view|ten_crop"  # Table 3
    _sgd(config)
    config.batch_size = 256  # §4.2
    config.total_epochs = 90.0  # §4.2
    config.optim.lr, config.optim.lr_batch = 0.1, 256  # §4.2
    config.optim.schedule = "step_epochs(30, 60)"  # §4.2
    return config


def torchvision() -> Any:
    """For the weights of torchvision's densenet121.

    `--config.model.variant=161`, 169 or 201 for the others.
    """
    config = imagenet2012()
    config.model.variant = "121"
    common.as_torchvision(config, **common.IMAGENET_COLOUR)
    return config


def _sgd(config: Any) -> None:
    config.optim.momentum = 0.9  # §4.2
    config.optim.momentum_form = "torch"  # the authors' implementation
    config.optim.nesterov = True  # §4.2
    config.optim.weight_decay = 1e-4  # §4.2


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
)
