"""SPP-net's detector (He, Zhang, Ren, Sun, ECCV 2014, arXiv:1406.4729, §4).

python -m cnn_papers.main --config=configs/sppnet.py
    desk: digits in embedded scenes, from scratch, minutes on two cores
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common
from configs.spp import FIELDS


def desk() -> Any:
    """A narrow ZF-5 on windows of scenes, all layers from scratch."""
    # ours: for two cores; narrow networks need He et al.'s initial weights to start learning
    fields = {"width": 0.25, "weight_init": "he", "levels": (4, 2, 1), "conv1_stride": 1}
    config = common.base("spp", "zf5", 11, FIELDS | fields | {"lrn": False})
    config.task = "detect_windows"
    config.data.name = "digits/scenes"
    config.data.proposals = "selective_search(size=128)"
    config.data.train_host = config.data.eval_host = "decode|fit(128, 128)"
    config.data.train_device = "permute_channels|invert|subtract_own_mean|scale(0.015625)"
    config.data.eval_device = "subtract_own_mean|scale(0.015625)"
    config.boxes = ConfigDict(
        {"windows": 512, "positive_share": 0.25, "background_iou": (0.0, 0.5)}
    )
    config.batch_size = 32
    config.eval.batch_size = 50
    config.total_epochs = 8.0
    config.log_every_steps = 25
    config.optim.lr, config.optim.lr_batch = 0.02, 32
    config.optim.momentum = 0.9
    config.optim.weight_decay = 5e-4
    config.optim.schedule = "cosine"
    config.eval.protocol = "softmax(scales=(128,))"
    config.eval.every_epochs = 2.0
    return config


def get_config(recipe: str = "") -> Any:
    return common.choose({"desk": desk}, recipe, name="sppnet", paper="desk")


REPORTED = ()
