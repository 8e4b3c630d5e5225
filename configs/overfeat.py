"""OverFeat (Sermanet, Eigen, Zhang, Mathieu, Fergus, LeCun, ICLR 2014, arXiv:1312.6229).

python -m cnn_papers.main --config=configs/overfeat.py
    desk: embedded digits, minutes on two cores
python -m cnn_papers.main --config=configs/overfeat.py:imagenet2012
    §3.1, the fast network
python -m cnn_papers.main --config=configs/overfeat.py:accurate
    §3.1, the accurate network

To localize and to detect, first train a classifier, on objects cut out of the same images:

python -m cnn_papers.main --config=configs/overfeat.py:scenes_classify
python -m cnn_papers.main --config=configs/overfeat.py:scenes_localize
    §4, the regressor on its features; embedded scenes, minutes on two cores
python -m cnn_papers.main --config=configs/overfeat.py:scenes_detect
    §5, with a background class; the same
python -m cnn_papers.main --config=configs/overfeat.py:voc2007
    §5, VOC 2007's classes, from the run of :accurate
"""

from typing import Any

from cnn_papers.facts import top1_and_top5
from configs import common

# The mean and the deviation that the released networks take for every channel (overfeat-torch's
# run.lua).
_NORMALISE = "normalize((118.380948, 118.380948, 118.380948), (61.896913, 61.896913, 61.896913))"

FIELDS = {
    "net": str,
    "fine": bool,
    "fine_in_training": bool,
    "window": int,
    "boxes": str,
    "box_dropout": float,
    "conv1_stride": int,
    "dropout": float,
    "weight_init": str,
    "width": float,
}


def desk() -> Any:
    """The fast network, a quarter as wide, its first stride halved for small images."""
    # ours: for two cores; narrow networks need He et al.'s initial weights to start learning
    config = common.base(
        "overfeat", "fast", 10, FIELDS | {"width": 0.25, "weight_init": "he", "conv1_stride": 2}
    )
    common.on_digits(config, side=64, epochs=8.0, lr=0.02)
    config.optim.weight_decay = 1e-5  # §3.1
    return config


def imagenet2012() -> Any:
    """The fast network.

    An epoch of the paper has five random crops of every image, one of ours has one: its epoch n is
    our epoch 5·n. The paper says "and their horizontal flips"; here a crop is mirrored with
    probability one half. It does not mention the rate and the decay of biases: here they have
    those of the weights.
    """
    config = common.base("overfeat", "fast", 1000, FIELDS)  # Table 1
    common.on_imagenet(
        config,
        train_host="decode|resize_short(256)|random_crop(231)",  # §3.1; Table 1: its input is 231
        eval_host="decode|resize_short(256)|center_crop(231)",  # not in paper: to watch training by
    )
    # §3.1: flips; not in paper: the released networks' mean and deviation (overfeat-torch, run.lua)
    config.data.train_device = f"flip|{_NORMALISE}"
    config.data.eval_device = _NORMALISE  # not in paper: run.lua
    config.eval.protocol = "single_view|overfeat_dense"  # §3.3: six scales, fine stride; Table 2
    config.batch_size = 128  # §3.1
    config.total_epochs = 450.0  # not in paper, which names the drops only: 90 epochs of five crops
    config.optim.lr, config.optim.lr_batch = 0.05, 128  # §3.1
    config.optim.momentum = 0.6  # §3.1
    config.optim.weight_decay = 1e-5  # §3.1
    # §3.1: after its epochs 30, 50, 60, 70 and 80, which are of five crops
    config.optim.schedule = "step_epochs(150, 250, 300, 350, 400, factor=0.5)"
    return config


def accurate() -> Any:
    """The accurate network, trained and watched on 221 pixels."""
    config = imagenet2012()
    config.model.variant = "accurate"  # Table 3
    config.data.train_host = "decode|resize_short(256)|random_crop(221)"  # §3.1
    # not in paper: to watch training by
    config.data.eval_host = "decode|resize_short(256)|center_crop(221)"
    return config


def scenes_classify() -> Any:
    """The fast network, a tenth as wide, on digits cut out of the embedded scenes."""
    config = common.base("overfeat", "fast", 10, FIELDS)
    _on_scenes(config)
    # ours: a digit with its surroundings, 26 to 31 pixels long, as the sliding network will see it
    config.data.train_host = (
        "decode|random_object(0.2, square=True)|resize_short_between(37, 43, method='bilinear')"
        "|random_crop(36)"
    )
    config.data.eval_host = (  # ours: the same without chance
        "decode|largest_object(0.2, square=True)|resize_short(40, method='bilinear')"
        "|center_crop(36)"
    )
    config.batch_size = 64  # ours: for small data
    config.total_epochs = 12.0  # ours: minutes
    config.optim.lr, config.optim.lr_batch = 0.03, 64  # ours: tried on these scenes
    return config


def scenes_localize() -> Any:
    """The regressor of boxes, on the frozen features of `scenes_classify`."""
    config = common.base("overfeat", "fast", 10, FIELDS)
    _on_scenes(config)
    _at_all_positions(config)
    config.task = "localize"  # §4
    config.init_layers = "(conv|fc).*"  # ours: all but the regressor
    config.optim.frozen = "(conv|fc).*"  # §4.2: the features and the classifier stay
    # §4.3; ours: six scales as the paper's; of five guesses, several may be of one object
    config.eval.protocol = "merge(scales=(56, 66, 78, 92, 108, 128), match=0.4)"
    # ours: tried on these scenes; the gradient of the regressor by itself is small
    config.optim.lr, config.optim.lr_batch = 0.15, 32
    config.boxes = common.ConfigDict(
        {
            "share": 0.5,  # §4.2
            "smallest": 0.35,  # ours: at its own scale, a smaller object is larger
            "scales": (64, 90, 126),  # ours: half of the test's, to watch training by
        }
    )
    return config


def scenes_detect() -> Any:
    """All layers, from those of `scenes_classify`, with a background class."""
    config = common.base("overfeat", "fast", 11, FIELDS)
    _on_scenes(config)
    _at_all_positions(config)
    config.init_layers = "(conv|fc[67]).*"  # ours: the head has a background class more
    config.task = "detect_dense"  # §5
    config.model.box_dropout = 0.2  # ours: the digits are few, and learnt by heart without
    config.optim.lr, config.optim.lr_batch = 0.02, 32  # ours: tried on these scenes
    config.boxes = common.ConfigDict(
        {
            "positive": 0.5,  # ours: as IoU of windows is in R-CNN
            "negative": 0.3,  # ours: below it SVMs of R-CNN have background
            "negatives": 3,  # ours: as R-CNN has in a batch
            "choice": "hardest",  # §5: on the fly, the most offending ones
            "regressed": 0.3,  # ours: a regressor can mend what the classifier lets pass
            "box_weight": 1.0,  # ours: trained along
            "scales": (64, 90, 126),  # ours: half of the test's, to watch training by
        }
    )
    return config


def voc2007() -> Any:
    """The accurate network as a detector of VOC 2007's classes, from ImageNet's classifier.

    The paper detects ILSVRC13's 200 classes so. It gives no rate, length or share of negatives.
    """
    config = common.base("overfeat", "accurate", 21, FIELDS)  # 20 classes and background, §5
    config.task = "detect_dense"  # §5
    config.init_from = "runs/overfeat-accurate"  # §5: trained as a classifier before
    config.init_layers = "(conv|fc[78]).*"  # ours: the head is of other classes
    config.model.dtype = "bfloat16"  # ours: for TPU and GPU
    config.model.window = 221  # Table 3
    config.model.boxes = "shared"  # §4.4: 31.3 % of errors, 44.1 % with a regressor for each class
    config.model.fine = config.model.fine_in_training = True  # §3.3; §4.2: at all offsets
    config.data.name = "voc/2007"  # ours: with boxes of all objects, and smaller than ILSVRC13
    config.data.train_split = "train+validation"  # ours: VOC's trainval
    # Table 5: shorter sides; not in paper: crops of 317 pixels, 9×9 positions
    config.data.train_host = (
        "decode|resize_short_among((317, 389, 425, 461), method='bilinear')|random_crop(317)"
    )
    config.data.eval_host = "decode|fit(461, 461)"  # not in paper: to watch training by
    # not in paper: the released networks' mean and deviation (overfeat-torch, run.lua)
    config.data.train_device = f"flip|{_NORMALISE}"
    config.data.eval_device = _NORMALISE  # not in paper: run.lua
    config.boxes = common.ConfigDict(
        {
            "positive": 0.5,  # not in paper: as IoU of windows is in R-CNN
            "negative": 0.3,  # not in paper: below it SVMs of R-CNN have background
            "negatives": 3,  # not in paper: as R-CNN has in a batch
            "choice": "hardest",  # §5: on the fly, the most offending ones
            "regressed": 0.3,  # not in paper: beyond what the classifier takes for an object
            "box_weight": 1.0,  # not in paper: trained along
            "scales": (),  # not in paper: one scale, to watch training by
        }
    )
    config.eval.protocol = "merge|merge(weighted=False)|suppress|single"  # §4.3, Table 5's scales
    config.eval.batch_size = 16  # ours: images are larger than in training
    config.batch_size = 32  # not in paper: 2,592 windows
    config.total_epochs = 40.0  # not in paper: 6,264 steps
    config.optim.lr, config.optim.lr_batch = 0.001, 32  # not in paper: R-CNN's for fine-tuning
    config.optim.lr_mults = (("(box|fc9).*", 10.0),)  # not in paper: R-CNN's for new layers
    config.optim.momentum = 0.6  # §3.1
    config.optim.weight_decay = 1e-5  # §3.1
    config.optim.schedule = "step_epochs(30, factor=0.1)"  # not in paper
    config.eval.every_epochs = 5.0  # not in paper: to watch training by
    config.checkpoint.every_steps = 500  # ours: every few minutes
    return config


def _on_scenes(config: Any) -> None:
    """Sets what the recipes on the embedded scenes share; none of it is in the paper."""
    config.model.width = 0.1  # ours: for two cores
    # ours: narrow networks need He et al.'s initial weights to start learning
    config.model.weight_init = "he"
    config.model.conv1_stride = 1  # ours: for small images
    config.model.window = 36  # ours: the smallest with 2×2 cells under fc6, of 34 pixels
    config.model.dropout = 0.2  # ours: narrow networks have little to spare
    config.data.name = "digits/scenes"  # ours: embedded in the package
    # ours: colours and their signs tell nothing here, and a scene's own colour hides the digits
    config.data.train_device = "permute_channels|invert|subtract_own_mean|scale(0.015625)"
    config.data.eval_device = "subtract_own_mean|scale(0.015625)"  # ours: the same without chance
    config.log_every_steps = 25  # ours: runs are short
    config.optim.schedule = "cosine"  # ours: it ends a short run well
    config.optim.warmup_epochs = 0.5  # ours: a large rate at once leaves dead units
    config.optim.weight_decay = 1e-5  # §3.1
    config.eval.every_epochs = 2.0  # ours: to watch training by
    config.eval.mirror = False  # ours: a mirrored digit is another sign


def _at_all_positions(config: Any) -> None:
    """Sets what localizing and detecting share."""
    config.model.boxes = "shared"  # §4.4: 31.3 % of errors, 44.1 % with a regressor for each class
    config.model.fine = config.model.fine_in_training = True  # §3.3; §4.2: at all offsets
    config.init_from = "runs/overfeat-scenes_classify"  # §4.2, §5: trained as a classifier before
    # ours: every scale of the test
    config.data.train_host = (
        "decode|resize_short_between(56, 128, method='bilinear')|random_crop(56)"
    )
    config.batch_size = 32  # ours: 1,152 windows
    config.total_epochs = 4.0  # ours: minutes
    # §4.3; ours: six scales as the paper's; boxes are averaged by their scores
    config.eval.protocol = "merge(scales=(56, 66, 78, 92, 108, 128))"
    config.eval.batch_size = 20  # ours: images are enlarged


def get_config(recipe: str = "") -> Any:
    """Returns the config of a recipe; "" is desk."""
    recipes = {
        "desk": desk,
        "imagenet2012": imagenet2012,
        "accurate": accurate,
        "scenes_classify": scenes_classify,
        "scenes_localize": scenes_localize,
        "scenes_detect": scenes_detect,
        "voc2007": voc2007,
    }
    return common.choose(recipes, recipe, name="overfeat", paper="imagenet2012")


REPORTED = (
    *top1_and_top5(
        "imagenet2012",
        {"fast": (39.01, 16.97)},
        protocol="1 scale, fine stride; the recipe tests at six",
        measured_by="",
        source="Table 2",
    ),
    *top1_and_top5(
        "imagenet2012",
        {"fast": (38.12, 16.27)},
        protocol="6 scales, fine stride",
        measured_by="overfeat_dense",
        source="Table 2",
    ),
    *top1_and_top5(
        "accurate",
        {"accurate": (35.74, 14.18)},
        protocol="4 scales, fine stride; the recipe tests at six",
        measured_by="",
        source="Table 2",
    ),
    *top1_and_top5(
        "accurate",
        {"accurate": (33.96, 13.24)},
        protocol="7 models, fine stride; a run is of one",
        measured_by="",
        source="Table 2",
    ),
)
