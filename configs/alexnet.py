"""AlexNet (Krizhevsky et al., NIPS 2012).

python -m cnn_papers.main --config=configs/alexnet.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/alexnet.py:imagenet2012
    the paper's recipe
python -m cnn_papers.main --config=configs/alexnet.py:cifar10
    the four layers of §3.1, as in Figure 1
python -m cnn_papers.main --config=configs/alexnet.py:torchvision
    for the weights that torchvision publishes
"""

from typing import Any

from cnn_papers.facts import top1_and_top5
from configs import common

FIELDS = common.ALEXNET
CIFAR_FIELDS = {"activation": str, "lrn": bool, "pool": tuple, "weight_init": str, "width": float}


def desk() -> Any:
    """The paper's network, a quarter as wide, at 67 pixels, the smallest side that it takes."""
    # ours: for two cores; narrow networks need He et al.'s initial weights to start learning
    config = common.base("alexnet", "paper", 10, FIELDS | {"width": 0.25, "weight_init": "he"})
    common.on_digits(config, side=67, epochs=12.0, lr=0.01)
    _sgd(config)
    return config


def imagenet2012() -> Any:
    """The paper's recipe.

    Its update rule (§5) has one rate and one decay, so biases have both. Caffe's bvlc_alexnet has
    twice the rate for biases, and no decay.
    """
    config = common.base("alexnet", "paper", 1000, FIELDS)  # §3.5, ILSVRC-2012's classes
    # §2, §4.1; ours: 227 pixels, since 224 do not give its map of 55×55
    common.on_imagenet(
        config,
        train_host="decode|resize_short(256)|center_crop(256)|random_crop(227)",  # §2, §4.1
        eval_host="decode|resize_short(256)|center_crop(227)",  # not in paper: to watch training by
    )
    # §4.1, §2; ours: the mean image is that of central crops, for every crop
    config.data.train_device = "flip|pca_light(0.1)|subtract_mean_image"
    config.data.eval_device = "subtract_mean_image"  # §2; ours: as in training
    config.eval.protocol = "single_view|ten_crop(227, 256)"  # §4.1; Table 2
    _sgd(config)
    config.batch_size = 128  # §5
    config.total_epochs = 90.0  # §5: roughly 90 cycles
    config.optim.lr, config.optim.lr_batch = 0.01, 128  # §5
    # §5: by hand, when the validation error stopped improving, three times; ours: the patience, and
    # no limit on the drops
    config.optim.schedule = "plateau(0.1, patience=3)"
    return config


def cifar10() -> Any:
    """The four-layer network of Figure 1, with "no regularization of any kind".

    The paper says no more of its recipe. Its rule of §5 holds here too: one rate for weights and
    biases. (Caffe's cifar10_full has twice the rate for the biases of all layers but conv3.)
    """
    config = common.base("alexnet_cifar", "relu", 10, CIFAR_FIELDS)  # Figure 1, the solid line
    config.data.name = "cifar10"  # Figure 1
    # not in paper: as in Caffe's cifar10_full
    config.data.train_device = config.data.eval_device = "subtract_mean_image"
    config.total_epochs = 40.0  # Figure 1: its axis
    _sgd(config)
    config.optim.weight_decay = 0.0  # Figure 1
    # not in paper, which tunes the rate for each net: Caffe's cifar10_full
    config.optim.lr, config.optim.lr_batch = 0.001, 100
    return config


def torchvision() -> Any:
    """For the weights of torchvision's alexnet, which is the network of "One weird trick"."""
    config = imagenet2012()
    config.model.variant = "one_weird_trick"  # torchvision's alexnet
    common.as_torchvision(config, **common.IMAGENET_COLOUR)  # torchvision
    return config


def _sgd(config: Any) -> None:
    config.optim.momentum = 0.9  # §5
    config.optim.momentum_form = "caffe"  # §5: v ← 0.9·v − 0.0005·ε·w − ε·g
    config.optim.weight_decay = 5e-4  # §5


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`: desk (also for ""), imagenet2012, cifar10 or torchvision."""
    recipes = {
        "desk": desk,
        "imagenet2012": imagenet2012,
        "cifar10": cifar10,
        "torchvision": torchvision,
    }
    return common.choose(recipes, recipe, name="alexnet", paper="imagenet2012")


REPORTED = (
    *top1_and_top5(
        "imagenet2012",
        {"paper": (40.7, 18.2)},
        protocol="1 network, 10 crops",
        measured_by="ten_crop(227, 256)",
        source="Table 2",
    ),
    *top1_and_top5(
        "torchvision",
        {"one_weird_trick": (43.5, 20.9)},
        protocol="1 crop; of the published weights, not of a run",
        measured_by="",
        source="torchvision's IMAGENET1K_V1; not of this paper",
    ),
)
