"""The papers' test protocols, by the names that `config.eval.protocol` joins with `|`.

A protocol is the views of an image and how the network scores them; class probabilities are
averaged over the views and their mirror images. Whole images keep their aspect; `step` and
`longest` cut a little off their longer side (`views.longer_side`), so that few programs are
compiled.
"""

import functools
import sys
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np

from cnn_papers import opstrings
from cnn_papers.errors import UserError
from cnn_papers.evaluation import scores, views

# Shorter and longer side (OverFeat, Table 5).
OVERFEAT_SIZES = ((245, 245), (281, 317), (317, 389), (389, 461), (425, 497), (461, 569))
SPP_SCALES = (224, 256, 300, 360, 448, 560)  # SPP-net §3.1.5


class Part(NamedTuple):
    """Views of one kind; a protocol averages its parts by their weights.

    Attributes:
      views: (uint8 image [h, w, c], resize method) -> uint8 images.
      score: a function of `scores`.
      sizes: (h, w) of the smallest possible views, all of which the network must take.
      short: the largest shorter side that an image is scaled to; smaller images are scaled up.
      needs: what the network must be able to do: "" (nothing special), "slide", "offsets" or
        "windows".
      mirrored: also take the mirror image of each view.
      weight: in proportion to the other parts.
      prepared: take views of the result of `config.data.eval_host`, not of the image itself.
    """

    views: Callable[[np.ndarray, str], Sequence[np.ndarray]]
    score: Callable[[Any, Any, Any], scores.Scored]
    sizes: tuple[tuple[int, int], ...]
    short: int
    needs: str = ""
    mirrored: bool = True
    weight: float = 1.0
    prepared: bool = False


class Svm(NamedTuple):
    """Linear SVMs on features of images in place of the network's own scores; see `svm`.

    Attributes:
      features: which outputs of which views, as text.
      part: the views; its `score` gives the outputs of the layer.
      normalise, train, test, C: as for `svm`.
    """

    features: str
    part: Part
    normalise: bool
    train: str
    test: str
    C: float


Protocol = tuple[Part, ...]


def single_view() -> Protocol:
    """The result of `config.data.eval_host`, as in the evaluations during training."""

    def itself(image: np.ndarray, method: str) -> list[np.ndarray]:
        return [image]

    return (Part(itself, scores.softmax, (), 0, mirrored=False, prepared=True),)


def ten_crop(size: int = 224, short: int = 256, whole: bool = False) -> Protocol:
    """Corners and centre of the central square of the image at shorter side `short` (AlexNet §4.1).

    With `whole` they are the corners of the whole image (SPP-net §3.1, Return of the Devil §3.2,
    the README of ResNet's authors, fb.resnet.torch).
    """
    _check_crops(size, (short,))
    crops = functools.partial(views.five_crops, size=size, short=short, whole=whole)
    return (Part(crops, scores.softmax, ((size, size),), short),)


def crops_144(size: int = 224, scales: tuple[int, ...] = (256, 288, 320, 352)) -> Protocol:
    """Corners, centre and the whole of three squares at each of four scales (GoogLeNet §7).

    With their mirror images they are 4·3·6·2 = 144 views.
    """
    _check_crops(size, scales)
    crops = functools.partial(views.six_crops_of_squares, size=size, scales=scales)
    return (Part(crops, scores.softmax, ((size, size),), max(scales)),)


def vgg_dense(
    scales: int | tuple[int, ...] = (256, 384, 512), step: int = 32, longest: float = 2.0
) -> Protocol:
    """The network slides over the whole image at each scale (VGG §3.2).

    Its map of scores is averaged before the softmax.
    """
    return (_whole(scores.softmax, scales, step, longest, "slide"),)


def vgg_multi_crop(
    scales: int | tuple[int, ...] = (256, 384, 512), size: int = 224, grid: int = 5
) -> Protocol:
    """A regular grid of 5×5 crops over the whole image at each scale (VGG §3.2)."""
    scales = _several(scales)
    _check_crops(size, scales)
    if grid < 1:
        raise UserError(f"config.eval.protocol: grid={grid} must be positive")
    crops = functools.partial(views.grid, size=size, scales=scales, count=grid)
    return (Part(crops, scores.softmax, ((size, size),), max(scales)),)


def vgg_both(
    scales: int | tuple[int, ...] = (256, 384, 512),
    size: int = 224,
    step: int = 32,
    longest: float = 2.0,
) -> Protocol:
    """The mean of the softmax outputs of `vgg_dense` and `vgg_multi_crop` (VGG §4.3)."""
    return vgg_dense(scales, step, longest) + vgg_multi_crop(scales, size)


def overfeat_dense(
    sizes: tuple[tuple[int, int], ...] = OVERFEAT_SIZES, fine: bool = True
) -> Protocol:
    """The maximum of each class over positions and offsets of the last pooling (OverFeat §3.3).

    `sizes` are shorter and longer sides; images are scaled to cover them. Without `fine` there is
    only one offset.
    """
    if not sizes or min(map(min, sizes)) < 1:
        raise UserError(
            f"config.eval.protocol: sizes={sizes} must be pairs of shorter and longer side, "
            "at least one"
        )
    windows = functools.partial(views.covers, sizes=sizes)
    score = functools.partial(scores.spatial_max, fine=fine)
    return (Part(windows, score, sizes, max(map(min, sizes)), "offsets"),)


def spp_full(scale: int = 256, step: int = 16, longest: float = 2.0) -> Protocol:
    """The whole image at shorter side `scale` through the pyramid, without its mirror image.

    SPP-net §3.1.4, Table 3, which is of single views.
    """
    full = _whole(scores.softmax, scale, step, longest, "windows")
    return (full._replace(mirrored=False),)


def spp_multi_view(
    scales: tuple[int, ...] = SPP_SCALES,
    size: int = 224,
    full: int = 256,
    step: int = 16,
    longest: float = 2.0,
) -> Protocol:
    """Windows of size×size on the feature maps (SPP-net §3.1.5).

    They are 18 views at each scale, 6 where the scale is `size`. Two views of the whole image at
    shorter side `full` are averaged with them, each with the same weight; 0 leaves them out.
    """
    _check_crops(size, scales)
    on_maps = _whole(functools.partial(scores.windows, size=size), scales, step, longest, "windows")
    number_of_views = sum(2 * len(views.nine_windows(scale, scale, size)) for scale in scales)
    if not full:
        return (on_maps,)
    return (
        on_maps._replace(weight=number_of_views),
        _whole(scores.softmax, full, step, longest, "windows")._replace(weight=2),
    )


def resnet_dense(
    scales: int | tuple[int, ...] = (224, 256, 384, 480, 640), step: int = 32, longest: float = 2.0
) -> Protocol:
    """As `vgg_dense`, which the paper adopts, at its own scales (ResNet §3.4)."""
    return vgg_dense(scales, step, longest)


def svm(
    layer: str = "fc7",
    C: float = 1.0,
    normalise: bool = True,
    pool: str = "",
    views: str = "single_view",
    mirror: bool = False,
    train: str = "mean",
    test: str = "mean",
) -> Svm:
    """A linear SVM for each class on the outputs of a layer (Return of the Devil in the Details).

    They are fitted to the images of `config.data.train_split`, each class against the rest.

    Args:
      layer: its name; of a map `pool`, "mean" or "max", takes one position, "" keeps all.
      C: the weight of the hinge loss.
      normalise: divide the features of an image by their ℓ2 norm.
      views: a protocol with crops of one size, such as "ten_crop(whole=True)" (the paper's C), as
        the views of an image; with `mirror` their mirror images too (F). A network that takes
        descriptors gets those of each view.
      train: the features of several views of a training image: each a training example of its own
        ("separate", the paper's f), their "mean" (s), or one after the other ("stack", t).
      test: the same of a test image, "mean" or "stack"; "stack" goes with "stack".
    """
    key = "config.eval.protocol: svm"
    if C <= 0:
        raise UserError(f"{key} with C={C}, which must be positive")
    if pool not in ("", "mean", "max"):
        raise UserError(f"{key} with pool='{pool}': it is 'mean', 'max' or '', for all positions")
    if (train, test) not in (("separate", "mean"), ("mean", "mean"), ("stack", "stack")):
        raise UserError(
            f"{key} with train='{train}', test='{test}': write 'separate' or 'mean' with 'mean', "
            "or 'stack' with 'stack'"
        )
    ops = opstrings.parse(views, sys.modules[__name__], leading=0, key="eval.protocol")
    parts = ops[0]() if len(ops) == 1 and ops[0].name != "svm" else ()
    if len(parts) != 1 or parts[0].needs or len(set(parts[0].sizes)) > 1:
        raise UserError(f"{key} with views='{views}', which is no protocol with crops of one size")
    part = parts[0]._replace(
        score=functools.partial(scores.layer_outputs, layer=layer, pool=pool),
        mirrored=mirror or parts[0].mirrored,
    )
    features = repr((layer, pool, normalise, views, part.mirrored, train))
    return Svm(features, part, normalise, train, test, C)


def _several(scales: int | tuple[int, ...]) -> tuple[int, ...]:
    return (scales,) if isinstance(scales, int) else scales


def _whole(
    score: Any, scales: int | tuple[int, ...], step: int, longest: float, needs: str
) -> Part:
    scales = _several(scales)
    if not scales or min(scales) < 1 or step < 1 or longest < 1:
        raise UserError(
            f"config.eval.protocol: scales={scales}, step={step} and longest={longest} "
            "must all be positive, longest at least 1"
        )
    images = functools.partial(views.whole, scales=scales, step=step, longest=longest)
    return Part(images, score, tuple((scale, scale) for scale in scales), max(scales), needs)


def _check_crops(size: int, scales: tuple[int, ...]) -> None:
    if size < 1 or not scales or min(scales) < size:
        raise UserError(
            f"config.eval.protocol: a crop of {size} does not fit images of shorter side "
            f"{min(scales, default='?')}; give larger scales or a smaller crop"
        )
