"""LeNet-5 (LeCun, Bottou, Bengio, Haffner, Proc. IEEE 1998).

python -m cnn_papers.main --config=configs/lenet.py
    desk: embedded digits, seconds on two cores
python -m cnn_papers.main --config=configs/lenet.py:mnist
    §III, on MNIST
"""

from typing import Any

from cnn_papers.facts import Reported
from configs import common

FIELDS = {"activation": str, "pooling": str, "connections": str, "weight_init": str, "width": float}


def desk() -> Any:
    """The modern form, in full width."""
    config = common.base("lenet", "relu", 10, FIELDS)
    common.on_digits(config, side=32, epochs=12.0, lr=0.05, channels=1)
    return config


def mnist() -> Any:
    """The original network on 28×28 digits centred in 32×32.

    The paper's second-order learning rates are not here.
    """
    config = common.base("lenet", "original", 10, FIELDS)
    config.data.name = "mnist"
    config.data.train_host = config.data.eval_host = "decode(1)|pad(2)"  # §II-B: 32×32
    # §II-B: mean 0, variance about 1
    config.data.train_device = config.data.eval_device = "standardize"
    config.total_epochs = 20.0  # §III-B
    # not in paper: it scales each parameter's rate by an estimate of its curvature
    config.optim.lr = 0.02
    # §III-B: drops after these passes; factor about that
    config.optim.schedule = "step_epochs(2, 5, 8, 12, factor=0.5)"
    config.optim.momentum = 0.9  # not in paper
    return config


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`: desk (also for "") or mnist."""
    return common.choose({"desk": desk, "mnist": mnist}, recipe, name="lenet", paper="mnist")


REPORTED = (
    Reported(
        recipe="mnist",
        variant="original",
        metric="top1_error",
        value=0.95,
        data="mnist[test]",
        protocol="trained without distortions",
        measured_by="single_view",
        source="§III-B",
    ),
)
