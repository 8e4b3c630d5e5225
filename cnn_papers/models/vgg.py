"""VGG.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition. ICLR 2015.
arXiv:1409.1556

Deviations:
  - `weight_init` "paper" draws weights from N(0, variance 10⁻²) as §3.1 prints it, "caffe", the
    default, from N(0, 0.01²); see `shared/layers.py` for the two readings. The paper starts its
    deeper nets from layers of a trained net A, or, as it found later, from Glorot and Bengio's
    initialisation ("glorot").
  - `B-5x5` follows §4.1's description of a net that no table lists: net B with a 5×5 convolution
    for each pair of 3×3.
  - The variants `…-BN` are not in the paper: they are torchvision's, which follow every convolution
    with batch normalisation and keep its bias.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling, variants

# Table 1: kernel sizes of the convolutions of each stage; a max pooling follows every stage.
TABLE = {
    "A": ((3,), (3,), (3, 3), (3, 3), (3, 3)),
    "B": ((3, 3), (3, 3), (3, 3), (3, 3), (3, 3)),
    "C": ((3, 3), (3, 3), (3, 3, 1), (3, 3, 1), (3, 3, 1)),
    "D": ((3, 3), (3, 3), (3, 3, 3), (3, 3, 3), (3, 3, 3)),
    "E": ((3, 3), (3, 3), (3, 3, 3, 3), (3, 3, 3, 3), (3, 3, 3, 3)),
    "B-5x5": ((5,), (5,), (5,), (5,), (5,)),
}
CHANNELS = (64, 128, 256, 512, 512)
FULLY_CONNECTED = {"fc6": 4096, "fc7": 4096}

VARIANTS: dict[str, dict[str, Any]] = {
    "A": {"stages": TABLE["A"]},
    "B": {"stages": TABLE["B"]},
    "C": {"stages": TABLE["C"]},
    "D": {"stages": TABLE["D"]},
    "E": {"stages": TABLE["E"]},
    "B-5x5": {"stages": TABLE["B-5x5"]},
    "A-LRN": {"stages": TABLE["A"], "lrn": True},
    "A-BN": {"stages": TABLE["A"], "batch_norm": True},
    "B-BN": {"stages": TABLE["B"], "batch_norm": True},
    "D-BN": {"stages": TABLE["D"], "batch_norm": True},
    "E-BN": {"stages": TABLE["E"], "batch_norm": True},
}


class VGG(nn.Module):
    """Stages of 3×3 convolutions, each with a 2×2 max pooling, and three fully connected layers.

    Called with `image` float [n, h, w, 3]; returns logits float32 [n, num_classes] and a dict of
    the paper's layers, `conv1_1` to `fc8`. Larger images than the one initialised with give maps of
    scores, averaged over positions into the logits (§3.2).
    """

    stages: tuple[tuple[int, ...], ...]
    num_classes: int = 1000
    lrn: bool = False  # local response normalisation after the first convolution
    batch_norm: bool = False
    dropout: float = 0.5
    weight_init: str = "caffe"  # or "paper", "glorot", "he"
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    column_layers: ClassVar[str] = "fc[67]"  # split over the mesh axis `column`

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        init = {"kernel_init": layers.VISUAL_GEOMETRY_GROUP[self.weight_init], "dtype": self.dtype}
        x = image
        for stage, (sizes, channels) in enumerate(zip(self.stages, CHANNELS, strict=True), 1):
            for i, size in enumerate(sizes, 1):
                name, features = f"conv{stage}_{i}", self._scaled(channels)
                conv = layers.Conv(features, size, padding=size // 2, **init, name=name)
                x = conv(x)
                if self.batch_norm:
                    x = nn.BatchNorm(
                        not train,
                        momentum=0.9,
                        epsilon=1e-5,
                        dtype=self.dtype,
                        name=f"bn{stage}_{i}",
                    )(x)
                x = ends[name] = nn.relu(x)
            if self.lrn and stage == 1:
                x = ends["norm1"] = layers.local_response_norm(x)
            x = ends[f"pool{stage}"] = pooling.max_pool(x, 2, 2)

        for name, units in FULLY_CONNECTED.items():
            x = layers.FullyConnected(self._scaled(units), **init, name=name)(x)
            x = ends[name] = nn.relu(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        ends["fc8"] = layers.FullyConnected(self.num_classes, **init, name="fc8")(x)
        return ends["fc8"].mean((1, 2), dtype=jnp.float32), ends

    def _scaled(self, channels: int) -> int:
        return max(1, round(channels * self.width))


def Model(variant: str = "D", **fields: Any) -> VGG:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant or field, or a value that a field does not take.
    """
    model = variants.build(VGG, VARIANTS, variant, fields)
    variants.check_choices(model, {"weight_init": tuple(layers.VISUAL_GEOMETRY_GROUP)})
    return model


# Table 1 at 224 pixels, halved by every pooling; each net adds layers to one before it.
_B_5X5_MAPS = {
    "conv1_1": (224, 224, 64),
    "pool1": (112, 112, 64),
    "conv2_1": (112, 112, 128),
    "pool2": (56, 56, 128),
    "conv3_1": (56, 56, 256),
    "pool3": (28, 28, 256),
    "conv4_1": (28, 28, 512),
    "pool4": (14, 14, 512),
    "conv5_1": (14, 14, 512),
    "pool5": (7, 7, 512),
    "fc6": (1, 1, 4096),
    "fc7": (1, 1, 4096),
    "fc8": (1, 1, 1000),
}
_A_MAPS = {
    **_B_5X5_MAPS,
    "conv3_2": (56, 56, 256),
    "conv4_2": (28, 28, 512),
    "conv5_2": (14, 14, 512),
}
_B_MAPS = {**_A_MAPS, "conv1_2": (224, 224, 64), "conv2_2": (112, 112, 128)}
_CD_MAPS = {
    **_B_MAPS,
    "conv3_3": (56, 56, 256),
    "conv4_3": (28, 28, 512),
    "conv5_3": (14, 14, 512),
}
_E_MAPS = {
    **_CD_MAPS,
    "conv3_4": (56, 56, 256),
    "conv4_4": (28, 28, 512),
    "conv5_4": (14, 14, 512),
}
_INPUT, _SOURCE = (224, 224, 3), "Tables 1 and 2; counted"
FACTS = {
    "A": Facts(_INPUT, 132_863_336, 7_609_090_048, _A_MAPS, _SOURCE, "133M"),
    "B": Facts(_INPUT, 133_047_848, 11_308_466_176, _B_MAPS, _SOURCE, "133M"),
    "C": Facts(_INPUT, 133_638_952, 11_770_888_192, _CD_MAPS, _SOURCE, "134M"),
    "D": Facts(_INPUT, 138_357_544, 15_470_264_320, _CD_MAPS, _SOURCE, "138M"),
    "E": Facts(_INPUT, 143_667_240, 19_632_062_464, _E_MAPS, _SOURCE, "144M"),
    "B-5x5": Facts(_INPUT, 134_503_528, 9_356_017_664, _B_5X5_MAPS, _SOURCE),
    "A-LRN": Facts(_INPUT, 132_863_336, 7_609_090_048, _A_MAPS, _SOURCE, "133M"),
    "A-BN": Facts(_INPUT, 132_868_840, 7_609_090_048, _A_MAPS, _SOURCE),
    "B-BN": Facts(_INPUT, 133_053_736, 11_308_466_176, _B_MAPS, _SOURCE),
    "D-BN": Facts(_INPUT, 138_365_992, 15_470_264_320, _CD_MAPS, _SOURCE),
    "E-BN": Facts(_INPUT, 143_678_248, 19_632_062_464, _E_MAPS, _SOURCE),
}
