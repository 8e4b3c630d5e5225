"""Network in Network.

Lin, Chen, Yan: Network In Network. ICLR 2014. arXiv:1312.4400

Deviations:
  - The paper does not print its channel counts; they are those of the authors' layer files
    (mavenlin/cuda-convnet, NIN/*_def), and so are the initial standard deviations. They have no
    fully connected head; its weights start as most others do, with 0.05.
  - `imagenet_caffe` is not in the paper but the network that the first author published in Caffe's
    model zoo.
  - The plain twin (§4.6) keeps this network's own convolutions without their 1×1 layers, the last
    giving one map a class; the paper takes the conventional network of Hinton et al.
    (arXiv:1207.0580), whose third layer is local.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling, variants


class MlpConv(NamedTuple):
    """A convolution and the two 1×1 layers above it."""

    filters: int
    size: int
    stride: int
    padding: int
    perceptron: tuple[int, int]  # maps of the 1×1 layers; 0 stands for one map a class
    dropout: bool  # before the convolution


_CIFAR = (
    MlpConv(192, 5, 1, 2, (160, 96), False),
    MlpConv(192, 5, 1, 2, (192, 192), True),
    MlpConv(192, 3, 1, 1, (192, 0), True),
)
TABLES = {
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "mnist": (
        MlpConv(96, 5, 1, 2, (64, 48), False),
        MlpConv(128, 5, 1, 2, (96, 48), True),
        MlpConv(128, 5, 1, 2, (96, 0), True),
    ),
    "svhn": (
        MlpConv(128, 5, 1, 2, (96, 64), False),
        MlpConv(320, 5, 1, 2, (256, 128), True),
        MlpConv(384, 5, 1, 2, (256, 0), True),
    ),
    "imagenet_caffe": (
        MlpConv(96, 11, 4, 0, (96, 96), False),
        MlpConv(256, 5, 1, 2, (256, 256), False),
        MlpConv(384, 3, 1, 1, (384, 384), False),
        MlpConv(1024, 3, 1, 1, (1024, 0), True),
    ),
}
# Standard deviation of the initial weights; 0.05 for layers that are not named.
INIT_STD = {
    "cifar100": {"conv1": 0.001, "cccp1": 0.01, "cccp2": 0.01},
    "imagenet_caffe": {"conv1": 0.01, "conv3": 0.01, "cccp8": 0.01},
}

VARIANTS: dict[str, dict[str, Any]] = {
    "cifar10": {},
    "cifar10_fc": {"head": "fc"},  # §4.6
    "cifar10_fc_dropout": {"head": "fc_dropout"},
    "cifar10_plain": {"plain": True},
    "cifar10_plain_fc": {"plain": True, "head": "fc"},
    "cifar10_plain_fc_dropout": {"plain": True, "head": "fc_dropout"},
    "cifar100": {"table": "cifar100", "num_classes": 100},
    "mnist": {"table": "mnist"},
    "svhn": {"table": "svhn"},
    "imagenet_caffe": {"table": "imagenet_caffe", "num_classes": 1000},
}
CHOICES = {
    "table": tuple(TABLES),
    "head": ("gap", "fc", "fc_dropout"),
    "weight_init": ("paper", "he"),
}


class NIN(nn.Module):
    """Convolutions with small perceptrons for filters, and global average pooling (Figure 2).

    The perceptrons are 1×1 convolutions. Called with `image` float [n, h, w, c]; returns logits
    float32 [n, num_classes] and a dict of the layers, named as in the authors' files (`conv1`,
    `cccp1`, …, `poolg`). ReLU follows every convolution, also the last one.
    """

    num_classes: int = 10
    table: str = "cifar10"
    head: str = "gap"  # or a fully connected layer instead: "fc", "fc_dropout" (§4.6)
    plain: bool = False  # without the 1×1 layers
    dropout: float = 0.5  # between the mlpconv layers
    head_dropout: float = 0.5  # before the fully connected layer of "fc_dropout"
    weight_init: str = "paper"  # or "he"
    last_bias: float = 0.0  # initial, of the last ReLU layer; above 0 every class can learn
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        rows = TABLES[self.table]
        x = image
        for i, row in enumerate(rows, 1):
            if row.dropout:
                x = nn.Dropout(self.dropout, deterministic=not train)(x)
            last = i == len(rows)
            x = self._mlpconv(x, i, row, last, ends)
            if not last:
                x = ends[f"pool{i}"] = pooling.max_pool(x, 3, 2, ceil_mode=True)
        if self.head == "gap":
            ends["poolg"] = x.mean((1, 2), keepdims=True)
            return x.mean((1, 2), dtype=jnp.float32), ends
        if self.head == "fc_dropout":
            x = nn.Dropout(self.head_dropout, deterministic=not train)(x)
        fc = layers.FullyConnected(self.num_classes, self._init("fc"), dtype=self.dtype, name="fc")
        ends["fc"] = fc(x)
        return ends["fc"].mean((1, 2), dtype=jnp.float32), ends

    def _mlpconv(
        self, x: jax.Array, i: int, row: MlpConv, last: bool, ends: dict[str, jax.Array]
    ) -> jax.Array:
        """Applies row `i`: conv<i>, then cccp<2i-1> and cccp<2i>.

        The names of the authors' files stand for "cascaded cross channel pooling".
        """
        convs = [(f"conv{i}", row.filters, row.size, row.stride, row.padding)]
        if not self.plain:
            first, second = row.perceptron
            convs += [(f"cccp{2 * i - 1}", first, 1, 1, 0), (f"cccp{2 * i}", second, 1, 1, 0)]
        for name, maps, size, stride, padding in convs:
            is_output = last and name == convs[-1][0]  # one map a class
            features = self.num_classes if is_output else max(1, round(maps * self.width))
            x = layers.Conv(
                features,
                size,
                stride,
                padding,
                kernel_init=self._init(name),
                bias_init=nn.initializers.constant(self.last_bias if is_output else 0.0),
                dtype=self.dtype,
                name=name,
            )(x)
            x = ends[name] = nn.relu(x)
        return x

    def _init(self, name: str) -> nn.initializers.Initializer:
        if self.weight_init == "he":
            return layers.he_normal
        return nn.initializers.normal(INIT_STD.get(self.table, {}).get(name, 0.05))


def Model(variant: str = "cifar10", **fields: Any) -> NIN:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant or field, or a value that a field does not take.
    """
    model = variants.build(NIN, VARIANTS, variant, fields)
    variants.check_choices(model, CHOICES)
    return model


_CIFAR_MAPS = {
    "conv1": (32, 32, 192),
    "pool1": (16, 16, 96),
    "conv2": (16, 16, 192),
    "pool2": (8, 8, 192),
    "conv3": (8, 8, 192),
    "cccp6": (8, 8, 10),
}
_PLAIN_MAPS = {
    "conv1": (32, 32, 192),
    "pool1": (16, 16, 192),
    "conv2": (16, 16, 192),
    "pool2": (8, 8, 192),
    "conv3": (8, 8, 10),
}
_MNIST_MAPS = {
    "conv1": (28, 28, 96),
    "pool1": (14, 14, 48),
    "pool2": (7, 7, 48),
    "cccp6": (7, 7, 10),
}
_SVHN_MAPS = {
    "conv1": (32, 32, 128),
    "pool1": (16, 16, 64),
    "pool2": (8, 8, 128),
    "cccp6": (8, 8, 10),
}
_IMAGENET_MAPS = {
    "conv1": (54, 54, 96),
    "pool1": (27, 27, 96),
    "pool2": (13, 13, 256),
    "pool3": (6, 6, 384),
    "conv4": (6, 6, 1024),
    "cccp8": (6, 6, 1000),
    "poolg": (1, 1, 1000),
}
_SOURCE = "counted from the authors' layer file"
_COUNTED = "counted"
_IMAGE_32 = (32, 32, 3)
FACTS = {
    "cifar10": Facts(_IMAGE_32, 966_986, 222_486_528, _CIFAR_MAPS, _SOURCE),
    "cifar10_fc": Facts(_IMAGE_32, 973_396, 222_492_928, _CIFAR_MAPS, _SOURCE),
    "cifar10_fc_dropout": Facts(_IMAGE_32, 973_396, 222_492_928, _CIFAR_MAPS, _SOURCE),
    "cifar10_plain": Facts(_IMAGE_32, 953_674, 251_781_120, _PLAIN_MAPS, _COUNTED),
    "cifar10_plain_fc": Facts(_IMAGE_32, 960_084, 251_787_520, _PLAIN_MAPS, _COUNTED),
    "cifar10_plain_fc_dropout": Facts(_IMAGE_32, 960_084, 251_787_520, _PLAIN_MAPS, _COUNTED),
    "cifar100": Facts(
        _IMAGE_32, 984_356, 223_592_448, {**_CIFAR_MAPS, "cccp6": (8, 8, 100)}, _SOURCE
    ),
    "mnist": Facts((28, 28, 1), 349_674, 50_699_712, _MNIST_MAPS, _SOURCE),
    "svhn": Facts(_IMAGE_32, 1_986_026, 274_235_392, _SVHN_MAPS, _SOURCE),
    "imagenet_caffe": Facts(
        (224, 224, 3), 7_595_176, 1_100_188_800, _IMAGENET_MAPS, "counted from Caffe's model zoo"
    ),
}
