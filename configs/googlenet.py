"""GoogLeNet (Szegedy et al., CVPR 2015, arXiv:1409.4842).

python -m cnn_papers.main --config=configs/googlenet.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/googlenet.py:imagenet2012
    the paper's recipe
python -m cnn_papers.main --config=configs/googlenet.py:torchvision
    for the weights that torchvision publishes
"""

from typing import Any

from cnn_papers.facts import Reported
from configs import common

FIELDS = {
    "aux_heads": bool,
    "reduce": bool,
    "stem": str,
    "lrn": bool,
    "lrn_constants": str,
    "batch_norm": bool,
    "large_kernel": int,
    "pool4_window": int,
    "aux_cells": int,
    "dropout": float,
    "aux_dropout": float,
    "weight_init": str,
    "width": float,
}


def desk() -> Any:
    """The paper's network, half as wide."""
    # ours: for two cores
    config = common.base(
        "googlenet", "paper", 10, FIELDS | {"width": 0.5, "dropout": 0.2, "aux_dropout": 0.5}
    )
    common.on_digits(config, side=32, epochs=16.0, lr=0.02)
    # ours: without batch normalisation it takes many steps to get going
    config.batch_size = config.optim.lr_batch = 32
    # ours: without batch normalisation it is slow to get going
    config.optim.warmup_epochs = 1.0
    config.loss.aux_weight = 0.3  # §5
    config.optim.weight_decay = 2e-4  # not in paper: bvlc_googlenet's solver.prototxt
    return config


def imagenet2012() -> Any:
    """The paper's recipe; what it leaves open follows Caffe's bvlc_googlenet.

    That is its train_val.prototxt (layers) and its solver.prototxt (the optimiser), whose rate
    falls as §6 says: 320,000 iterations of 32 images are 8 epochs. Its quick_solver.prototxt, which
    trained the published weights, falls along a polynomial over 60 epochs instead.
    """
    config = common.base("googlenet", "paper", 1000, FIELDS)  # Table 1
    # not in paper: train_val.prototxt
    config.model.lrn_constants = config.model.weight_init = "caffe"
    common.on_imagenet(
        config,
        # §6; the interpolation is random too, which the paper began "relatively late"
        train_host="decode|area_aspect_crop(224, (0.08, 1.0), (0.75, 1.3333333333))",
        eval_host="decode|resize_short(256)|center_crop(224)",  # Table 3: 1 crop
    )
    # §6: the distortions of Howard: brightness, contrast and colour, then AlexNet's lighting noise
    # (arXiv:1312.5402 §2). Not in paper: mirror images and mean colour, as in train_val.prototxt
    config.data.train_device = "flip|photometric|pca_light(0.1)|subtract_mean"
    config.data.eval_device = "subtract_mean"  # not in paper: train_val.prototxt
    config.eval.protocol = "single_view|ten_crop|crops_144"  # §7, Table 3
    config.batch_size = 256  # ours: 32 in train_val.prototxt; larger batches train faster
    # not in paper: solver.prototxt, 10,000,000 iterations of 32 images. The rate is then 28 % of
    # the first: averaging the parameters takes the place of a lower rate
    config.total_epochs = 250.0
    config.loss.aux_weight = 0.3  # §5
    config.optim.lr, config.optim.lr_batch = 0.01, 32  # not in paper: solver.prototxt
    config.optim.momentum = 0.9  # §6; ours: synchronous steps, where the paper's are asynchronous
    config.optim.weight_decay = 2e-4  # not in paper: solver.prototxt
    config.optim.lr_mults = ((".*/bias", 2.0),)  # not in paper: train_val.prototxt
    config.optim.wd_mults = ((".*/bias", 0.0),)  # not in paper: train_val.prototxt
    config.optim.schedule = "exponential(0.96, every_epochs=8)"  # §6
    config.optim.warmup_epochs = 2.0  # ours: because of the batch of 256 at Caffe's rate for 32
    config.optim.ema_decay = 0.9999  # §6: Polyak averaging; ours: its decay
    return config


def torchvision() -> Any:
    """For the weights of torchvision's googlenet.

    It was trained on colours in -1 … 1 (`transform_input`).
    """
    config = imagenet2012()
    config.model.variant = "torchvision"  # torchvision's googlenet
    config.model.lrn_constants = config.model.weight_init = None  # the variant's
    # torchvision's transform_input
    common.as_torchvision(config, mean=(127.5, 127.5, 127.5), std=(127.5, 127.5, 127.5))
    return config


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`: desk (also for ""), imagenet2012 or torchvision."""
    recipes = {"desk": desk, "imagenet2012": imagenet2012, "torchvision": torchvision}
    return common.choose(recipes, recipe, name="googlenet", paper="imagenet2012")


_TABLE_3 = {  # top-5 error by the number of crops of one model, and our protocol
    "1 crop": (10.07, "single_view"),
    "10 crops": (9.15, "ten_crop"),
    "144 crops": (7.89, "crops_144"),
    "144 crops, 7 models; a run is of one": (6.67, ""),
}
REPORTED = tuple(
    Reported(
        recipe="imagenet2012",
        variant="paper",
        metric="top5_error",
        value=error,
        data="imagenet2012[validation]",
        protocol=protocol,
        measured_by=measured_by,
        source="Table 3",
    )
    for protocol, (error, measured_by) in _TABLE_3.items()
)
