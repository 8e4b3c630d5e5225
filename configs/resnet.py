"""ResNet (He et al., CVPR 2016, arXiv:1512.03385).

python -m cnn_papers.main --config=configs/resnet.py                desk: embedded digits, a minute or two on two cores
python -m cnn_papers.main --config=configs/resnet.py:cifar10        §4.2, ResNet-20; --config.model.variant=cifar-56 …
python -m cnn_papers.main --config=configs/resnet.py:imagenet2012   §3.4, ResNet-50
"""

from typing import Any

from cnn_papers.facts import Reported
from configs import common

FIELDS = {
    "blocks": tuple,
    "widths": tuple,
    "bottleneck": bool,
    "shortcut": str,
    "stride_in": str,
    "stem": str,
    "scan": bool,
    "width": float,
}


def desk() -> Any:
    """The eight-layer member of the CIFAR family."""
    config = common.base("resnet", "cifar-8", 10, FIELDS)
    common.on_digits(config, side=32, epochs=8.0, lr=0.05)
    _sgd(config)
    return config


def cifar10() -> Any:
    """§4.2, trained on 45k and judged on 5k as the paper chose its schedule; `train` and `test` for its Table 6."""
    config = common.base("resnet", "cifar-20", 10, FIELDS)
    _sgd(config)
    config.batch_size = 128  # §4.2
    config.total_steps = 64_000  # §4.2
    config.data.name = "cifar10"
    config.data.train_split, config.data.eval_split = "train[:45000]", "train[45000:]"  # §4.2
    config.data.train_device = "subtract_mean_image|pad_crop(4)|flip|scale(0.0078125)"  # §4.2; scale not in paper
    config.data.eval_device = "subtract_mean_image|scale(0.0078125)"
    config.optim.lr = 0.1  # §4.2
    config.optim.schedule = "step(32000, 48000)"  # §4.2
    config.eval.every_epochs = 5.0
    config.checkpoint.every_steps = 1000
    return config


def imagenet2012() -> Any:
    """§3.4. The paper drops the rate when the error plateaus; its released code does at fixed steps."""
    config = common.base("resnet", "50", 1000, FIELDS)
    _sgd(config)
    common.on_imagenet(
        config,
        train_host="decode|resize_short_between(256, 480)|random_crop(224)",  # §3.4
        eval_host="decode|resize_short(256)|center_crop(224)",  # not in paper: it tests ten crops and dense
    )
    config.data.train_device = "pca_light(0.1)|subtract_mean_image|flip|scale(0.0078125)"  # §3.4; scale not in paper
    config.data.eval_device = "subtract_mean_image|scale(0.0078125)"
    config.batch_size = 256  # §3.4
    config.total_steps = 600_000  # §3.4
    config.optim.lr, config.optim.lr_batch = 0.1, 256  # §3.4
    config.optim.schedule = "plateau(0.1, patience=5)"  # §3.4; patience not in paper
    return config


def _sgd(config: Any) -> None:
    """What §3.4 and §4.2 share; the velocity holds the learning rate, as in the authors' Caffe."""
    config.optim.momentum = 0.9  # §3.4, §4.2
    config.optim.momentum_form = "caffe"
    config.optim.weight_decay = 1e-4  # §3.4, §4.2


def get_config(recipe: str = "") -> Any:
    """The config of `recipe`: desk (also for ""), cifar10 or imagenet2012."""
    recipes = {"desk": desk, "cifar10": cifar10, "imagenet2012": imagenet2012}
    return common.choose(recipes, recipe, name="resnet", paper="imagenet2012")


REPORTED = (
    Reported("cifar10", "val/top1_error", 8.75, "ResNet-20, trained on 50k, test set", "Table 6"),
    Reported("cifar10", "val/top1_error", 6.97, "ResNet-56, trained on 50k, test set", "Table 6"),
    Reported("cifar10", "val/top1_error", 6.43, "ResNet-110, trained on 50k, test set", "Table 6"),
    Reported("imagenet2012", "val/top1_error", 22.85, "ResNet-50, 10 crops", "Table 3"),
    Reported(
        "imagenet2012", "val/top1_error", 24.7, "ResNet-50, 1 crop", "github.com/KaimingHe/deep-residual-networks"
    ),
)
