"""GoogLeNet.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich: Going Deeper with
Convolutions. CVPR 2015. arXiv:1409.4842

Deviations:
  - The paper does not state how it initialises. `weight_init` "he", the default, is He et al.'s
    normal with zero biases; "caffe" is that of Caffe's bvlc_googlenet: weights uniform with
    variance 1/fan-in, biases 0.2, and zero in the three classifiers.
  - Nor does it state the constants of response normalisation. `lrn_constants` "alexnet", the
    default, are AlexNet's; "caffe" are bvlc_googlenet's, k = 1 and α = 10⁻⁴ over the mean of five
    squares, a fifth of AlexNet's α over their sum.
  - On maps smaller than 5×5 (inputs below about 80 pixels) the auxiliary heads average the whole
    map.
  - `separable_stem` is our reading of Table 1's first row: "2.7K parameters, 34M ops" are those of
    a depthwise 7×7 with eight filters a channel and a 1×1, and so is the total of 1.5 billion. The
    text does not mention them.
  - `batch_norm` is not in the paper: batch normalisation replaces biases and response
    normalisation.
  - `torchvision` is the network that torchvision publishes weights for: `batch_norm` with 3×3
    kernels where the paper has 5×5, a 2×2 fourth pooling, dropout 0.2, and auxiliary heads that
    average into 4×4 cells.
"""

import functools
from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling, variants

# Table 1. A row is an inception module (1×1 | 3×3 reduce, 3×3 | 5×5 reduce, 5×5 | pool proj), or
# None for a max pooling.
TABLE = {
    "inception_3a": (64, 96, 128, 16, 32, 32),
    "inception_3b": (128, 128, 192, 32, 96, 64),
    "pool3": None,
    "inception_4a": (192, 96, 208, 16, 48, 64),
    "inception_4b": (160, 112, 224, 24, 64, 64),
    "inception_4c": (128, 128, 256, 24, 64, 64),
    "inception_4d": (112, 144, 288, 32, 64, 64),
    "inception_4e": (256, 160, 320, 32, 128, 128),
    "pool4": None,
    "inception_5a": (256, 160, 320, 32, 128, 128),
    "inception_5b": (384, 192, 384, 48, 128, 128),
}
AUXILIARY = {"inception_4a": "aux_4a", "inception_4d": "aux_4d"}  # §5

LRN_CONSTANTS = {"alexnet": {"k": 2.0, "alpha": 1e-4}, "caffe": {"k": 1.0, "alpha": 1e-4 / 5}}
_XAVIER = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")  # Caffe's filler of this name
# By `weight_init`: of layers that ReLU follows, and of classifiers.
_INITIALISERS: dict[str, dict[str, Any]] = {
    "he": {"kernel_init": layers.he_normal, "bias_init": nn.initializers.zeros},
    "caffe": {"kernel_init": _XAVIER, "bias_init": nn.initializers.constant(0.2)},
}
_CLASSIFIER_INITIALISERS: dict[str, dict[str, Any]] = {
    name: init | {"bias_init": nn.initializers.zeros} for name, init in _INITIALISERS.items()
}

_BATCH_NORM = {"batch_norm": True, "lrn": False}
_TORCHVISION = {
    **_BATCH_NORM,
    "large_kernel": 3,
    "pool4_window": 2,
    "dropout": 0.2,
    "aux_cells": 4,
}
VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "naive": {"reduce": False},  # Figure 2a
    "separable_stem": {"stem": "separable"},
    "batch_norm": _BATCH_NORM,
    "torchvision": _TORCHVISION,
    "paper_without_aux": {"aux_heads": False},
    "batch_norm_without_aux": {**_BATCH_NORM, "aux_heads": False},
    "torchvision_without_aux": {**_TORCHVISION, "aux_heads": False},
}
CHOICES = {
    "stem": ("full", "separable"),
    "lrn_constants": tuple(LRN_CONSTANTS),
    "weight_init": tuple(_INITIALISERS),
}


def _conv_relu(
    x: jax.Array,
    features: int,
    size: int,
    name: str,
    stride: int = 1,
    *,
    batch_norm: bool,
    weight_init: str,
    train: bool,
    dtype: Any,
) -> jax.Array:
    """Applies a convolution with bias and ReLU, or one without bias, batch normalisation and ReLU.

    The padding of ⌊size/2⌋ pixels keeps the map's size at stride 1.
    """
    x = layers.Conv(
        features,
        size,
        stride,
        size // 2,
        use_bias=not batch_norm,
        **_INITIALISERS[weight_init],
        dtype=dtype,
        name=name,
    )(x)
    if batch_norm:
        x = nn.BatchNorm(not train, momentum=0.9, epsilon=1e-3, dtype=dtype, name=f"{name}_bn")(x)
    return nn.relu(x)


class Inception(nn.Module):
    """Four branches, concatenated along the channels: Figure 2b, or 2a without `reduce`."""

    widths: tuple[int, ...]
    conv: Callable[..., jax.Array]
    reduce: bool = True
    large_kernel: int = 5

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        width_1x1, reduce_3x3, width_3x3, reduce_5x5, width_5x5, pool_proj = self.widths

        def reduced(x: jax.Array, features: int, name: str) -> jax.Array:
            return self.conv(x, features, 1, name) if self.reduce else x

        branches = (
            self.conv(x, width_1x1, 1, "1x1"),
            self.conv(reduced(x, reduce_3x3, "3x3_reduce"), width_3x3, 3, "3x3"),
            self.conv(reduced(x, reduce_5x5, "5x5_reduce"), width_5x5, self.large_kernel, "5x5"),
            reduced(pooling.max_pool(x, 3, 1, padding=1), pool_proj, "pool_proj"),
        )
        return jnp.concatenate(branches, -1)


class AuxiliaryHead(nn.Module):
    """The auxiliary classifier of §5; returns logits float32 [n, num_classes].

    Average pooling (5×5 at stride 3, or into `cells` a side), a 1×1 convolution, a fully connected
    layer, dropout and a linear layer.
    """

    num_classes: int
    widths: tuple[int, int]
    dropout: float
    cells: int
    conv: Callable[..., jax.Array]
    weight_init: str = "he"
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        if self.cells:
            x = pooling.pool_into_bins(x, self.cells, jnp.mean)
        else:
            window = tuple(max(1, min(5, side)) for side in x.shape[1:3])  # smaller maps: whole
            x = nn.avg_pool(x, window, (3, 3))
        x = self.conv(x, self.widths[0], 1, "conv")
        hidden = _INITIALISERS[self.weight_init]
        classifier = _CLASSIFIER_INITIALISERS[self.weight_init]
        fc1 = layers.FullyConnected(self.widths[1], **hidden, dtype=self.dtype, name="fc1")
        x = nn.relu(fc1(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = layers.FullyConnected(self.num_classes, **classifier, dtype=self.dtype, name="fc2")(x)
        return x.mean((1, 2), dtype=jnp.float32)


class GoogLeNet(nn.Module):
    """The 22-layer network of Table 1.

    Called with `image` float [n, h, w, 3]; returns logits float32 [n, num_classes] and a dict of
    the paper's layers. With `train` the dict also has the auxiliary heads' logits, `aux_4a` and
    `aux_4d`.
    """

    num_classes: int = 1000
    aux_heads: bool = True
    reduce: bool = True  # 1×1 convolutions before the 3×3 and 5×5 and after the pooling
    stem: str = "full"  # or "separable"
    lrn: bool = True
    lrn_constants: str = "alexnet"  # or "caffe"
    batch_norm: bool = False
    large_kernel: int = 5  # of the branch named 5x5
    pool4_window: int = 3
    aux_cells: int = 0  # cells a side that auxiliary heads average into; 0 is the paper's 5×5/3
    dropout: float = 0.4  # §5
    aux_dropout: float = 0.7  # §5
    weight_init: str = "he"  # or "caffe"
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        conv = functools.partial(
            _conv_relu,
            batch_norm=self.batch_norm,
            weight_init=self.weight_init,
            train=train,
            dtype=self.dtype,
        )
        ends: dict[str, jax.Array] = {}
        x = self._stem(image, conv, ends)
        for name, row in TABLE.items():
            if row is None:
                window = self.pool4_window if name == "pool4" else 3
                x = pooling.max_pool(x, window, 2, ceil_mode=True)
            else:
                widths = tuple(map(self._scaled, row))
                x = Inception(widths, conv, self.reduce, self.large_kernel, name=name)(x)
            ends[name] = x
            if self.aux_heads and train and name in AUXILIARY:
                ends[AUXILIARY[name]] = AuxiliaryHead(
                    self.num_classes,
                    (self._scaled(128), self._scaled(1024)),
                    self.aux_dropout,
                    self.aux_cells,
                    conv,
                    self.weight_init,
                    self.dtype,
                    name=AUXILIARY[name],
                )(x, train=train)

        x = ends["pool5"] = x.mean((1, 2), keepdims=True)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        init = _CLASSIFIER_INITIALISERS[self.weight_init]
        classifier = layers.FullyConnected(self.num_classes, **init, dtype=self.dtype, name="fc")
        ends["fc"] = classifier(x)
        return ends["fc"].mean((1, 2), dtype=jnp.float32), ends

    def _stem(
        self, x: jax.Array, conv: Callable[..., jax.Array], ends: dict[str, jax.Array]
    ) -> jax.Array:
        constants = LRN_CONSTANTS[self.lrn_constants]
        norm = functools.partial(layers.local_response_norm, **constants) if self.lrn else _same
        if self.stem == "separable":
            x = ends["conv1_depthwise"] = layers.Conv(
                x.shape[-1] * self._scaled(8),
                size=7,
                stride=2,
                padding=3,
                groups=x.shape[-1],  # each colour on its own
                use_bias=False,
                kernel_init=_INITIALISERS[self.weight_init]["kernel_init"],
                dtype=self.dtype,
                name="conv1_depthwise",
            )(x)
            x = ends["conv1"] = conv(x, self._scaled(64), 1, "conv1")
        else:
            x = ends["conv1"] = conv(x, self._scaled(64), 7, "conv1", 2)
        x = ends["pool1"] = pooling.max_pool(x, 3, 2, ceil_mode=True)
        x = ends["conv2_reduce"] = conv(norm(x), self._scaled(64), 1, "conv2_reduce")
        x = ends["conv2"] = conv(x, self._scaled(192), 3, "conv2")
        x = ends["pool2"] = pooling.max_pool(norm(x), 3, 2, ceil_mode=True)
        return x

    def _scaled(self, channels: int) -> int:
        return max(1, round(channels * self.width))


def _same(x: jax.Array) -> jax.Array:
    return x


def Model(variant: str = "paper", **fields: Any) -> GoogLeNet:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant or field, or a value that a field does not take.
    """
    model = variants.build(GoogLeNet, VARIANTS, variant, fields)
    variants.check_choices(model, CHOICES)
    return model


# Table 1.
_MAPS = {
    "conv1": (112, 112, 64),
    "pool1": (56, 56, 64),
    "conv2": (56, 56, 192),
    "pool2": (28, 28, 192),
    "inception_3a": (28, 28, 256),
    "inception_3b": (28, 28, 480),
    "pool3": (14, 14, 480),
    "inception_4a": (14, 14, 512),
    "inception_4b": (14, 14, 512),
    "inception_4c": (14, 14, 512),
    "inception_4d": (14, 14, 528),
    "inception_4e": (14, 14, 832),
    "pool4": (7, 7, 832),
    "inception_5a": (7, 7, 832),
    "inception_5b": (7, 7, 1024),
    "pool5": (1, 1, 1024),
}
_NAIVE_MAPS = {
    **_MAPS,
    "inception_3a": (28, 28, 416),
    "inception_3b": (28, 28, 832),
    "pool3": (14, 14, 832),
    "inception_4a": (14, 14, 1280),
    "inception_4b": (14, 14, 1728),
    "inception_4c": (14, 14, 2176),
    "inception_4d": (14, 14, 2640),
    "inception_4e": (14, 14, 3344),
    "pool4": (7, 7, 3344),
    "inception_5a": (7, 7, 4048),
    "inception_5b": (7, 7, 4944),
    "pool5": (1, 1, 4944),
}
_INPUT, _SOURCE = (224, 224, 3), "Table 1 (shapes); counted from its channels"
FACTS = {
    "paper": Facts(_INPUT, 13_378_280, 1_582_671_872, _MAPS, _SOURCE, "1.5G"),
    "paper_without_aux": Facts(_INPUT, 6_998_552, 1_582_671_872, _MAPS, _SOURCE),
    "naive": Facts(_INPUT, 104_274_376, 12_568_061_056, _NAIVE_MAPS, _SOURCE),
    "separable_stem": Facts(_INPUT, 13_371_584, 1_498_677_248, _MAPS, _SOURCE, "1.5G"),
    "batch_norm": Facts(_INPUT, 13_385_816, 1_582_671_872, _MAPS, _SOURCE),
    "batch_norm_without_aux": Facts(_INPUT, 7_005_832, 1_582_671_872, _MAPS, _SOURCE),
    "torchvision": Facts(_INPUT, 13_004_888, 1_498_376_192, _MAPS, _SOURCE),
    "torchvision_without_aux": Facts(_INPUT, 6_624_904, 1_498_376_192, _MAPS, _SOURCE),
}
