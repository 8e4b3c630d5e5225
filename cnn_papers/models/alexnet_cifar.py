"""AlexNet's four-layer network for CIFAR-10.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks.
NIPS 2012, Figure 1 (ReLU against tanh) and §3.3 (response normalisation).
https://papers.nips.cc/paper/4824

Deviations:
  - The paper does not describe the network ("due to space constraints") and refers to the code of
    cuda-convnet. This is that code's network of three convolutions and one fully connected layer,
    as Caffe keeps it (BVLC/caffe, examples/cifar10/cifar10_full_train_test.prototxt). The errors
    of §3.3 (13 % and 11 %) are of another definition there, in which two layers are local.
  - Response normalisation is the paper's, across channels. Caffe's file normalises within a
    channel.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling, variants


class Conv(NamedTuple):
    """A 5×5 convolution, the pooling after it and whether response normalisation follows."""

    filters: int
    std: float  # of the initial weights
    pool: str
    norm: bool


TABLE = {
    "conv1": Conv(32, 1e-4, "max", norm=True),
    "conv2": Conv(32, 1e-2, "average", norm=True),
    "conv3": Conv(64, 1e-2, "average", norm=False),
}
FC_STD = 1e-2  # of the initial weights of fc10

VARIANTS: dict[str, dict[str, Any]] = {
    "relu": {},
    "tanh": {"activation": "tanh"},  # Figure 1, the dashed line
    "relu_lrn": {"lrn": True},
}
ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "sigmoid": nn.sigmoid}
CHOICES = {
    "activation": tuple(ACTIVATIONS),
    "pool": ((3, 2), (2, 2)),
    "weight_init": ("paper", "he"),
}


class AlexNetCifar(nn.Module):
    """Three 5×5 convolutions, each pooled, and a fully connected layer.

    Called with `image` float [n, h, w, c]; returns logits float32 [n, num_classes] and a dict of
    the layers. Larger images than the one initialised with give maps of scores, averaged over
    positions into the logits.
    """

    num_classes: int = 10
    activation: str = "relu"
    lrn: bool = False
    pool: tuple[int, int] = (3, 2)  # window and stride; (2, 2) does not overlap (§3.4)
    weight_init: str = "paper"  # or "he"
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        x = image
        for i, (name, row) in enumerate(TABLE.items(), 1):
            features = max(1, round(row.filters * self.width))
            init = {"kernel_init": self._init(row.std), "dtype": self.dtype}
            x = layers.Conv(features, 5, padding=2, **init, name=name)(x)
            x = ends[name] = ACTIVATIONS[self.activation](x)
            if row.pool == "max":
                x = pooling.max_pool(x, *self.pool, ceil_mode=True)
            else:
                x = average_pool(x, *self.pool)
            ends[f"pool{i}"] = x
            if row.norm and self.lrn:
                x = ends[f"norm{i}"] = layers.local_response_norm(x)
        ends["fc10"] = layers.FullyConnected(
            self.num_classes, self._init(FC_STD), dtype=self.dtype, name="fc10"
        )(x)
        return ends["fc10"].mean((1, 2), dtype=jnp.float32), ends

    def _init(self, std: float) -> nn.initializers.Initializer:
        return layers.he_normal if self.weight_init == "he" else nn.initializers.normal(std)


def average_pool(x: jax.Array, window: int = 3, stride: int = 2) -> jax.Array:
    """Returns means over window×window pixels at `stride`, the output size rounded up.

    The last window may extend beyond the edge, as in cuda-convnet; the mean is over the pixels
    that exist.
    """
    pads: Any = [(0, -(side - window) % stride) for side in x.shape[1:3]]
    return nn.avg_pool(x, (window, window), (stride, stride), pads, count_include_pad=False)


def Model(variant: str = "relu", **fields: Any) -> AlexNetCifar:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant or field, or a value that a field does not take.
    """
    model = variants.build(AlexNetCifar, VARIANTS, variant, fields)
    variants.check_choices(model, CHOICES)
    return model


_MAPS = {
    "conv1": (32, 32, 32),
    "pool1": (16, 16, 32),
    "conv2": (16, 16, 32),
    "pool2": (8, 8, 32),
    "conv3": (8, 8, 64),
    "pool3": (4, 4, 64),
    "fc10": (1, 1, 10),
}
_INPUT, _SOURCE = (32, 32, 3), "counted from Caffe's file"
FACTS = {
    "relu": Facts(_INPUT, 89_578, 12_298_240, _MAPS, _SOURCE),
    "tanh": Facts(_INPUT, 89_578, 12_298_240, _MAPS, _SOURCE),
    "relu_lrn": Facts(_INPUT, 89_578, 12_298_240, _MAPS, _SOURCE),
}
