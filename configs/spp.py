"""SPP-net (He, Zhang, Ren, Sun, ECCV 2014, arXiv:1406.4729).

python -m cnn_papers.main --config=configs/spp.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/spp.py:imagenet2012
    §3.1, ZF-5 with the 50-bin pyramid, one size
python -m cnn_papers.main --config=configs/spp.py:imagenet2012_90_epochs
    §3.1, Overfeat-7; --config.model.variant=convnet5 or overfeat5 for the others
python -m cnn_papers.main --config=configs/spp.py:multi_size
    §2.3, ZF-5 at 224 and 180 pixels in turns
python -m cnn_papers.main --config=configs/spp.py:multi_size_90_epochs
    §2.3, Overfeat-7 and the others
python -m cnn_papers.main --config=configs/spp.py:desk_multi_size
    desk, at 64 and 48 pixels in turns
"""

from typing import Any

from cnn_papers.facts import Reported, top1_and_top5
from configs import common

FIELDS = common.SPP


def desk() -> Any:
    """ZF-5, a quarter as wide, with a pyramid that fits small maps."""
    # ours: for two cores; narrow networks need He et al.'s initial weights to start learning
    config = common.base(
        "spp", "zf5", 10, FIELDS | {"width": 0.25, "weight_init": "he", "levels": (3, 2, 1)}
    )
    common.on_digits(config, side=64, epochs=8.0, lr=0.02)
    _sgd(config)
    return config


def imagenet2012() -> Any:
    """ZF-5 at the single size 224.

    Biases are decayed as weights are: the paper does not mention it, and the released file of the
    network (SPP_net's model-defs/Zeiler_conv5.prototxt) has no decay of their own.
    """
    config = common.base("spp", "zf5", 1000, FIELDS)  # Table 1
    common.on_imagenet(
        config,
        train_host="decode|resize_short(256)|corner_crop(224)",  # §3.1
        eval_host="decode|resize_short(256)|center_crop(224)",  # Table 3: 1 view
    )
    # §3.1: "some colour altering", here AlexNet's; Appendix A: the mean image of 224 pixels, warped
    # to other sizes; ours: it is that of central crops
    config.data.train_device = "flip|pca_light(0.1)|subtract_mean_image(warp=True)"
    config.data.eval_device = "subtract_mean_image(warp=True)"  # Appendix A
    # Table 2: ten views, of the whole image (§3.1); Table 3: one view, the full image; §3.1.5: 96
    # views on feature maps and two more
    config.eval.protocol = "single_view|ten_crop(whole=True)|spp_full|spp_multi_view"
    _sgd(config)
    config.batch_size = 128  # not in paper: AlexNet's
    config.total_epochs = 70.0  # §3.1.1: of ZF-5
    config.optim.lr, config.optim.lr_batch = 0.01, 128  # §3.1; not in paper: AlexNet's batch
    # §3.1: twice, when the error plateaus; not in paper: the patience, and no limit on the drops
    config.optim.schedule = "plateau(0.1, patience=3)"
    config.optim.lr_mults = ((".*/bias", 2.0),)  # not in paper: Zeiler_conv5.prototxt
    return config


def imagenet2012_90_epochs() -> Any:
    """The networks other than ZF-5 at the single size 224."""
    config = imagenet2012()
    _longer(config)
    return config


def multi_size() -> Any:
    """§2.3: an epoch at 224 pixels, the next at 180, of the same region, with the same weights."""
    config = imagenet2012()
    # §2.3
    config.data.train_host = "decode|resize_short(256)|corner_crop(224)|resize_by_epoch(224, 180)"
    return config


def multi_size_90_epochs() -> Any:
    """§2.3 for the networks other than ZF-5."""
    config = multi_size()
    _longer(config)
    return config


def desk_multi_size() -> Any:
    """The desk recipe at two sizes, twice as long."""
    config = desk()
    config.total_epochs = 16.0  # ours: eight at either size
    # §2.3; ours: the sizes
    config.data.train_host = "decode|resize_by_epoch(64, 48, method='bicubic')"
    return config


def _sgd(config: Any) -> None:
    """§3.1 follows Zeiler & Fergus, who follow AlexNet."""
    config.optim.momentum = 0.9  # not in paper: AlexNet §5
    config.optim.momentum_form = "caffe"  # not in paper: its released networks are Caffe's
    config.optim.weight_decay = 5e-4  # not in paper: AlexNet §5


def _longer(config: Any) -> None:
    config.model.variant = "overfeat7"  # Table 1
    config.total_epochs = 90.0  # §3.1.1: of the networks other than ZF-5


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`.

    It is desk (also for ""), imagenet2012, imagenet2012_90_epochs, multi_size,
    multi_size_90_epochs or desk_multi_size.
    """
    recipes = {
        "desk": desk,
        "imagenet2012": imagenet2012,
        "imagenet2012_90_epochs": imagenet2012_90_epochs,
        "multi_size": multi_size,
        "multi_size_90_epochs": multi_size_90_epochs,
        "desk_multi_size": desk_multi_size,
    }
    return common.choose(recipes, recipe, name="spp", paper="imagenet2012")


_VIEWS_10 = ("10 views of the whole image", "ten_crop(whole=True)")
_VIEW_1 = ("1 view", "single_view")
_FULL = ("the full image", "spp_full")
_VIEWS_98 = ("96 views on feature maps and 2 of the full image", "spp_multi_view")


def _top1(recipe: str, variant: str, value: float, views: tuple[str, str]) -> Reported:
    """Returns a top-1 error of Table 3."""
    return Reported(
        recipe=recipe,
        variant=variant,
        metric="top1_error",
        value=value,
        data="imagenet2012[validation]",
        protocol=views[0],
        measured_by=views[1],
        source="Table 3",
    )


REPORTED = (
    *top1_and_top5(
        "imagenet2012",
        {
            "zf5-no-spp": (35.99, 14.76),
            "zf5": (34.98, 14.14),
            "zf5-30bins": (35.06, 14.04),
        },
        protocol=_VIEWS_10[0],
        measured_by=_VIEWS_10[1],
        source="Table 2 and §3.1.2",
    ),
    *top1_and_top5(
        "imagenet2012_90_epochs",
        {
            "convnet5-no-spp": (34.93, 13.92),
            "overfeat5-no-spp": (34.13, 13.52),
            "overfeat7-no-spp": (32.01, 11.97),
            "convnet5": (34.38, 13.54),
            "overfeat5": (32.87, 12.80),
            "overfeat7": (30.36, 11.12),
        },
        protocol=_VIEWS_10[0],
        measured_by=_VIEWS_10[1],
        source="Table 2",
    ),
    *top1_and_top5(
        "multi_size",
        {"zf5": (34.60, 13.64)},
        protocol=_VIEWS_10[0],
        measured_by=_VIEWS_10[1],
        source="Table 2",
    ),
    *top1_and_top5(
        "multi_size_90_epochs",
        {
            "convnet5": (33.94, 13.33),
            "overfeat5": (32.26, 12.33),
            "overfeat7": (29.68, 10.95),
        },
        protocol=_VIEWS_10[0],
        measured_by=_VIEWS_10[1],
        source="Table 2",
    ),
    *top1_and_top5(
        "multi_size_90_epochs",
        {"overfeat7": (27.86, 9.14)},
        protocol=_VIEWS_98[0],
        measured_by=_VIEWS_98[1],
        source="§3.1.5",
    ),
    _top1("imagenet2012", "zf5", 38.01, _VIEW_1),
    _top1("imagenet2012", "zf5", 37.55, _FULL),
    _top1("imagenet2012_90_epochs", "overfeat7", 33.18, _VIEW_1),
    _top1("imagenet2012_90_epochs", "overfeat7", 32.72, _FULL),
    _top1("multi_size", "zf5", 37.57, _VIEW_1),
    _top1("multi_size", "zf5", 37.07, _FULL),
    _top1("multi_size_90_epochs", "overfeat7", 32.57, _VIEW_1),
    _top1("multi_size_90_epochs", "overfeat7", 31.25, _FULL),
)
