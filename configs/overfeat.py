"""OverFeat (Sermanet, Eigen, Zhang, Mathieu, Fergus, LeCun, ICLR 2014, arXiv:1312.6229).

python -m cnn_papers.main --config=configs/overfeat.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/overfeat.py:imagenet2012
    §3.1, the fast network
python -m cnn_papers.main --config=configs/overfeat.py:accurate
    §3.1, the accurate network

To localize and to detect, first train a classifier, on objects cut out of the same images:

python -m cnn_papers.main --config=configs/overfeat.py:scenes_classify
python -m cnn_papers.main --config=configs/overfeat.py:scenes_localize
    §4, the regressor on its features; embedded scenes, minutes on two cores
python -m cnn_papers.main --config=configs/overfeat.py:scenes_detect
    §5, with a background class; the same
"""

from typing import Any

from ml_collections import ConfigDict

from cnn_papers.facts import top1_and_top5
from configs import common

# The mean and the deviation that the released networks take for every channel (overfeat-torch's
# run.lua).
_NORMALISE = "normalize((118.380948, 118.380948, 118.380948), (61.896913, 61.896913, 61.896913))"

FIELDS = {
    "net": str,
    "fine": bool,
    "fine_in_training": bool,
    "window": int,
    "boxes": str,
    "box_dropout": float,
    "conv1_stride": int,
    "dropout": float,
    "weight_init": str,
    "width": float,
}


def desk() -> Any:
    """The fast network, a quarter as wide, its first stride halved for small images."""
    # ours: for two cores; narrow networks need He et al.'s initial weights to start learning
    config = common.base(
        "overfeat", "fast", 10, FIELDS | {"width": 0.25, "weight_init": "he", "conv1_stride": 2}
    )
    common.on_digits(config, side=64, epochs=8.0, lr=0.02)
    config.optim.weight_decay = 1e-5  # §3.1
    return config


def imagenet2012() -> Any:
    """The fast network.

    An epoch of the paper has five random crops of every image, one of ours has one: its epoch n is
    our epoch 5·n. The paper says "and their horizontal flips"; here a crop is mirrored with
    probability one half. It does not mention the rate and the decay of biases: here they have
    those of the weights.
    """
    config = common.base("overfeat", "fast", 1000, FIELDS)  # Table 1
    common.on_imagenet(
        config,
        train_host="decode|resize_short(256)|random_crop(231)",  # §3.1; Table 1: its input is 231
        eval_host="decode|resize_short(256)|center_crop(231)",  # not in paper: to watch training by
    )
    # §3.1: flips; not in paper: the released networks' mean and deviation (overfeat-torch, run.lua)
    config.data.train_device = f"flip|{_NORMALISE}"
    config.data.eval_device = _NORMALISE  # not in paper: run.lua
    config.eval.protocol = "single_view|overfeat_dense"  # §3.3: six scales, fine stride; Table 2
    config.batch_size = 128  # §3.1
    config.total_epochs = 450.0  # not in paper, which names the drops only: 90 epochs of five crops
    config.optim.lr, config.optim.lr_batch = 0.05, 128  # §3.1
    config.optim.momentum = 0.6  # §3.1
    config.optim.weight_decay = 1e-5  # §3.1
    # §3.1: after its epochs 30, 50, 60, 70 and 80, which are of five crops
    config.optim.schedule = "step_epochs(150, 250, 300, 350, 400, factor=0.5)"
    return config


def accurate() -> Any:
    """The accurate network, trained and watched on 221 pixels."""
    config = imagenet2012()
    config.model.variant = "accurate"  # Table 3
    config.data.train_host = "decode|resize_short(256)|random_crop(221)"  # §3.1
    # not in paper: to watch training by
    config.data.eval_host = "decode|resize_short(256)|center_crop(221)"
    return config


def scenes_classify() -> Any:
    """The fast network, a tenth as wide, on digits cut out of the embedded scenes."""
    config = common.base("overfeat", "fast", 10, FIELDS | _ON_SCENES)
    _on_scenes(config)
    # ours: the digit and what is around it, as the network sees it when it slides
    config.data.train_host = (
        "decode|random_object(0.6, square=True)|resize_short_between(52, 70, method='bilinear')"
        "|random_crop(52)"
    )
    config.data.eval_host = (
        "decode|largest_object(0.6, square=True)|resize_short(60, method='bilinear')"
        "|center_crop(52)"
    )
    config.batch_size = 64
    config.total_epochs = 6.0
    config.optim.lr, config.optim.lr_batch = 0.05, 64
    return config


def scenes_localize() -> Any:
    """The regressor of boxes, on the frozen features of `scenes_classify`."""
    config = common.base("overfeat", "fast", 10, FIELDS | _ON_SCENES | _FINDS)
    _finds_on_scenes(config)
    config.task = "localize"
    config.optim.frozen = "(conv|fc).*"  # §4.2: the features and the classifier stay
    config.boxes = ConfigDict(
        {
            "share": 0.5,  # §4.2
            "smallest": 0.35,
            "scales": (64, 90, 126),
        }
    )
    return config


def scenes_detect() -> Any:
    """All layers, from those of `scenes_classify`, with a background class."""
    config = common.base("overfeat", "fast", 11, FIELDS | _ON_SCENES | _FINDS)
    _finds_on_scenes(config)
    config.task = "detect_dense"
    config.boxes = ConfigDict(
        {
            "positive": 0.5,
            "negative": 0.3,
            "negatives": 3,
            "choice": "hardest",
            "regressed": 0.3,
            "box_weight": 1.0,
            "scales": (64, 90, 126),
        }
    )
    return config


# ours: for two cores; narrow networks need He et al.'s initial weights to start learning
_ON_SCENES = {
    "width": 0.1,
    "weight_init": "he",
    "conv1_stride": 1,
    "window": 36,
    "dropout": 0.2,
}
_FINDS = {"boxes": "shared", "fine": True, "fine_in_training": True, "box_dropout": 0.2}


def _on_scenes(config: Any) -> None:
    config.data.name = "digits/scenes"
    config.data.train_device = "permute_channels|invert|subtract_own_mean|scale(0.015625)"
    config.data.eval_device = "subtract_own_mean|scale(0.015625)"
    config.log_every_steps = 25
    config.optim.schedule = "cosine"
    config.optim.weight_decay = 1e-5
    config.eval.every_epochs = 2.0
    config.eval.mirror = False
    config.checkpoint.every_steps = 200


def _finds_on_scenes(config: Any) -> None:
    _on_scenes(config)
    config.init_from = "runs/overfeat-scenes_classify"
    config.data.train_host = (
        "decode|resize_short_between(56, 128, method='bilinear')|random_crop(56)"
    )
    config.data.eval_host = "decode"
    config.batch_size = 32
    config.total_epochs = 4.0
    config.optim.lr, config.optim.lr_batch = 0.05, 32
    config.eval.protocol = "merge(scales=(56, 66, 78, 92, 108, 128))"
    config.eval.batch_size = 20


def get_config(recipe: str = "") -> Any:
    """Returns the config of a recipe; "" is desk."""
    recipes = {
        "desk": desk,
        "imagenet2012": imagenet2012,
        "accurate": accurate,
        "scenes_classify": scenes_classify,
        "scenes_localize": scenes_localize,
        "scenes_detect": scenes_detect,
    }
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
        "accurate",
        {"accurate": (35.74, 14.18)},
        protocol="4 scales, fine stride; the recipe tests at six",
        measured_by="",
        source="Table 2",
    ),
    *top1_and_top5(
        "accurate",
        {"accurate": (33.96, 13.24)},
        protocol="7 models, fine stride; a run is of one",
        measured_by="",
        source="Table 2",
    ),
)
