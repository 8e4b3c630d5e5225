"""Network in Network (Lin, Chen, Yan, ICLR 2014, arXiv:1312.4400).

python -m cnn_papers.main --config=configs/nin.py             desk: embedded digits; often stays at chance so far
python -m cnn_papers.main --config=configs/nin.py:cifar10     the authors' released recipe
"""

from typing import Any

from cnn_papers.facts import Reported
from configs import common

FIELDS = {
    "table": str,
    "head": str,
    "plain": bool,
    "dropout": float,
    "head_dropout": float,
    "weight_init": str,
    "width": float,
}


def desk() -> Any:
    """The MNIST network, half as wide."""
    config = common.base("nin", "mnist", 10, FIELDS | {"width": 0.5, "weight_init": "he", "dropout": 0.1})
    common.on_digits(config, side=28, epochs=6.0, lr=0.02, channels=1)
    config.batch_size = config.optim.lr_batch = 16
    config.optim.warmup_epochs = 1.0
    config.optim.lr_mults = (("cccp6/.*", 0.1),)  # README: the last layer learns at a tenth
    config.optim.weight_decay = 1e-5  # cifar-10_def
    return config


def cifar10() -> Any:
    """As released (mavenlin/cuda-convnet: NIN/cifar-10_def), less its ZCA whitening."""
    config = common.base("nin", "cifar10", 10, FIELDS)
    config.data.name = "cifar10"
    config.data.train_device = config.data.eval_device = "standardize"  # deviation: the authors whiten (GCN, ZCA)
    config.batch_size = 128
    config.total_epochs = 260.0  # README: 200, 30, 30
    config.optim.lr = 0.1
    config.optim.lr_mults = (("cccp6/kernel", 0.1), ("cccp6/bias", 0.2), (".*/bias", 2.0))
    config.optim.momentum = 0.9
    config.optim.weight_decay = 1e-5
    config.optim.schedule = "step_epochs(200, 230)"
    config.eval.every_epochs = 5.0
    config.checkpoint.every_steps = 1000
    return config


def get_config(recipe: str = "") -> Any:
    """The config of `recipe`: desk (also for "") or cifar10."""
    return common.choose({"desk": desk, "cifar10": cifar10}, recipe, name="nin", paper="cifar10")


REPORTED = (Reported("cifar10", "val/top1_error", 10.41, "no augmentation, test set", "Table 1"),)
