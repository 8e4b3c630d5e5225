"""LeNet-5.

LeCun, Bottou, Bengio, Haffner: Gradient-Based Learning Applied to Document Recognition.
Proceedings of the IEEE 86(11), 1998. https://doi.org/10.1109/5.726791

Deviations:
  - The output layer is linear and trained. The paper's ten units measure the squared distance of F6
    to fixed 7×12 drawings of the digits (Figure 3), of which we have no copy that we can check.
    Under a softmax the two are close: the codes all have the same length, so a distance to a fixed
    code is a linear unit with fixed weights. Up to F6 the network has the paper's 60,000 trainable
    parameters; the linear output adds 850.
  - Biases start at zero; the paper draws the weights uniformly within ±2.4/fan-in and does not
    mention biases.
  - Variant `relu` is not in the paper: ReLU, max pooling and a fully connected C3, as later
    frameworks teach LeNet-5.
"""

import functools
import math
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax.linen.dtypes import promote_dtype

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, variants
from cnn_papers.models.shared.pooling import max_pool

# §II-B: maps of the 5×5 convolutions, and units of the layers after them.
MAPS = {"C1": 6, "C3": 16}
UNITS = {"C5": 120, "F6": 84}
# Table I: the maps of S2 that each map of C3 reads.
CONNECTIONS = (
    (0, 1, 2),
    (1, 2, 3),
    (2, 3, 4),
    (3, 4, 5),
    (0, 4, 5),
    (0, 1, 5),
    (0, 1, 2, 3),
    (1, 2, 3, 4),
    (2, 3, 4, 5),
    (0, 3, 4, 5),
    (0, 1, 4, 5),
    (0, 1, 2, 5),
    (0, 1, 3, 4),
    (1, 2, 4, 5),
    (0, 2, 3, 5),
    (0, 1, 2, 3, 4, 5),
)

VARIANTS: dict[str, dict[str, Any]] = {
    "original": {},
    "relu": {"activation": "relu", "pooling": "max", "connections": "full", "weight_init": "he"},
}
CHOICES = {
    "activation": ("squash", "relu"),
    "pooling": ("subsample", "max"),
    "connections": ("table", "full"),
    "weight_init": ("paper", "he"),
}


def squash(x: jax.Array) -> jax.Array:
    """Returns A · tanh(S·x) with A = 1.7159 and S = 2/3 (equation 6 and Appendix A)."""
    return 1.7159 * jnp.tanh(2 / 3 * x)


def uniform_by_fan_in(
    key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> jax.Array:
    """Draws uniformly within ±2.4 / (inputs of one unit); `shape` is [..., outputs]."""
    bound = 2.4 / math.prod(shape[:-1])
    return jax.random.uniform(key, shape, dtype, -bound, bound)


class Subsampling(nn.Module):
    """S2 and S4: the sum over 2×2 pixels, times the map's coefficient, plus the map's bias."""

    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        coefficient = self.param("coefficient", _subsampling_init, x.shape[-1:])
        bias = self.param("bias", nn.initializers.zeros, x.shape[-1:])
        x, coefficient, bias = promote_dtype(x, coefficient, bias, dtype=self.dtype)
        sums = 4 * nn.avg_pool(x, (2, 2), (2, 2))
        return sums * coefficient[None, None, None] + bias[None, None, None]


def _subsampling_init(
    key: jax.Array, shape: tuple[int, ...], dtype: Any = jnp.float32
) -> jax.Array:
    return uniform_by_fan_in(key, (4, *shape), dtype)[0]  # a unit has four inputs


class TableConv(nn.Module):
    """C3: 5×5 convolutions; map i reads only the maps `sources[i]` of the layer below (Table I)."""

    sources: tuple[tuple[int, ...], ...]
    kernel_init: nn.initializers.Initializer
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        maps = []
        for i, source in enumerate(self.sources):
            conv = layers.Conv(
                1,
                size=5,
                kernel_init=self.kernel_init,
                dtype=self.dtype,
                name=f"map{i}",
            )
            maps.append(conv(x[..., jnp.array(source)]))
        return jnp.concatenate(maps, -1)


class LeNet(nn.Module):
    """Two convolutions with subsampling, C5, F6 and the output (Figure 2).

    Called with `image` float [n, h, w, c], 32×32×1 in the paper; returns logits float32
    [n, num_classes] and a dict of the paper's layers. Larger images than the one initialised with
    give maps of scores, averaged over positions into the logits.
    """

    num_classes: int = 10
    activation: str = "squash"
    pooling: str = "subsample"
    connections: str = "table"
    weight_init: str = "paper"  # or "he"
    width: float = 1.0  # multiplies every channel count, S2 keeping three; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        init = uniform_by_fan_in if self.weight_init == "paper" else layers.he_normal
        activate = squash if self.activation == "squash" else nn.relu
        conv = functools.partial(layers.Conv, size=5, kernel_init=init, dtype=self.dtype)
        c1, c3 = (max(3, round(maps * self.width)) for maps in MAPS.values())

        x = ends["C1"] = activate(conv(c1, name="C1")(image))
        x = ends["S2"] = self._pool(x, "S2")
        if self.connections == "table":
            x = TableConv(_scaled_connections(c1, c3), init, self.dtype, name="C3")(x)
        else:
            x = conv(c3, name="C3")(x)
        x = ends["C3"] = activate(x)
        x = ends["S4"] = self._pool(x, "S4")
        for name, units in UNITS.items():
            features = max(1, round(units * self.width))
            x = layers.FullyConnected(features, init, dtype=self.dtype, name=name)(x)
            x = ends[name] = activate(x)
        output = layers.FullyConnected(self.num_classes, init, dtype=self.dtype, name="output")
        x = ends["output"] = output(x)
        return x.mean((1, 2), dtype=jnp.float32), ends

    def _pool(self, x: jax.Array, name: str) -> jax.Array:
        if self.pooling == "max":
            return max_pool(x, 2, 2)
        return squash(Subsampling(self.dtype, name=name)(x))


def _scaled_connections(s2: int, c3: int) -> tuple[tuple[int, ...], ...]:
    """Returns Table I for `s2` and `c3` maps.

    A map connects as the table's map at the same relative place does.
    """
    rows, columns = MAPS.values()
    row_of = [i * rows // s2 for i in range(s2)]
    return tuple(
        tuple(i for i in range(s2) if row_of[i] in CONNECTIONS[j * columns // c3])
        for j in range(c3)
    )


def Model(variant: str = "original", **fields: Any) -> LeNet:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant or field, or a value that a field does not take.
    """
    model = variants.build(LeNet, VARIANTS, variant, fields)
    variants.check_choices(model, CHOICES)
    return model


_MAPS = {
    "C1": (28, 28, 6),
    "S2": (14, 14, 6),
    "C3": (10, 10, 16),
    "S4": (5, 5, 16),
    "C5": (1, 1, 120),
    "F6": (1, 1, 84),
    "output": (1, 1, 10),
}
FACTS = {
    "original": Facts(
        (32, 32, 1), 60_850, 326_520, _MAPS, "§II-B up to F6; 850 of the linear output", "60,000"
    ),
    "relu": Facts((32, 32, 1), 61_706, 416_520, _MAPS, "counted: C3 reads every map"),
}
