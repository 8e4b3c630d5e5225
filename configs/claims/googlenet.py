"""The claims of GoogLeNet."""

from typing import Any

from cnn_papers.facts import Claim, Scale
from configs.claims import common

_PAPER: dict[str, Any] = {"config": "configs/googlenet.py:imagenet2012"}
# Smaller: a quarter as wide, eight epochs of the embedded digits; without batch normalisation it
# needs easy images.
_DESK: dict[str, Any] = {
    "config": "configs/googlenet.py",
    "model.width": 0.25,
    "checkpoint.every_steps": 1000,
    "total_epochs": 8.0,
    "eval.every_epochs": 4.0,
}
# The gradient of the loss that training minimises.
_GRADIENT: dict[str, Any] = {"eval.analyses": "gradient_norm(aux_weight=0.3)"}
# Smaller: in full width, thirty epochs of CIFAR-10 enlarged to 64 pixels.
_GPU: dict[str, Any] = {
    **common.CIFAR10,
    "config": "configs/googlenet.py",
    "data.train_host": "decode|resize(64)",
    "data.eval_host": "decode|resize(64)",
    "data.train_device": "standardize|pad_crop(8)|flip",
    "model.width": 1.0,
    "batch_size": 128,
    "optim.lr_batch": 128,
    "total_epochs": 30.0,
    "eval.every_epochs": 5.0,
    "checkpoint.every_steps": 1000,
}
_HEADS = {"without": {"model.aux_heads": False}, "with": {"model.aux_heads": True}}
_TRAINED = {"desk": Scale(_DESK), "gpu": Scale(_GPU), "paper": Scale(_PAPER)}
_WATCHED = {scale: Scale(at.overrides | _GRADIENT) for scale, at in _TRAINED.items()}
_EXACT = {"exact": Scale(_PAPER)}


def _crops(statement: str, fewer: str, more: str, paper: str, delta: float) -> Claim:
    """Returns the claim that the protocol `more` gives a lower error than `fewer`."""
    return Claim(
        statement=statement,
        source="GoogLeNet §7, Table 3",
        arms={"one network": {}},
        metric=f"tested_change('{fewer}', '{more}', 'top5_error')",
        expect="lower",
        paper=paper,
        paper_delta=delta,
        scales={"paper": Scale(_PAPER | {"eval.protocol": "single_view|ten_crop|crops_144"})},
    )


CLAIMS = {
    "googlenet_fewer_parameters": Claim(
        statement="GoogLeNet has fewer parameters than AlexNet.",
        source="GoogLeNet §1",
        arms={
            "AlexNet": {"config": "configs/alexnet.py:imagenet2012"},
            "GoogLeNet": {"model.variant": "paper_without_aux"},
        },
        metric="parameters()",
        expect="lower",
        paper="12 times fewer",
        paper_delta=1 / 12,
        scales=_EXACT,
        ratio=True,
    ),
    "googlenet_twelve_times": Claim(
        statement="GoogLeNet has at most a twelfth of AlexNet's 60,965,224 parameters.",
        source="GoogLeNet §1",
        arms={"GoogLeNet": {"model.variant": "paper_without_aux"}},
        metric="parameters()",
        expect="at_most",
        bound=60_965_224 / 12,
        paper=(
            "12 times fewer, though the column of parameters of its own Table 1 adds up to 6.8 "
            "million"
        ),
        scales=_EXACT,
    ),
    "googlenet_budget": Claim(
        statement=(
            "A pass takes at most 1.5 billion multiply-adds, with the full 7×7 convolution of the "
            "text."
        ),
        source="GoogLeNet §1",
        arms={"full stem": {"model.variant": "paper"}},
        metric="multiply_adds()",
        expect="at_most",
        bound=1.5e9,
        paper="a budget of 1.5 billion",
        scales=_EXACT,
    ),
    "googlenet_budget_separable": Claim(
        statement=(
            "A pass takes at most 1.5 billion multiply-adds, with the separable first convolution "
            "that the figures in Table 1's first row are of."
        ),
        source="GoogLeNet §1, Table 1",
        arms={"separable stem": {"model.variant": "separable_stem"}},
        metric="multiply_adds()",
        expect="at_most",
        bound=1.5e9,
        paper="a budget of 1.5 billion; 2.7K parameters and 34M operations in the first row",
        scales=_EXACT,
    ),
    "googlenet_reductions": Claim(
        statement=(
            "Convolutions of 1×1 before the larger ones (Figure 2b) take fewer multiply-adds than "
            "none (2a)."
        ),
        source="GoogLeNet §4, Figure 2",
        arms={"naive": {"model.variant": "naive"}, "reduced": {"model.variant": "paper"}},
        metric="multiply_adds()",
        expect="lower",
        paper="naive modules blow up within a few stages; no figure",
        scales=_EXACT,
        ratio=True,
    ),
    "googlenet_ten_crops": _crops(
        "Ten crops have a lower top-5 error than the centre alone.",
        "single_view",
        "ten_crop",
        "10.07 % with one, 9.15 % with ten",
        -0.92,
    ),
    "googlenet_144_crops": _crops(
        "144 crops have a lower top-5 error than ten.",
        "ten_crop",
        "crops_144",
        "9.15 % with ten, 7.89 % with 144",
        -1.26,
    ),
    "googlenet_auxiliary_gradient": Claim(
        statement="Auxiliary heads increase the gradient that comes back to module 3a.",
        source="GoogLeNet §5",
        arms=_HEADS,
        metric="analysis('gradient_norm/inception_3a/3x3')",
        expect="higher",
        paper="expects so; no figure",
        scales=_WATCHED,
        ratio=True,
    ),
    "googlenet_auxiliary_heads": Claim(
        statement="With auxiliary heads in training the error is lower.",
        source="GoogLeNet §5",
        arms=_HEADS,
        metric="last('val/top1_error')",
        expect="lower",
        paper="around half a point on ImageNet",
        scales=_TRAINED | {"paper": Scale(_PAPER, paper_delta=-0.5)},
    ),
}
