"""Maxout Networks (Goodfellow, Warde-Farley, Mirza, Courville, Bengio, ICML 2013, arXiv:1302.4389).

python -m cnn_papers.main --config=configs/maxout.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/maxout.py:mnist
    §5.1, permutation invariant
python -m cnn_papers.main --config=configs/maxout.py:cifar10
    §5.2, without augmentation
python -m cnn_papers.main --config=configs/maxout.py:cifar10_augmented
    §5.2, with shifts and flips
python -m cnn_papers.main --config=configs/maxout.py:svhn
    §5.4
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
    """The permutation-invariant MNIST network, in full width, on shifted digits."""
    config = common.base("maxout", "mnist_fc", 10, FIELDS)  # §5.1
    common.on_digits(config, side=28, epochs=100.0, lr=0.1, channels=1)
    # ours: shifts, as there are few digits; grey levels from 0 to 1, as pylearn2 reads MNIST
    config.data.train_device = "pad_crop(2)|scale(0.00392156862745098)"
    config.data.eval_device = "scale(0.00392156862745098)"  # pylearn2: from 0 to 1
    config.optim.momentum = 0.6  # mnist_pi.yaml: the middle of its 0.5 … 0.7
    config.optim.max_norms = _MNIST_NORMS  # mnist_pi.yaml
    config.log_every_steps = 100  # ours: how often to report
    config.eval.every_epochs = 10.0  # ours: how often to look
    config.checkpoint.every_steps = 500  # ours: how often to save
    return config


def mnist() -> Any:
    """The first stage of the authors' mnist_pi.yaml.

    They then continue with the 10,000 held-out digits added.
    """
    config = common.base("maxout", "mnist_fc", 10, FIELDS)  # §5.1
    config.data.name = "mnist"  # §5.1
    # mnist_pi.yaml: start 0, stop 50000 to train, the rest to stop by
    config.data.train_split, config.data.eval_split = "train[:50000]", "train[50000:]"
    config.data.train_host = config.data.eval_host = "decode(1)"  # MNIST's one channel
    # pylearn2 (datasets/mnist.py): grey levels from 0 to 1
    config.data.train_device = config.data.eval_device = "scale(0.00392156862745098)"
    config.batch_size = 100  # mnist_pi.yaml
    # mnist_pi.yaml stops when the held-out error has been flat for 100 epochs: ours, the epochs
    # over which its momentum rises
    config.total_epochs = 250.0
    config.optim.lr, config.optim.lr_batch = 0.1, 100  # mnist_pi.yaml
    # mnist_pi.yaml: ÷1.000004 an update, 500 updates an epoch
    config.optim.schedule = "exponential(0.998, every_epochs=1)"
    config.optim.momentum = 0.6  # mnist_pi.yaml: from 0.5 to 0.7 over 250 epochs; ours its middle
    config.optim.max_norms = _MNIST_NORMS  # mnist_pi.yaml
    return config


def cifar10() -> Any:
    """The authors' cifar10_no_aug.yaml."""
    config = common.base("maxout", "cifar10", 10, FIELDS)  # §5.2
    config.data.name = "cifar10"  # §5.2
    config.data.train_device = config.data.eval_device = _WHITENED  # make_cifar10_gcn_whitened.py
    config.total_epochs = 785.0  # cifar10_no_aug.yaml
    _sgd(config, lr=0.17)
    config.optim.schedule = "linear(0.01, epochs=500)"  # cifar10_no_aug.yaml: LinearDecayOverEpoch
    return config


def cifar10_augmented() -> Any:
    """The authors' cifar10.yaml: windows of the padded whitened images, and their mirror images."""
    config = cifar10()
    # cifar10.yaml: pad_randomized 8, "to each side" (train_extensions/window_flip.py)
    config.data.train_device = f"{_WHITENED}|pad_crop(8)|flip"
    config.total_epochs = 474.0  # cifar10.yaml
    return config


def svhn() -> Any:
    """The first stage of the authors' svhn.yaml.

    They hold out 400 images a class of `train` and 200 of `extra`.
    """
    config = common.base("maxout", "svhn", 10, FIELDS)  # §5.4
    config.data.name = "svhn_cropped"  # §5.4
    # ours: as many held out, all of `train`
    config.data.train_split, config.data.eval_split = "train[6000:]+extra", "train[:6000]"
    # svhn_preprocessing.py
    config.data.train_device = config.data.eval_device = "gcn|lcn(7, center=False)"
    # svhn.yaml stops when the held-out error has been flat for 100, after its best at 142
    config.total_epochs = 242.0
    _sgd(config, lr=0.2)
    config.optim.schedule = "linear(0.001, epochs=250)"  # svhn.yaml: LinearDecayOverEpoch
    return config


def _sgd(config: Any, *, lr: float) -> None:
    """Sets the values that the convolutional networks share."""
    config.batch_size = 128  # cifar10*.yaml, svhn.yaml
    config.optim.lr, config.optim.lr_batch = lr, 128  # cifar10*.yaml, svhn.yaml
    config.optim.lr_mults = (("h[012]/.*", 0.05),)  # W_lr_scale, b_lr_scale of the convolutions
    # the files: from 0.5 to 0.6, in cifar10.yaml to 0.65, over 250 epochs; ours constant
    config.optim.momentum = 0.6
    # the files: max_kernel_norm, max_col_norm
    config.optim.max_norms = (("h0/kernel", 0.9), ("h3/kernel", 1.9), ("(h1|h2|y)/kernel", 1.9365))
    config.eval.every_epochs = 5.0  # ours: how often to look
    config.checkpoint.every_steps = 1000  # ours: how often to save


_WHITENED = "gcn(55.0)|zca(0.1)"  # make_cifar10_gcn_whitened.py
_MNIST_NORMS = (("(h0|h1|y)/kernel", 1.9365),)


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`.

    It is desk (also for ""), mnist, cifar10, cifar10_augmented or svhn.
    """
    recipes = {
        "desk": desk,
        "mnist": mnist,
        "cifar10": cifar10,
        "cifar10_augmented": cifar10_augmented,
        "svhn": svhn,
    }
    return common.choose(recipes, recipe, name="maxout", paper="mnist")


REPORTED = (
    Reported(
        recipe="mnist",
        variant="mnist_fc",
        metric="top1_error",
        value=0.94,
        data="mnist[test]",
        protocol="trained on 60k; the recipe is the first stage and evaluates on train[50000:]",
        measured_by="",
        source="Table 1",
    ),
    Reported(
        recipe="cifar10",
        variant="cifar10",
        metric="top1_error",
        value=11.68,
        data="cifar10[test]",
        protocol="trained on 50k, no augmentation",
        measured_by="single_view",
        source="§5.2",
    ),
    Reported(
        recipe="cifar10_augmented",
        variant="cifar10",
        metric="top1_error",
        value=9.38,
        data="cifar10[test]",
        protocol="trained on 50k, shifts and flips",
        measured_by="single_view",
        source="§5.2",
    ),
    Reported(
        recipe="svhn",
        variant="svhn",
        metric="top1_error",
        value=2.47,
        data="svhn_cropped[test]",
        protocol="both stages; the recipe is the first stage and evaluates on train[:6000]",
        measured_by="",
        source="§5.4",
    ),
)
