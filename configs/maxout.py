"""Maxout Networks (Goodfellow, Warde-Farley, Mirza, Courville, Bengio, ICML 2013, arXiv:1302.4389).

python -m cnn_papers.main --config=configs/maxout.py             desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/maxout.py:mnist       §4.1, permutation invariant
"""

from typing import Any

from cnn_papers.facts import Reported
from configs import common

FIELDS = {
    "table": str,
    "hidden": str,
    "tied_bias": bool,
    "input_dropout": float,
    "dropout": float,
    "rescale_input": bool,
    "weight_init": str,
    "init_range": float,
    "width": float,
}


def desk() -> Any:
    """The permutation-invariant MNIST network, whole."""
    config = common.base("maxout", "mnist_fc", 10, FIELDS | {"init_range": 0.05})
    common.on_digits(config, side=28, epochs=20.0, lr=0.1, channels=1)
    config.data.train_device = config.data.eval_device = "scale(0.00392156862745098)"
    config.optim.momentum = 0.6
    config.optim.max_norms = _MNIST_NORMS
    config.eval.every_epochs = 4.0
    return config


def mnist() -> Any:
    """The authors' mnist_pi.yaml, its first stage; they go on with the 10,000 held-out digits added."""
    config = common.base("maxout", "mnist_fc", 10, FIELDS)
    config.data.name = "mnist"
    config.data.train_split, config.data.eval_split = "train[:50000]", "train[50000:]"
    config.data.train_host = config.data.eval_host = "decode(1)"
    config.data.train_device = config.data.eval_device = "scale(0.00392156862745098)"
    config.batch_size = 100
    config.total_epochs = 250.0  # theirs stops when the held-out error has been flat for 100
    config.optim.lr, config.optim.lr_batch = 0.1, 100
    config.optim.schedule = "exponential(0.998, every_epochs=1)"  # theirs: ÷1.000004 an update, 500 an epoch
    config.optim.momentum = 0.6  # theirs rises from 0.5 to 0.7 over 250 epochs
    config.optim.max_norms = _MNIST_NORMS
    return config


_MNIST_NORMS = (("(h0|h1|y)/kernel", 1.9365),)


def get_config(recipe: str = "") -> Any:
    """The config of `recipe`: desk (also for "") or mnist."""
    return common.choose({"desk": desk, "mnist": mnist}, recipe, name="maxout", paper="mnist")


REPORTED = (Reported("mnist", "val/top1_error", 0.94, "permutation invariant, test set", "Table 1"),)
