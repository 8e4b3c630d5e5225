"""VGG (Simonyan & Zisserman, ICLR 2015, arXiv:1409.1556).

python -m cnn_papers.main --config=configs/vgg.py                  desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/vgg.py:imagenet2012     the paper's; --config.model.variant=A … E
"""

from typing import Any

from cnn_papers.facts import Reported
from configs import common

FIELDS = {
    "stages": tuple,
    "lrn": bool,
    "batch_norm": bool,
    "dropout": float,
    "weight_init": str,
    "width": float,
}


def desk() -> Any:
    """Configuration A, an eighth as wide."""
    config = common.base("vgg", "A", 10, FIELDS | {"width": 0.125, "weight_init": "he"})
    common.on_digits(config, side=32, epochs=12.0, lr=0.02)
    _sgd(config)
    return config


def imagenet2012() -> Any:
    """The paper's recipe at a fixed training scale S = 256, configuration D from random initialisation."""
    config = common.base(
        "vgg", "D", 1000, FIELDS | {"weight_init": "glorot"}
    )  # §3.1: Glorot's works without pre-training
    common.on_imagenet(
        config,
        train_host="decode|resize_short(256)|random_crop(224)",  # §3.1
        eval_host="decode|resize_short(256)|center_crop(224)",  # not in paper: it is dense over the whole image
    )
    config.data.train_device = "flip|pca_light(0.1)|subtract_mean"  # §3.1: the colour shift of AlexNet; §2.1
    config.data.eval_device = "subtract_mean"
    _sgd(config)
    config.batch_size = 256  # §3.1
    config.total_epochs = 74.0  # §3.1
    config.optim.lr, config.optim.lr_batch = 0.01, 256  # §3.1
    config.optim.schedule = "plateau(0.1, patience=3)"  # §3.1; patience not in paper
    return config


def _sgd(config: Any) -> None:
    config.optim.momentum = 0.9  # §3.1
    config.optim.momentum_form = "caffe"  # §3.1: derived from Caffe
    config.optim.weight_decay = 5e-4  # §3.1


def get_config(recipe: str = "") -> Any:
    """The config of `recipe`: desk (also for "") or imagenet2012."""
    return common.choose({"desk": desk, "imagenet2012": imagenet2012}, recipe, name="vgg", paper="imagenet2012")


REPORTED = (
    Reported("imagenet2012", "val/top1_error", 27.0, "D, S = Q = 256, dense", "Table 3"),
    Reported("imagenet2012", "val/top5_error", 8.8, "D, S = Q = 256, dense", "Table 3"),
    Reported("imagenet2012", "val/top1_error", 29.6, "A, S = Q = 256, dense", "Table 3"),
    Reported("imagenet2012", "val/top1_error", 27.3, "E, S = Q = 256, dense", "Table 3"),
)
