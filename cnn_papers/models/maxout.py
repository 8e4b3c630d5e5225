"""Maxout networks.

Goodfellow, Warde-Farley, Mirza, Courville, Bengio: Maxout Networks. ICML 2013. arXiv:1302.4389

Deviations:
  - The paper does not print its layer sizes; they are those of the authors' files
    (lisa-lab/pylearn2, scripts/papers/maxout/*.yaml). For CIFAR-100 they published none: it is the
    CIFAR-10 network here.
  - Dropout multiplies the kept units by 1/0.5 in training instead of halving the weights at test
    (§2), as the authors' files do. These leave the input unscaled both in training, where a fifth
    of it is dropped, and at test. So do we; the field `rescale_input` corrects it.
  - The `_relu` twins are not the paper's baselines: see `Maxout`.
"""

import functools
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling, variants


class Conv(NamedTuple):
    """A convolutional maxout layer: units × pieces filters, maxima over pieces, max pooling."""

    units: int
    pieces: int
    size: int
    padding: int
    pool: tuple[int, int]  # window and stride
    max_norm: float  # limit of the norm of one piece's weights, for the optimiser


class Dense(NamedTuple):
    """A fully connected maxout layer."""

    units: int
    pieces: int
    max_norm: float


_CIFAR = {
    "h0": Conv(96, 2, 8, 4, (4, 2), 0.9),
    "h1": Conv(192, 2, 8, 3, (4, 2), 1.9365),
    "h2": Conv(192, 2, 5, 3, (2, 2), 1.9365),
    "h3": Dense(500, 5, 1.9),
}
TABLES: dict[str, dict[str, Conv | Dense]] = {
    "mnist_fc": {"h0": Dense(240, 5, 1.9365), "h1": Dense(240, 5, 1.9365)},
    "mnist_conv": {
        "h0": Conv(48, 2, 8, 0, (4, 2), 0.9),
        "h1": Conv(48, 2, 8, 3, (4, 2), 1.9365),
        "h2": Conv(24, 4, 5, 3, (2, 2), 1.9365),
    },
    "cifar10": _CIFAR,
    "cifar100": _CIFAR,
    "svhn": {
        "h0": Conv(64, 2, 5, 4, (3, 2), 0.9),
        "h1": Conv(128, 2, 5, 3, (3, 2), 1.9365),
        "h2": Conv(128, 2, 5, 3, (3, 2), 1.9365),
        "h3": Dense(400, 5, 1.9),
    },
}

VARIANTS: dict[str, dict[str, Any]] = {
    "mnist_fc": {"table": "mnist_fc"},
    "mnist_conv": {"table": "mnist_conv", "tied_bias": False},
    "cifar10": {"table": "cifar10"},
    "cifar100": {"table": "cifar100", "num_classes": 100},
    "svhn": {"table": "svhn"},
    "mnist_fc_relu": {"table": "mnist_fc", "hidden": "relu"},
    "mnist_conv_relu": {"table": "mnist_conv", "tied_bias": False, "hidden": "relu"},
    "cifar10_relu": {"table": "cifar10", "hidden": "relu"},
    "cifar100_relu": {"table": "cifar100", "num_classes": 100, "hidden": "relu"},
    "svhn_relu": {"table": "svhn", "hidden": "relu"},
}
# The largest norm allowed for the incoming weights of one piece (in `y`, of one class), by layer.
MAX_NORM = {
    variant: {name: row.max_norm for name, row in TABLES[fields["table"]].items()} | {"y": 1.9365}
    for variant, fields in VARIANTS.items()
}
CHOICES = {
    "table": tuple(TABLES),
    "hidden": ("maxout", "maxout_zero", "relu", "tanh"),
    "weight_init": ("paper", "he"),
}


def max_over_pieces(z: jax.Array, pieces: int) -> jax.Array:
    """Returns the maxout units (§3): [..., units · pieces] to [..., units].

    The pieces of a unit are neighbours on the last axis.
    """
    return z.reshape(*z.shape[:-1], z.shape[-1] // pieces, pieces).max(-1)


class BiasedConv(nn.Module):
    """A convolution with one bias a filter ("tied"), or one a filter and position.

    Flax's `nn.Conv` has only the former; the latter has shape [h, w, features].
    """

    features: int
    size: int
    padding: int
    tied_bias: bool
    kernel_init: nn.initializers.Initializer
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        kernel = self.param(
            "kernel", self.kernel_init, (self.size, self.size, x.shape[-1], self.features)
        )
        x, kernel = promote_dtype(x, kernel, dtype=self.dtype)
        z = jax.lax.conv_general_dilated(
            x, kernel, (1, 1), layers.pad(self.padding), dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
        shape = z.shape[-1:] if self.tied_bias else z.shape[1:]
        bias = self.param("bias", nn.initializers.zeros, shape)
        return z + jnp.broadcast_to(bias.astype(z.dtype), z.shape[1:])[None]


class Maxout(nn.Module):
    """Maxout layers `h0`, `h1`, … and a softmax layer `y`, dropout before the weights of each (§5).

    Called with `image` float [n, h, w, c]; returns logits float32 [n, num_classes] and a dict of
    the layers, named as in the authors' files.

    With `hidden="relu"`, or "tanh" (§7 compares with it), it is a twin of the same size: every
    hidden layer keeps its number of weights, and every piece becomes a unit. A layer of u units of
    k pieces has u·k units if it reads as many inputs as before, and fewer by the factor by which
    the twin's layer below is wider. With "maxout_zero" a constant 0 is among the pieces of every
    unit (§8.2).
    """

    num_classes: int = 10
    table: str = "cifar10"
    hidden: str = "maxout"
    tied_bias: bool = True  # one bias a filter, else one a filter and position
    input_dropout: float = 0.2
    dropout: float = 0.5  # on the inputs of every layer but the first
    rescale_input: bool = False  # divide the input by 1 - input_dropout in training
    weight_init: str = "paper"  # uniform within ±init_range; or "he", which suits the ReLU twins
    init_range: float = 0.005  # narrow networks need more to start learning
    width: float = 1.0  # multiplies every number of units; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        uniform = functools.partial(
            jax.random.uniform, minval=-self.init_range, maxval=self.init_range
        )
        init = uniform if self.weight_init == "paper" else layers.he_normal
        x = nn.Dropout(self.input_dropout, deterministic=not train)(image)
        if train and not self.rescale_input:
            x = x * (1 - self.input_dropout)
        wider = 1.0  # units of the twin's layer below for each unit of maxout's
        for name, row in TABLES[self.table].items():
            units, pieces = max(1, round(row.units * self.width)), row.pieces
            if not self.hidden.startswith("maxout"):
                wider = row.pieces / wider
                units, pieces = max(1, round(units * wider)), 1
            features = units * pieces
            if isinstance(row, Conv):
                kind = (row.size, row.padding, self.tied_bias, init, self.dtype)
                x = BiasedConv(features, *kind, name=name)(x)
                x = self._activate(x, pieces)
                x = ends[name] = pooling.max_pool(x, *row.pool, ceil_mode=True)
            else:
                x = layers.FullyConnected(features, init, dtype=self.dtype, name=name)(x)
                x = ends[name] = self._activate(x, pieces)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        ends["y"] = layers.FullyConnected(self.num_classes, init, dtype=self.dtype, name="y")(x)
        return ends["y"].mean((1, 2), dtype=jnp.float32), ends

    def _activate(self, z: jax.Array, pieces: int) -> jax.Array:
        x = max_over_pieces(z, pieces)  # the twins have one piece
        if self.hidden == "maxout":
            return x
        return nn.tanh(x) if self.hidden == "tanh" else nn.relu(x)


def Model(variant: str = "cifar10", **fields: Any) -> Maxout:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant or field, or a value that a field does not take.
    """
    model = variants.build(Maxout, VARIANTS, variant, fields)
    variants.check_choices(model, CHOICES)
    return model


_MAPS = {
    "mnist_fc": {"h0": (1, 1, 240), "h1": (1, 1, 240), "y": (1, 1, 10)},
    "mnist_conv": {"h0": (10, 10, 48), "h1": (4, 4, 48), "h2": (3, 3, 24), "y": (1, 1, 10)},
    "cifar10": {"h0": (16, 16, 96), "h1": (7, 7, 192), "h2": (5, 5, 192), "h3": (1, 1, 500)},
    "svhn": {"h0": (18, 18, 64), "h1": (10, 10, 128), "h2": (6, 6, 128), "h3": (1, 1, 400)},
}
_TWIN_MAPS = {
    "mnist_fc": {"h0": (1, 1, 1200), "h1": (1, 1, 240)},
    "mnist_conv": {"h0": (10, 10, 96), "h1": (4, 4, 48), "h2": (3, 3, 96)},
    "cifar10": {"h0": (16, 16, 192), "h1": (7, 7, 192), "h2": (5, 5, 384), "h3": (1, 1, 1250)},
    "svhn": {"h0": (18, 18, 128), "h1": (10, 10, 128), "h2": (6, 6, 256), "h3": (1, 1, 1000)},
}
_MNIST, _RGB = (28, 28, 1), (32, 32, 3)
_SOURCE = "counted from the authors' yaml file"
_TWIN = "counted: as many weights in every hidden layer as the maxout network"
FACTS = {
    "mnist_fc": Facts(_MNIST, 1_233_610, 1_231_200, _MAPS["mnist_fc"], _SOURCE),
    "mnist_conv": Facts(_MNIST, 471_994, 30_746_736, _MAPS["mnist_conv"], _SOURCE),
    "cifar10": Facts(_RGB, 16_247_830, 732_290_696, _MAPS["cifar10"], _SOURCE),
    "cifar100": Facts(
        _RGB, 16_292_920, 732_335_696, _MAPS["cifar10"], "counted: the CIFAR-10 network"
    ),
    "svhn": Facts(_RGB, 10_461_050, 303_466_400, _MAPS["svhn"], _SOURCE),
    "mnist_fc_relu": Facts(_MNIST, 1_232_650, 1_231_200, _TWIN_MAPS["mnist_fc"], _TWIN),
    "mnist_conv_relu": Facts(_MNIST, 474_586, 30_753_216, _TWIN_MAPS["mnist_conv"], _TWIN),
    "cifar10_relu": Facts(_RGB, 16_253_888, 732_298_196, _TWIN_MAPS["cifar10"], _TWIN),
    "cifar100_relu": Facts(_RGB, 16_366_478, 732_410_696, _TWIN_MAPS["cifar10"], _TWIN),
    "svhn_relu": Facts(_RGB, 10_465_922, 303_472_400, _TWIN_MAPS["svhn"], _TWIN),
}
