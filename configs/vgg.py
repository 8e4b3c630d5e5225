"""VGG (Simonyan & Zisserman, ICLR 2015, arXiv:1409.1556).

python -m cnn_papers.main --config=configs/vgg.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/vgg.py:imagenet2012
    the paper's recipe; --config.model.variant=A … E
python -m cnn_papers.main --config=configs/vgg.py:imagenet2012_384
    §3.1: at S = 384, from the weights of S = 256
python -m cnn_papers.main --config=configs/vgg.py:imagenet2012_jitter
    §3.1: at S in [256, 512], from the weights of S = 384
python -m cnn_papers.main --config=configs/vgg.py:torchvision
    for the weights that torchvision publishes
"""

from typing import Any

from cnn_papers.facts import top1_and_top5
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
    # ours: for two cores; narrow networks need He et al.'s initial weights to start learning
    config = common.base("vgg", "A", 10, FIELDS | {"width": 0.125, "weight_init": "he"})
    common.on_digits(config, side=32, epochs=12.0, lr=0.02)
    _sgd(config)
    return config


def imagenet2012() -> Any:
    """Configuration D at the fixed training scale S = 256, from random initialisation.

    The paper does not mention the rate and the decay of biases.
    """
    # §3.1: Glorot's initialisation works without pre-training
    config = common.base("vgg", "D", 1000, FIELDS | {"weight_init": "glorot"})
    common.on_imagenet(
        config,
        train_host="decode|resize_short(256)|random_crop(224)",  # §3.1
        eval_host="decode|resize_short(256)|center_crop(224)",  # not in paper: to watch training by
    )
    # §3.1: the colour shift of AlexNet; §2.1
    config.data.train_device = "flip|pca_light(0.1)|subtract_mean"
    config.data.eval_device = "subtract_mean"  # §2.1
    # §3.2, Table 3: Q = S; Table 5 has vgg_both too
    config.eval.protocol = "single_view|vgg_dense(256)"
    _sgd(config)
    config.batch_size = 256  # §3.1
    config.total_epochs = 74.0  # §3.1: 370,000 iterations
    config.optim.lr, config.optim.lr_batch = 0.01, 256  # §3.1
    # §3.1: three times; not in paper: the patience, and no limit on the drops
    config.optim.schedule = "plateau(0.1, patience=3)"
    # not in paper: matconvnet's cnn_imagenet_init.m, of the authors' group
    config.optim.lr_mults = ((".*/bias", 2.0),)
    config.optim.wd_mults = ((".*/bias", 0.0),)  # not in paper: cnn_imagenet_init.m
    return config


def imagenet2012_384() -> Any:
    """The same at S = 384, from the weights of S = 256.

    `init_from` is the folder that the recipe imagenet2012 writes to if --workdir names no other.
    """
    config = imagenet2012()
    config.init_from = "runs/vgg-imagenet2012"  # §3.1
    config.data.train_host = "decode|resize_short(384)|random_crop(224)"  # §3.1
    # not in paper: to watch training by
    config.data.eval_host = "decode|resize_short(384)|center_crop(224)"
    config.eval.protocol = "single_view|vgg_dense(384)"  # §3.2, Table 3: Q = S
    config.optim.lr = 0.001  # §3.1; not in paper: its length, here that of S = 256
    return config


def imagenet2012_jitter() -> Any:
    """The same at S in [256, 512], all layers fine-tuned from the weights of S = 384.

    `init_from` is the folder of the recipe imagenet2012_384. The paper does not give the rate and
    the length of this fine-tuning.
    """
    config = imagenet2012_384()  # not in paper: the rate and the length, here those of S = 384
    config.init_from = "runs/vgg-imagenet2012_384"  # §3.1
    config.data.train_host = "decode|resize_short_between(256, 512)|random_crop(224)"  # §3.1
    # Tables 3, 4 and 5: Q = 384; Q = 256, 384, 512; dense and crops
    config.eval.protocol = "single_view|vgg_dense(384)|vgg_dense((256, 384, 512))|vgg_both"
    return config


def torchvision() -> Any:
    """For the weights of torchvision's vgg16.

    `--config.model.variant=D-BN` for vgg16_bn; A, B or E for vgg11, vgg13 or vgg19.
    """
    config = imagenet2012()
    config.model.variant = "D"  # torchvision's vgg16
    common.as_torchvision(config, **common.IMAGENET_COLOUR)  # torchvision
    return config


def _sgd(config: Any) -> None:
    config.optim.momentum = 0.9  # §3.1
    config.optim.momentum_form = "caffe"  # §3.1: derived from Caffe
    config.optim.weight_decay = 5e-4  # §3.1


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`.

    It is desk (also for ""), imagenet2012, imagenet2012_384, imagenet2012_jitter or torchvision.
    """
    recipes = {
        "desk": desk,
        "imagenet2012": imagenet2012,
        "imagenet2012_384": imagenet2012_384,
        "imagenet2012_jitter": imagenet2012_jitter,
        "torchvision": torchvision,
    }
    return common.choose(recipes, recipe, name="vgg", paper="imagenet2012")


REPORTED = (
    *top1_and_top5(
        "imagenet2012",
        {
            "A": (29.6, 10.4),
            "A-LRN": (29.7, 10.5),
            "B": (28.7, 9.9),
            "C": (28.1, 9.4),
            "D": (27.0, 8.8),
            "E": (27.3, 9.0),
        },
        protocol="S = Q = 256, dense",
        measured_by="vgg_dense(256)",
        source="Table 3",
    ),
    *top1_and_top5(
        "imagenet2012_384",
        {"C": (28.1, 9.3), "D": (26.8, 8.7), "E": (26.9, 8.7)},
        protocol="S = Q = 384, dense",
        measured_by="vgg_dense(384)",
        source="Table 3",
    ),
    *top1_and_top5(
        "imagenet2012_jitter",
        {"C": (27.3, 8.8), "D": (25.6, 8.1), "E": (25.5, 8.0)},
        protocol="S in [256, 512], Q = 384, dense",
        measured_by="vgg_dense(384)",
        source="Table 3",
    ),
    *top1_and_top5(
        "imagenet2012_jitter",
        {"C": (26.3, 8.2), "D": (24.8, 7.5), "E": (24.8, 7.5)},
        protocol="S in [256, 512], Q = 256, 384, 512, dense",
        measured_by="vgg_dense((256, 384, 512))",
        source="Table 4",
    ),
    *top1_and_top5(
        "imagenet2012_jitter",
        {"D": (24.4, 7.2), "E": (24.4, 7.1)},
        protocol="S in [256, 512], Q = 256, 384, 512, dense and crops",
        measured_by="vgg_both",
        source="Table 5",
    ),
)
