"""Network in Network (Lin, Chen, Yan, ICLR 2014, arXiv:1312.4400).

python -m cnn_papers.main --config=configs/nin.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/nin.py:cifar10
    the authors' released recipe
python -m cnn_papers.main --config=configs/nin.py:cifar100
    the authors' released recipe, which has other constants
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
    "last_bias": float,
    "width": float,
}


def desk() -> Any:
    """The MNIST network, half as wide."""
    # ours: half the width, He's initial weights and a positive bias train it in minutes
    config = common.base(
        "nin", "mnist", 10, FIELDS | {"width": 0.5, "weight_init": "he", "last_bias": 2.0}
    )
    common.on_digits(config, side=28, epochs=20.0, lr=0.02, channels=1)
    config.batch_size = config.optim.lr_batch = 16  # ours: it takes many steps to get going
    config.optim.warmup_epochs = 1.0  # ours: from He's weights it may die at the whole rate
    _sgd(config, weight_decay=1e-4)  # NIN/mnist_params: wc 1e-5 / coeff 0.1
    # NIN/mnist_params: epsW and epsB as for CIFAR-10
    config.optim.lr_mults = _LAST_LAYER_SLOWED
    return config


def cifar10() -> Any:
    """The released recipe (mavenlin/cuda-convnet: NIN/cifar-10_def, cifar-10_params, README).

    The images are contrast-normalised and whitened as Maxout's are.
    """
    config = _released("cifar10", 10)
    # cifar-10_params: epsW 1 · coeff 0.1 on the mean loss
    config.optim.lr, config.optim.lr_batch = 0.1, 128
    _sgd(config, weight_decay=1e-4)  # cifar-10_params: wc 1e-5 / coeff 0.1
    # cifar-10_params, cccp6: epsW 0.1 and epsB 0.2, where the other layers have 1 and 2
    config.optim.lr_mults = _LAST_LAYER_SLOWED
    return config


def cifar100() -> Any:
    """The released recipe (NIN/cifar-100_def, cifar-100_params): slower, and decayed more.

    Its last layer learns like the others. The README has the rest as for CIFAR-10.
    """
    config = _released("cifar100", 100)
    # cifar-100_params: epsW 0.01 · coeff 2 on the mean loss
    config.optim.lr, config.optim.lr_batch = 0.02, 128
    _sgd(config, weight_decay=5e-4)  # cifar-100_params: wc 1e-3 / coeff 2
    config.optim.lr_mults = ((".*/bias", 2.0),)  # cifar-100_params: epsB 0.02, epsW 0.01
    return config


def _released(dataset: str, num_classes: int) -> Any:
    """Returns a config with the values that CIFAR-10 and CIFAR-100 share."""
    config = common.base("nin", dataset, num_classes, FIELDS)  # NIN/cifar-10_def, cifar-100_def
    config.data.name = dataset  # §4.2, §4.3
    # §4.2: as Maxout's; make_cifar10_gcn_whitened.py and make_cifar100_gcn_whitened.py of pylearn2
    config.data.train_device = config.data.eval_device = "gcn(55.0)|zca(0.1)"
    config.batch_size = 128  # cuda-convnet's default
    config.total_epochs = 260.0  # README: 200, 30, 30
    config.optim.schedule = "step_epochs(200, 230)"  # README: epsW to a tenth, twice
    config.optim.constant_lr = (".*/bias",)  # README: only epsW, so the biases' rate stays
    config.eval.every_epochs = 5.0  # ours: how often to look
    config.checkpoint.every_steps = 1000  # ours: how often to save
    return config


def _sgd(config: Any, *, weight_decay: float) -> None:
    """Sets the optimiser's values that all parameter files share.

    cuda-convnet updates by inc ← momW·inc + epsW·coeff·gradient − wc·epsW·w (weights.cuh): `coeff`
    scales the gradient, but not the decay. Our rate is epsW·coeff, so our factor on w within it is
    wc / coeff: 1e-5 / 0.1 = 1e-4 for CIFAR-10, and 1e-3 / 2 = 5e-4 for CIFAR-100. It holds for the
    slowed layer too, whose smaller epsW scales gradient and decay alike.
    """
    config.optim.momentum, config.optim.momentum_form = 0.9, "caffe"  # momW, momB; weights.cuh
    config.optim.weight_decay = weight_decay  # *_params: wc / coeff
    config.optim.wd_mults = ((".*/bias", 0.0),)  # weights.cuh: biases have no wc


# of biases twice the weights' (epsB and epsW), in the last layer a tenth of both
_LAST_LAYER_SLOWED = (("cccp6/kernel", 0.1), ("cccp6/bias", 0.2), (".*/bias", 2.0))


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`: desk (also for ""), cifar10 or cifar100."""
    recipes = {"desk": desk, "cifar10": cifar10, "cifar100": cifar100}
    return common.choose(recipes, recipe, name="nin", paper="cifar10")


_HEADS = {  # Table 5; the first also Table 1
    "cifar10": 10.41,
    "cifar10_fc": 11.59,
    "cifar10_fc_dropout": 10.88,
}
_PLAIN = {  # §4.6
    "cifar10_plain": 16.46,
    "cifar10_plain_fc": 17.56,
    "cifar10_plain_fc_dropout": 15.99,
}


def _reported(
    recipe: str, errors: dict[str, float], protocol: str, measured_by: str, source: str
) -> tuple[Reported, ...]:
    return tuple(
        Reported(
            recipe=recipe,
            variant=variant,
            metric="top1_error",
            value=error,
            data=f"{recipe}[test]",
            protocol=protocol,
            measured_by=measured_by,
            source=source,
        )
        for variant, error in errors.items()
    )


REPORTED = (
    *_reported("cifar10", _HEADS, "no augmentation", "single_view", "Table 5, §4.6"),
    *_reported(
        "cifar10",
        _PLAIN,
        "no augmentation; of another plain net, whose third layer is local",
        "",
        "§4.6",
    ),
    *_reported("cifar100", {"cifar100": 35.68}, "no augmentation", "single_view", "Table 2"),
)
