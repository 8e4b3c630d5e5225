"""The claims of SPP-net's detector."""

from typing import Any

from cnn_papers.facts import Claim, Scale

# As the recipe, from a classifier of digits that are cut out of the scenes, but on the first 1,000
# of them, and 100 are tested.
_DESK: dict[str, Any] = {
    "config": "configs/sppnet.py",
    "start": {
        "config": "configs/sppnet.py:scenes_classify",
        "total_epochs": 5.0,
        "eval.every_epochs": 5.0,
    },
    "data.train_split": "train[:1000]",
    "data.eval_split": "test[:100]",
    "eval.every_epochs": 6.0,
    "eval.protocol": "softmax(scales=(96,))|rcnn('softmax', side=48, context=4)",
    "checkpoint.every_steps": 1000,
}

CLAIMS = {
    "sppnet_windows_like_crops": Claim(
        statement=(
            "Windows of one feature map are detected no worse than crops that pass through the "
            "same network one by one."
        ),
        source="SPP-net §4.3",
        arms={"one network": {}},
        metric="tested_change('rcnn', 'softmax', 'map')",
        expect="at_least",
        bound=-2.0,
        paper=(
            "VOC 2007, by SVMs on fc7: 54.5 % mAP at one scale, 55.2 % at five, 54.2 % of crops; "
            "the bound is ours, and spp_windows_share_features counts the work that is saved"
        ),
        paper_delta=0.3,
        paper_data="voc/2007",
        scales={"desk": Scale(_DESK)},
    ),
}
