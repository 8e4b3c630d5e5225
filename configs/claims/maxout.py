"""The claims of Maxout."""

from typing import Any

from cnn_papers.facts import Claim, Scale

# Smaller: the permutation-invariant MNIST network half as wide, twenty epochs of 10,000 digits, all
# with He et al.'s initialisation.
_DESK: dict[str, Any] = {
    "config": "configs/maxout.py:mnist",
    "data.train_split": "train[:10000]",
    "data.eval_split": "train[50000:]",
    "model.width": 0.5,
    "model.weight_init": "he",
    "model.dropout": 0.5,
    "model.input_dropout": 0.2,
    "total_epochs": 20.0,
    "log_every_steps": 100,
    "eval.every_epochs": 5.0,
    "eval.batch_size": 1000,
    "eval.analyses": "dead_units|saturated|dropout_average(masks=32)",
    "checkpoint.every_steps": 1000,
}
# In full width and length.
_GPU = _DESK | {"data.train_split": "train[:50000]", "model.width": 1.0, "total_epochs": 250.0}
_MNIST = {"desk": Scale(_DESK), "gpu": Scale(_GPU)}
# Each at the rate, of rates a factor of two apart, that has the lowest error on held-out images
# there (desk, seed 100). The rectifiers' is higher without limits of norms.
_TWINS = {
    "relu": {"model.variant": "mnist_fc_relu", "optim.lr": 0.2},
    "maxout": {"model.variant": "mnist_fc", "optim.lr": 0.1},
}
_SIZES = {"relu": {"model.variant": "cifar10_relu"}, "maxout": {"model.variant": "cifar10"}}
# The input that dropout leaves is scaled up, so that the whole net gets the mean of its inputs.
_AVERAGED = {
    "tanh": {"model.variant": "mnist_fc_relu", "model.hidden": "tanh", "model.rescale_input": True},
    "maxout": {"model.variant": "mnist_fc", "model.rescale_input": True},
}

CLAIMS = {
    "maxout_beats_relu": Claim(
        "With dropout, maxout units have a lower error than rectified units with as many weights.",
        "Maxout §5, §6",
        _TWINS,
        "last('val/top1_error')",
        "lower",
        (
            "curves of CIFAR-10 nets, each at its own rate and momentum; MNIST 0.94 % and CIFAR-10 "
            "11.68 %, below what other networks, of rectifiers, had reached"
        ),
        {"desk": Scale(_DESK)},  # where the rates are tuned
    ),
    "maxout_twins_are_equal": Claim(
        "The maxout network and its rectifier twin have the same number of parameters, within 1 %.",
        "Maxout §6: networks of equal size",
        _SIZES,
        "parameters()",
        "same",
        "comparisons at equal size",
        {"exact": Scale({"config": "configs/maxout.py:cifar10"})},
        ratio=True,
        bound=1.01,
    ),
    "maxout_units_live": Claim(
        "Fewer pieces of maxout units are never used than where a constant 0 is among them.",
        "Maxout §8.2",
        {"with 0": {"model.hidden": "maxout_zero"}, "maxout": {"model.hidden": "maxout"}},
        "analysis('dead_units')",
        "lower",
        (
            "of 1,200 pieces a layer, 17.6 and 39.2 % are never used with the constant, 2 of all "
            "2,400 without"
        ),
        _MNIST,
        paper_delta=2 / 2400 - (0.176 + 0.392) / 2,
        paper_data="mnist",
    ),
    "rectifiers_saturate": Claim(
        "Training with dropout makes rectified units saturate at zero more often.",
        "Maxout §8.2",
        {
            "without dropout": {
                "model.variant": "mnist_fc_relu",
                "model.dropout": 0.0,
                "model.input_dropout": 0.0,
            },
            "with dropout": {"model.variant": "mnist_fc_relu"},
        },
        "analysis('saturated')",
        "higher",
        "below 5 % of the time without, up to 60 % with",
        _MNIST,
        paper_delta=0.55,
        paper_data="mnist",
    ),
    "maxout_averages": Claim(
        (
            "With maxout units the whole net is nearer the geometric mean of its dropped-out nets "
            "than with tanh units."
        ),
        "Maxout §7, Figure 7",
        _AVERAGED,
        "analysis('dropout_average')",
        "lower",
        "a figure: the divergence over the number of nets averaged",
        _MNIST,
    ),
}
