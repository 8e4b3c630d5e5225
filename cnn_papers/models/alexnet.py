"""AlexNet.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks. NIPS
2012. https://papers.nips.cc/paper/4824

Deviations:
  - The input is 227×227: the paper writes 224, which does not give its 55×55 map without padding it
    does not mention.
  - Response normalisation stays within a column, since only conv3 and the fully connected layers
    read both (§3.5).
  - A layer named in `without` (§7 removes one) leaves its pooling and its crossing between the
    columns behind, so that the others keep their maps; what reads them adapts. Its response
    normalisation goes with it.
  - `batch_norm` is not in the paper: batch normalisation after each convolution (Ioffe, Szegedy,
    arXiv:1502.03167), whose biases it makes redundant, and no response normalisation.
  - `one_weird_trick` is not this paper's network but torchvision's `alexnet`, after Krizhevsky
    (arXiv:1404.5997): other widths and padding, no response normalisation, dropout before the fully
    connected layers. It starts from He et al.'s initialisation here.
"""

from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import columns, layers, pooling, variants

TABLES = {
    # Figure 2 and §3.5: which layers read both columns; where the bias starts at one (§5).
    "paper": {
        #         kernels size stride pad  linked  bias  norm   pool
        "conv1": (96, 11, 4, 0, True, 0.0, True, True),
        "conv2": (256, 5, 1, 2, False, 1.0, True, True),
        "conv3": (384, 3, 1, 1, True, 0.0, False, False),
        "conv4": (384, 3, 1, 1, False, 1.0, False, False),
        "conv5": (256, 3, 1, 1, False, 1.0, False, True),
    },
    "one_weird_trick": {
        "conv1": (64, 11, 4, 2, True, 0.0, False, True),
        "conv2": (192, 5, 1, 2, True, 0.0, False, True),
        "conv3": (384, 3, 1, 1, True, 0.0, False, False),
        "conv4": (256, 3, 1, 1, True, 0.0, False, False),
        "conv5": (256, 3, 1, 1, True, 0.0, False, True),
    },
}
FULLY_CONNECTED = {"fc6": 4096, "fc7": 4096}

VARIANTS: dict[str, dict[str, Any]] = {
    "paper": {},
    "one_tower": {"columns": 1},
    "one_gpu": {"columns": 1, "halved": ("conv1", "conv2", "conv3", "conv4")},  # footnote 2
    "batch_norm": {"batch_norm": True, "lrn": False},
    "one_weird_trick": {
        "table": "one_weird_trick",
        "columns": 1,
        "lrn": False,
        "weight_init": "he",
    },
}
ACTIVATIONS = {"relu": nn.relu, "tanh": nn.tanh, "sigmoid": nn.sigmoid}
CHOICES = {
    "table": tuple(TABLES),
    "columns": (1, 2),
    "activation": tuple(ACTIVATIONS),
    "pool": ((3, 2), (2, 2)),
    "weight_init": ("paper", "he"),
}
REMOVABLE = ("conv2", "conv3", "conv4", "conv5", "fc6", "fc7")


class AlexNet(nn.Module):
    """Five convolutions in two columns and three fully connected layers (Figure 2).

    Called with `image` float [n, h, w, 3]; returns logits float32 [n, num_classes] and a dict of
    the paper's layers. Larger images than the one initialised with give maps of scores, averaged
    over positions into the logits (not for `one_weird_trick`, which averages its last map down to
    6×6).
    """

    num_classes: int = 1000
    table: str = "paper"
    columns: int = 2
    halved: tuple[str, ...] = ()  # convolutions with half the kernels
    without: tuple[str, ...] = ()  # layers left out, of REMOVABLE
    activation: str = "relu"
    lrn: bool = True
    batch_norm: bool = False
    pool: tuple[int, int] = (3, 2)  # window and stride; (2, 2) does not overlap (§3.4)
    dropout: float = 0.5
    weight_init: str = "paper"  # or "he"
    conv1_stride: int | None = (
        None  # None is the paper's 4; 1 lets the network run on images of 32 pixels
    )
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None
    inside: bool = (
        False  # on a mesh: this is one of the two columns, with half the kernels; see columns.py
    )

    column_layers: ClassVar[str] = (
        r"(conv|bn|fc)\d"  # those whose kernels the mesh axis `column` splits
    )

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        x = self._convolutions(image, ends, train)
        drop_first = (
            self.table == "one_weird_trick"
        )  # it drops what a layer reads, the paper what a layer gives
        if drop_first:
            x = ends["avgpool"] = pooling.pool_into_bins(x, 6, jnp.mean)
        for name, features in FULLY_CONNECTED.items():
            if name in self.without:
                continue
            if drop_first:
                x = columns.Dropout(self.dropout, self.inside)(x, deterministic=not train)
            x = layers.FullyConnected(
                self._mine(self._scaled(features)), **self._crossing(1.0), name=name
            )(x)
            x = ends[name] = ACTIVATIONS[self.activation](x)
            if not drop_first:
                x = columns.Dropout(self.dropout, self.inside)(x, deterministic=not train)
        ends["fc8"] = layers.FullyConnected(
            self._mine(self.num_classes), **self._crossing(0.0), name="fc8"
        )(x)
        return ends["fc8"].mean((1, 2), dtype=jnp.float32), ends

    def _convolutions(self, x: jax.Array, ends: dict[str, jax.Array], train: bool) -> jax.Array:
        crossing = False
        for name, (kernels, size, stride, padding, linked, bias, norm, pool) in TABLES[
            self.table
        ].items():
            crossing = crossing or linked
            if name == "conv1":
                stride = self.conv1_stride or stride
            if name not in self.without:
                x = layers.ColumnConv(
                    self._mine(self._scaled(kernels // 2 if name in self.halved else kernels)),
                    (size, size),
                    (stride, stride),
                    layers.pad(padding),
                    columns=1 if crossing or self.inside else self.columns,
                    link=columns.link
                    if self.inside and crossing and name != "conv1"
                    else None,  # both columns see the image
                    use_bias=not self.batch_norm,
                    **self._initialisers(bias),
                    name=name,
                )(x)
                if self.batch_norm:
                    statistics = {
                        "use_running_average": not train,
                        "momentum": 0.9,
                        "epsilon": 1e-5,
                    }
                    axis = columns.DATA if self.inside else None
                    x = nn.BatchNorm(
                        **statistics,
                        axis_name=axis,
                        dtype=self.dtype,
                        name=name.replace("conv", "bn"),
                    )(x)
                x = ends[name] = ACTIVATIONS[self.activation](x)
                if norm and self.lrn:
                    x = ends[name.replace("conv", "norm")] = self._normalise(x)
                crossing = False
            if pool:
                x = ends[name.replace("conv", "pool")] = pooling.max_pool(x, *self.pool)
        return x

    def _normalise(self, x: jax.Array) -> jax.Array:
        """Normalises across the channels of each column."""
        count = 1 if self.inside else self.columns
        return layers.local_response_norm(
            x.reshape(*x.shape[:3], count, x.shape[-1] // count)
        ).reshape(x.shape)

    def _mine(self, channels: int) -> int:
        """How many of a layer's channels this device computes."""
        return channels // self.columns if self.inside else channels

    def _crossing(self, bias: float) -> dict[str, Any]:
        return {**self._initialisers(bias), "link": columns.link if self.inside else None}

    def _initialisers(self, bias: float) -> dict[str, Any]:
        return {**layers.initialisers(self.weight_init, bias), "dtype": self.dtype}

    def _scaled(self, channels: int) -> int:
        return max(self.columns, round(channels * self.width / self.columns) * self.columns)


def Model(variant: str = "paper", **fields: Any) -> AlexNet:
    """The network named `variant`, `fields` that are not None on top."""
    model = variants.build(AlexNet, VARIANTS, variant, fields)
    variants.check_choices(model, CHOICES)
    for field, values in {"without": REMOVABLE, "halved": tuple(TABLES["paper"])}.items():
        if unknown := [name for name in getattr(model, field) if name not in values]:
            raise ValueError(
                f"unknown layer '{unknown[0]}' in model.{field}; there are: {', '.join(values)}"
            )
    return model


_MAPS = {
    "conv1": (55, 55, 96),
    "pool1": (27, 27, 96),
    "conv2": (27, 27, 256),
    "pool2": (13, 13, 256),
    "conv3": (13, 13, 384),
    "conv4": (13, 13, 384),
    "conv5": (13, 13, 256),
    "pool5": (6, 6, 256),
    "fc6": (1, 1, 4096),
    "fc7": (1, 1, 4096),
    "fc8": (1, 1, 1000),
}
_ONE_GPU_MAPS = {
    **_MAPS,
    "conv1": (55, 55, 48),
    "pool1": (27, 27, 48),
    "conv2": (27, 27, 128),
    "pool2": (13, 13, 128),
    "conv3": (13, 13, 192),
    "conv4": (13, 13, 192),
}
_ONE_WEIRD_TRICK_MAPS = {
    **_MAPS,
    "conv1": (55, 55, 64),
    "pool1": (27, 27, 64),
    "conv2": (27, 27, 192),
    "pool2": (13, 13, 192),
    "conv4": (13, 13, 256),
}
FACTS = {
    "paper": Facts((227, 227, 3), 60_965_224, 724_406_816, _MAPS, "Figure 2, bvlc_alexnet", "60M"),
    "one_tower": Facts(
        (227, 227, 3), 62_378_344, 1_135_256_096, _MAPS, "counted: every layer reads all channels"
    ),
    "one_gpu": Facts((227, 227, 3), 59_798_312, 391_514_384, _ONE_GPU_MAPS, "footnote 2; counted"),
    "batch_norm": Facts(
        (227, 227, 3),
        60_966_600,
        724_406_816,
        _MAPS,
        "counted: 1,376 scales instead of biases more",
    ),
    "one_weird_trick": Facts(
        (224, 224, 3),
        61_100_840,
        714_188_480,
        _ONE_WEIRD_TRICK_MAPS,
        "torchvision's published parameter count",
    ),
}
