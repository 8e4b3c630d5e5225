"""CNN-F, CNN-M, CNN-S (Chatfield, Simonyan, Vedaldi, Zisserman, BMVC 2014, arXiv:1405.3531).

python -m cnn_papers.main --config=configs/cnn_fms.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/cnn_fms.py:imagenet2012
    §3.2; --config.model.variant=M … for the other networks
"""

from typing import Any

from cnn_papers.facts import Reported
from configs import common

FIELDS = {
    "net": str,
    "fc7_units": int,
    "gray": bool,
    "conv1_stride": int,
    "lrn": bool,
    "dropout": float,
    "weight_init": str,
    "width": float,
}


def desk() -> Any:
    """CNN-F, a quarter as wide."""
    # ours: for two cores; narrow networks need He et al.'s initial weights to start learning
    config = common.base("cnn_fms", "F", 10, FIELDS | {"width": 0.25, "weight_init": "he"})
    common.on_digits(config, side=64, epochs=24.0, lr=0.01)
    # ours: without batch normalisation it takes many steps to get going
    config.batch_size = config.optim.lr_batch = 32
    # ours: without batch normalisation it is slow to get going
    config.optim.warmup_epochs = 1.0
    _sgd(config)
    return config


def imagenet2012() -> Any:
    """The paper's recipe, which follows AlexNet's (§3.2).

    Weights start from N(0, 0.01²), biases have twice the rate and no decay, as in the authors'
    matconvnet (examples/imagenet/cnn_imagenet_init.m). `--config.model.weight_init=paper` for the
    variance of 10⁻² that §3.2 prints.
    """
    config = common.base("cnn_fms", "F", 1000, FIELDS)  # Table 1
    common.on_imagenet(
        config,
        train_host="decode|resize_short(256)|random_crop(224)",  # §3.2
        eval_host="decode|resize_short(256)|center_crop(224)",  # not in paper: to watch training by
    )
    # §3.2, as AlexNet §2, §4.1; ours: the mean image is that of central crops, for every crop
    config.data.train_device = "flip|pca_light(0.1)|subtract_mean_image"
    config.data.eval_device = "subtract_mean_image"  # §3.2; ours: as in training
    # §3.2: four corners and centre of the whole image
    config.eval.protocol = "single_view|ten_crop(whole=True)"
    _sgd(config)
    config.batch_size = 128  # not in paper: AlexNet's
    config.total_epochs = 90.0  # not in paper: AlexNet's
    config.optim.lr, config.optim.lr_batch = 0.01, 128  # §3.2
    # §3.2; not in paper: the patience, and no limit on the drops
    config.optim.schedule = "plateau(0.1, patience=3)"
    config.optim.lr_mults = ((".*/bias", 2.0),)  # not in paper: cnn_imagenet_init.m
    config.optim.wd_mults = ((".*/bias", 0.0),)  # not in paper: cnn_imagenet_init.m
    return config


def _sgd(config: Any) -> None:
    config.optim.momentum = 0.9  # §3.2
    config.optim.momentum_form = "caffe"  # §3.2: derived from Caffe
    config.optim.weight_decay = 5e-4  # §3.2


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`: desk (also for "") or imagenet2012."""
    recipes = {"desk": desk, "imagenet2012": imagenet2012}
    return common.choose(recipes, recipe, name="cnn_fms", paper="imagenet2012")


_TABLE_3, _PUBLISHED = "Table 3", "the authors' published networks"
_TOP5 = {
    "F": (16.7, _TABLE_3),
    "M": (13.7, _TABLE_3),
    "S": (13.1, _TABLE_3),
    "M-2048": (13.5, _TABLE_3),
    "M-1024": (13.7, _PUBLISHED),
    "M-128": (15.6, _PUBLISHED),
}
REPORTED = tuple(
    Reported(
        recipe="imagenet2012",
        variant=variant,
        metric="top5_error",
        value=error,
        data="imagenet2012[validation]",
        protocol="10 crops of the whole image",
        measured_by="ten_crop(whole=True)",
        source=source,
    )
    for variant, (error, source) in _TOP5.items()
)
