"""Improved Fisher vector (Chatfield, Simonyan, Vedaldi, Zisserman, BMVC 2014, arXiv:1405.3531).

python -m cnn_papers.main --config=configs/ifv.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/ifv.py:folder --config.data.name=folder:PHOTOS
    photographs in a folder for each class; minutes for a thousand on two cores
python -m cnn_papers.main --config=configs/ifv.py:voc2007 --config.data.name=folder:VOC2007
    §2.1; a folder for each class
"""

from typing import Any

from cnn_papers.facts import Reported
from configs import common

FIELDS = {
    "words": int,
    "dims": int,
    "root": bool,
    "xy": bool,
    "spm": bool,
    "norm": str,
    "sample": int,
    "width": float,
}


def desk() -> Any:
    """Sixteen words with places, on enlarged digits."""
    # ours: digits have few different strokes
    config = common.base(
        "ifv", "256-xy", 10, FIELDS | {"width": 0.0625, "dims": 32, "sample": 50_000}
    )
    common.on_digits(config, side=64, epochs=30.0, lr=10.0)
    # ours: bins of a sixth of the side, over which a stroke turns
    config.data.train_host = config.data.eval_host = (
        "decode|resize(64, method='bicubic')|dense_sift(step=4, bin_size=6, scales=(1.0, 0.707))"
    )
    config.data.train_device = config.data.eval_device = ""  # ours: descriptors as they are
    _fitted(config)
    return config
