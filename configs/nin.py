"""Network in Network (Lin, Chen, Yan, ICLR 2014, arXiv:1312.4400).

python -m cnn_papers.main --config=configs/nin.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/nin.py:cifar10
    the authors' released recipe
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
    config = common.base(
        "nin", "mnist", 10, FIELDS | {"width": 0.5, "weight_init": "he", "last_bias": 2.0}
    )
    common.on_digits(config, side=28, epochs=20.0, lr=0.02, channels=1)
    config.batch_size = config.optim.lr_batch = 16  # it takes many steps to get going
    config.optim.warmup_epochs = 1.0
    _sgd(config)
    return config


def cifar10() -> Any:
    """The released recipe (mavenlin/cuda-convnet: NIN/cifar-10_def).

    The images are contrast-normalised and whitened as Maxout's are.
    """
    config = common.base("nin", "cifar10", 10, FIELDS)
    config.data.name = "cifar10"
    # §4.2; the constants of Maxout's authors
    config.data.train_device = config.data.eval_device = "gcn(55.0)|zca(0.1)"
    config.batch_size = 128
    config.total_epochs = 260.0  # README: 200, 30, 30
    config.optim.lr = 0.1
    _sgd(config)
    config.optim.schedule = "step_epochs(200, 230)"
    config.eval.every_epochs = 5.0
    config.checkpoint.every_steps = 1000
    return config


def _sgd(config: Any) -> None:
    """The authors' parameter file; their README has the last layer learn at a tenth."""
    config.optim.lr_mults = (("cccp6/kernel", 0.1), ("cccp6/bias", 0.2), (".*/bias", 2.0))
    config.optim.momentum = 0.9
    config.optim.weight_decay = 1e-5


def get_config(recipe: str = "") -> Any:
    """Returns the config of `recipe`: desk (also for "") or cifar10."""
    return common.choose({"desk": desk, "cifar10": cifar10}, recipe, name="nin", paper="cifar10")


_TABLE_1 = {  # and §4.6, where global average pooling is compared with fully connected heads
    "cifar10": 10.41,
    "cifar10_fc": 11.59,
    "cifar10_fc_dropout": 10.88,
}
_PLAIN = {  # §4.6
    "cifar10_plain": 16.46,
    "cifar10_plain_fc": 17.56,
    "cifar10_plain_fc_dropout": 15.99,
}


def _reported(errors: dict[str, float], protocol: str, measured_by: str) -> tuple[Reported, ...]:
    return tuple(
        Reported(
            recipe="cifar10",
            variant=variant,
            metric="top1_error",
            value=error,
            data="cifar10[test]",
            protocol=protocol,
            measured_by=measured_by,
            source="Table 1, §4.6",
        )
        for variant, error in errors.items()
    )


REPORTED = _reported(_TABLE_1, "no augmentation", "single_view") + _reported(
    _PLAIN, "no augmentation; of another plain net, whose third layer is local", ""
)
