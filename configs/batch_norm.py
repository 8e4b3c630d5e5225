"""Batch normalisation (Ioffe, Szegedy, ICML 2015, arXiv:1502.03167) in AlexNet.

The paper's own network, Inception, is not here.

    python -m cnn_papers.main --config=configs/batch_norm.py
        desk: embedded digits, minutes on two cores
    python -m cnn_papers.main --config=configs/batch_norm.py:imagenet2012
        AlexNet's recipe with the changes of §4.2.1
"""

from typing import Any

from cnn_papers.facts import top1_and_top5
from configs import common

FIELDS = common.ALEXNET


def desk() -> Any:
    """AlexNet's desk recipe, a quarter as wide, at the smallest side that the network takes."""
    # ours: a quarter of the width and He's initial weights train it in minutes
    config = common.base("alexnet", "batch_norm", 10, FIELDS | {"width": 0.25, "weight_init": "he"})
    common.on_digits(config, side=67, epochs=12.0, lr=0.01)
    config.optim.weight_decay = 5e-4  # AlexNet §5, as its desk recipe, to compare with
    config.optim.momentum = 0.9  # AlexNet §5
    return config


def imagenet2012() -> Any:
    """AlexNet's recipe with the changes that the paper makes to Inception's for its BN-x5."""
    config = common.base("alexnet", "batch_norm", 1000, FIELDS)  # ours: the paper has Inception
    common.on_imagenet(
        config,
        # AlexNet §2, §4.1
        train_host="decode|resize_short(256)|center_crop(256)|random_crop(227)",
        eval_host="decode|resize_short(256)|center_crop(227)",  # §4.2: on a single crop
    )
    # AlexNet §2; §4.2.1: fewer distortions, so no shift of colours. Ours: the mean image is that of
    # central crops
    config.data.train_device = "flip|subtract_mean_image"
    config.data.eval_device = "subtract_mean_image"  # AlexNet §2; ours: as in training
    # §3.1, Algorithm 2: means of batches' statistics; their number is not in paper, and its factor
    # m / (m - 1) of the variance is 1 within 1e-4 for these maps
    config.eval.precise_bn = 200
    config.model.dropout = 0.0  # §4.2.1
    config.batch_size = 128  # AlexNet §5
    # §4.2.1: the learning rate falls six times as fast; AlexNet's 90 epochs
    config.total_epochs = 15.0
    config.optim.lr, config.optim.lr_batch = 0.05, 128  # §4.2.2: BN-x5, five times AlexNet's
    config.optim.schedule = "plateau(0.1, patience=1)"  # not in paper: AlexNet's rule, sooner
    config.optim.momentum = 0.9  # AlexNet §5
    config.optim.weight_decay = 1e-4  # §4.2.1: a fifth; of γ and β too, not in paper
    return config


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`: desk (also for "") or imagenet2012."""
    recipes = {"desk": desk, "imagenet2012": imagenet2012}
    return common.choose(recipes, recipe, name="batch_norm", paper="imagenet2012")


REPORTED = top1_and_top5(
    "imagenet2012",
    {"batch_norm": (39.9, 18.1)},
    protocol="1 crop; trained by another recipe",
    measured_by="",
    source="cvjena/cnn-models, AlexNet_cvgj; not of this paper",
)
