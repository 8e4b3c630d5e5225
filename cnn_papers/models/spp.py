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
    the paper's layers. The pyramid takes images of any size. With `windows` [n, k, 4] (left, top,
    right, bottom in image pixels) each window of the one feature map is pooled and classified
    (§4.1): logits are [n, k, num_classes], and endpoints from `spp` on are [n·k, 1, 1, …].
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

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False, windows: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        x = self._features(image, ends)
        if windows is not None:
            self._check_windows(image, x)
            stride, offset = self.geometry()
            pool = partial(
                pooling.window_features, levels=self.levels, stride=stride, offset=offset
            )
            features = jax.vmap(pool)(x, windows)
            x = ends["spp"] = features.reshape(windows.shape[0] * windows.shape[1], 1, 1, -1)
        elif self.levels:
            x = ends["spp"] = pooling.pyramid_pool(x, self.levels)
        else:
            x = ends["pool"] = pooling.max_pool(x, *LAST_POOL[self.net])

        for name in ("fc6", "fc7"):
            x = self._fully_connected(x, name, self._scaled(4096))
            x = ends[name] = nn.relu(x)
            x = nn.Dropout(self.dropout, deterministic=not train)(x)
        x = ends["fc8"] = self._fully_connected(x, "fc8", self.num_classes)
        logits = x.mean((1, 2), dtype=jnp.float32)
        return logits if windows is None else logits.reshape(*windows.shape[:2], -1), ends

    def _features(self, image: jax.Array, ends: dict[str, jax.Array]) -> jax.Array:
        x = image
        for i, (name, (kernels, size, stride, padding, *after)) in enumerate(self._rows(), 1):
            x = layers.Conv(
                self._scaled(kernels),
                size,
                stride,
                padding,
                name=name,
                **self._initialisers(name),
            )(x)
            x = ends[name] = nn.relu(x)
            for step in after:
                if step != "norm":
                    x = ends[f"pool{i}"] = pooling.max_pool(x, *step)
                elif self.lrn:
                    x = ends[f"norm{i}"] = layers.local_response_norm(x)
        return x

    def _fully_connected(self, x: jax.Array, name: str, units: int) -> jax.Array:
        return layers.FullyConnected(units, name=name, **self._initialisers(name))(x)

    def _check_windows(self, image: jax.Array, feature_map: jax.Array) -> None:
        if not self.levels:
            raise ValueError("features of windows need a pyramid: this variant has no model.levels")
        if 0 in feature_map.shape:
            raise ValueError(
                f"an image of {image.shape[1]}×{image.shape[2]} is too small: "
                "its feature map has no pixels left"
            )

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
