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
    config = common.base("lenet", "relu", 10, FIELDS)  # ours
    common.on_digits(config, side=32, epochs=12.0, lr=0.05, channels=1)
    return config


def mnist() -> Any:
    """The original network on 28×28 digits centred in 32×32, one pattern at a time.

    The paper divides its rates by an estimate of each parameter's curvature (Appendix C), which is
    not here: parameters have one rate, which falls as the paper's global rate does.
    """
    config = common.base("lenet", "original", 10, FIELDS)  # §II-B
    config.data.name = "mnist"  # §III-A
    config.data.train_host = config.data.eval_host = "decode(1)|pad(2)"  # §II-B: 32×32
    # §II-B: mean 0, variance about 1
    config.data.train_device = config.data.eval_device = "standardize"
    config.batch_size = 1  # §III-B: after every pattern
    config.total_epochs = 20.0  # §III-B
    # ours: its rates over its curvatures are 7·10⁻⁵ to 0.016 in the first pass (§III-B)
    config.optim.lr, config.optim.lr_batch = 0.01, 1
    # §III-B: 0.0005 for two passes, 0.0002 and 0.0001 for three each, 0.00005 for four, 0.00001
    config.optim.schedule = "step_epochs(2, 5, 8, 12, factor=(0.4, 0.5, 0.5, 0.2))"
    config.optim.momentum = 0.0  # §III-B names none
    config.log_every_steps = 6000  # ours: ten rows a pass
    config.eval.batch_size = 100  # ours: results do not depend on it
    config.checkpoint.every_steps = 60_000  # ours: once a pass
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
