"""The claims of OverFeat."""

from typing import Any

from cnn_papers.facts import Claim, Scale
from configs.claims import common

_SEVERAL = "overfeat_dense(((72, 72), (80, 80), (112, 112), (136, 136)))"
_AT_72 = f"overfeat_dense(((72, 72),), fine=False)|overfeat_dense(((72, 72),))|{_SEVERAL}"
# The paper's second scale: at its first, 245 pixels, the last pooling leaves the fast network only
# one window with either stride.
_AT_281 = "overfeat_dense(((281, 317),), fine=False)|overfeat_dense(((281, 317),))|overfeat_dense"
# CIFAR-10, enlarged so that images are to crops about as the paper's are, 256 to 231.
_CROPS = {
    "data.train_host": "decode|resize(72, method='bicubic')|random_crop(64)",
    "data.train_device": "standardize|flip",
    "data.eval_host": "decode|resize(72, method='bicubic')|center_crop(64)",
    "eval.protocol": _AT_72,
}
# Smaller: the fast network an eighth as wide at 64 pixels, five epochs of 5,120 images of CIFAR-10,
# four scales up to 136.
_DESK: dict[str, Any] = {
    **common.SMALL_CIFAR10,
    **_CROPS,
    "config": "configs/overfeat.py",
    "model.width": 0.125,
    "total_epochs": 5.0,
    "eval.every_epochs": 5.0,
}
# Smaller: half as wide, CIFAR-10 at 64 pixels, thirty epochs.
_GPU: dict[str, Any] = {
    **common.CIFAR10,
    **_CROPS,
    "config": "configs/overfeat.py",
    "model.width": 0.5,
    "batch_size": 128,
    "optim.lr": 0.01,
    "optim.lr_batch": 128,
    "optim.warmup_epochs": 1.0,
    "total_epochs": 30.0,
    "eval.every_epochs": 5.0,
}
_PAPER: dict[str, Any] = {"config": "configs/overfeat.py:imagenet2012", "eval.protocol": _AT_281}
_TESTS = {"desk": Scale(_DESK), "gpu": Scale(_GPU)}
_ACCURATE = {"config": "configs/overfeat.py:accurate"}
# As the recipe, from a classifier of digits that are cut out of the same scenes, but two epochs in
# place of four, and three scales in place of six on half of the test's scenes.
_DETECTOR: dict[str, Any] = {
    "config": "configs/overfeat.py:scenes_detect",
    "start": {"config": "configs/overfeat.py:scenes_classify", "eval.every_epochs": 12.0},
    "data.eval_split": "test[:200]",
    "boxes.scales": (64,),
    "total_epochs": 2.0,
    "eval.every_epochs": 2.0,
    "eval.protocol": (
        "merge(scales=(56, 78, 108))|merge(scales=(56, 78, 108), weighted=False)"
        "|suppress(scales=(56, 78, 108))|single(scales=(56, 78, 108))"
    ),
    "checkpoint.every_steps": 1000,
}
_DETECTS = {"desk": Scale(_DETECTOR)}
_MERGED, _MERGED_PLAIN, _SUPPRESSED, _SINGLE = range(4)  # places of the protocols
_ONE_RUN: dict[str, dict[str, Any]] = {"one network": {}}  # the protocols test the same weights

CLAIMS = {
    "overfeat_finer_stride": Claim(
        statement=(
            "Applying the last pooling at every offset, which makes the stride finer, lowers the "
            "error."
        ),
        source="OverFeat §3.3, Table 2",
        arms=_ONE_RUN,
        metric="tested_change(0, 1, 'top1_error')",
        expect="lower",
        paper="ImageNet, fast network, one scale: 39.28 % top-1 error coarse, 39.01 % fine",
        scales=_TESTS | {"paper": Scale(_PAPER, paper_delta=-0.27)},
    ),
    "overfeat_more_scales": Claim(
        statement="Averaging over several scales of the image has a lower error than one scale.",
        source="OverFeat §3.3, Table 2",
        arms=_ONE_RUN,
        metric="tested_change(1, 2, 'top1_error')",
        expect="lower",
        paper=(
            "ImageNet, fast network, fine stride: 39.01 % top-1 error at one scale, 38.12 % at six"
        ),
        scales=_TESTS | {"paper": Scale(_PAPER, paper_delta=-0.89)},
    ),
    "overfeat_one_regressor": Claim(
        statement="One regressor of boxes for all classes finds more than one for each class.",
        source="OverFeat §4.4",
        arms={"for each class": {"model.boxes": "per_class"}, "for all": {}},
        metric=f"tested({_MERGED}, 'map')",
        expect="higher",
        paper=(
            "ImageNet's localization, where ours is detection: 44.1 % error with a regressor for "
            "each class, 31.3 % with one for all"
        ),
        scales=_DETECTS,
    ),
    "overfeat_merging": Claim(
        statement=(
            "Merging boxes, each by its score, finds more than keeping the best of those that "
            "overlap."
        ),
        source="OverFeat §4.3, §5",
        arms=_ONE_RUN,
        metric=f"tested_change({_SUPPRESSED}, {_MERGED}, 'map')",
        expect="higher",
        paper="expects so of its merging, whose average is plain; no figure",
        scales=_DETECTS,
    ),
    "overfeat_merging_plain": Claim(
        statement=(
            "Merging boxes by the plain average of each pair finds more than keeping the best of "
            "those that overlap."
        ),
        source="OverFeat §4.3, §5",
        arms=_ONE_RUN,
        metric=f"tested_change({_SUPPRESSED}, {_MERGED_PLAIN}, 'map')",
        expect="higher",
        paper="expects so; no figure",
        scales=_DETECTS,
    ),
    "overfeat_merging_against_single": Claim(
        statement="Merging boxes finds more than the single best box of each class.",
        source="OverFeat §4.3",
        arms=_ONE_RUN,
        metric=f"tested_change({_SINGLE}, {_MERGED}, 'map')",
        expect="higher",
        paper="expects so: predictions that agree are rewarded; no figure",
        scales=_DETECTS,
    ),
    "overfeat_hardest_negatives": Claim(
        statement=(
            "Negatives that are chosen in each step as the most offending ones give a better "
            "detector than random ones."
        ),
        source="OverFeat §5",
        arms={"random": {"boxes.choice": "random"}, "most offending": {}},
        metric=f"tested({_MERGED}, 'map')",
        expect="higher",
        paper="names both as ways to choose them in the step instead of in passes; no figure",
        scales=_DETECTS,
    ),
    "overfeat_accurate_takes_more": Claim(
        statement="The accurate network takes more multiply-adds than the fast one.",
        source="OverFeat §3.2",
        arms={"fast": {"config": "configs/overfeat.py:imagenet2012"}, "accurate": _ACCURATE},
        metric="multiply_adds()",
        expect="higher",
        paper="2,810 and 5,369 million connections",
        paper_delta=5369 / 2810,
        scales={"exact": Scale({"config": "configs/overfeat.py:imagenet2012"})},
        ratio=True,
    ),
    "overfeat_sliding_is_exact": Claim(
        statement=(
            "Fully connected layers slid over a larger map as convolutions give each window the "
            "scores they give it alone, up to rounding."
        ),
        source="OverFeat §3.5, Figure 5",
        arms={"fast": {}},
        metric="sliding_difference(112, 96)",
        expect="at_most",
        bound=1e-5,
        paper=(
            "says so without a figure; 1e-5 of the largest output is our bound for rounding in "
            "float32"
        ),
        scales={"exact": Scale({"config": "configs/overfeat.py"})},
    ),
    "overfeat_sliding_shares_work": Claim(
        statement=(
            "One pass over an image takes fewer multiply-adds than a pass for each window that it "
            "scores."
        ),
        source="OverFeat §3.5",
        arms={"accurate": _ACCURATE},
        metric="window_saving(461, 569)",
        expect="at_least",
        bound=1.0,
        paper=(
            "calls sliding inherently efficient without a figure; asked of its largest scale, 70 "
            "windows"
        ),
        scales={"exact": Scale({"config": "configs/overfeat.py:imagenet2012"})},
    ),
}
