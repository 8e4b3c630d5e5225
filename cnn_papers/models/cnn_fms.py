"""CNN-F, CNN-M and CNN-S.

Chatfield, Simonyan, Vedaldi, Zisserman: Return of the Devil in the Details: Delving Deep into
Convolutional Nets. BMVC 2014. arXiv:1405.3531

Deviations:
  - CNN-S pads its second convolution by one pixel, as Table 1 of the paper does; the networks
    released by the authors do not. Neither the parameters nor the map of 6×6 that fc6 reads differ.
  - CNN-S has response normalisation after the first convolution alone, as in Table 1; matconvnet's
    training code for it normalises after the second one too.
  - Pooling rounds up, as in Caffe, which is what gives fc6 its 6×6 pixels.
  - Biases start at zero; the paper takes its training from AlexNet and does not speak of them.
  - The `gray` variants read one channel. An image of several is averaged over them, so a gray image
    copied to three channels and the one-channel image are the same input.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling, variants

# Table 1: kernels, size, stride, padding; whether responses are normalised; window and stride of
# the max pooling.
TABLE: dict[str, dict[str, tuple[int, int, int, int, bool, tuple[int, int] | None]]] = {
    "F": {
        "conv1": (64, 11, 4, 0, True, (3, 2)),
        "conv2": (256, 5, 1, 2, True, (3, 2)),
        "conv3": (256, 3, 1, 1, False, None),
        "conv4": (256, 3, 1, 1, False, None),
        "conv5": (256, 3, 1, 1, False, (3, 2)),
    },
    "M": {
        "conv1": (96, 7, 2, 0, True, (3, 2)),
        "conv2": (256, 5, 2, 1, True, (3, 2)),
        "conv3": (512, 3, 1, 1, False, None),
        "conv4": (512, 3, 1, 1, False, None),
        "conv5": (512, 3, 1, 1, False, (3, 2)),
    },
    "S": {
        "conv1": (96, 7, 2, 0, True, (3, 3)),
        "conv2": (256, 5, 1, 1, False, (2, 2)),
        "conv3": (512, 3, 1, 1, False, None),
        "conv4": (512, 3, 1, 1, False, None),
        "conv5": (512, 3, 1, 1, False, (3, 3)),
    },
}

VARIANTS: dict[str, dict[str, Any]] = {
    "F": {"net": "F"},
    "M": {"net": "M"},
    "S": {"net": "S"},
    "M-2048": {"net": "M", "fc7_units": 2048},
    "M-1024": {"net": "M", "fc7_units": 1024},
    "M-128": {"net": "M", "fc7_units": 128},
    "F-gray": {"net": "F", "gray": True},
    "M-gray": {"net": "M", "gray": True},
    "S-gray": {"net": "S", "gray": True},
}


class CNN(nn.Module):
    """Five convolutions and three fully connected layers (Table 1): fast, medium or slow.

    Called with `image` float [n, h, w, c]; returns logits float32 [n, num_classes] and a dict of
    the paper's layers. Larger images than the one initialised with give maps of scores, averaged
    over positions into the logits.
    """

    net: str
    num_classes: int = 1000
    fc7_units: int = 4096  # §3.3: smaller ones shorten the image descriptor
    gray: bool = False
    conv1_stride: int | None = None  # None is the paper's; smaller ones let small images through
    lrn: bool = True
    dropout: float = 0.5
    weight_init: str = "paper"  # or "he"
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        init = layers.initialisers(self.weight_init) | {"dtype": self.dtype}
        x = image.mean(-1, keepdims=True) if self.gray else image
        for name, (kernels, size, stride, padding, norm, pool) in TABLE[self.net].items():
            if name == "conv1":
                stride = self.conv1_stride or stride
            shape = (size, size), (stride, stride)
            x = nn.Conv(self._scaled(kernels), *shape, layers.pad(padding), name=name, **init)(x)
            x = ends[name] = nn.relu(x)
            if norm and self.lrn:
                x = ends[name.replace("conv", "norm")] = layers.local_response_norm(x)
            if pool:
                x = ends[name.replace("conv", "pool")] = pooling.max_pool(x, *pool, ceil_mode=True)
        for name, units in (("fc6", 4096), ("fc7", self.fc7_units)):
            x = layers.FullyConnected(self._scaled(units), name=name, **init)(x)
            x = ends[name] = nn.relu(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        ends["fc8"] = layers.FullyConnected(self.num_classes, name="fc8", **init)(x)
        return ends["fc8"].mean((1, 2), dtype=jnp.float32), ends

    def _scaled(self, channels: int) -> int:
        return max(1, round(channels * self.width))


def Model(variant: str = "F", **fields: Any) -> CNN:
    """The network named `variant`, `fields` that are not None on top."""
    model = variants.build(CNN, VARIANTS, variant, fields)
    variants.check_choices(model, {"net": tuple(TABLE), "weight_init": ("paper", "he")})
    return model


_F_MAPS = {
    "conv1": (54, 54, 64),
    "pool1": (27, 27, 64),
    "conv2": (27, 27, 256),
    "pool2": (13, 13, 256),
    "conv5": (13, 13, 256),
    "pool5": (6, 6, 256),
    "fc6": (1, 1, 4096),
    "fc7": (1, 1, 4096),
    "fc8": (1, 1, 1000),
}
_M_MAPS = {
    "conv1": (109, 109, 96),
    "pool1": (54, 54, 96),
    "conv2": (26, 26, 256),
    "pool2": (13, 13, 256),
    "conv5": (13, 13, 512),
    "pool5": (6, 6, 512),
    "fc6": (1, 1, 4096),
    "fc7": (1, 1, 4096),
    "fc8": (1, 1, 1000),
}
_S_MAPS = {
    "conv1": (109, 109, 96),
    "pool1": (37, 37, 96),
    "conv2": (35, 35, 256),
    "pool2": (18, 18, 256),
    "conv5": (18, 18, 512),
    "pool5": (6, 6, 512),
    "fc6": (1, 1, 4096),
    "fc7": (1, 1, 4096),
    "fc8": (1, 1, 1000),
}
_COLOUR, _GRAY = (224, 224, 3), (224, 224, 1)
_SOURCE = "Table 1; counted"
FACTS = {
    "F": Facts(_COLOUR, 60_834_536, 724_005_632, _F_MAPS, _SOURCE),
    "M": Facts(_COLOUR, 102_908_520, 1_676_172_320, _M_MAPS, _SOURCE),
    "S": Facts(_COLOUR, 102_908_520, 2_927_705_120, _S_MAPS, _SOURCE),
    "M-2048": Facts(_COLOUR, 92_469_864, 1_665_735_712, {**_M_MAPS, "fc7": (1, 1, 2048)}, _SOURCE),
    "M-1024": Facts(_COLOUR, 87_250_536, 1_660_517_408, {**_M_MAPS, "fc7": (1, 1, 1024)}, _SOURCE),
    "M-128": Facts(_COLOUR, 82_683_624, 1_655_951_392, {**_M_MAPS, "fc7": (1, 1, 128)}, _SOURCE),
    "F-gray": Facts(_GRAY, 60_819_048, 678_842_624, _F_MAPS, _SOURCE),
    "M-gray": Facts(_GRAY, 102_899_112, 1_564_395_872, _M_MAPS, _SOURCE),
    "S-gray": Facts(_GRAY, 102_899_112, 2_815_928_672, _S_MAPS, _SOURCE),
}
