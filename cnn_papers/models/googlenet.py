"""GoogLeNet.

Szegedy, Liu, Jia, Sermanet, Reed, Anguelov, Erhan, Vanhoucke, Rabinovich: Going Deeper with Convolutions. CVPR 2015.
arXiv:1409.4842

Deviations:
  - Initialisation is He et al.'s normal; the paper does not state its own.
  - On maps smaller than 5×5 (inputs below about 80 pixels) the auxiliary heads average the whole map.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models import layers

# Table 1. A row is an inception module (1×1 | 3×3 reduce, 3×3 | 5×5 reduce, 5×5 | pool proj) or a max pooling.
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

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "paper_without_aux": {"aux_heads": False},
}


class ConvRelu(nn.Module):
    """Convolution with bias, then ReLU; 'same' padding for odd kernels."""

    features: int
    size: int
    stride: int = 1
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        size, stride = (self.size, self.size), (self.stride, self.stride)
        padding = layers.pad(self.size // 2)
        return nn.relu(nn.Conv(self.features, size, stride, padding, kernel_init=layers.he_normal, dtype=self.dtype)(x))


class Inception(nn.Module):
    """Figure 2b: four branches, concatenated along the channels."""

    widths: tuple[int, ...]
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        one, reduce3, three, reduce5, five, proj = self.widths

        def conv(x, features, size, name):
            return ConvRelu(features, size, dtype=self.dtype, name=name)(x)

        branches = (
            conv(x, one, 1, "1x1"),
            conv(conv(x, reduce3, 1, "3x3_reduce"), three, 3, "3x3"),
            conv(conv(x, reduce5, 1, "5x5_reduce"), five, 5, "5x5"),
            conv(layers.max_pool(x, 3, 1, padding=1), proj, 1, "pool_proj"),
        )
        return jnp.concatenate(branches, -1)


class AuxiliaryHead(nn.Module):
    """§5: average pooling 5×5/3, 1×1 convolution, fully connected layer, dropout, linear."""

    num_classes: int
    widths: tuple[int, int]
    dropout: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        window = (min(5, x.shape[1]), min(5, x.shape[2]))
        x = nn.avg_pool(x, window, (3, 3))
        x = ConvRelu(self.widths[0], 1, dtype=self.dtype, name="conv")(x)
        x = nn.relu(layers.FullyConnected(self.widths[1], dtype=self.dtype, name="fc1")(x))
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = layers.FullyConnected(self.num_classes, dtype=self.dtype, name="fc2")(x)
        return x.mean((1, 2), dtype=jnp.float32)


class GoogLeNet(nn.Module):
    """The 22-layer network of Table 1.

    Called with `image` float [n, h, w, 3]; returns logits float32 [n, num_classes] and a dict of the paper's layers.
    With `train` the logits of the auxiliary heads are among them, as `aux_4a` and `aux_4d`.
    """

    num_classes: int = 1000
    aux_heads: bool = True
    lrn: bool = True
    dropout: float = 0.4  # §5
    aux_dropout: float = 0.7  # §5
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        x = self._stem(image, ends)
        for name, row in TABLE.items():
            if row is None:
                x = layers.max_pool(x, 3, 2, ceil_mode=True)
            else:
                x = Inception(tuple(map(self._scaled, row)), dtype=self.dtype, name=name)(x)
            ends[name] = x
            if self.aux_heads and train and name in AUXILIARY:
                widths = (self._scaled(128), self._scaled(1024))
                head = AuxiliaryHead(self.num_classes, widths, self.aux_dropout, self.dtype, name=AUXILIARY[name])
                ends[AUXILIARY[name]] = head(x, train=train)
        x = ends["pool5"] = x.mean((1, 2), keepdims=True)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        ends["fc"] = layers.FullyConnected(self.num_classes, dtype=self.dtype, name="fc")(x)
        return ends["fc"].mean((1, 2), dtype=jnp.float32), ends

    def _stem(self, image: jax.Array, ends: dict[str, jax.Array]) -> jax.Array:
        norm = layers.local_response_norm if self.lrn else lambda x: x

        def conv(x, features, size, stride, name):
            return ConvRelu(self._scaled(features), size, stride, dtype=self.dtype, name=name)(x)

        x = ends["conv1"] = conv(image, 64, 7, 2, "conv1")
        x = ends["pool1"] = layers.max_pool(x, 3, 2, ceil_mode=True)
        x = conv(norm(x), 64, 1, 1, "conv2_reduce")
        ends["conv2_reduce"] = x
        x = ends["conv2"] = conv(x, 192, 3, 1, "conv2")
        x = ends["pool2"] = layers.max_pool(norm(x), 3, 2, ceil_mode=True)
        return x

    def _scaled(self, channels: int) -> int:
        return max(1, round(channels * self.width))


def Model(variant: str = "paper", **fields: Any) -> GoogLeNet:
    """The network named `variant`, `fields` that are not None on top."""
    return layers.build(GoogLeNet, VARIANTS, variant, fields)


_SHAPES = {
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
FACTS = {
    "paper": Facts((224, 224, 3), 13_378_280, 1_582_671_872, _SHAPES, "Table 1 (shapes); counted from its channels"),
    "paper_without_aux": Facts(
        (224, 224, 3), 6_998_552, 1_582_671_872, _SHAPES, "Table 1 (shapes); BVLC bvlc_googlenet without its aux heads"
    ),
}
