"""SPP-net.

He, Zhang, Ren, Sun: Spatial Pyramid Pooling in Deep Convolutional Networks for Visual Recognition.
ECCV 2014 and TPAMI 2015. arXiv:1406.4729

Deviations:
  - The paper adjusts padding to reach its maps at 224 pixels and does not say how; the padding in
    TABLE reaches them. (The released ZF-5 pads differently and has a map of 26 after conv2, where
    the paper has 27.)
  - The windows of ⌈a/n⌉ cells at stride ⌊a/n⌋ that the paper pools with (§2.3) end with the map
    only where a mod n is 0 or 1, as on its maps of 13 and 18. On others, such as the 10×10 cells of
    180 pixels, they leave cells out or make more than n bins. We use the bins that the paper gives
    to arbitrary windows; on maps of 13 and 18 the two are the same.
  - Response normalisation is AlexNet's; the released ZF-5 normalises over 3×3 pixels of one channel
    instead.
  - Biases start at one where the released ZF-5's do, and at zero in Overfeat-7's last two
    convolutions.
"""

from functools import partial
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling, variants

# Table 1: kernels, size, stride, padding, and what follows in order: "norm" or a max pooling's
# window and stride.
OVERFEAT: dict[str, tuple[Any, ...]] = {
    "conv1": (96, 7, 2, 0, (3, 3), "norm"),
    "conv2": (256, 5, 1, 2, (2, 2)),
    "conv3": (512, 3, 1, 1),
    "conv4": (512, 3, 1, 1),
    "conv5": (512, 3, 1, 1),
}
TABLE: dict[str, dict[str, tuple[Any, ...]]] = {
    "zf5": {
        "conv1": (96, 7, 2, 2, "norm", (3, 2)),
        "conv2": (256, 5, 2, 1, "norm", (3, 2)),
        "conv3": (384, 3, 1, 1),
        "conv4": (384, 3, 1, 1),
        "conv5": (256, 3, 1, 1),
    },
    "convnet5": {
        "conv1": (96, 11, 4, 2, "norm"),
        "conv2": (256, 5, 1, 2, "norm", (3, 2)),
        "conv3": (384, 3, 1, 1, (3, 2)),
        "conv4": (384, 3, 1, 1),
        "conv5": (256, 3, 1, 1),
    },
    "overfeat5": OVERFEAT,
    "overfeat7": OVERFEAT | {"conv6": (512, 3, 1, 1), "conv7": (512, 3, 1, 1)},
}
# Without a pyramid, the pooling to 6×6 cells.
LAST_POOL = {"zf5": (3, 2), "convnet5": (3, 2), "overfeat5": (3, 3), "overfeat7": (3, 3)}
BIAS_ONE = ("conv2", "conv4", "conv5", "fc6", "fc7", "fc8")

VARIANTS: dict[str, dict[str, Any]] = {
    "zf5": {"net": "zf5"},
    "convnet5": {"net": "convnet5"},
    "overfeat5": {"net": "overfeat5"},
    "overfeat7": {"net": "overfeat7"},
    "zf5-no-spp": {"net": "zf5", "levels": ()},
    "convnet5-no-spp": {"net": "convnet5", "levels": ()},
    "overfeat5-no-spp": {"net": "overfeat5", "levels": ()},
    "overfeat7-no-spp": {"net": "overfeat7", "levels": ()},
    # §3.1.2: fewer parameters than without a pyramid
    "zf5-30bins": {"net": "zf5", "levels": (4, 3, 2, 1)},
}


class SPPNet(nn.Module):
    """Convolutions, spatial pyramid pooling and three fully connected layers (Table 1).

    Called with `image` float [n, h, w, 3]; returns logits float32 [n, num_classes] and a dict of
    the paper's layers. The pyramid takes images of any size.

    With `windows` [n, k, 4], boxes `[y1, x1, y2, x2]` in image pixels, each window of the one
    feature map is pooled and classified (§4.1): logits are [n, k, num_classes], and endpoints from
    `spp` on are [n·k, 1, 1, …]. A window may also be one of the image at another size:
    `other_sizes` are the images so resized, each [n, h', w', 3], and `size_of` int [n, k] is 0 for
    a window of `image`, i for one of the i-th of these, in whose pixels the window then is.

    The three stages `convolve`, `pool` and `classify` are methods of their own.
    """

    net: str
    levels: tuple[int, ...] = (6, 3, 2, 1)  # bins per side; () is the network without the pyramid
    num_classes: int = 1000
    conv1_stride: int | None = None  # None is the paper's; smaller ones let small images through
    lrn: bool = True
    dropout: float = 0.5
    weight_init: str = "paper"  # or "he"
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    def setup(self) -> None:
        """Names the layers as the paper does."""
        for name, (kernels, size, stride, padding, *_) in self._rows():
            channels = self._scaled(kernels)
            conv = layers.Conv(channels, size, stride, padding, **self._initialisers(name))
            setattr(self, name, conv)
        units_by_name = {
            "fc6": self._scaled(4096),
            "fc7": self._scaled(4096),
            "fc8": self.num_classes,
        }
        for name, units in units_by_name.items():
            setattr(self, name, layers.FullyConnected(units, **self._initialisers(name)))
        # Flax's own names, from which it draws the masks
        self.Dropout_0, self.Dropout_1 = nn.Dropout(self.dropout), nn.Dropout(self.dropout)

    @variants.refuse_small_images
    def __call__(
        self,
        image: jax.Array,
        *,
        train: bool = False,
        windows: jax.Array | None = None,
        other_sizes: tuple[jax.Array, ...] = (),
        size_of: jax.Array | None = None,
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        x, ends = self.convolve(image)
        if windows is not None:
            x = self._windows(image, x, windows)
            for i, resized in enumerate(other_sizes, 1):
                pooled = self._windows(resized, self.convolve(resized)[0], windows)
                x = jnp.where((size_of == i)[..., None], pooled, x)
            x = ends["spp"] = x.reshape(-1, 1, 1, x.shape[-1])
        elif self.levels:
            x = ends["spp"] = pooling.pyramid_pool(x, self.levels)
        else:
            x = ends["pool"] = pooling.max_pool(x, *LAST_POOL[self.net])
        x, ends_of_classifier = self.classify(x, train=train)
        logits = x.mean((1, 2), dtype=jnp.float32)
        if windows is not None:
            logits = logits.reshape(*windows.shape[:2], -1)
        return logits, ends | ends_of_classifier

    def convolve(self, image: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns the last feature map of images [n, h, w, 3], [n, a, b, c], and the layers."""
        x, ends = image, {}
        for i, (name, (_, _, _, _, *after)) in enumerate(self._rows(), 1):
            x = ends[name] = nn.relu(getattr(self, name)(x))
            for step in after:
                if step != "norm":
                    x = ends[f"pool{i}"] = pooling.max_pool(x, *step)
                elif self.lrn:
                    x = ends[f"norm{i}"] = layers.local_response_norm(x)
        return x, ends

    def pool(self, feature_map: jax.Array, windows: jax.Array) -> jax.Array:
        """Returns the pyramid over windows [n, k, 4] of maps [n, a, b, c], [n, k, bins·c]."""
        stride, offset = self.geometry()
        pool = partial(pooling.window_features, levels=self.levels, stride=stride, offset=offset)
        return jax.vmap(pool)(feature_map, windows)

    def classify(
        self, pooled: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        """Returns scores [n, a, b, num_classes] of pooled maps, [n, 1, 1, bins·c], and the layers.

        Without a pyramid the pooled maps are [n, h, w, c].
        """
        x, ends = pooled, {}
        for name, dropout in (("fc6", self.Dropout_0), ("fc7", self.Dropout_1)):
            x = ends[name] = nn.relu(getattr(self, name)(x))
            x = dropout(x, deterministic=not train)
        x = ends["fc8"] = self.fc8(x)
        return x, ends

    def _windows(self, image: jax.Array, feature_map: jax.Array, windows: jax.Array) -> jax.Array:
        if not self.levels:
            raise ValueError("features of windows need a pyramid: this variant has no model.levels")
        if 0 in feature_map.shape:
            raise ValueError(
                f"an image of {image.shape[1]}×{image.shape[2]} is too small: "
                "its feature map has no pixels left"
            )
        return self.pool(feature_map, windows)

    def geometry(self) -> tuple[int, float]:
        """Returns the stride of the last map's cells and the centre of the first, in image pixels.

        The stride is Appendix A's S.
        """
        distance, centre = 1, 0.0
        for _, (_, size, stride, padding, *after) in self._rows():
            pools = [(*step, 0) for step in after if step != "norm"]
            for window, step, margin in [(size, stride, padding), *pools]:
                centre += ((window - 1) / 2 - margin) * distance
                distance *= step
        return distance, centre

    def _rows(self) -> list[tuple[str, tuple[Any, ...]]]:
        """Returns the table's rows, with `conv1_stride` in the first."""
        rows = dict(TABLE[self.net])
        kernels, size, stride, *rest = rows["conv1"]
        rows["conv1"] = (kernels, size, self.conv1_stride or stride, *rest)
        return list(rows.items())

    def _initialisers(self, name: str) -> dict[str, Any]:
        bias = 1.0 if name in BIAS_ONE else 0.0
        return layers.initialisers(self.weight_init, bias) | {"dtype": self.dtype}

    def _scaled(self, channels: int) -> int:
        return max(1, round(channels * self.width))


def Model(variant: str = "zf5", **fields: Any) -> SPPNet:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant or field, or a value that a field does not take.
    """
    model = variants.build(SPPNet, VARIANTS, variant, fields)
    variants.check_choices(model, {"net": tuple(TABLE), "weight_init": ("paper", "he")})
    if min(model.levels, default=1) < 1:
        raise ValueError(
            f"model.levels are bins per side and at least 1, not {tuple(model.levels)}"
        )
    return model


_ZF5_MAPS = {
    "pool1": (55, 55, 96),
    "conv2": (27, 27, 256),
    "conv3": (13, 13, 384),
    "conv5": (13, 13, 256),
}
_CONVNET5_MAPS = {
    "conv1": (55, 55, 96),
    "pool2": (27, 27, 256),
    "pool3": (13, 13, 384),
    "conv5": (13, 13, 256),
}
_OVERFEAT5_MAPS = {
    "pool1": (36, 36, 96),
    "pool2": (18, 18, 256),
    "conv3": (18, 18, 512),
    "conv5": (18, 18, 512),
}
_OVERFEAT7_MAPS = {**_OVERFEAT5_MAPS, "conv7": (18, 18, 512)}
_INPUT, _SOURCE = (224, 224, 3), "Table 1; counted"
FACTS = {
    "zf5": Facts(_INPUT, 77_037_672, 1_218_394_912, {**_ZF5_MAPS, "spp": (1, 1, 12800)}, _SOURCE),
    "zf5-no-spp": Facts(
        _INPUT, 62_357_608, 1_203_714_848, {**_ZF5_MAPS, "pool": (6, 6, 256)}, _SOURCE
    ),
    "convnet5": Facts(
        _INPUT, 77_058_408, 3_056_050_720, {**_CONVNET5_MAPS, "spp": (1, 1, 12800)}, _SOURCE
    ),
    "convnet5-no-spp": Facts(
        _INPUT, 62_378_344, 3_041_370_656, {**_CONVNET5_MAPS, "pool": (6, 6, 256)}, _SOURCE
    ),
    "overfeat5": Facts(
        _INPUT, 132_268_648, 3_000_687_648, {**_OVERFEAT5_MAPS, "spp": (1, 1, 25600)}, _SOURCE
    ),
    "overfeat5-no-spp": Facts(
        _INPUT, 102_908_520, 2_971_327_520, {**_OVERFEAT5_MAPS, "pool": (6, 6, 512)}, _SOURCE
    ),
    "overfeat7": Facts(
        _INPUT, 136_988_264, 4_529_511_456, {**_OVERFEAT7_MAPS, "spp": (1, 1, 25600)}, _SOURCE
    ),
    "overfeat7-no-spp": Facts(
        _INPUT, 107_628_136, 4_500_151_328, {**_OVERFEAT7_MAPS, "pool": (6, 6, 512)}, _SOURCE
    ),
    "zf5-30bins": Facts(
        _INPUT, 56_066_152, 1_197_423_392, {**_ZF5_MAPS, "spp": (1, 1, 7680)}, "§3.1.2; counted"
    ),
}
