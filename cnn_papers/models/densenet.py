"""DenseNet.

Huang, Liu, van der Maaten, Weinberger: Densely Connected Convolutional Networks. CVPR 2017.
arXiv:1608.06993

Deviations:
  - `memory_efficient` recomputes whole dense layers in the backward pass; the authors' version
    shares the storage of concatenations and normalisations. Both keep memory linear in depth.
    (XLA's CPU backend saves nothing by it.)
  - Initialisation is He et al.'s normal over the inputs of a unit; the authors' code counts the
    outputs.
  - The small nets `B-40-12`, `C-40-12` and `BC-40-12` stand for curves of Figure 4, which come
    without a table. With bottlenecks the first convolution has 2k channels, as in the authors'
    code; the text says so of BC alone.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling, variants

# Table 1 and the authors' repository for 161: layers of the dense blocks, growth rate.
IMAGENET = {
    "121": ((6, 12, 24, 16), 32),
    "169": ((6, 12, 32, 32), 32),
    "201": ((6, 12, 48, 32), 32),
    "264": ((6, 12, 64, 48), 32),
    "161": ((6, 12, 36, 24), 48),
}
# Table 2: B for 1×1 bottlenecks and C for compression by a half, depth, growth rate.
CIFAR = (
    "40-12",
    "100-12",
    "100-24",
    "BC-100-12",
    "BC-250-24",
    "BC-190-40",
    "B-40-12",
    "C-40-12",
    "BC-40-12",
)


def _cifar(variant: str) -> dict[str, Any]:
    letters, depth, growth = f"-{variant}".rsplit("-", 2)
    bottleneck = "B" in letters
    return {
        "blocks": ((int(depth) - 4) // (6 if bottleneck else 3),)
        * 3,  # 4: first convolution, transitions, classifier
        "growth": int(growth),
        "bottleneck": bottleneck,
        "compression": 0.5 if "C" in letters else 1.0,
        "stem": "cifar",
        "stem_features": 2 * int(growth) if bottleneck else 16,
        "num_classes": 10,
    }


VARIANTS = {
    name: {"blocks": n, "growth": k, "stem_features": 2 * k} for name, (n, k) in IMAGENET.items()
}
VARIANTS |= {name: _cifar(name) for name in CIFAR}


class DenseLayer(nn.Module):
    """H_l of §3 over everything before it: BN-ReLU-3×3, behind BN-ReLU-1×1 with 4k channels where
    `bottleneck`.
    """

    growth: int
    bottleneck: bool
    dropout: float
    train: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, before: tuple[jax.Array, ...]) -> jax.Array:
        x = jnp.concatenate(before, -1)
        sizes = ((4 * self.growth, 1), (self.growth, 3)) if self.bottleneck else ((self.growth, 3),)
        for i, (features, size) in enumerate(sizes, 1):
            x = nn.relu(_norm(self.train, self.dtype, f"bn{i}")(x))
            x = _conv(features, size, self.dtype, f"conv{i}")(x)
            x = nn.Dropout(self.dropout, deterministic=not self.train)(x)
        return x


class DenseBlock(nn.Module):
    """`count` dense layers, `layer1` …; returns all features concatenated."""

    count: int
    growth: int
    bottleneck: bool
    dropout: float
    memory_efficient: bool
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        layer = nn.remat(DenseLayer) if self.memory_efficient else DenseLayer
        features = [x]
        for i in range(1, self.count + 1):
            h = layer(
                self.growth, self.bottleneck, self.dropout, train, self.dtype, name=f"layer{i}"
            )
            features.append(h(tuple(features)))
        return jnp.concatenate(features, -1)


class Transition(nn.Module):
    """§3: BN, ReLU (as in the authors' code), 1×1 convolution, dropout, 2×2 average pooling."""

    features: int
    dropout: float
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        x = nn.relu(_norm(train, self.dtype, "bn")(x))
        x = _conv(self.features, 1, self.dtype, "conv")(x)
        x = nn.Dropout(self.dropout, deterministic=not train)(x)
        return nn.avg_pool(x, (2, 2), (2, 2))


def _norm(train: bool, dtype: Any, name: str) -> nn.BatchNorm:
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name
    )


def _conv(features: int, size: int, dtype: Any, name: str, stride: int = 1) -> nn.Conv:
    shape = (size, size), (stride, stride), layers.pad(size // 2)
    return nn.Conv(
        features, *shape, use_bias=False, kernel_init=layers.he_normal, dtype=dtype, name=name
    )


class DenseNet(nn.Module):
    """Dense blocks joined by transitions.

    Called with `image` float [n, h, w, 3]; returns logits float32 [n, num_classes] and a dict of
    the paper's layers: `conv0`, `block1`, `transition1`, … and `norm`, the normalised output of the
    last block.
    """

    blocks: tuple[int, ...]
    growth: int = 32
    bottleneck: bool = True
    compression: float = 0.5
    stem: str = "imagenet"  # or "cifar" (§3, implementation details)
    stem_features: int = 64
    num_classes: int = 1000
    dropout: float = (
        0.0  # after every convolution but the first; 0.2 on data without augmentation (§4.2)
    )
    memory_efficient: bool = False
    width: float = (
        1.0  # multiplies the growth rate and the first channels; 1 is the paper's network
    )
    dtype: Any = None

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        growth, features = (
            max(1, round(channels * self.width)) for channels in (self.growth, self.stem_features)
        )
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = ends["conv0"] = _conv(features, size, self.dtype, "conv0", stride)(image)
        if self.stem == "imagenet":
            x = nn.relu(_norm(train, self.dtype, "bn0")(x))
            x = ends["pool0"] = pooling.max_pool(x, 3, 2, padding=1)
        kind = (growth, self.bottleneck, self.dropout, self.memory_efficient, self.dtype)
        for i, count in enumerate(self.blocks, 1):
            x = ends[f"block{i}"] = DenseBlock(count, *kind, name=f"block{i}")(x, train=train)
            if i < len(self.blocks):
                transition = (int(x.shape[-1] * self.compression), self.dropout, self.dtype)
                x = ends[f"transition{i}"] = Transition(*transition, name=f"transition{i}")(
                    x, train=train
                )
        x = ends["norm"] = nn.relu(_norm(train, self.dtype, "norm")(x))
        x = ends["pool"] = x.mean((1, 2), keepdims=True)
        ends["fc"] = layers.FullyConnected(self.num_classes, dtype=self.dtype, name="fc")(x)
        return ends["fc"].mean((1, 2), dtype=jnp.float32), ends


def Model(variant: str = "121", **fields: Any) -> DenseNet:
    """The network named `variant`, `fields` that are not None on top."""
    model = variants.build(DenseNet, VARIANTS, variant, fields)
    variants.check_choices(model, {"stem": ("imagenet", "cifar")})
    return model


_STATED = {"40-12": "1.0M", "100-12": "7.0M", "100-24": "27.2M"}  # parameters, Table 2
_STATED |= {"BC-100-12": "0.8M", "BC-250-24": "15.3M", "BC-190-40": "25.6M"}
_COUNTS = {
    "121": (7_978_856, 2_834_161_664),
    "169": (14_149_480, 3_359_843_328),
    "201": (20_013_928, 4_291_365_888),
    "264": (33_337_704, 5_751_653_376),
    "161": (28_681_000, 7_727_907_072),
    "40-12": (1_019_722, 264_812_928),
    "100-12": (6_979_642, 1_769_516_448),
    "100-24": (27_249_082, 6_889_347_744),
    "BC-100-12": (769_162, 287_929_692),
    "BC-250-24": (15_324_406, 5_418_785_724),
    "BC-190-40": (25_624_430, 9_301_945_740),
    "B-40-12": (249_946, 87_996_768),
    "C-40-12": (578_090, 192_000_512),
    "BC-40-12": (176_122, 72_365_352),
}


def _facts(variant: str) -> Facts:
    """Shapes follow from Table 1: a block adds the growth rate per layer, a transition halves the
    map.
    """
    net = Model(variant)
    image, first, side = (32, 32, 32) if net.stem == "cifar" else (224, 112, 56)
    channels = net.stem_features
    shapes = {"conv0": (first, first, channels)}
    for i, count in enumerate(net.blocks, 1):
        channels += count * net.growth
        shapes[f"block{i}"] = (side, side, channels)
        if i < len(net.blocks):
            side, channels = side // 2, int(channels * net.compression)
            shapes[f"transition{i}"] = (side, side, channels)
    return Facts(
        (image, image, 3),
        *_COUNTS[variant],
        shapes,
        "Tables 1 and 2; counted",
        _STATED.get(variant, ""),
    )


FACTS = {variant: _facts(variant) for variant in VARIANTS}
