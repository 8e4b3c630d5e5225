"""ResNet.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016. arXiv:1512.03385

Deviations:
  - Batch statistics run over the whole batch unless `config.optim.bn_group` says how many images
    share them.
  - Evaluation uses moving averages of batch statistics; `config.eval.precise_bn` recomputes them as
    the release does.
  - The variants `…-v1.5` are not in the paper: they stride in the 3×3, as fb.resnet.torch and
    torchvision do.
"""

import operator
import re
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling
from cnn_papers.models.shared.variants import build, check_choices, refuse_small_images

# Table 1: residual blocks in conv2_x … conv5_x, and whether a block is the bottleneck of Figure 5
# (right).
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
        if bottleneck:
            variants[f"{depth}-v1.5"] = variants[depth] | {"stride_in": "3x3"}
        else:
            variants |= {
                f"{depth}-{option}": {"blocks": blocks, "shortcut": option} for option in "AC"
            }
            variants[f"plain-{depth}"] = {"blocks": blocks, "shortcut": "none"}
    for depth in CIFAR_DEPTHS:
        cifar = {
            "blocks": ((depth - 2) // 6,) * 3,
            "widths": (16, 32, 64),
            "stem": "cifar",
            "num_classes": 10,
        }
        cifar["scan"] = (
            depth > 1000
        )  # unrolled, 1202 layers take many minutes and gigabytes to compile
        variants[f"cifar-{depth}"] = cifar | {"shortcut": "A"}
        variants |= {f"cifar-{depth}-{option}": cifar | {"shortcut": option} for option in "BC"}
        variants[f"cifar-plain-{depth}"] = cifar | {"shortcut": "none"}
    return variants


VARIANTS = _variants()
CHOICES = {
    "shortcut": ("A", "B", "C", "none"),
    "stride_in": ("1x1", "3x3"),
    "stem": ("imagenet", "cifar"),
}


class Block(nn.Module):
    """Figure 5: two 3×3 convolutions, or 1×1, 3×3, 1×1 with four times the channels; batch norm
    before each ReLU.
    """

    features: int
    stride: int
    bottleneck: bool
    shortcut: str
    stride_in: str
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        shortcut = self._shortcut(x, train)
        f, strides = (
            self.features,
            (self.stride, 1) if self.stride_in == "1x1" else (1, self.stride),
        )
        bottleneck = ((f, 1, strides[0]), (f, 3, strides[1]), (4 * f, 1, 1))
        rows = bottleneck if self.bottleneck else ((f, 3, self.stride), (f, 3, 1))
        for i, row in enumerate(rows, 1):
            x = _conv_norm(x, *row, f"{i}", train, self.dtype)
            x = nn.relu(x) if i < len(rows) else x
        return nn.relu(x if shortcut is None else x + shortcut)

    def _shortcut(self, x: jax.Array, train: bool) -> jax.Array | None:
        """§3.3: identity, (A) zero-padded identity, (B) projection where sizes change, (C)
        projection everywhere.
        """
        out = self.features * (4 if self.bottleneck else 1)
        changes = self.stride != 1 or x.shape[-1] != out
        if self.shortcut == "none":
            return None
        if self.shortcut == "C" or (self.shortcut == "B" and changes):
            return _conv_norm(x, out, 1, self.stride, "_proj", train, self.dtype)
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, [(0, 0), (0, 0), (0, 0), (0, out - x.shape[-1])])


def _conv_norm(
    x: jax.Array, features: int, size: int, stride: int, name: str, train: bool, dtype: Any
) -> jax.Array:
    shape = (size, size), (stride, stride), layers.pad(size // 2)
    conv = nn.Conv(
        features,
        *shape,
        use_bias=False,
        kernel_init=layers.he_normal,
        dtype=dtype,
        name=f"conv{name}",
    )
    norm = nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=f"bn{name}"
    )
    return norm(conv(x))


def _repeat(block: Block, times: int, x: jax.Array, train: bool) -> jax.Array:
    """Applies `times` blocks like `block`, each with parameters of its own, as one loop: it
    compiles like one block.
    """

    def body(block: Block, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return block(x, train=train), None

    axes: dict[Any, Any] = {"params": 0, "batch_stats": 0}
    return nn.scan(body, axes, split_rngs={"params": True}, length=times)(block, x, None)[0]


class ResNet(nn.Module):
    """Residual network, or its plain counterpart with shortcut "none".

    Called with `image` float [n, h, w, 3]; returns logits float32 [n, num_classes] and a dict of
    the paper's layers, `conv1` and each block as `conv<stage>_<i>`. With `scan` the blocks after
    the first of a stage are one loop with stacked parameters, named `conv2_2_to_200`: the same
    network, compiled in a fraction of the time.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = False
    shortcut: str = "B"  # A, B, C of §4.1, or "none" for a plain net
    stride_in: str = (
        "1x1"  # which convolution of a bottleneck strides: the first (paper) or the "3x3" (v1.5)
    )
    stem: str = "imagenet"  # or "cifar" (§4.2)
    scan: bool = False
    num_classes: int = 1000
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    @refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        widths = [max(1, round(width * self.width)) for width in self.widths]
        first = (7, 2) if self.stem == "imagenet" else (3, 1)
        x = ends["conv1"] = nn.relu(_conv_norm(image, widths[0], *first, "1", train, self.dtype))
        if self.stem == "imagenet":
            x = ends["pool1"] = pooling.max_pool(x, 3, 2, padding=1)
        kind = (self.bottleneck, self.shortcut, self.stride_in, self.dtype)
        for stage, (count, width) in enumerate(zip(self.blocks, widths, strict=True), 2):
            parts = (
                ["1", f"2_to_{count}"]
                if self.scan and count > 2
                else [f"{i + 1}" for i in range(count)]
            )
            for part in parts:
                stride = 2 if stage > 2 and part == "1" else 1
                block = Block(width, stride, *kind, name=f"conv{stage}_{part}")
                x = _repeat(block, count - 1, x, train) if "to" in part else block(x, train=train)
                ends[f"conv{stage}_{part}"] = x
        x = ends["pool"] = x.mean((1, 2), keepdims=True)
        ends["fc"] = layers.FullyConnected(self.num_classes, dtype=self.dtype, name="fc")(x)
        return ends["fc"].mean((1, 2), dtype=jnp.float32), ends


def convert_blocks(tree: dict[str, Any], blocks: tuple[int, ...]) -> dict[str, Any]:
    """Parameters or statistics of a net of `blocks`, for the same net with the other value of
    `scan`.
    """
    tree = dict(tree)
    for stage, count in enumerate(blocks, 2):
        whole, parts = (
            f"conv{stage}_2_to_{count}",
            [f"conv{stage}_{i}" for i in range(2, count + 1)],
        )
        if whole in tree:
            stacked = tree.pop(whole)
            tree |= {
                part: jax.tree.map(operator.itemgetter(i), stacked) for i, part in enumerate(parts)
            }
        elif count > 2:
            tree[whole] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(tree.pop, parts))
    return tree


def Model(variant: str = "50", **fields: Any) -> ResNet:
    """The network named `variant`, `fields` that are not None on top."""
    model = build(ResNet, VARIANTS, variant, fields)
    check_choices(model, CHOICES)
    if len(model.blocks) != len(model.widths):
        raise ValueError(
            f"model.blocks names {len(model.blocks)} stages, model.widths {len(model.widths)}"
        )
    return model


# What Tables 1 and 6 print; (parameters, multiply-adds) with shortcuts A (nothing more than the
# plain net), B and C.
_COUNTS = {
    "18": (
        "1.8G",
        (11_515_688, 1_794_805_760),
        (11_689_512, 1_814_073_344),
        (12_043_816, 1_878_298_624),
    ),
    "34": (
        "3.6G",
        (21_623_848, 3_644_493_824),
        (21_797_672, 3_663_761_408),
        (22_716_840, 3_830_747_136),
    ),
    "cifar-8": ("", (75_290, 12_239_488), (78_042, 12_501_632), (78_330, 12_763_776)),
    "cifar-20": ("0.27M", (269_722, 40_551_040), (272_474, 40_813_184), (283_962, 42_648_192)),
    "cifar-32": ("0.46M", (464_154, 68_862_592), (466_906, 69_124_736), (489_594, 72_532_608)),
    "cifar-44": ("0.66M", (658_586, 97_174_144), (661_338, 97_436_288), (695_226, 102_417_024)),
    "cifar-56": ("0.85M", (853_018, 125_485_696), (855_770, 125_747_840), (900_858, 132_301_440)),
    "cifar-110": (
        "1.7M",
        (1_727_962, 252_887_680),
        (1_730_714, 253_149_824),
        (1_826_202, 266_781_312),
    ),
    "cifar-1202": (
        "19.4M",
        (19_421_274, 2_829_238_912),
        (19_424_026, 2_829_501_056),
        (20_538_714, 2_986_263_168),
    ),
    # bottlenecks: with the stride in the first 1×1 and in the 3×3
    "50": ("3.8G", (25_557_032, 3_857_973_248), (25_557_032, 4_089_184_256)),
    "101": ("7.6G", (44_549_160, 7_570_194_432), (44_549_160, 7_801_405_440)),
    "152": ("11.3G", (60_192_808, 11_282_415_616), (60_192_808, 11_513_626_624)),
}


def _facts(variant: str) -> Facts:
    """Shapes are those of Table 1 and of the table of §4.2: the map after the first block of each
    stage.
    """
    net = Model(variant)
    named = re.sub("plain-|-[ABC]$|-v1.5$", "", variant)
    stated, *counts = _COUNTS[named]
    params, macs = counts[
        net.stride_in == "3x3" if net.bottleneck else max(0, "ABC".find(net.shortcut))
    ]
    cifar = net.stem == "cifar"
    first, channels = (32, 1) if cifar else (56, 4 if net.bottleneck else 1)
    shapes = {} if cifar else {"conv1": (112, 112, 64), "pool1": (56, 56, 64)}
    shapes |= {
        f"conv{i + 2}_1": (first >> i, first >> i, width * channels)
        for i, width in enumerate(net.widths)
    }
    shown = (shapes, "Table 1, §4.2; counted", stated if variant == named else "")
    return Facts((32, 32, 3) if cifar else (224, 224, 3), params, macs, *shown)


FACTS = {variant: _facts(variant) for variant in VARIANTS}
