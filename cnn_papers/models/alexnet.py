"""AlexNet.

Krizhevsky, Sutskever, Hinton: ImageNet Classification with Deep Convolutional Neural Networks.
NIPS 2012. https://papers.nips.cc/paper/4824

Deviations:
  - The input is 227×227. The paper writes 224, which gives its 55×55 map only with padding that it
    does not mention.
  - Response normalisation stays within a column, since only conv3 and the fully connected layers
    read both (§3.5).
  - A layer named in `without` (§7 removes one) leaves its pooling behind, so that the other layers
    keep their maps; the next layer reads the channels that are left. If the layer reads both
    columns, the next one does so instead. Its response normalisation is removed with it.
  - `batch_norm` is not in the paper: batch normalisation after each convolution (Ioffe, Szegedy,
    arXiv:1502.03167), which makes the convolution's bias redundant, and no response normalisation.
  - `one_weird_trick` is not this paper's network but torchvision's `alexnet`, after Krizhevsky
    (arXiv:1404.5997): other widths and padding, no response normalisation, dropout before the fully
    connected layers. It starts from He et al.'s initialisation here.
"""

from typing import Any, ClassVar, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import columns, layers, pooling, variants


class Conv(NamedTuple):
    """A convolution and what follows it.

    Attributes:
      reads_both: whether its kernels read both columns, or only their own (Figure 2, §3.5).
      bias: the initial value of the biases (§5).
      norm: whether response normalisation follows (§3.3).
      pool: whether max pooling follows (§3.4).
    """

    kernels: int
    size: int
    stride: int
    padding: int
    reads_both: bool
    bias: float = 0.0
    norm: bool = False
    pool: bool = False


TABLES = {
    "paper": {
        # The image has no columns: conv1 reads all of it.
        "conv1": Conv(96, 11, 4, 0, reads_both=True, norm=True, pool=True),
        "conv2": Conv(256, 5, 1, 2, reads_both=False, bias=1.0, norm=True, pool=True),
        "conv3": Conv(384, 3, 1, 1, reads_both=True),
        "conv4": Conv(384, 3, 1, 1, reads_both=False, bias=1.0),
        "conv5": Conv(256, 3, 1, 1, reads_both=False, bias=1.0, pool=True),
    },
    "one_weird_trick": {
        "conv1": Conv(64, 11, 4, 2, reads_both=True, pool=True),
        "conv2": Conv(192, 5, 1, 2, reads_both=True, pool=True),
        "conv3": Conv(384, 3, 1, 1, reads_both=True),
        "conv4": Conv(256, 3, 1, 1, reads_both=True),
        "conv5": Conv(256, 3, 1, 1, reads_both=True, pool=True),
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

    On one device the two columns are the halves of the channel axis: a layer that reads only its
    own column is a grouped convolution. On a mesh with the axis `column` each device holds one
    column (`holds_one`) and gathers the other before conv3, fc6, fc7 and fc8; see columns.py.

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
    conv1_stride: int | None = None  # None is the paper's 4; 1 allows images of 32 pixels
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None
    holds_one: bool = False  # on a mesh: this device holds one of the two columns (columns.py)

    column_layers: ClassVar[str] = r"(conv|bn|fc)\d"  # split over the mesh axis `column`

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        activation = ACTIVATIONS[self.activation]

        x, reads_both = image, False
        for i, (name, row) in enumerate(TABLES[self.table].items(), 1):
            reads_both = reads_both or row.reads_both  # a layer left out hands it on
            if name not in self.without:
                x = self._conv(x, name, row, reads_both)
                if self.batch_norm:
                    x = self._batch_norm(x, f"bn{i}", train)
                x = ends[name] = activation(x)
                if row.norm and self.lrn:
                    x = ends[f"norm{i}"] = self._response_norm(x)
                reads_both = False
            if row.pool:
                x = ends[f"pool{i}"] = pooling.max_pool(x, *self.pool)

        drops_inputs = self.table == "one_weird_trick"  # the paper drops outputs of fc6 and fc7
        if drops_inputs:
            x = ends["avgpool"] = pooling.pool_into_bins(x, 6, jnp.mean)
        for name, units in FULLY_CONNECTED.items():
            if name in self.without:
                continue
            if drops_inputs:
                x = columns.Dropout(self.dropout, self.holds_one)(x, deterministic=not train)
            x = self._fully_connected(x, name, self._scaled(units), bias=1.0)
            x = ends[name] = activation(x)
            if not drops_inputs:
                x = columns.Dropout(self.dropout, self.holds_one)(x, deterministic=not train)
        x = ends["fc8"] = self._fully_connected(x, "fc8", self.num_classes, bias=0.0)
        return x.mean((1, 2), dtype=jnp.float32), ends

    def _conv(self, x: jax.Array, name: str, row: Conv, reads_both: bool) -> jax.Array:
        kernels = row.kernels // 2 if name in self.halved else row.kernels
        stride = (self.conv1_stride or row.stride) if name == "conv1" else row.stride
        if reads_both and name != "conv1":  # every device has the whole image
            x = self._gather(x, name)
        return layers.Conv(
            self._share(self._scaled(kernels)),
            row.size,
            stride,
            row.padding,
            groups=1 if reads_both else self._share(self.columns),
            use_bias=not self.batch_norm,
            **layers.initialisers(self.weight_init, row.bias),
            dtype=self.dtype,
            name=name,
        )(x)

    def _batch_norm(self, x: jax.Array, name: str, train: bool) -> jax.Array:
        return nn.BatchNorm(
            use_running_average=not train,
            momentum=0.9,
            epsilon=1e-5,
            axis_name=columns.DATA if self.holds_one else None,  # of the global batch
            dtype=self.dtype,
            name=name,
        )(x)

    def _response_norm(self, x: jax.Array) -> jax.Array:
        """Normalises across the channels of each column."""
        count = self._share(self.columns)
        by_column = x.reshape(*x.shape[:3], count, x.shape[-1] // count)
        return layers.local_response_norm(by_column).reshape(x.shape)

    def _fully_connected(self, x: jax.Array, name: str, units: int, bias: float) -> jax.Array:
        return layers.FullyConnected(
            self._share(units),
            **layers.initialisers(self.weight_init, bias),
            dtype=self.dtype,
            name=name,
        )(self._gather(x, name))

    def _gather(self, x: jax.Array, name: str) -> jax.Array:
        """Returns the channels of both columns for the layer `name`, which reads both."""
        if not self.holds_one:
            return x
        with jax.named_scope(name):  # profiles then count the exchange as the layer's
            return columns.gather(x)

    def _share(self, count: int) -> int:
        """Returns how many of `count` channels, units or columns this device holds."""
        return count // self.columns if self.holds_one else count

    def _scaled(self, channels: int) -> int:
        """Returns `channels` times the width, rounded to a number that the columns divide."""
        return max(self.columns, round(channels * self.width / self.columns) * self.columns)


def Model(variant: str = "paper", **fields: Any) -> AlexNet:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant, field or layer, or a value that a field does not take.
    """
    model = variants.build(AlexNet, VARIANTS, variant, fields)
    variants.check_choices(model, CHOICES)
    for field, names in {"without": REMOVABLE, "halved": tuple(TABLES["paper"])}.items():
        if unknown := [name for name in getattr(model, field) if name not in names]:
            raise ValueError(
                f"unknown layer '{unknown[0]}' in model.{field}; there are: {', '.join(names)}"
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
        "counted: 1,376 parameters more than `paper`, a scale for each of the 1,376 channels",
    ),
    "one_weird_trick": Facts(
        (224, 224, 3),
        61_100_840,
        714_188_480,
        _ONE_WEIRD_TRICK_MAPS,
        "torchvision's published parameter count",
    ),
}
