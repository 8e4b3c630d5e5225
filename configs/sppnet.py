"""SPP-net's detector (He, Zhang, Ren, Sun, ECCV 2014, arXiv:1406.4729, §4).

python -m cnn_papers.main --config=configs/sppnet.py:scenes_classify
    ours: convolutions for desk, trained on digits cut out of the embedded scenes
python -m cnn_papers.main --config=configs/sppnet.py
    desk: fully connected layers on windows of the scenes, from runs/sppnet-scenes_classify
"""

from typing import Any

from ml_collections import ConfigDict

from configs import common
from configs.spp import FIELDS


def desk() -> Any:
    """§4.1 on embedded scenes: the fully connected layers learn to classify windows."""
    config = _on_scenes(11)
    config.task = "detect_windows"
    config.init_from = "runs/sppnet-scenes_classify"
    config.data.train_split = "train[:2000]"
    config.data.proposals = "selective_search(size=128)"
    config.data.train_host = config.data.eval_host = "decode|fit(128, 128)"
    config.optim.frozen = "conv.*"
    config.boxes = ConfigDict(
        {"windows": 512, "positive_share": 0.25, "background_iou": (0.0, 0.5)}
    )
    config.batch_size = 32
    config.eval.batch_size = 50
    config.total_epochs = 8.0
    config.optim.lr, config.optim.lr_batch = 0.02, 32
    config.eval.protocol = "softmax(scales=(128,))"
    config.eval.every_epochs = 2.0
    return config


def scenes_classify() -> Any:
    """The same network on digits that are cut out of the scenes."""
    config = _on_scenes(10)
    config.data.train_host = "decode|random_object(0.2, square=True)|fit(56, 56)"
    config.data.eval_host = "decode|largest_object(0.2, square=True)|fit(56, 56)"
    config.data.train_device = f"pad_crop(4)|{config.data.train_device}"
    config.batch_size = 64
    config.total_epochs = 6.0
    config.optim.lr, config.optim.lr_batch = 0.02, 64
    config.eval.every_epochs = 1.0
    config.eval.mirror = False
    return config


def _on_scenes(outputs: int) -> Any:
    # ours: for two cores; narrow networks need He et al.'s initial weights to start learning
    fields = {"width": 0.2, "weight_init": "he", "levels": (4, 2, 1), "conv1_stride": 1}
    config = common.base("spp", "zf5", outputs, FIELDS | fields | {"lrn": False})
    config.data.name = "digits/scenes"
    config.data.train_device = "permute_channels|invert|subtract_own_mean|scale(0.015625)"
    config.data.eval_device = "subtract_own_mean|scale(0.015625)"
    config.log_every_steps = 25
    config.optim.momentum = 0.9
    config.optim.weight_decay = 5e-4
    config.optim.schedule = "cosine"
    return config


def get_config(recipe: str = "") -> Any:
    return common.choose(
        {"desk": desk, "scenes_classify": scenes_classify}, recipe, name="sppnet", paper="desk"
    )


REPORTED = ()
