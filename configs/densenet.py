"""DenseNet (Huang et al., CVPR 2017, arXiv:1608.06993).

python -m cnn_papers.main --config=configs/densenet.py                  desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/densenet.py:cifar10          §4.2, with augmentation (C10+)
python -m cnn_papers.main --config=configs/densenet.py:imagenet2012     §4.2, DenseNet-121
"""

from typing import Any

from cnn_papers.facts import Reported
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
    """§4.2 with flips and shifts; for results without, drop both from train_device and set model.dropout=0.2 (§4.2)."""
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
        eval_host="decode|resize_short(256)|center_crop(224)",  # §4.2: one crop
    )
    config.data.train_device = "flip|pca_light(0.1)|standardize"
    config.data.eval_device = "standardize"
    _sgd(config)
    config.batch_size = 256  # §4.2
    config.total_epochs = 90.0  # §4.2
    config.optim.lr, config.optim.lr_batch = 0.1, 256  # §4.2
    config.optim.schedule = "step_epochs(30, 60)"  # §4.2
    return config


def _sgd(config: Any) -> None:
    config.optim.momentum = 0.9  # §4.2
    config.optim.momentum_form = "torch"  # the authors' implementation
    config.optim.nesterov = True  # §4.2
    config.optim.weight_decay = 1e-4  # §4.2


def get_config(recipe: str = "") -> Any:
    """The config of `recipe`: desk (also for ""), cifar10 or imagenet2012."""
    recipes = {"desk": desk, "cifar10": cifar10, "imagenet2012": imagenet2012}
    return common.choose(recipes, recipe, name="densenet", paper="imagenet2012")


REPORTED = (
    Reported("cifar10", "val/top1_error", 4.51, "BC-100-12, trained on 50k, test set, C10+", "Table 2"),
    Reported("cifar10", "val/top1_error", 5.24, "40-12, trained on 50k, test set, C10+", "Table 2"),
    Reported("imagenet2012", "val/top1_error", 25.02, "DenseNet-121, 1 crop", "Table 3"),
    Reported("imagenet2012", "val/top5_error", 7.71, "DenseNet-121, 1 crop", "Table 3"),
)
