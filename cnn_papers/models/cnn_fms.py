"""CNN-F, CNN-M and CNN-S.

Chatfield, Simonyan, Vedaldi, Zisserman: Return of the Devil in the Details: Delving Deep into
Convolutional Nets. BMVC 2014. arXiv:1405.3531

Deviations:
  - CNN-S pads its second convolution by one pixel, as Table 1 of the paper does; the networks
    released by the authors do not. Neither the parameters nor the map of 6×6 that fc6 reads differ.
  - CNN-S has response normalisation only after the first convolution, as in Table 1; matconvnet's
    training code for it also normalises after the second one.
  - Pooling rounds up, as in Caffe, which gives fc6 its 6×6 pixels.
  - `weight_init` "paper" draws weights from N(0, variance 10⁻²) as §3.2 prints it, "caffe", the
    default, from N(0, 0.01²); see `shared/layers.py` for the two readings.
  - Biases start at zero, as in matconvnet's training code; the paper takes its training from
    AlexNet and does not mention them.
  - Response normalisation has AlexNet's constants, as in the authors' files for Caffe (k = 2,
    α = 5·10⁻⁴ over the mean of five squares); matconvnet's training code has k = 1 and α = 10⁻⁴
    over the mean.
  - The `gray` variants read one channel. They average the channels of an image that has several, so
    that a gray image and its copy in three channels are the same input.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling, variants


class Conv(NamedTuple):
    """A convolution and what follows its ReLU."""

    kernels: int
    size: int
    stride: int
    padding: int
    norm: bool = False  # response normalisation
    pool: tuple[int, int] | None = None  # window and stride of a max pooling


# Table 1.
TABLE = {
    "F": {
        "conv1": Conv(64, 11, 4, 0, norm=True, pool=(3, 2)),
        "conv2": Conv(256, 5, 1, 2, norm=True, pool=(3, 2)),
        "conv3": Conv(256, 3, 1, 1),
        "conv4": Conv(256, 3, 1, 1),
        "conv5": Conv(256, 3, 1, 1, pool=(3, 2)),
    },
    "M": {
        "conv1": Conv(96, 7, 2, 0, norm=True, pool=(3, 2)),
        "conv2": Conv(256, 5, 2, 1, norm=True, pool=(3, 2)),
        "conv3": Conv(512, 3, 1, 1),
        "conv4": Conv(512, 3, 1, 1),
        "conv5": Conv(512, 3, 1, 1, pool=(3, 2)),
    },
    "S": {
        "conv1": Conv(96, 7, 2, 0, norm=True, pool=(3, 3)),
        "conv2": Conv(256, 5, 1, 1, pool=(2, 2)),
        "conv3": Conv(512, 3, 1, 1),
        "conv4": Conv(512, 3, 1, 1),
        "conv5": Conv(512, 3, 1, 1, pool=(3, 3)),
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
    weight_init: str = "caffe"  # or "paper", "glorot", "he"
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        kernel_init = layers.VISUAL_GEOMETRY_GROUP[self.weight_init]
        init = {"kernel_init": kernel_init, "dtype": self.dtype}
        x = image.mean(-1, keepdims=True) if self.gray else image
        for i, (name, row) in enumerate(TABLE[self.net].items(), 1):
            stride = (self.conv1_stride or row.stride) if name == "conv1" else row.stride
            x = layers.Conv(
                self._scaled(row.kernels),
                row.size,
                stride,
                row.padding,
                name=name,
                **init,
            )(x)
            x = ends[name] = nn.relu(x)
            if row.norm and self.lrn:
                x = ends[f"norm{i}"] = layers.local_response_norm(x)
            if row.pool:
                x = ends[f"pool{i}"] = pooling.max_pool(x, *row.pool, ceil_mode=True)

        for name, units in (("fc6", 4096), ("fc7", self.fc7_units)):
            x = layers.FullyConnected(self._scaled(units), name=name, **init)(x)
            x = ends[name] = nn.relu(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        ends["fc8"] = layers.FullyConnected(self.num_classes, name="fc8", **init)(x)
        return ends["fc8"].mean((1, 2), dtype=jnp.float32), ends

    def _scaled(self, channels: int) -> int:
        return max(1, round(channels * self.width))


def Model(variant: str = "F", **fields: Any) -> CNN:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant or field, or a value that a field does not take.
    """
    model = variants.build(CNN, VARIANTS, variant, fields)
    variants.check_choices(
        model, {"net": tuple(TABLE), "weight_init": tuple(layers.VISUAL_GEOMETRY_GROUP)}
    )
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
