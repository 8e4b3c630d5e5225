"""OverFeat.

Sermanet, Eigen, Zhang, Mathieu, Fergus, LeCun: OverFeat: Integrated Recognition, Localization and
Detection using Convolutional Networks. ICLR 2014. arXiv:1312.6229

Deviations:
  - Biases start at zero: the paper draws the weights from N(0, 0.01²) and does not mention biases.
  - Padding is that of the released networks: one pixel in the 3×3 convolutions, none elsewhere.
  - The offsets of the last pooling are 0, 1 and 2 in the paper, whose accurate network pools 3×3
    there. The fast network pools 2×2, so its offsets are 0 and 1: one for each pixel of the window.
  - The regressor starts from the window that it sees, whose edges are its last layer's biases: the
    paper does not mention its initial weights.
  - At image sizes other than the paper's six, some offsets see one position fewer than others. All
    offsets are kept, so that every position of the classifier is scored exactly once.
"""

from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling, variants

# Tables 1 and 3: the convolutions, then the classifier that slides over their map. A convolution is
# (kernels, size, stride, padding), a pooling its side and stride, a fully connected layer its units
# (None for the classes).
TABLE: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "fast": (
        {
            "conv1": (96, 11, 4, 0),
            "pool1": 2,
            "conv2": (256, 5, 1, 0),
            "pool2": 2,
            "conv3": (512, 3, 1, 1),
            "conv4": (1024, 3, 1, 1),
            "conv5": (1024, 3, 1, 1),
        },
        {"pool5": 2, "fc6": 3072, "fc7": 4096, "fc8": None},
    ),
    "accurate": (
        {
            "conv1": (96, 7, 2, 0),
            "pool1": 3,
            "conv2": (256, 7, 1, 0),
            "pool2": 2,
            "conv3": (512, 3, 1, 1),
            "conv4": (512, 3, 1, 1),
            "conv5": (1024, 3, 1, 1),
            "conv6": (1024, 3, 1, 1),
        },
        {"pool6": 3, "fc7": 4096, "fc8": 4096, "fc9": None},
    ),
}

VARIANTS: dict[str, dict[str, Any]] = {"fast": {"net": "fast"}, "accurate": {"net": "accurate"}}


BOXES = ("shared", "per_class")
_REGRESSOR = (("box1", 4096), ("box2", 1024), ("box3", 4))  # §4.1, Figure 8
_WINDOW_ITSELF = {  # the edges that the regressor starts from
    "kernel_init": nn.initializers.normal(0.01),
    "bias_init": lambda key, shape, dtype=jnp.float32: jnp.tile(
        jnp.array([0, 0, 1, 1], dtype), shape[0] // 4
    ),
}


class Geometry(NamedTuple):
    """The places of an image that the map of scores looks at.

    Position (y, x) sees the square of `side` pixels whose top left corner is at
    (y · stride, x · stride). Padding inside the network lets it see a little more.
    """

    side: int
    stride: int

    def shape(self, height: int, width: int) -> tuple[int, int]:
        """Returns the rows and columns of the map over an image of height×width pixels."""
        rows, columns = ((length - self.side) // self.stride + 1 for length in (height, width))
        return rows, columns

    def windows(self, rows: int, columns: int) -> jax.Array:
        """Returns the squares of a map, float32 [rows, columns, 4], as `boxes` has them."""
        y, x = jnp.meshgrid(jnp.arange(rows), jnp.arange(columns), indexing="ij")
        corners = self.stride * jnp.stack([y, x], -1).astype(jnp.float32)
        return jnp.concatenate([corners, corners + self.side], -1)


class OverFeat(nn.Module):
    """A classifier that slides over images larger than the one it was initialised with (§3.5).

    Called with `image` float [n, h, w, 3]; returns logits float32 [n, num_classes], the mean over
    the map of scores, and a dict of layers by the paper's numbers. The map of scores is the last of
    them, `fc8` or `fc9`, [n, a, b, num_classes].

    With `fine`, evaluation applies the last pooling at every offset (Δy, Δx) and the classifier to
    each result, and interleaves the outputs (§3.3): positions are 12 image pixels apart instead of
    36 (accurate), or 16 instead of 32 (fast). The last pooling's endpoint is then
    [n, Δy, Δx, h, w, c], filled with zeros where offsets see fewer positions.

    With `boxes` a regressor slides over the same pooled map (§4.1): its layers are `box1` to
    `box3`, and its map is [n, a, b, 4] if all classes share it, or [n, a, b, num_classes, 4]. The
    four numbers are the edges of a box within the window that a position sees, as
    `boxes.relative` has them.
    """

    net: str
    num_classes: int = 1000
    fine: bool = False
    fine_in_training: bool = False  # training too applies the last pooling at every offset (§4.2)
    window: int = 0  # the side that it is initialised with; 0 is the image's
    boxes: str | None = None  # "shared" or "per_class": the regressor of boxes
    box_dropout: float = 0.0  # of the regressor's hidden units; the paper mentions none
    conv1_stride: int | None = None  # None is the paper's; smaller ones let small images through
    dropout: float = 0.5  # §3.2
    weight_init: str = "paper"  # or "he"
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        convolutions, classifier = TABLE[self.net]
        if self.window and self.is_initializing():
            image = self._window(image)
        x = image
        for name, row in convolutions.items():
            size, stride, padding = self._row(name, row)
            if "conv" in name:
                kernels = self._scaled(row[0])
                convolution = layers.Conv(
                    kernels, size, stride, padding, name=name, **self._initialisers()
                )
                x = nn.relu(convolution(x))
            else:
                x = pooling.max_pool(x, size, stride)
            ends[name] = x

        (last_pool, pool), *fully_connected = classifier.items()
        missing = [-(side + 1) % pool for side in x.shape[1:3]]  # pixels that the last offset lacks
        if fine := self._is_fine(train):
            maps = ends[last_pool] = _pool_at_offsets(x, pool, missing)
            x = maps.reshape(x.shape[0] * pool**2, *maps.shape[-3:])
        else:
            x = ends[last_pool] = pooling.max_pool(x, pool, pool)

        def slide(x: jax.Array, rows: Any, outputs: int, dropout: float, last: Any) -> None:
            for name, units in rows:
                hidden = (name, units) != rows[-1]
                features = self._scaled(units) if hidden else outputs
                options = self._initialisers() if hidden else self._initialisers() | last
                x = layers.FullyConnected(features, name=name, **options)(x)
                x = nn.relu(x) if hidden else x
                ends[name] = _interleave(x, pool, missing) if fine else x
                if hidden:
                    x = nn.Dropout(dropout, deterministic=not train)(x)

        if self.boxes:
            per_class = self.boxes == "per_class"
            boxes = self.num_classes if per_class else 1
            slide(x, _REGRESSOR, 4 * boxes, self.box_dropout, _WINDOW_ITSELF)
            if per_class:
                edges = ends["box3"]
                ends["box3"] = edges.reshape(*edges.shape[:3], self.num_classes, 4)
        slide(x, fully_connected, self.num_classes, self.dropout, {})
        return score_map(ends).mean((1, 2), dtype=jnp.float32), ends

    def geometry(self, *, train: bool = False) -> Geometry:
        """Returns the places that the map of scores looks at; the field `window` must be given."""
        convolutions, classifier = TABLE[self.net]
        pool, *_ = classifier.values()
        rows = [self._row(name, row) for name, row in convolutions.items()]
        side = self.window
        for size, stride, padding in [*rows, (pool, pool, 0)]:
            side = (side + 2 * padding - size) // stride + 1
        stride = 1 if self._is_fine(train) else pool
        side = pool * side  # of the window on the map before the last pooling
        for size, step, padding in reversed(rows):
            side = (side - 1) * step + size - 2 * padding
            stride *= step
        return Geometry(side, stride)

    def _window(self, image: jax.Array) -> jax.Array:
        height, width = image.shape[1:3]
        if min(height, width) < self.window:
            raise ValueError(
                f"an image of {height}×{width} is smaller than model.window={self.window}"
            )
        return image[:, : self.window, : self.window]

    def _is_fine(self, train: bool) -> bool:
        return self.fine and (self.fine_in_training or not train)

    def _row(self, name: str, row: Any) -> tuple[int, int, int]:
        """Returns the size, the stride and the padding of a row of `TABLE`."""
        if "pool" in name:
            return row, row, 0
        _, size, stride, padding = row
        return size, self.conv1_stride or stride if name == "conv1" else stride, padding

    def _initialisers(self) -> dict[str, Any]:
        return layers.initialisers(self.weight_init) | {"dtype": self.dtype}

    def _scaled(self, channels: int) -> int:
        return max(1, round(channels * self.width))


def score_map(ends: dict[str, jax.Array]) -> jax.Array:
    """Returns the map of scores among the endpoints: that of the last fully connected layer.

    It is found by its name, since transformations of JAX sort a dict.
    """
    return ends[max(name for name in ends if name.startswith("fc"))]


def _pool_at_offsets(x: jax.Array, pool: int, missing: list[int]) -> jax.Array:
    """Returns the max pooling of [n, h, w, c] at every offset (Δy, Δx).

    The result is [n, pool, pool, a, b, c]. `missing` rows and columns of zeros are appended, so
    that all offsets have as many positions.
    """
    h, w = (side + fill + 1 - pool for side, fill in zip(x.shape[1:3], missing, strict=True))
    x = jnp.pad(x, [(0, 0), (0, missing[0]), (0, missing[1]), (0, 0)])
    shifted = [x[:, dy : dy + h, dx : dx + w] for dy in range(pool) for dx in range(pool)]
    maps = jnp.stack([pooling.max_pool(part, pool, pool) for part in shifted], 1)
    return maps.reshape(x.shape[0], pool, pool, *maps.shape[2:])


def _interleave(x: jax.Array, pool: int, missing: list[int]) -> jax.Array:
    """Interleaves [n·pool², a, b, c] to [n, pool·a, pool·b, c].

    Position (y, x) comes from the offset (y, x) modulo `pool`. The last `missing` positions saw the
    zeros that `_pool_at_offsets` appends, and are dropped.
    """
    n, a, b, c = x.shape[0] // pool**2, *x.shape[1:]
    x = x.reshape(n, pool, pool, a, b, c).transpose(0, 3, 1, 4, 2, 5)
    x = x.reshape(n, a * pool, b * pool, c)
    return x[:, : a * pool - missing[0], : b * pool - missing[1]]


def Model(variant: str = "accurate", **fields: Any) -> OverFeat:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant or field, or a value that a field does not take.
    """
    model = variants.build(OverFeat, VARIANTS, variant, fields)
    choices = {"net": tuple(TABLE), "weight_init": ("paper", "he"), "boxes": (None, *BOXES)}
    variants.check_choices(model, choices)
    return model


# 145,920,872 and 144,656,488 are also the numbers of weights in the released files. The paper's
# Table 1 prints 24×24 as the input of the fast network's layer 2; it is that layer's output.
_FAST_MAPS = {
    "conv1": (56, 56, 96),
    "pool1": (28, 28, 96),
    "conv2": (24, 24, 256),
    "pool2": (12, 12, 256),
    "conv3": (12, 12, 512),
    "conv5": (12, 12, 1024),
    "pool5": (6, 6, 1024),
    "fc6": (1, 1, 3072),
    "fc8": (1, 1, 1000),
}
_ACCURATE_MAPS = {
    "conv1": (108, 108, 96),
    "pool1": (36, 36, 96),
    "conv2": (30, 30, 256),
    "pool2": (15, 15, 256),
    "conv4": (15, 15, 512),
    "conv6": (15, 15, 1024),
    "pool6": (5, 5, 1024),
    "fc7": (1, 1, 4096),
    "fc9": (1, 1, 1000),
}
FACTS = {
    "fast": Facts(
        (231, 231, 3),
        145_920_872,
        2_801_403_904,
        _FAST_MAPS,
        "Table 1, released weights",
        "145M, 2,810M",
    ),
    "accurate": Facts(
        (221, 221, 3),
        144_656_488,
        5_355_446_784,
        _ACCURATE_MAPS,
        "Table 3, released weights",
        "144M, 5,369M",
    ),
}
