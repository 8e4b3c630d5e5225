"""OverFeat (Sermanet, Eigen, Zhang, Mathieu, Fergus, LeCun, ICLR 2014, arXiv:1312.6229).

python -m cnn_papers.main --config=configs/overfeat.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/overfeat.py:imagenet2012
    §3.1; --config.model.variant=accurate for the other network
"""

from typing import Any

from cnn_papers.facts import top1_and_top5
from configs import common

FIELDS = {
    "net": str,
    "fine": bool,
    "conv1_stride": int,
    "dropout": float,
    "weight_init": str,
    "width": float,
}


def desk() -> Any:
    """The fast network, a quarter as wide, its first stride halved for small images."""
    config = common.base(
        "overfeat", "fast", 10, FIELDS | {"width": 0.25, "weight_init": "he", "conv1_stride": 2}
    )
    common.on_digits(config, side=64, epochs=8.0, lr=0.02)
    config.optim.weight_decay = 1e-5  # §3.1
    return config


def imagenet2012() -> Any:
    """§3.1, but with one crop of an image a pass; the paper has five."""
    config = common.base("overfeat", "fast", 1000, FIELDS)
    common.on_imagenet(
        config,
        # §3.1; 231 is the fast network's input
        train_host="decode|resize_short(256)|random_crop(231)",
        eval_host="decode|resize_short(256)|center_crop(231)",  # not in paper: to watch training by
    )
    config.data.train_device = "flip|standardize"  # §3.1
    config.data.eval_device = "standardize"
    config.eval.protocol = "single_view|overfeat_dense"  # §3.3: six scales, fine stride; Table 2
    config.batch_size = 128  # §3.1
    config.total_epochs = 90.0  # not in paper: it names the drops only
    config.optim.lr, config.optim.lr_batch = 0.05, 128  # §3.1
    config.optim.momentum = 0.6  # §3.1
    config.optim.weight_decay = 1e-5  # §3.1
    config.optim.schedule = "step_epochs(30, 50, 60, 70, 80, factor=0.5)"  # §3.1
    return config


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`: desk (also for "") or imagenet2012."""
    recipes = {"desk": desk, "imagenet2012": imagenet2012}
    return common.choose(recipes, recipe, name="overfeat", paper="imagenet2012")


REPORTED = (
    *top1_and_top5(
        "imagenet2012",
        {"fast": (39.01, 16.97)},
        protocol="1 scale, fine stride; the recipe tests at six",
        measured_by="",
        source="Table 2",
    ),
    *top1_and_top5(
        "imagenet2012",
        {"fast": (38.12, 16.27)},
        protocol="6 scales, fine stride",
        measured_by="overfeat_dense",
        source="Table 2",
    ),
    *top1_and_top5(
        "imagenet2012",
        {"accurate": (35.74, 14.18)},
        protocol="4 scales, fine stride; the recipe tests at six",
        measured_by="",
        source="Table 2",
    ),
    *top1_and_top5(
        "imagenet2012",
        {"accurate": (33.96, 13.24)},
        protocol="7 models, fine stride; a run is of one",
        measured_by="",
        source="Table 2",
    ),
)
