"""AlexNet.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks. NIPS 2012.
https://papers.nips.cc/paper/4824

Deviations:
  - The input is 227×227: the paper writes 224, which does not give its 55×55 map without padding it does not mention.
  - Response normalisation stays within a column, since only conv3 and the fully connected layers read both (§3.5).
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models import layers

# Figure 2 and §3.5: kernels, size, stride, padding; which layers read both columns; where the bias starts at one (§5).
TABLE = {
    #         kernels size stride pad  linked  bias  norm   pool
    "conv1": (96, 11, 4, 0, True, 0.0, True, True),
    "conv2": (256, 5, 1, 2, False, 1.0, True, True),
    "conv3": (384, 3, 1, 1, True, 0.0, False, False),
    "conv4": (384, 3, 1, 1, False, 1.0, False, False),
    "conv5": (256, 3, 1, 1, False, 1.0, False, True),
}
FULLY_CONNECTED = (("fc6", 4096), ("fc7", 4096))

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "one_tower": {"columns": 1},
    "one_gpu": {"columns": 1, "halved": ("conv1", "conv2", "conv3", "conv4")},  # footnote 2
}
ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "sigmoid": nn.sigmoid}


class AlexNet(nn.Module):
    """Five convolutions in two columns and three fully connected layers (Figure 2).

    Called with `image` float [n, h, w, 3]; returns logits float32 [n, num_classes] and a dict of the paper's layers.
    Larger images than the one initialised with give maps of scores, averaged over positions into the logits.
    """

    num_classes: int = 1000
    columns: int = 2
    halved: tuple[str, ...] = ()  # convolutions with half the kernels
    activation: str = "relu"
    lrn: bool = True
    pool: tuple[int, int] = (3, 2)  # window and stride; (2, 2) does not overlap (§3.4)
    dropout: float = 0.5
    weight_init: str = "paper"  # or "he"
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        activate = ACTIVATIONS[self.activation]
        x = image
        for name, (kernels, size, stride, padding, linked, bias, norm, pool) in TABLE.items():
            x = layers.ColumnConv(
                self._scaled(kernels // 2 if name in self.halved else kernels),
                (size, size),
                (stride, stride),
                layers.pad(padding),
                columns=1 if linked else self.columns,
                **self._initialisers(bias),
                name=name,
            )(x)
            x = ends[name] = activate(x)
            if norm and self.lrn:
                x = ends[name.replace("conv", "norm")] = self._normalise(x)
            if pool:
                x = ends[name.replace("conv", "pool")] = layers.max_pool(x, *self.pool)
        for name, features in FULLY_CONNECTED:
            x = layers.FullyConnected(self._scaled(features), **self._initialisers(1.0), name=name)(x)
            x = ends[name] = activate(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        ends["fc8"] = layers.FullyConnected(self.num_classes, **self._initialisers(0.0), name="fc8")(x)
        return ends["fc8"].mean((1, 2), dtype=jnp.float32), ends

    def _normalise(self, x: jax.Array) -> jax.Array:
        """Normalises across the channels of each column."""
        columns = x.reshape(*x.shape[:3], self.columns, x.shape[-1] // self.columns)
        return layers.local_response_norm(columns).reshape(x.shape)

    def _initialisers(self, bias: float) -> dict[str, Any]:
        """§5: N(0, 0.01²), biases zero or one; or He et al.'s with zero biases."""
        if self.weight_init == "he":
            return {"kernel_init": layers.he_normal, "dtype": self.dtype}
        constant = nn.initializers.constant(bias)
        return {"kernel_init": nn.initializers.normal(0.01), "bias_init": constant, "dtype": self.dtype}

    def _scaled(self, channels: int) -> int:
        return max(self.columns, round(channels * self.width / self.columns) * self.columns)


def Model(variant: str = "paper", **fields: Any) -> AlexNet:
    """The network named `variant`, `fields` that are not None on top."""
    model = layers.build(AlexNet, VARIANTS, variant, fields)
    if model.activation not in ACTIVATIONS:
        raise ValueError(f"unknown model.activation '{model.activation}'; there are: {', '.join(ACTIVATIONS)}")
    if model.weight_init not in ("paper", "he"):
        raise ValueError(f"unknown model.weight_init '{model.weight_init}'; there are: paper, he")
    return model


_SHAPES = {
    "conv1": (55, 55, 96),
    "conv2": (27, 27, 256),
    "conv3": (13, 13, 384),
    "conv4": (13, 13, 384),
    "conv5": (13, 13, 256),
    "pool5": (6, 6, 256),
    "fc6": (1, 1, 4096),
    "fc7": (1, 1, 4096),
    "fc8": (1, 1, 1000),
}
_HALF_SHAPES = {
    "conv1": (55, 55, 48),
    "conv2": (27, 27, 128),
    "conv3": (13, 13, 192),
    "conv4": (13, 13, 192),
    "conv5": (13, 13, 256),
}
FACTS = {
    "paper": Facts((227, 227, 3), 60_965_224, 724_406_816, _SHAPES, "Figure 2; 60,965,224 as in BVLC bvlc_alexnet"),
    "one_tower": Facts((227, 227, 3), 62_378_344, 1_135_256_096, _SHAPES, "counted: every layer reads all channels"),
    "one_gpu": Facts((227, 227, 3), 59_798_312, 391_514_384, _HALF_SHAPES, "footnote 2; counted"),
}
