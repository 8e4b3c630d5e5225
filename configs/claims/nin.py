"""The claims of Network in Network."""

from typing import Any

from cnn_papers.facts import Claim, Scale

# Smaller: the MNIST network a quarter as wide at 14 pixels, eighty epochs of only 1,000 digits, so
# that regularisation matters.
_DESK: dict[str, Any] = {
    "config": "configs/nin.py",
    "data.name": "mnist",
    "data.train_split": "train[:1000]",
    "data.eval_split": "train[50000:]",
    "data.train_host": "decode(1)|resize(14)",
    "data.eval_host": "decode(1)|resize(14)",
    "data.train_device": "standardize",
    "model.width": 0.25,
    "model.plain": False,
    "model.head": "gap",
    "model.dropout": 0.5,
    "total_epochs": 80.0,
    "log_every_steps": 125,
    "eval.every_epochs": 20.0,
    "eval.batch_size": 200,
    "checkpoint.every_steps": 2000,
}
# At a quarter of the rate, at which a fully connected layer learns with seed 100, which no claim
# uses; with dropout it stays near chance with three seeds of twelve. At the rate above it stayed at
# chance with several seeds.
_SLOWER: dict[str, Any] = _DESK | {"optim.lr": 0.005}
# In full width and length.
_GPU: dict[str, Any] = {
    "config": "configs/nin.py:cifar10",
    "data.train_split": "train[:45000]",
    "data.eval_split": "train[45000:]",
    "model.plain": False,
    "model.head": "gap",
    "model.dropout": 0.5,
}
_ALL = {"desk": Scale(_DESK), "gpu": Scale(_GPU)}


def _slowed(layer: str) -> dict[str, Any]:
    """Returns the released rates, of which `layer`, the last of an arm, learns at a tenth."""
    slowed = ((f"{layer}/kernel", 0.1), (f"{layer}/bias", 0.2), (".*/bias", 2.0))
    return {"optim.lr_mults": slowed}


_GAP: dict[str, Any] = {"model.head": "gap", **_slowed("cccp6")}
# `last_bias` keeps class maps that are averaged from starting at zero; in front of a layer it would
# saturate that layer.
_FC: dict[str, Any] = {"model.head": "fc", "model.last_bias": 0.0, **_slowed("fc")}
_FC_DROPOUT = _FC | {"model.head": "fc_dropout"}
# Without the 1×1 layers conv3 is the last. A fully connected layer after it stays at chance at desk
# scale: with seeds 0 to 2, and with seed 100 at a quarter of the rate and with eight epochs of
# warm-up.
_PLAIN: dict[str, Any] = {"model.plain": True}
_PLAIN_GAP = _PLAIN | _slowed("conv3")


def _lower_error(
    statement: str,
    source: str,
    arms: Any,
    paper: str,
    delta: float | None = None,
    desk: dict[str, Any] | None = _DESK,
) -> Claim:
    """Returns the claim that the second arm has the lower error on held-out images.

    `delta` is the paper's on CIFAR-10, the data of scale gpu. `desk` is None if the claim cannot be
    asked at that scale.
    """
    scales = {"gpu": Scale(_GPU, paper_delta=delta)}
    if desk is not None:
        scales = {"desk": Scale(desk)} | scales
    return Claim(statement, source, arms, "last('val/top1_error')", "lower", paper, scales)


CLAIMS = {
    "mlpconv": _lower_error(
        "Small perceptrons as filters have a lower error than plain convolutions.",
        "Network in Network §4.6, Table 1",
        {"plain": _PLAIN_GAP, "mlpconv": _GAP},
        (
            "CIFAR-10, with global average pooling: 16.46 % (another plain net, of three layers), "
            "10.41 % with perceptrons"
        ),
    ),
    "average_pooling_against_fc": _lower_error(
        "Global average pooling has a lower error than a fully connected layer.",
        "Network in Network §4.6, Table 5",
        {"fully connected": _FC, "average": _GAP},
        "CIFAR-10: 11.59 % and 10.41 %",
        10.41 - 11.59,
        desk=_SLOWER,
    ),
    "average_pooling_against_fc_dropout": _lower_error(
        "Global average pooling has a lower error than a fully connected layer with dropout.",
        "Network in Network §4.6, Table 5",
        {"fully connected, dropout": _FC_DROPOUT, "average": _GAP},
        "CIFAR-10: 10.88 % and 10.41 %",
        10.41 - 10.88,
        desk=_SLOWER,
    ),
    "average_pooling_in_plain_nets": _lower_error(
        (
            "In a plain convolutional net, too, global average pooling has a lower error than a "
            "fully connected layer."
        ),
        "Network in Network §4.6",
        {"fully connected": _PLAIN | _FC, "average": _PLAIN_GAP},
        "CIFAR-10, another plain net, of three layers: 17.56 % and 16.46 %",
        desk=None,
    ),
    "dropout_on_fc": _lower_error(
        "Dropout on the fully connected layer lowers its error.",
        "Network in Network §4.6, Table 5",
        {"fully connected": _FC, "with dropout": _FC_DROPOUT},
        "CIFAR-10: 11.59 % and 10.88 %",
        10.88 - 11.59,
        desk=_SLOWER,
    ),
    "dropout_in_plain_nets": _lower_error(
        (
            "In a plain convolutional net a fully connected layer with dropout has a lower error "
            "than global average pooling."
        ),
        "Network in Network §4.6",
        {"average": _PLAIN_GAP, "fully connected, dropout": _PLAIN | _FC_DROPOUT},
        "CIFAR-10, another plain net, of three layers: 16.46 % and 15.99 %",
        desk=None,
    ),
    "average_pooling_is_smaller": Claim(
        "Global average pooling needs fewer parameters than a fully connected layer.",
        "Network in Network §3.2",
        {"fully connected": _FC, "average": _GAP},
        "parameters()",
        "lower",
        "it has none",
        {"exact": Scale({"config": "configs/nin.py:cifar10"})},
    ),
    "dropout_between_mlpconvs": Claim(
        "Dropout between the mlpconv layers lowers the error by more than a fifth.",
        "Network in Network §4.2",
        {"without": {"model.dropout": 0.0}, "with": {"model.dropout": 0.5}},
        "last('val/top1_error')",
        "at_most",
        "CIFAR-10: over 20 % less test error",
        _ALL | {"gpu": Scale(_GPU, paper_delta=0.8)},
        ratio=True,
        bound=0.8,
    ),
}
