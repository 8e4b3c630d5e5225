"""SPP-net's detector (He, Zhang, Ren, Sun, ECCV 2014, arXiv:1406.4729, §4).

python -m cnn_papers.main --config=configs/sppnet.py:scenes_classify
    ours: convolutions for desk, trained on digits cut out of the embedded scenes
python -m cnn_papers.main --config=configs/sppnet.py
    desk: windows of the scenes, from runs/sppnet-scenes_classify; minutes on two cores
python -m cnn_papers.main --config=configs/sppnet.py:voc2007
    §4.1, ZF-5 on VOC 2007, from runs/spp-imagenet2012
python -m cnn_papers.main --config=configs/sppnet.py:own
    ours: all layers from scratch on some hundred photographs, minutes on two cores; give
    --config.data.name=voc_folder:PATH, and the number of classes and one as
    --config.model.num_classes
"""

from typing import Any

from cnn_papers.facts import Reported
from configs import common

FIELDS = common.SPP
_SCALED = "subtract_own_mean|scale(0.015625)"
_COLOURS = f"permute_channels|invert|{_SCALED}"


def desk() -> Any:
    """§4.1 on embedded scenes, but all layers go on learning.

    The paper fine-tunes only the fully connected ones. Those of a classifier of few small digits
    are not good enough for that: the loss of windows stays where it is after two epochs.
    """
    config = common.base("spp", "zf5", 11, FIELDS)  # the digits and background
    _on_scenes(config)
    config.task = "detect_windows"  # §4.1
    config.init_from = "runs/sppnet-scenes_classify"  # §4.1: trained as a classifier before
    config.data.train_split = "train[:2000]"  # ours: proposals take a while
    config.data.proposals = "selective_search(size=128)"  # ours: twice the scenes' size
    # ours: digits of 24 to 60 pixels, 3 to 7 cells of the map
    config.data.train_host = config.data.eval_host = "decode|fit(96, 96)"
    config.boxes = common.ConfigDict(
        {
            "windows": 512,  # ours: 16 of an image
            "positive_share": 0.25,  # §4.1
            "positive_iou": 0.5,  # §4.1
            # ours: with empty ground too, which is most of what proposals show here
            "background_iou": (0.0, 0.5),
            "other_sizes": (),  # ours: one scale
        }
    )
    config.batch_size = 32  # ours: for small data
    config.total_epochs = 6.0  # ours: minutes; twice as many find two points more
    config.optim.lr, config.optim.lr_batch = 0.01, 32  # ours: tried on these scenes
    config.eval.batch_size = 50  # ours: several proposals an image
    config.eval.protocol = "softmax(scales=(96,))"  # ours: as in training
    config.eval.every_epochs = 2.0  # ours: to watch training by
    return config


def scenes_classify() -> Any:
    """The desk network as a classifier of digits that are cut out of the scenes."""
    config = common.base("spp", "zf5", 10, FIELDS)
    _on_scenes(config)
    # ours: as large as the windows of desk are on average, with some surroundings
    config.data.train_host = "decode|random_object(0.2, square=True)|fit(48, 48)"
    config.data.eval_host = "decode|largest_object(0.2, square=True)|fit(48, 48)"  # ours: same
    config.data.train_device = f"pad_crop(4)|{_COLOURS}"  # ours: small shifts
    config.batch_size = 64  # ours: for small data
    config.total_epochs = 16.0  # ours: minutes
    config.optim.lr, config.optim.lr_batch = 0.02, 64  # ours: tried on these scenes
    return config


def voc2007() -> Any:
    """§4.1: ZF-5 of ImageNet, whose fully connected layers are fine-tuned to windows."""
    config = common.base("spp", "zf5", 21, FIELDS)  # §4.1: 21-way, with background
    config.task = "detect_windows"  # §4.1
    config.init_from = "runs/spp-imagenet2012"  # §4.1: pre-trained; fc8 is new, from N(0, 0.01²)
    config.optim.frozen = "conv.*"  # §4.1: only the fully connected layers are fine-tuned
    config.model.dtype = "bfloat16"  # ours: for TPU and GPU
    config.data.name = "voc/2007"  # §4.2
    config.data.train_split = "train+validation"  # §4.2: trainval
    config.data.proposals = "selective_search()"  # §4.1: its fast mode, about 2,000 windows
    # ours: the scale 480 of images of 4:3, of which all are padded to squares for batches
    config.data.train_host = config.data.eval_host = "decode|fit(640, 640, method='bilinear')"
    # Appendix A: 128 is the mean on VOC 2007
    config.data.train_device = config.data.eval_device = (
        "normalize((128.0, 128.0, 128.0), (1.0, 1.0, 1.0))"
    )
    config.boxes = common.ConfigDict(
        {
            "windows": 128,  # §4.1
            "positive_share": 0.25,  # §4.1
            "positive_iou": 0.5,  # §4.1
            "background_iou": (0.1, 0.5),  # §4.1
            # §4.1: 576, 688, 864 and 1200 are the shorter sides; at 4:3 these are the longer ones
            "other_sizes": (768, 917, 1152, 1600),
        }
    )
    config.batch_size = 2  # not in paper: 64 windows of an image, as in Fast R-CNN
    config.total_steps = 300_000  # §4.1: 250k and 50k
    config.optim.lr, config.optim.lr_batch = 1e-4, 2  # §4.1
    config.optim.schedule = "step(250_000)"  # §4.1: then 1e-5
    config.optim.momentum = 0.9  # not in paper: AlexNet §5
    config.optim.weight_decay = 5e-4  # not in paper: AlexNet §5
    config.optim.lr_mults = ((".*/bias", 2.0),)  # not in paper: Zeiler_conv5.prototxt
    # §4.1, Table 9: at five scales, on pool5 and the layers after it; §4.3: R-CNN beside it
    config.eval.protocol = (
        "softmax|svm('spp')|svm('fc6')|svm('fc7')|svm('fc7', boxes=True)|rcnn(boxes=True)"
    )
    config.eval.every_epochs = 4.0  # ours: 10,044 steps, to watch training by
    config.checkpoint.every_steps = 2000  # ours: every few minutes
    return config


def own() -> Any:
    """A narrow ZF-5 on windows of a small set of photographs, all layers from scratch.

    Its numbers were looked at on 87 of 292 training photographs of blood cells, after training on
    the others; no test photograph was.
    """
    config = common.base("spp", "zf5", 21, FIELDS)
    _narrow(config)
    config.task = "detect_windows"  # §4.1
    config.data.name = "voc_folder:VOC2007"  # ours: give your own
    config.data.train_split = "trainval"  # ours: VOC's name
    config.data.proposals = "selective_search(size=320, max_proposals=480)"  # ours: for two cores
    # ours: 30 cells of the map, 3 for an object of a tenth of the image; minutes on two cores
    config.data.train_host = config.data.eval_host = "decode|fit(480, 480)"
    config.data.train_device = (
        f"flip|{_SCALED}"  # ours: light differs from photograph to photograph
    )
    config.data.eval_device = _SCALED  # ours: the same without chance
    config.boxes = common.ConfigDict(
        {
            "windows": 256,  # ours: 64 of an image; convolutions take the time
            "positive_share": 0.25,  # §4.1
            "positive_iou": 0.5,  # §4.1
            "background_iou": (0.0, 0.5),  # ours: everything is learnt from these windows
            "other_sizes": (),  # ours: one scale
        }
    )
    config.batch_size = 4  # ours: small data has few steps
    config.total_epochs = 6.0  # ours: minutes for some hundred photographs
    config.optim.lr, config.optim.lr_batch = 0.01, 4  # ours: no other was tried
    config.eval.batch_size = 4  # ours: hundreds of proposals an image
    # ours: the shorter side of most photographs that are 480 pixels long; the last is §4.1's
    config.eval.protocol = (
        "softmax(boxes=True, scales=(360,))|softmax(scales=(360,))"
        "|svm('fc7', boxes=True, scales=(360,))"
    )
    config.eval.every_epochs = 2.0  # ours: to watch training by
    return config


def _on_scenes(config: Any) -> None:
    """Sets what the recipes on the embedded scenes share; none of it is in the paper."""
    _narrow(config)
    config.model.conv1_stride = 1  # ours: for small images
    config.data.name = "digits/scenes"  # ours: embedded in the package
    # ours: colours and their signs tell nothing here, and a scene's own colour hides the digits
    config.data.train_device = _COLOURS
    config.data.eval_device = _SCALED  # ours: the same without chance
    config.eval.mirror = False  # ours: a mirrored digit is another sign


def _narrow(config: Any) -> None:
    """Makes the network one for two cores, which trains from scratch in minutes."""
    config.model.width = 0.2  # ours: for two cores
    # ours: narrow networks need He et al.'s initial weights to start learning
    config.model.weight_init = "he"
    config.model.levels = (4, 2, 1)  # ours: for small maps
    config.model.lrn = False  # ours: for two cores
    config.model.dropout = 0.2  # ours: narrow networks have little to spare
    config.log_every_steps = 25  # ours: runs are short
    config.optim.momentum = 0.9  # not in paper: AlexNet §5
    config.optim.weight_decay = 5e-4  # not in paper: AlexNet §5
    config.optim.schedule = "cosine"  # ours: it ends a short run well
    config.optim.warmup_epochs = 0.5  # ours: a large rate at once leaves dead units


def get_config(recipe: str = "") -> Any:
    """Returns the config of a recipe: desk (also for ""), scenes_classify, voc2007 or own."""
    recipes = {"desk": desk, "scenes_classify": scenes_classify, "voc2007": voc2007, "own": own}
    return common.choose(recipes, recipe, name="sppnet", paper="voc2007")


def _map(value: float, protocol: str, measured_by: str) -> Reported:
    """Returns a mean average precision of Table 9, at five scales unless the protocol says one."""
    return Reported(
        recipe="voc2007",
        variant="zf5",
        metric="map",
        value=value,
        data="voc/2007[test]",
        protocol=protocol,
        measured_by=measured_by,
        source="Table 9",
    )


_ONE_SCALE = "the scale 688; the recipe tests at five"
REPORTED = (
    _map(44.9, "SVMs on pool5", "svm('spp')"),
    _map(53.7, "SVMs on fc6", "svm('fc6')"),
    _map(55.2, "SVMs on fc7", "svm('fc7')"),
    _map(59.2, "SVMs on fc7, box regression", "svm('fc7', boxes=True)"),
    _map(43.0, f"SVMs on pool5 at {_ONE_SCALE}", ""),
    _map(58.0, f"SVMs on fc7, box regression, at {_ONE_SCALE}", ""),
)
