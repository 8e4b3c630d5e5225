"""ResNet.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016. arXiv:1512.03385

Deviations:
  - Batch statistics run over the whole batch, not over the 32 images of one GPU.
  - Evaluation uses moving averages of the batch statistics, not means recomputed over the training set.
"""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models import layers

# Table 1: residual blocks in conv2_x … conv5_x, and whether a block is the bottleneck of Figure 5 (right).
IMAGENET = {
    "18": ((2, 2, 2, 2), False),
    "34": ((3, 4, 6, 3), False),
    "50": ((3, 4, 6, 3), True),
    "101": ((3, 4, 23, 3), True),
    "152": ((3, 8, 36, 3), True),
}
CIFAR_DEPTHS = (8, 20, 32, 44, 56, 110, 1202)  # §4.2: 6n + 2 layers; 8 is not in the paper


def _variants() -> dict[str, dict[str, Any]]:
    variants: dict[str, dict[str, Any]] = {}
    for depth, (blocks, bottleneck) in IMAGENET.items():
        variants[depth] = {"blocks": blocks, "bottleneck": bottleneck}
        if not bottleneck:
            variants |= {f"{depth}-{option}": {"blocks": blocks, "shortcut": option} for option in "AC"}
            variants[f"plain-{depth}"] = {"blocks": blocks, "shortcut": "none"}
    for depth in CIFAR_DEPTHS:
        cifar = {"blocks": ((depth - 2) // 6,) * 3, "widths": (16, 32, 64), "stem": "cifar", "num_classes": 10}
        variants[f"cifar-{depth}"] = cifar | {"shortcut": "A"}
        variants |= {f"cifar-{depth}-{option}": cifar | {"shortcut": option} for option in "BC"}
        variants[f"cifar-plain-{depth}"] = cifar | {"shortcut": "none"}
    return variants


VARIANTS = _variants()


class Block(nn.Module):
    """Figure 5: two 3×3 convolutions, or 1×1, 3×3, 1×1 with four times the channels; batch norm before each ReLU."""

    features: int
    stride: int
    bottleneck: bool
    shortcut: str
    stride_in: str
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        norm = _norm(train, self.dtype)
        shortcut = self._shortcut(x, norm)
        if self.bottleneck:
            strides = (self.stride, 1, 1) if self.stride_in == "1x1" else (1, self.stride, 1)
            layout = zip((self.features, self.features, 4 * self.features), (1, 3, 1), strides, strict=True)
        else:
            layout = zip((self.features, self.features), (3, 3), (self.stride, 1), strict=True)
        last = 3 if self.bottleneck else 2
        for i, (features, size, stride) in enumerate(layout, 1):
            x = _conv(features, size, stride, self.dtype, f"conv{i}")(x)
            x = norm(name=f"bn{i}")(x)
            if i < last:
                x = nn.relu(x)
        return nn.relu(x if shortcut is None else x + shortcut)

    def _shortcut(self, x: jax.Array, norm: Any) -> jax.Array | None:
        """§3.3: identity, (A) zero-padded identity, (B) projection where sizes change, (C) projection everywhere."""
        out = self.features * (4 if self.bottleneck else 1)
        changes = self.stride != 1 or x.shape[-1] != out
        if self.shortcut == "none":
            return None
        if self.shortcut == "C" or (self.shortcut == "B" and changes):
            return norm(name="bn_proj")(_conv(out, 1, self.stride, self.dtype, "proj")(x))
        if not changes:
            return x
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, [(0, 0), (0, 0), (0, 0), (0, out - x.shape[-1])])


def _conv(features: int, size: int, stride: int, dtype: Any, name: str) -> nn.Conv:
    padding = layers.pad(size // 2)
    shape = (size, size), (stride, stride)
    return nn.Conv(features, *shape, padding, use_bias=False, kernel_init=layers.he_normal, dtype=dtype, name=name)


def _norm(train: bool, dtype: Any) -> Any:
    def norm(name: str) -> nn.BatchNorm:
        return nn.BatchNorm(use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=name)

    return norm


class ResNet(nn.Module):
    """Residual network, or its plain counterpart with shortcut "none".

    Called with `image` float [n, h, w, 3]; returns logits float32 [n, num_classes] and a dict of the paper's layers,
    `conv1` and each block as `conv<stage>_<i>`.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = False
    shortcut: str = "B"  # A, B, C of §4.1, or "none" for a plain net
    stride_in: str = "1x1"  # which convolution of a bottleneck strides: the first (paper) or the "3x3" (v1.5)
    stem: str = "imagenet"  # or "cifar" (§4.2)
    num_classes: int = 1000
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    def __call__(self, image: jax.Array, *, train: bool = False) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = _conv(self._scaled(self.widths[0]), size, stride, self.dtype, "conv1")(image)
        x = ends["conv1"] = nn.relu(_norm(train, self.dtype)(name="bn1")(x))
        if self.stem == "imagenet":
            x = ends["pool1"] = layers.max_pool(x, 3, 2, padding=1)
        for stage, (count, features) in enumerate(zip(self.blocks, self.widths, strict=True)):
            for i in range(count):
                stride = 2 if stage > 0 and i == 0 else 1
                kind = (self.bottleneck, self.shortcut, self.stride_in, self.dtype)
                name = f"conv{stage + 2}_{i + 1}"
                x = ends[name] = Block(self._scaled(features), stride, *kind, name=name)(x, train=train)
        x = ends["pool"] = x.mean((1, 2), keepdims=True)
        ends["fc"] = layers.FullyConnected(self.num_classes, dtype=self.dtype, name="fc")(x)
        return ends["fc"].mean((1, 2), dtype=jnp.float32), ends

    def _scaled(self, channels: int) -> int:
        return max(1, round(channels * self.width))


def Model(variant: str = "50", **fields: Any) -> ResNet:
    """The network named `variant`, `fields` that are not None on top."""
    model = layers.build(ResNet, VARIANTS, variant, fields)
    for field, values in {"shortcut": "A B C none", "stride_in": "1x1 3x3", "stem": "imagenet cifar"}.items():
        if getattr(model, field) not in values.split():
            raise ValueError(f"unknown model.{field} '{getattr(model, field)}'; there are: {values}")
    if len(model.blocks) != len(model.widths):
        raise ValueError(f"model.blocks names {len(model.blocks)} stages, model.widths {len(model.widths)}")
    return model


# (parameters, multiply-adds). §4.2 and Table 6 give 0.27M … 19.4M parameters, Table 1 gives 1.8, 3.6, 3.8, 7.6 and 11.3
# billion multiply-adds; plain nets and option A add nothing to each other.
_COUNTS = {
    "18": (11_689_512, 1_814_073_344),
    "18-A": (11_515_688, 1_794_805_760),
    "18-C": (12_043_816, 1_878_298_624),
    "plain-18": (11_515_688, 1_794_805_760),
    "34": (21_797_672, 3_663_761_408),
    "34-A": (21_623_848, 3_644_493_824),
    "34-C": (22_716_840, 3_830_747_136),
    "plain-34": (21_623_848, 3_644_493_824),
    "50": (25_557_032, 3_857_973_248),
    "101": (44_549_160, 7_570_194_432),
    "152": (60_192_808, 11_282_415_616),
    "cifar-8": (75_290, 12_239_488),
    "cifar-8-B": (78_042, 12_501_632),
    "cifar-8-C": (78_330, 12_763_776),
    "cifar-plain-8": (75_290, 12_239_488),
    "cifar-20": (269_722, 40_551_040),
    "cifar-20-B": (272_474, 40_813_184),
    "cifar-20-C": (283_962, 42_648_192),
    "cifar-plain-20": (269_722, 40_551_040),
    "cifar-32": (464_154, 68_862_592),
    "cifar-32-B": (466_906, 69_124_736),
    "cifar-32-C": (489_594, 72_532_608),
    "cifar-plain-32": (464_154, 68_862_592),
    "cifar-44": (658_586, 97_174_144),
    "cifar-44-B": (661_338, 97_436_288),
    "cifar-44-C": (695_226, 102_417_024),
    "cifar-plain-44": (658_586, 97_174_144),
    "cifar-56": (853_018, 125_485_696),
    "cifar-56-B": (855_770, 125_747_840),
    "cifar-56-C": (900_858, 132_301_440),
    "cifar-plain-56": (853_018, 125_485_696),
    "cifar-110": (1_727_962, 252_887_680),
    "cifar-110-B": (1_730_714, 253_149_824),
    "cifar-110-C": (1_826_202, 266_781_312),
    "cifar-plain-110": (1_727_962, 252_887_680),
    "cifar-1202": (19_421_274, 2_829_238_912),
    "cifar-1202-B": (19_424_026, 2_829_501_056),
    "cifar-1202-C": (20_538_714, 2_986_263_168),
    "cifar-plain-1202": (19_421_274, 2_829_238_912),
}
_STAGES = {"conv2": 56, "conv3": 28, "conv4": 14, "conv5": 7}
_CIFAR_STAGES = {"conv2": (32, 32, 16), "conv3": (16, 16, 32), "conv4": (8, 8, 64)}


def _shapes(variant: str) -> dict[str, tuple[int, ...]]:
    """Table 1 and the table of §4.2: the map after the first block of each stage."""
    fields = VARIANTS[variant]
    if fields.get("stem") == "cifar":
        return {f"{stage}_1": shape for stage, shape in _CIFAR_STAGES.items()}
    widths = [width * (4 if fields.get("bottleneck") else 1) for width in (64, 128, 256, 512)]
    shapes = {f"{stage}_1": (size, size, width) for (stage, size), width in zip(_STAGES.items(), widths, strict=True)}
    return {"conv1": (112, 112, 64), "pool1": (56, 56, 64), **shapes}


FACTS = {
    variant: Facts(
        (32, 32, 3) if "cifar" in variant else (224, 224, 3), *counts, _shapes(variant), "Table 1, §4.2; counted"
    )
    for variant, counts in _COUNTS.items()
}
