"""DenseNet.

Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks. CVPR 2017.
arXiv:1608.06993

Deviations:
  - `memory_efficient` recomputes whole dense layers in the backward pass; the authors' version
    shares the storage of concatenations and normalisations. Both keep memory linear in depth.
    (It saves no memory on XLA's CPU backend.)
  - Initialisation is He et al.'s normal over the inputs of a unit; the authors' code counts the
    outputs.
  - The small nets `B-40-12`, `C-40-12` and `BC-40-12` stand for curves of Figure 4, for which the
    paper gives no table. With bottlenecks the first convolution has 2k channels, as in the authors'
    code; the text says so only of BC.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling, variants

_CIFAR = {"stem": "cifar", "num_classes": 10}
_PLAIN = {**_CIFAR, "bottleneck": False, "compression": 1.0}
_B = {**_CIFAR, "bottleneck": True, "compression": 1.0}
_C = {**_CIFAR, "bottleneck": False, "compression": 0.5}
_BC = {**_CIFAR, "bottleneck": True, "compression": 0.5}
VARIANTS: dict[str, dict[str, Any]] = {
    # Table 1, and the authors' repository for 161
    "121": {"blocks": (6, 12, 24, 16), "growth": 32, "stem_features": 64},
    "169": {"blocks": (6, 12, 32, 32), "growth": 32, "stem_features": 64},
    "201": {"blocks": (6, 12, 48, 32), "growth": 32, "stem_features": 64},
    "264": {"blocks": (6, 12, 64, 48), "growth": 32, "stem_features": 64},
    "161": {"blocks": (6, 12, 36, 24), "growth": 48, "stem_features": 96},
    # Table 2, named by depth and growth rate; B: 1×1 bottlenecks, C: compression by a half
    "40-12": {**_PLAIN, "blocks": (12, 12, 12), "growth": 12, "stem_features": 16},
    "100-12": {**_PLAIN, "blocks": (32, 32, 32), "growth": 12, "stem_features": 16},
    "100-24": {**_PLAIN, "blocks": (32, 32, 32), "growth": 24, "stem_features": 16},
    "BC-100-12": {**_BC, "blocks": (16, 16, 16), "growth": 12, "stem_features": 24},
    "BC-250-24": {**_BC, "blocks": (41, 41, 41), "growth": 24, "stem_features": 48},
    "BC-190-40": {**_BC, "blocks": (31, 31, 31), "growth": 40, "stem_features": 80},
    # Figure 4
    "B-40-12": {**_B, "blocks": (6, 6, 6), "growth": 12, "stem_features": 24},
    "C-40-12": {**_C, "blocks": (12, 12, 12), "growth": 12, "stem_features": 16},
    "BC-40-12": {**_BC, "blocks": (6, 6, 6), "growth": 12, "stem_features": 24},
}


class DenseLayer(nn.Module):
    """H_l of §3: BN, ReLU and a 3×3 convolution of all features before it.

    With `bottleneck` a BN, ReLU and 1×1 convolution to 4k channels come first.
    """

    growth: int
    bottleneck: bool
    dropout: float
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, before: tuple[jax.Array, ...]) -> jax.Array:
        x = jnp.concatenate(before, -1)
        if self.bottleneck:
            x = self._bn_relu_conv(x, 4 * self.growth, 1, "1")
            return self._bn_relu_conv(x, self.growth, 3, "2")
        return self._bn_relu_conv(x, self.growth, 3, "1")

    def _bn_relu_conv(self, x: jax.Array, features: int, size: int, suffix: str) -> jax.Array:
        x = nn.relu(_batch_norm(self.train, self.dtype, f"bn{suffix}")(x))
        x = _conv(features, size, self.dtype, f"conv{suffix}")(x)
        return nn.Dropout(self.dropout, deterministic=not self.train)(x)


class DenseBlock(nn.Module):
    """`count` dense layers, `layer1` to `layer<count>`; returns all features, concatenated."""

    count: int
    growth: int
    bottleneck: bool
    dropout: float
    memory_efficient: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        layer = nn.remat(DenseLayer) if self.memory_efficient else DenseLayer
        kind = (self.growth, self.bottleneck, self.dropout, train, self.dtype)
        features = [x]
        for i in range(1, self.count + 1):
            h = layer(*kind, name=f"layer{i}")
            features.append(h(tuple(features)))
        return jnp.concatenate(features, -1)


class Transition(nn.Module):
    """§3: BN, ReLU (as in the authors' code), 1×1 convolution, dropout, 2×2 average pooling."""

    features: int
    dropout: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.relu(_batch_norm(train, self.dtype, "bn")(x))
        x = _conv(self.features, 1, self.dtype, "conv")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.avg_pool(x, (2, 2), (2, 2))


def _batch_norm(train: bool, dtype: Any, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name
    )


def _conv(features: int, size: int, dtype: Any, name: str, stride: int = 1) -> layers.Conv:
    return layers.Conv(
        features,
        size,
        stride,
        size // 2,
        use_bias=False,
        kernel_init=layers.he_normal,
        dtype=dtype,
        name=name,
    )


class DenseNet(nn.Module):
    """Dense blocks joined by transitions.

    Called with `image` float [n, h, w, 3]; returns logits float32 [n, num_classes] and a dict of
    the paper's layers: `conv0`, `block1`, `transition1`, … and `norm`, the last block's output
    after batch normalisation and ReLU.
    """

    blocks: tuple[int, ...]
    growth: int = 32
    bottleneck: bool = True
    compression: float = 0.5
    stem: str = "imagenet"  # or "cifar" (§3, implementation details)
    stem_features: int = 64
    num_classes: int = 1000
    dropout: float = 0.0  # after every convolution but the first; 0.2 without augmentation (§4.2)
    memory_efficient: bool = False
    width: float = 1.0  # multiplies the growth rate and the first channels; 1 is the paper's
    dtype: Any = None

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        growth = max(1, round(self.growth * self.width))
        stem_features = max(1, round(self.stem_features * self.width))

        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = ends["conv0"] = _conv(stem_features, size, self.dtype, "conv0", stride)(image)
        if self.stem == "imagenet":
            x = nn.relu(_batch_norm(train, self.dtype, "bn0")(x))
            x = ends["pool0"] = pooling.max_pool(x, 3, 2, padding=1)

        kind = (growth, self.bottleneck, self.dropout, self.memory_efficient, self.dtype)
        for i, count in enumerate(self.blocks, 1):
            x = DenseBlock(count, *kind, name=f"block{i}")(x, train=train)
            ends[f"block{i}"] = x
            if i < len(self.blocks):
                features = int(x.shape[-1] * self.compression)
                transition = Transition(features, self.dropout, self.dtype, name=f"transition{i}")
                x = ends[f"transition{i}"] = transition(x, train=train)

        x = ends["norm"] = nn.relu(_batch_norm(train, self.dtype, "norm")(x))
        x = ends["pool"] = x.mean((1, 2), keepdims=True)
        ends["fc"] = layers.FullyConnected(self.num_classes, dtype=self.dtype, name="fc")(x)
        return ends["fc"].mean((1, 2), dtype=jnp.float32), ends


def Model(variant: str = "121", **fields: Any) -> DenseNet:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant or field, or a value that a field does not take.
    """
    model = variants.build(DenseNet, VARIANTS, variant, fields)
    variants.check_choices(model, {"stem": ("imagenet", "cifar")})
    return model


_IMAGE_224, _IMAGE_32 = (224, 224, 3), (32, 32, 3)
_SOURCE = "Tables 1 and 2; counted"
# The nets of growth rate 32 have the same first two blocks.
_FIRST_MAPS = {
    "conv0": (112, 112, 64),
    "block1": (56, 56, 256),
    "transition1": (28, 28, 128),
    "block2": (28, 28, 512),
    "transition2": (14, 14, 256),
}
# fmt: off
FACTS = {
    "121": Facts(
        _IMAGE_224, 7_978_856, 2_834_161_664,
        {**_FIRST_MAPS,
         "block3": (14, 14, 1024), "transition3": (7, 7, 512), "block4": (7, 7, 1024)},
        _SOURCE,
    ),
    "169": Facts(
        _IMAGE_224, 14_149_480, 3_359_843_328,
        {**_FIRST_MAPS,
         "block3": (14, 14, 1280), "transition3": (7, 7, 640), "block4": (7, 7, 1664)},
        _SOURCE,
    ),
    "201": Facts(
        _IMAGE_224, 20_013_928, 4_291_365_888,
        {**_FIRST_MAPS,
         "block3": (14, 14, 1792), "transition3": (7, 7, 896), "block4": (7, 7, 1920)},
        _SOURCE,
    ),
    "264": Facts(
        _IMAGE_224, 33_337_704, 5_751_653_376,
        {**_FIRST_MAPS,
         "block3": (14, 14, 2304), "transition3": (7, 7, 1152), "block4": (7, 7, 2688)},
        _SOURCE,
    ),
    "161": Facts(
        _IMAGE_224, 28_681_000, 7_727_907_072,
        {"conv0": (112, 112, 96), "block1": (56, 56, 384), "transition1": (28, 28, 192),
         "block2": (28, 28, 768), "transition2": (14, 14, 384), "block3": (14, 14, 2112),
         "transition3": (7, 7, 1056), "block4": (7, 7, 2208)},
        _SOURCE,
    ),
    "40-12": Facts(
        _IMAGE_32, 1_019_722, 264_812_928,
        {"conv0": (32, 32, 16), "block1": (32, 32, 160), "transition1": (16, 16, 160),
         "block2": (16, 16, 304), "transition2": (8, 8, 304), "block3": (8, 8, 448)},
        _SOURCE, "1.0M",
    ),
    "100-12": Facts(
        _IMAGE_32, 6_979_642, 1_769_516_448,
        {"conv0": (32, 32, 16), "block1": (32, 32, 400), "transition1": (16, 16, 400),
         "block2": (16, 16, 784), "transition2": (8, 8, 784), "block3": (8, 8, 1168)},
        _SOURCE, "7.0M",
    ),
    "100-24": Facts(
        _IMAGE_32, 27_249_082, 6_889_347_744,
        {"conv0": (32, 32, 16), "block1": (32, 32, 784), "transition1": (16, 16, 784),
         "block2": (16, 16, 1552), "transition2": (8, 8, 1552), "block3": (8, 8, 2320)},
        _SOURCE, "27.2M",
    ),
    "BC-100-12": Facts(
        _IMAGE_32, 769_162, 287_929_692,
        {"conv0": (32, 32, 24), "block1": (32, 32, 216), "transition1": (16, 16, 108),
         "block2": (16, 16, 300), "transition2": (8, 8, 150), "block3": (8, 8, 342)},
        _SOURCE, "0.8M",
    ),
    "BC-250-24": Facts(
        _IMAGE_32, 15_324_406, 5_418_785_724,
        {"conv0": (32, 32, 48), "block1": (32, 32, 1032), "transition1": (16, 16, 516),
         "block2": (16, 16, 1500), "transition2": (8, 8, 750), "block3": (8, 8, 1734)},
        _SOURCE, "15.3M",
    ),
    "BC-190-40": Facts(
        _IMAGE_32, 25_624_430, 9_301_945_740,
        {"conv0": (32, 32, 80), "block1": (32, 32, 1320), "transition1": (16, 16, 660),
         "block2": (16, 16, 1900), "transition2": (8, 8, 950), "block3": (8, 8, 2190)},
        _SOURCE, "25.6M",
    ),
    "B-40-12": Facts(
        _IMAGE_32, 249_946, 87_996_768,
        {"conv0": (32, 32, 24), "block1": (32, 32, 96), "transition1": (16, 16, 96),
         "block2": (16, 16, 168), "transition2": (8, 8, 168), "block3": (8, 8, 240)},
        _SOURCE,
    ),
    "C-40-12": Facts(
        _IMAGE_32, 578_090, 192_000_512,
        {"conv0": (32, 32, 16), "block1": (32, 32, 160), "transition1": (16, 16, 80),
         "block2": (16, 16, 224), "transition2": (8, 8, 112), "block3": (8, 8, 256)},
        _SOURCE,
    ),
    "BC-40-12": Facts(
        _IMAGE_32, 176_122, 72_365_352,
        {"conv0": (32, 32, 24), "block1": (32, 32, 96), "transition1": (16, 16, 48),
         "block2": (16, 16, 120), "transition2": (8, 8, 60), "block3": (8, 8, 132)},
        _SOURCE,
    ),
}
# fmt: on
