"""The keys that every recipe has, with the values that most of them share.

In every config file the comment on a line that sets a key, or above it, is the source of the value:
a section of the paper, a released file, or "not in paper" where it is ours. `docs/recipes.md`
lists them.
"""

from collections.abc import Callable, Mapping
from typing import Any

from ml_collections import ConfigDict, config_dict

from cnn_papers.errors import UserError

Recipe = Callable[[], Any]

# ImageNet's mean colour and deviation as torchvision rounds them, in 0 … 255.
IMAGENET_COLOUR = {"mean": (123.675, 116.28, 103.53), "std": (58.395, 57.12, 57.375)}

# The fields of models/alexnet.py by type, for each paper that trains it.
ALEXNET = {
    "table": str,
    "columns": int,
    "halved": tuple,
    "without": tuple,
    "activation": str,
    "lrn": bool,
    "batch_norm": bool,
    "pool": tuple,
    "dropout": float,
    "weight_init": str,
    "conv1_stride": int,
    "width": float,
}

# The same of models/spp.py.
SPP = {
    "net": str,
    "levels": tuple,
    "conv1_stride": int,
    "lrn": bool,
    "dropout": float,
    "weight_init": str,
    "width": float,
}


def choose(recipes: Mapping[str, Recipe], recipe: str, *, name: str, paper: str) -> Any:
    """Returns the locked config of a recipe.

    Args:
      recipes: the recipes of a config file, by name.
      recipe: name of the one to return; "" is desk.
      name: of the config file.
      paper: name of the paper's own recipe.

    Raises:
      UserError: there is no such recipe.
    """
    recipe = recipe or "desk"
    if recipe not in recipes:
        raise UserError(
            f"configs/{name}.py has no recipe '{recipe}'; there are: {', '.join(recipes)}"
        )
    config = recipes[recipe]()
    config.name, config.recipe, config.paper_recipe = name, recipe, paper
    config.lock()  # in a notebook too, a mistyped key is an error
    return config


def base(model_name: str, variant: str, num_classes: int, fields: Mapping[str, Any]) -> Any:
    """Returns a ConfigDict with every key (typed Any, since its attributes are its keys).

    Args:
      model_name: a file of `cnn_papers.models`.
      variant: one of its VARIANTS.
      num_classes: number of classes of the head.
      fields: the model's other fields. A field given as its type, such as {"dropout": float}, is
        left to the variant.
    """
    config = ConfigDict()
    config.seed = 0  # of initialisation, batches, augmentation and dropout
    config.batch_size = 128  # images of a step
    config.total_epochs = 1.0  # the length
    config.total_steps = 0  # when positive, instead of total_epochs
    config.log_every_steps = 50  # training errors and losses are means over so many
    config.task = "classify"  # a file of cnn_papers.tasks: what is learnt and measured
    config.model_name = model_name
    config.model = ConfigDict({"variant": variant, "num_classes": num_classes})
    config.model.dtype = "float32"  # of the layers' arithmetic; parameters are float32
    for field, value in fields.items():
        config.model[field] = config_dict.placeholder(value) if isinstance(value, type) else value
    config.init_from = ""  # weights to start from: a file, a name on the hub, a run's folder
    # a regular expression for the layers to take; "": all, except a head with other classes
    config.init_layers = ""
    config.data = _data()
    config.loss = ConfigDict(
        {
            "aux_weight": 0.0,  # of the losses of auxiliary heads; 0: none
            # (("owl", 3.0),) weighs the losses of a class, all others weigh 1; ("balanced",) weighs
            # each class inversely to its images
            "class_weights": (),
            # for config.task=multilabel: pairs of images are ranked, not each image classified
            "ranking": False,
        }
    )
    config.optim = _optim()
    config.eval = _eval()
    config.checkpoint = ConfigDict(
        {
            "every_steps": 200,  # steps from one checkpoint to the next
            "keep": 2,  # the number of the latest checkpoints that stay
        }
    )
    config.mesh = ConfigDict(
        {
            "data": -1,  # devices that a batch is split over; -1: all
            "column": 1,  # devices that the network is split over, where it has columns
            # parameters and optimiser are split over `data` too, and gathered for use
            "shard_params": False,
        }
    )
    return config


def _data() -> ConfigDict:
    return ConfigDict(
        {
            "name": "digits",  # embedded in the package
            "data_dir": "",  # TFDS's default folder
            "train_split": "train",  # all of it
            "eval_split": "test",  # all of it
            "train_host": "decode",  # operations on the host, joined by |
            "train_device": "",  # operations on the device, joined by |
            "eval_host": "decode",  # the same in evaluation
            "eval_device": "",  # the same in evaluation
            "resident": "auto",  # whether images stay on the devices; or always, never
            "max_skips": 10,  # training examples that may turn out damaged
            # boxes of a split that may be left out: without area, or beyond their image
            "max_bad_boxes": 0,
            # boxes that may hold an object, where the task needs them: selective_search(), or a
            # file of boxes FILE.npz; "": none
            "proposals": "",
        }
    )


def _eval() -> ConfigDict:
    return ConfigDict(
        {
            "every_epochs": 1.0,  # epochs from one evaluation to the next
            "batch_size": 0,  # 0: batch_size
            # protocols of the final test, joined by |; training evaluates single views
            "protocol": "single_view",
            # mirror images too in the final test, where the papers have them; not for digits, say
            "mirror": True,
            # analyses of the network at every evaluation in training, joined by |
            "analyses": "",
            # number of training batches over which batch-norm statistics are recomputed for the
            # final test; 0: moving averages
            "precise_bn": 0,
        }
    )


def _optim() -> ConfigDict:
    return ConfigDict(
        {
            "lr": 0.1,  # the learning rate at the start
            "lr_batch": 128,  # the batch that lr is meant for; another batch scales it
            "momentum": 0.9,  # the papers' most common
            # the rate multiplies the gradient, as in AlexNet §5; "torch": the momentum too
            "momentum_form": "caffe",
            "nesterov": False,  # plain momentum
            "weight_decay": 0.0,  # off; else it is L2 in the gradient, of all that wd_mults leave
            "schedule": "constant",  # the rate stays
            "warmup_epochs": 0.0,  # epochs in which the rate rises from 0 to its first value
            "warmup_until_error": (),  # (80.0, 0.1): a tenth until the training error is < 80 %
            "constant_lr": (),  # (".*/bias",): parameters whose rate does not follow the schedule
            "lr_mults": (),  # (("fc8/.*", 10.0),): first match of the whole path
            # written like lr_mults; (): decay acts on biases and batch norm's scale and shift too
            "wd_mults": (),
            "max_norms": (),  # (("h0/kernel", 1.9365),): longest weight vector of an output
            # a regular expression for the layers that stay as they are, such as "(conv|bn).*"
            "frozen": "",
            # batch normalisation in frozen layers goes on as in training, not as in evaluation
            "move_frozen_statistics": False,
            "accumulate": 1,  # parts that a batch is split into, worked through one by one
            "bn_group": 0,  # images that share batch statistics in training; 0: the whole batch
            "ema_decay": 0.0,  # 0: no running average of the parameters
            # a step with a larger loss is skipped, like one that is not finite; 0: no limit
            "max_loss": 0.0,
            "max_skipped_in_a_row": 20,  # the run stops after this many in a row
        }
    )


def on_digits(config: Any, *, side: int, epochs: float, lr: float, channels: int = 3) -> None:
    """Makes `config` a desk recipe, which trains the network in minutes on two cores.

    The images are the embedded 8×8 digits, enlarged to side×side; the schedule is a short cosine.
    None of it is in a paper.
    """
    decode = "decode" if channels == 3 else f"decode({channels})"
    config.batch_size = 64  # ours: for small data
    config.total_epochs = epochs  # ours: it trains in minutes
    config.log_every_steps = 25  # ours: runs are short
    # ours: a size that the network takes
    config.data.train_host = config.data.eval_host = f"{decode}|resize({side}, method='bicubic')"
    config.data.train_device = f"pad_crop({side // 16})|standardize"  # ours: small shifts
    config.data.eval_device = "standardize"  # ours: channels of mean 0 and variance 1
    config.optim.lr, config.optim.lr_batch = lr, 64  # ours: tried on these digits
    config.optim.schedule = "cosine"  # ours: it ends a short run well
    config.eval.every_epochs = 2.0  # ours: to watch training by
    config.eval.mirror = False  # ours: a mirrored digit is another sign
    config.checkpoint.every_steps = 50  # ours: every few seconds


def on_imagenet(config: Any, *, train_host: str, eval_host: str) -> None:
    """Sets the data keys of an ImageNet recipe.

    `eval_host` makes the single views that are evaluated in training.
    """
    config.model.dtype = "bfloat16"  # ours: for TPU and GPU
    config.data.name = "imagenet2012"  # the papers' ILSVRC-2012
    config.data.eval_split = "validation"  # whose errors the papers report
    config.data.train_host, config.data.eval_host = train_host, eval_host
    config.checkpoint.every_steps = 2000  # ours: every few minutes


def as_torchvision(config: Any, *, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    """Makes an ImageNet recipe fit torchvision's weights, to predict with or to fine-tune.

    None of it is in a paper; the optimiser's values are a start for fine-tuning on one's own
    images, from `init_from`.
    """
    config.model.dtype = "float32"  # as torchvision
    config.data.train_host = "decode|resize_short(256)|random_crop(224)"  # ours: for fine-tuning
    # torchvision's ImageClassification(crop_size=224)
    config.data.eval_host = "decode|resize_short(256, method='bilinear')|center_crop(224)"
    config.data.train_device = f"flip|normalize({mean}, {std})"  # torchvision's mean and deviation
    config.data.eval_device = f"normalize({mean}, {std})"  # torchvision's mean and deviation
    # torchvision's published errors are of one view, with moving averages
    config.eval.protocol, config.eval.precise_bn = "single_view", 0
    config.batch_size = 64  # ours: for fine-tuning
    config.optim.bn_group = 0  # ours: the whole batch
    config.total_steps, config.total_epochs = 0, 10.0  # ours: for fine-tuning
    config.optim.lr, config.optim.lr_batch = 0.001, 64  # ours: for fine-tuning
    config.optim.schedule = "cosine"  # ours: for fine-tuning
    config.optim.lr_mults = config.optim.wd_mults = ()  # ours: all alike
    config.checkpoint.every_steps = 500  # ours: every few minutes
