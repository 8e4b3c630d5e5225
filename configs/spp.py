"""SPP-net (He, Zhang, Ren, Sun, ECCV 2014, arXiv:1406.4729).

python -m cnn_papers.main --config=configs/spp.py                  desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/spp.py:imagenet2012     §3.1, ZF-5 with the 50-bin pyramid, one size
"""

from typing import Any

from cnn_papers.facts import Reported
from configs import common

FIELDS = {
    "net": str,
    "levels": tuple,
    "conv1_stride": int,
    "lrn": bool,
    "dropout": float,
    "weight_init": str,
    "width": float,
}


def desk() -> Any:
    """ZF-5, a quarter as wide, with a pyramid that fits small maps."""
    config = common.base("spp", "zf5", 10, FIELDS | {"width": 0.25, "weight_init": "he", "levels": (3, 2, 1)})
    common.on_digits(config, side=64, epochs=8.0, lr=0.02)
    _sgd(config)
    return config


def imagenet2012() -> Any:
    """§3.1 at the single size 224; the paper crops centre and corners of the whole image, here a random window."""
    config = common.base("spp", "zf5", 1000, FIELDS)
    common.on_imagenet(
        config,
        train_host="decode|resize_short(256)|random_crop(224)",  # §3.1
        eval_host="decode|resize_short(256)|center_crop(224)",  # not in paper: Table 2 averages ten views
    )
    config.data.train_device = "flip|pca_light(0.1)|subtract_mean_image"  # §3.1: "some colour altering", AlexNet's
    config.data.eval_device = "subtract_mean_image"
    _sgd(config)
    config.batch_size = 128  # not in paper: AlexNet's
    config.total_epochs = 70.0  # §3.1
    config.optim.lr, config.optim.lr_batch = 0.01, 128  # §3.1
    config.optim.schedule = "plateau(0.1, patience=3)"  # §3.1: twice, when the error plateaus
    return config


def _sgd(config: Any) -> None:
    """§3.1 follows Zeiler & Fergus, who follow AlexNet."""
    config.optim.momentum = 0.9
    config.optim.momentum_form = "caffe"
    config.optim.weight_decay = 5e-4


def get_config(recipe: str = "") -> Any:
    """The config of `recipe`: desk (also for "") or imagenet2012."""
    return common.choose({"desk": desk, "imagenet2012": imagenet2012}, recipe, name="spp", paper="imagenet2012")


REPORTED = (
    Reported("imagenet2012", "val/top1_error", 34.98, "ZF-5, SPP, single-size, 10 views", "Table 2"),
    Reported("imagenet2012", "val/top1_error", 35.99, "ZF-5, no SPP, 10 views", "Table 2"),
    Reported("imagenet2012", "val/top1_error", 38.01, "ZF-5, SPP, single-size, 1 view", "Table 3"),
)
