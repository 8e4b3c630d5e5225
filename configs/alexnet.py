"""AlexNet (Krizhevsky et al., NIPS 2012).

python -m cnn_papers.main --config=configs/alexnet.py                  desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/alexnet.py:imagenet2012     the paper's
"""

from typing import Any

from cnn_papers.facts import Reported
from configs import common

FIELDS = {
    "columns": int,
    "halved": tuple,
    "activation": str,
    "lrn": bool,
    "pool": tuple,
    "dropout": float,
    "weight_init": str,
    "width": float,
}


def desk() -> Any:
    """The paper's network, a quarter as wide, on 8×8 digits enlarged to 67×67."""
    config = common.base("alexnet", "paper", 10, FIELDS | {"width": 0.25, "weight_init": "he"})
    _sgd(config)
    config.batch_size = 64  # not in paper: the data set is small
    config.total_epochs = 12.0
    config.log_every_steps = 25
    config.data.train_host = config.data.eval_host = "decode|resize(67, method='bicubic')"
    config.data.train_device = "pad_crop(4)|standardize"
    config.data.eval_device = "standardize"
    config.optim.lr, config.optim.lr_batch = 0.01, 64
    config.optim.schedule = "cosine"  # not in paper: fits a short run
    config.eval.every_epochs = 2.0
    config.checkpoint.every_steps = 50
    return config


def imagenet2012() -> Any:
    """The paper's recipe."""
    config = common.base("alexnet", "paper", 1000, FIELDS)
    _sgd(config)
    config.model.dtype = "bfloat16"  # not in paper: for TPU and GPU
    config.batch_size = 128  # §5
    config.total_epochs = 90.0  # §5: roughly 90 cycles
    config.data.name = "imagenet2012"
    config.data.eval_split = "validation"
    config.data.train_host = "decode|resize_short(256)|center_crop(256)|random_crop(227)"  # §2, §4.1; 227 gives 55×55
    config.data.train_device = "flip|pca_light(0.1)|subtract_mean_image"  # §4.1, §2
    config.data.eval_host = "decode|resize_short(256)|center_crop(227)"  # not in paper: it averages ten crops
    config.data.eval_device = "subtract_mean_image"
    config.optim.lr, config.optim.lr_batch = 0.01, 128  # §5
    config.optim.schedule = "plateau(0.1, patience=3)"  # §5: by hand, when the validation error stopped improving
    config.checkpoint.every_steps = 2000
    return config


def _sgd(config: Any) -> None:
    config.optim.momentum = 0.9  # §5
    config.optim.momentum_form = "caffe"  # §5: v ← 0.9·v − 0.0005·ε·w − ε·g
    config.optim.weight_decay = 5e-4  # §5


def get_config(recipe: str = "") -> Any:
    """The config of `recipe`: desk (also for "") or imagenet2012."""
    return common.choose({"desk": desk, "imagenet2012": imagenet2012}, recipe, name="alexnet", paper="imagenet2012")


REPORTED = (
    Reported("imagenet2012", "val/top1_error", 40.7, "1 network, 10 crops, ILSVRC-2012", "Table 2"),
    Reported("imagenet2012", "val/top5_error", 18.2, "1 network, 10 crops, ILSVRC-2012", "Table 2"),
)
