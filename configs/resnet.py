"""ResNet (He et al., CVPR 2016, arXiv:1512.03385).

python -m cnn_papers.main --config=configs/resnet.py
    desk: embedded digits, a minute or two on two cores
python -m cnn_papers.main --config=configs/resnet.py:cifar10
    §4.2, ResNet-20; --config.model.variant=cifar-56 … for deeper ones
python -m cnn_papers.main --config=configs/resnet.py:cifar10_110
    §4.2, ResNet-110
python -m cnn_papers.main --config=configs/resnet.py:imagenet2012
    §3.4, ResNet-50
python -m cnn_papers.main --config=configs/resnet.py:torchvision
    for the weights that torchvision publishes
"""

from typing import Any

from cnn_papers.facts import Reported, top1_and_top5
from configs import common

FIELDS = {
    "blocks": tuple,
    "widths": tuple,
    "bottleneck": bool,
    "shortcut": str,
    "stride_in": str,
    "stem": str,
    "pre_activation": bool,
    "scan": bool,
    "width": float,
}


def desk() -> Any:
    """The eight-layer member of the CIFAR family."""
    config = common.base("resnet", "cifar-8", 10, FIELDS)  # ours: trains in a minute
    common.on_digits(config, side=32, epochs=8.0, lr=0.05)
    _sgd(config)
    return config


def cifar10() -> Any:
    """§4.2, trained on 45k and evaluated on 5k images, as the paper chose its schedule.

    Its Table 6 takes `train` and `test`.
    """
    config = common.base("resnet", "cifar-20", 10, FIELDS)  # §4.2
    _sgd(config)
    config.batch_size = 128  # §4.2
    # §4.2: "on two GPUs"; not in paper: whether each had its own statistics, as the networks for
    # ImageNet had (authors' README)
    config.optim.bn_group = 64
    config.total_steps = 64_000  # §4.2
    config.data.name = "cifar10"  # §4.2
    config.data.train_split, config.data.eval_split = "train[:45000]", "train[45000:]"  # §4.2
    # §4.2; ours: the scale, which makes values about 1
    config.data.train_device = "subtract_mean_image|pad_crop(4)|flip|scale(0.0078125)"
    config.data.eval_device = "subtract_mean_image|scale(0.0078125)"  # §4.2; ours: the scale
    config.optim.lr, config.optim.lr_batch = 0.1, 128  # §4.2
    config.optim.schedule = "step(32000, 48000)"  # §4.2
    config.eval.every_epochs = 5.0  # ours: how often to look
    config.checkpoint.every_steps = 1000  # ours: how often to save
    return config


def cifar10_110() -> Any:
    """§4.2 for 110 layers, which start at a tenth of the rate.

    The training error is the mean over `log_every_steps` steps; the paper does not say how it is
    taken.
    """
    config = cifar10()
    config.model.variant = "cifar-110"  # §4.2
    # §4.2: 0.01 until the training error is below 80 %, about 400 steps; then back to 0.1
    config.optim.warmup_until_error = (80.0, 0.1)
    config.log_every_steps = 50  # ours: of about 400 steps, and steady enough
    return config


def imagenet2012() -> Any:
    """§3.4.

    The paper drops the rate when the error plateaus, without a rule; no solver is released.
    """
    config = common.base("resnet", "50", 1000, FIELDS)  # Table 1
    _sgd(config)
    common.on_imagenet(
        config,
        train_host="decode|resize_short_between(256, 480)|random_crop(224)",  # §3.4
        # authors' README: 1 crop, the centre of shorter side 256
        eval_host="decode|resize_short(256)|center_crop(224)",
    )
    # §3.4: a crop of the image or its mirror image, AlexNet's colours, the mean of every pixel;
    # ours: the mean image is that of central crops, and the scale makes values about 1
    config.data.train_device = "flip|pca_light(0.1)|subtract_mean_image|scale(0.0078125)"
    # §3.4; not in paper: the mean at other sizes, here warped as in SPP-net's Appendix A
    config.data.eval_device = "subtract_mean_image(warp=True)|scale(0.0078125)"
    # §3.4; Table 3: ten crops, of the whole image (authors' README); Table 4: five scales
    config.eval.protocol = "single_view|ten_crop(whole=True)|resnet_dense"
    config.eval.precise_bn = 200  # authors' README; the number of batches is not in paper
    config.batch_size = 256  # §3.4
    config.optim.bn_group = 32  # authors' README: 8 GPUs, statistics on each
    config.total_steps = 600_000  # §3.4
    config.optim.lr, config.optim.lr_batch = 0.1, 256  # §3.4
    config.optim.schedule = "plateau(0.1, patience=5)"  # §3.4; patience not in paper
    return config


def torchvision() -> Any:
    """For the weights of torchvision's resnet50.

    `--config.model.variant=18`, 34, 101-v1.5 or 152-v1.5 for the others. The paper's 50, 101 and
    152 have the same arrays but stride in other convolutions: published weights are refused there.
    """
    config = imagenet2012()
    config.model.variant = "50-v1.5"  # torchvision's resnet50
    common.as_torchvision(config, **common.IMAGENET_COLOUR)  # torchvision's weights; ours: the rest
    return config


def _sgd(config: Any) -> None:
    """Sets the values that §3.4 and §4.2 share."""
    config.optim.momentum = 0.9  # §3.4, §4.2
    config.optim.momentum_form = "caffe"  # authors' README: v ← m·v + lr·g, with m = 0.9
    config.optim.weight_decay = 1e-4  # §3.4, §4.2; ours: of all parameters, no solver says which


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`.

    It is desk (also for ""), cifar10, cifar10_110, imagenet2012 or torchvision.
    """
    recipes = {
        "desk": desk,
        "cifar10": cifar10,
        "cifar10_110": cifar10_110,
        "imagenet2012": imagenet2012,
        "torchvision": torchvision,
    }
    return common.choose(recipes, recipe, name="resnet", paper="imagenet2012")


_TABLE_6 = {"20": 8.75, "32": 7.51, "44": 7.17, "56": 6.97, "110": 6.43, "1202": 7.93}
_BEST = {"110": ", best of 5 runs"}
_CHOICE = "the recipe trains on 45k and evaluates on train[45000:]"
REPORTED = (
    *(
        Reported(
            recipe="cifar10_110" if depth == "110" else "cifar10",
            variant=f"cifar-{depth}",
            metric="top1_error",
            value=error,
            data="cifar10[test]",
            protocol=f"trained on 50k{_BEST.get(depth, '')}; {_CHOICE}",
            measured_by="",
            source="Table 6",
        )
        for depth, error in _TABLE_6.items()
    ),
    *(
        Reported(
            recipe="imagenet2012",
            variant=variant,
            metric="top1_error",
            value=error,
            data="imagenet2012[validation]",
            protocol="10 crops of the whole image",
            measured_by="ten_crop(whole=True)",
            source="Table 2",
        )
        for variant, error in {"plain-18": 27.94, "18-A": 27.88}.items()
    ),
    *top1_and_top5(
        "imagenet2012",
        {
            "plain-34": (28.54, 10.02),
            "34-A": (25.03, 7.76),
            "34": (24.52, 7.46),
            "34-C": (24.19, 7.40),
            "50": (22.85, 6.71),
            "101": (21.75, 6.05),
            "152": (21.43, 5.71),
        },
        protocol="10 crops of the whole image",
        measured_by="ten_crop(whole=True)",
        source="Table 3",
    ),
    *top1_and_top5(
        "imagenet2012",
        {
            "34": (21.84, 5.71),
            "34-C": (21.53, 5.60),
            "50": (20.74, 5.25),
            "101": (19.87, 4.60),
            "152": (19.38, 4.49),
        },
        protocol="dense, 5 scales",
        measured_by="resnet_dense",
        source="Table 4",
    ),
    *top1_and_top5(
        "imagenet2012",
        {"50": (24.7, 7.8), "101": (23.6, 7.1), "152": (23.0, 6.7)},
        protocol="1 crop",
        measured_by="single_view",
        source="github.com/KaimingHe/deep-residual-networks",
    ),
)
