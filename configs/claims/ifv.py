"""The claims of Return of the Devil in the Details on its shallow baseline."""

from typing import Any

from cnn_papers.facts import Claim, Scale
from configs.claims import common

_DESK: dict[str, Any] = common.SCENES_IFV
# Smaller: 1,024 images of CIFAR-10, enlarged so that a descriptor sees a part of one. Digits may
# not be mirrored.
_DESK_ON_CIFAR10: dict[str, Any] = {
    **common.SMALL_CIFAR10,
    **common.SMALL_IFV,
    "data.train_split": "train[:1024]",
    "data.train_host": "decode|resize(64)|dense_sift(bin_size=4, scales=(1.0, 0.707, 0.5))",
    "data.eval_host": "decode|resize(64)|dense_sift(bin_size=4, scales=(1.0, 0.707, 0.5))",
    "eval.protocol": "svm('fisher')|svm('fisher', mirror=True, train='separate')",
}
_PAPER: dict[str, Any] = {"config": "configs/ifv.py:voc2007", "eval.protocol": "svm('fisher')"}
_BOTH = {"desk": Scale(_DESK), "paper": Scale(_PAPER)}
_MAP = "tested('svm', 'map')"

CLAIMS = {
    "ifv_more_words": Claim(
        statement="From 16 words to 64 to 256 the average precision rises.",
        source="after FVKit's ablation of the Fisher vector of Return of the Devil §2.1",
        arms={
            "16": {"model.width": 0.0625},
            "64": {"model.width": 0.25},
            "256": {"model.width": 1.0},
        },
        metric=_MAP,
        expect="rising",
        paper="FVKit's mAP on VOC 2007, 16 to 256 words: 53.12, 56.19, 58.12, 59.63, 61.23 %",
        scales=_BOTH,
    ),
    "ifv_signed_root_and_length": Claim(
        statement=(
            "Signed square roots and unit length raise the average precision of SVMs on a Fisher "
            "vector."
        ),
        source="Return of the Devil §2.1",
        arms={
            "plain": {"model.norm": "none", "eval.protocol": "svm('fisher', normalise=False)"},
            "improved": {},
        },
        metric=_MAP,
        expect="higher",
        paper="takes them over from Perronnin et al., who call such a Fisher vector improved",
        scales=_BOTH,
    ),
    "ifv_length_within_words": Claim(
        statement="Unit length within each word first raises the average precision.",
        source="Return of the Devil §2.1, from memory",
        arms={"improved": {}, "within words": {"model.norm": "intra"}},
        metric=_MAP,
        expect="higher",
        paper="names it among what improves the shallow baseline",
        scales=_BOTH,
    ),
    "ifv_mirrored": Claim(
        statement="Mirror images, each a training example, lower the error of SVMs on the vectors.",
        source="after Return of the Devil §2.3, Table 2",
        arms={"one encoder": {}},
        metric="tested_change(0, 1, 'top1_error')",
        expect="lower",
        paper="another experiment, of mAP on VOC 2007: augmentation helps the shallow baseline too",
        scales={"desk": Scale(_DESK_ON_CIFAR10)},
    ),
    "ifv_places_are_short": Claim(
        statement="Places appended to the descriptors take an eighth of the pyramid's values.",
        source="Return of the Devil §2.1",
        arms={"pyramid": {"model.variant": "256-spm"}, "places": {"model.variant": "256-xy"}},
        metric="parameters()",
        expect="at_most",
        paper="327K values of the pyramid; the bound is ours, and the words take some in both",
        scales={"exact": Scale(_PAPER)},
        ratio=True,
        bound=0.15,
    ),
}
