"""ResNet.

He, Zhang, Ren, Sun: Deep Residual Learning for Image Recognition. CVPR 2016. arXiv:1512.03385
The variants `cifar-pre-…`: Identity Mappings in Deep Residual Networks. ECCV 2016. arXiv:1603.05027

Deviations:
  - Batch statistics run over the whole batch unless `config.optim.bn_group` says how many images
    share them.
  - Evaluation uses moving averages of batch statistics; `config.eval.precise_bn` recomputes them as
    the release does.
  - The variants `…-v1.5` are not in the paper: they stride in the 3×3 convolution, as
    fb.resnet.torch and torchvision do.
  - `cifar-pre-29` is not in the second paper, whose smallest bottleneck net has 164 layers.
"""

import operator
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from cnn_papers.facts import Facts
from cnn_papers.models.shared import layers, pooling, variants

_CIFAR = {"widths": (16, 32, 64), "stem": "cifar", "num_classes": 10}
_PRE = {**_CIFAR, "bottleneck": True, "pre_activation": True}
VARIANTS: dict[str, dict[str, Any]] = {
    # Table 1: residual blocks of conv2_x, conv3_x, conv4_x and conv5_x
    "18": {"blocks": (2, 2, 2, 2)},
    "18-A": {"blocks": (2, 2, 2, 2), "shortcut": "A"},
    "18-C": {"blocks": (2, 2, 2, 2), "shortcut": "C"},
    "plain-18": {"blocks": (2, 2, 2, 2), "shortcut": "none"},
    "34": {"blocks": (3, 4, 6, 3)},
    "34-A": {"blocks": (3, 4, 6, 3), "shortcut": "A"},
    "34-C": {"blocks": (3, 4, 6, 3), "shortcut": "C"},
    "plain-34": {"blocks": (3, 4, 6, 3), "shortcut": "none"},
    "50": {"blocks": (3, 4, 6, 3), "bottleneck": True},
    "50-v1.5": {"blocks": (3, 4, 6, 3), "bottleneck": True, "stride_in": "3x3"},
    "101": {"blocks": (3, 4, 23, 3), "bottleneck": True},
    "101-v1.5": {"blocks": (3, 4, 23, 3), "bottleneck": True, "stride_in": "3x3"},
    "152": {"blocks": (3, 8, 36, 3), "bottleneck": True},
    "152-v1.5": {"blocks": (3, 8, 36, 3), "bottleneck": True, "stride_in": "3x3"},
    # §4.2: 6n + 2 layers; 8 is not in the paper
    "cifar-8": {**_CIFAR, "blocks": (1, 1, 1), "shortcut": "A"},
    "cifar-8-B": {**_CIFAR, "blocks": (1, 1, 1), "shortcut": "B"},
    "cifar-8-C": {**_CIFAR, "blocks": (1, 1, 1), "shortcut": "C"},
    "cifar-plain-8": {**_CIFAR, "blocks": (1, 1, 1), "shortcut": "none"},
    "cifar-20": {**_CIFAR, "blocks": (3, 3, 3), "shortcut": "A"},
    "cifar-20-B": {**_CIFAR, "blocks": (3, 3, 3), "shortcut": "B"},
    "cifar-20-C": {**_CIFAR, "blocks": (3, 3, 3), "shortcut": "C"},
    "cifar-plain-20": {**_CIFAR, "blocks": (3, 3, 3), "shortcut": "none"},
    "cifar-32": {**_CIFAR, "blocks": (5, 5, 5), "shortcut": "A"},
    "cifar-32-B": {**_CIFAR, "blocks": (5, 5, 5), "shortcut": "B"},
    "cifar-32-C": {**_CIFAR, "blocks": (5, 5, 5), "shortcut": "C"},
    "cifar-plain-32": {**_CIFAR, "blocks": (5, 5, 5), "shortcut": "none"},
    "cifar-44": {**_CIFAR, "blocks": (7, 7, 7), "shortcut": "A"},
    "cifar-44-B": {**_CIFAR, "blocks": (7, 7, 7), "shortcut": "B"},
    "cifar-44-C": {**_CIFAR, "blocks": (7, 7, 7), "shortcut": "C"},
    "cifar-plain-44": {**_CIFAR, "blocks": (7, 7, 7), "shortcut": "none"},
    "cifar-56": {**_CIFAR, "blocks": (9, 9, 9), "shortcut": "A"},
    "cifar-56-B": {**_CIFAR, "blocks": (9, 9, 9), "shortcut": "B"},
    "cifar-56-C": {**_CIFAR, "blocks": (9, 9, 9), "shortcut": "C"},
    "cifar-plain-56": {**_CIFAR, "blocks": (9, 9, 9), "shortcut": "none"},
    "cifar-110": {**_CIFAR, "blocks": (18, 18, 18), "shortcut": "A"},
    "cifar-110-B": {**_CIFAR, "blocks": (18, 18, 18), "shortcut": "B"},
    "cifar-110-C": {**_CIFAR, "blocks": (18, 18, 18), "shortcut": "C"},
    "cifar-plain-110": {**_CIFAR, "blocks": (18, 18, 18), "shortcut": "none"},
    # unrolled, 1202 layers would take many minutes and gigabytes to compile
    "cifar-1202": {**_CIFAR, "blocks": (200, 200, 200), "shortcut": "A", "scan": True},
    "cifar-1202-B": {**_CIFAR, "blocks": (200, 200, 200), "shortcut": "B", "scan": True},
    "cifar-1202-C": {**_CIFAR, "blocks": (200, 200, 200), "shortcut": "C", "scan": True},
    "cifar-plain-1202": {**_CIFAR, "blocks": (200, 200, 200), "shortcut": "none", "scan": True},
    # arXiv:1603.05027: 9n + 2 layers
    "cifar-pre-29": {**_PRE, "blocks": (3, 3, 3)},
    "cifar-pre-164": {**_PRE, "blocks": (18, 18, 18)},
    "cifar-pre-1001": {**_PRE, "blocks": (111, 111, 111), "scan": True},
}
CHOICES = {
    "shortcut": ("A", "B", "C", "none"),
    "stride_in": ("1x1", "3x3"),
    "stem": ("imagenet", "cifar"),
}


class Block(nn.Module):
    """Two 3×3 convolutions, or the bottleneck of 1×1, 3×3 and 1×1 (Figure 5), and the shortcut.

    Batch normalisation follows each convolution and precedes the ReLU. A bottleneck returns four
    times `features` channels.
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
        if self.bottleneck:
            first, second = (self.stride, 1) if self.stride_in == "1x1" else (1, self.stride)
            x = nn.relu(_conv_bn(x, self.features, 1, first, "1", train, self.dtype))
            x = nn.relu(_conv_bn(x, self.features, 3, second, "2", train, self.dtype))
            x = _conv_bn(x, 4 * self.features, 1, 1, "3", train, self.dtype)
        else:
            x = nn.relu(_conv_bn(x, self.features, 3, self.stride, "1", train, self.dtype))
            x = _conv_bn(x, self.features, 3, 1, "2", train, self.dtype)
        if shortcut is not None:
            x = x + shortcut
        return nn.relu(x)

    def _shortcut(self, x: jax.Array, train: bool) -> jax.Array | None:
        """Returns what is added to the block's output, None in a plain net (§3.3, §4.1).

        Option A pads the identity with zero channels where sizes change, B projects there, and C
        projects everywhere.
        """
        channels = 4 * self.features if self.bottleneck else self.features
        changes = self.stride != 1 or x.shape[-1] != channels
        if self.shortcut == "none":
            return None
        if self.shortcut == "C" or (self.shortcut == "B" and changes):
            return _conv_bn(x, channels, 1, self.stride, "_proj", train, self.dtype)
        x = x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, [(0, 0), (0, 0), (0, 0), (0, channels - x.shape[-1])])


class PreActivationBlock(nn.Module):
    """The bottleneck with normalisation and ReLU before each convolution (arXiv:1603.05027, §4.1).

    Where sizes change, a projection reads the first ReLU; elsewhere the shortcut is the input.
    """

    features: int
    stride: int
    dtype: Any = None

    @nn.compact
    def __call__(self, x: jax.Array, *, train: bool) -> jax.Array:
        channels = 4 * self.features
        h = nn.relu(_batch_norm("1", train, self.dtype)(x))
        if self.stride != 1 or x.shape[-1] != channels:
            x = _conv(channels, 1, self.stride, "_proj", self.dtype)(h)
        h = _conv(self.features, 1, self.stride, "1", self.dtype)(h)
        h = nn.relu(_batch_norm("2", train, self.dtype)(h))
        h = _conv(self.features, 3, 1, "2", self.dtype)(h)
        h = nn.relu(_batch_norm("3", train, self.dtype)(h))
        return x + _conv(channels, 1, 1, "3", self.dtype)(h)


def _conv_bn(
    x: jax.Array, features: int, size: int, stride: int, suffix: str, train: bool, dtype: Any
) -> jax.Array:
    """Applies a size×size convolution without bias and batch normalisation."""
    x = _conv(features, size, stride, suffix, dtype)(x)
    return _batch_norm(suffix, train, dtype)(x)


def _conv(features: int, size: int, stride: int, suffix: str, dtype: Any) -> layers.Conv:
    return layers.Conv(
        features,
        size,
        stride,
        size // 2,
        use_bias=False,
        kernel_init=layers.he_normal,
        dtype=dtype,
        name=f"conv{suffix}",
    )


def _batch_norm(suffix: str, train: bool, dtype: Any) -> nn.BatchNorm:
    return nn.BatchNorm(
        use_running_average=not train, momentum=0.9, epsilon=1e-5, dtype=dtype, name=f"bn{suffix}"
    )


def _repeat(block: nn.Module, times: int, x: jax.Array, train: bool) -> jax.Array:
    """Applies `times` blocks like `block`, each with its own parameters, as one loop.

    The loop takes as long to compile as one block.
    """

    def body(block: Any, x: jax.Array, _: None) -> tuple[jax.Array, None]:
        return block(x, train=train), None

    axes: dict[Any, Any] = {"params": 0, "batch_stats": 0}
    return nn.scan(body, axes, split_rngs={"params": True}, length=times)(block, x, None)[0]


class ResNet(nn.Module):
    """Residual network, or its plain counterpart with shortcut "none".

    Called with `image` float [n, h, w, 3]; returns logits float32 [n, num_classes] and a dict of
    the paper's layers, `conv1` and each block as `conv<stage>_<i>`. With `scan` the blocks of a
    stage after its first are one loop with stacked parameters, named like `conv2_2_to_200`: the
    same network, compiled in a fraction of the time.
    """

    blocks: tuple[int, ...]
    widths: tuple[int, ...] = (64, 128, 256, 512)
    bottleneck: bool = False
    shortcut: str = "B"  # A, B, C of §4.1, or "none" for a plain net
    stride_in: str = "1x1"  # the convolution of a bottleneck that strides; "3x3" is v1.5
    stem: str = "imagenet"  # or "cifar" (§4.2)
    pre_activation: bool = False  # arXiv:1603.05027
    scan: bool = False
    num_classes: int = 1000
    width: float = 1.0  # multiplies every channel count; 1 is the paper's network
    dtype: Any = None

    @nn.compact
    @variants.refuse_small_images
    def __call__(
        self, image: jax.Array, *, train: bool = False
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        ends: dict[str, jax.Array] = {}
        widths = [max(1, round(width * self.width)) for width in self.widths]
        size, stride = (7, 2) if self.stem == "imagenet" else (3, 1)
        if self.pre_activation:
            x = ends["conv1"] = _conv(widths[0], size, stride, "1", self.dtype)(image)
        else:
            x = _conv_bn(image, widths[0], size, stride, "1", train, self.dtype)
            x = ends["conv1"] = nn.relu(x)
        if self.stem == "imagenet":
            x = ends["pool1"] = pooling.max_pool(x, 3, 2, padding=1)

        for stage, (count, width) in enumerate(zip(self.blocks, widths, strict=True), 2):
            loop = self.scan and count > 2
            for i in range(1, 2 if loop else count + 1):
                name, stride = f"conv{stage}_{i}", 2 if stage > 2 and i == 1 else 1
                x = ends[name] = self._block(width, stride, name)(x, train=train)
            if loop:
                name = f"conv{stage}_2_to_{count}"
                x = ends[name] = _repeat(self._block(width, 1, name), count - 1, x, train)
        if self.pre_activation:
            x = ends["norm"] = nn.relu(_batch_norm("", train, self.dtype)(x))

        x = ends["pool"] = x.mean((1, 2), keepdims=True)
        ends["fc"] = layers.FullyConnected(self.num_classes, dtype=self.dtype, name="fc")(x)
        return ends["fc"].mean((1, 2), dtype=jnp.float32), ends

    def _block(self, width: int, stride: int, name: str) -> nn.Module:
        if self.pre_activation:
            return PreActivationBlock(width, stride, self.dtype, name=name)
        kind = (self.bottleneck, self.shortcut, self.stride_in, self.dtype)
        return Block(width, stride, *kind, name=name)


def convert_blocks(tree: dict[str, Any], blocks: tuple[int, ...]) -> dict[str, Any]:
    """Returns parameters or statistics for the same network with the other value of `scan`.

    `blocks` are the network's: a stage of more than two blocks is stacked or unstacked.
    """
    tree = dict(tree)
    for stage, count in enumerate(blocks, 2):
        loop = f"conv{stage}_2_to_{count}"
        names = [f"conv{stage}_{i}" for i in range(2, count + 1)]
        if loop in tree:
            stacked = tree.pop(loop)
            for i, name in enumerate(names):
                tree[name] = jax.tree.map(operator.itemgetter(i), stacked)
        elif count > 2:
            tree[loop] = jax.tree.map(lambda *leaves: jnp.stack(leaves), *map(tree.pop, names))
    return tree


def Model(variant: str = "50", **fields: Any) -> ResNet:
    """Returns the network named `variant`; `fields` that are not None replace its own.

    Raises:
      ValueError: an unknown variant or field, or a value that a field does not take.
    """
    model = variants.build(ResNet, VARIANTS, variant, fields)
    variants.check_choices(model, CHOICES)
    if len(model.blocks) != len(model.widths):
        raise ValueError(
            f"model.blocks names {len(model.blocks)} stages, model.widths {len(model.widths)}"
        )
    kind = (model.bottleneck, model.shortcut, model.stride_in, model.stem)
    if model.pre_activation and kind != (True, "B", "1x1", "cifar"):
        raise ValueError(
            "model.pre_activation needs bottleneck=True, shortcut='B', stride_in='1x1' and "
            "stem='cifar'"
        )
    return model


# Table 1 and the table of §4.2: the maps after the first block of each stage.
_BASIC_MAPS = {"conv1": (112, 112, 64), "pool1": (56, 56, 64), "conv2_1": (56, 56, 64)}
_BASIC_MAPS |= {"conv3_1": (28, 28, 128), "conv4_1": (14, 14, 256), "conv5_1": (7, 7, 512)}
_BOTTLENECK_MAPS = {"conv1": (112, 112, 64), "pool1": (56, 56, 64), "conv2_1": (56, 56, 256)}
_BOTTLENECK_MAPS |= {"conv3_1": (28, 28, 512), "conv4_1": (14, 14, 1024), "conv5_1": (7, 7, 2048)}
_CIFAR_MAPS = {"conv2_1": (32, 32, 16), "conv3_1": (16, 16, 32), "conv4_1": (8, 8, 64)}
_IMAGE_224, _IMAGE_32 = (224, 224, 3), (32, 32, 3)
_PRE_MAPS = {"conv2_1": (32, 32, 64), "conv3_1": (16, 16, 128), "norm": (8, 8, 256)}
_SOURCE = "Table 1, §4.2; counted"
_PRE_SOURCE = "arXiv:1603.05027; counted, normalisation included"
FACTS = {
    "18": Facts(_IMAGE_224, 11_689_512, 1_814_073_344, _BASIC_MAPS, _SOURCE, "1.8G"),
    "18-A": Facts(_IMAGE_224, 11_515_688, 1_794_805_760, _BASIC_MAPS, _SOURCE),
    "18-C": Facts(_IMAGE_224, 12_043_816, 1_878_298_624, _BASIC_MAPS, _SOURCE),
    "plain-18": Facts(_IMAGE_224, 11_515_688, 1_794_805_760, _BASIC_MAPS, _SOURCE),
    "34": Facts(_IMAGE_224, 21_797_672, 3_663_761_408, _BASIC_MAPS, _SOURCE, "3.6G"),
    "34-A": Facts(_IMAGE_224, 21_623_848, 3_644_493_824, _BASIC_MAPS, _SOURCE),
    "34-C": Facts(_IMAGE_224, 22_716_840, 3_830_747_136, _BASIC_MAPS, _SOURCE),
    "plain-34": Facts(_IMAGE_224, 21_623_848, 3_644_493_824, _BASIC_MAPS, _SOURCE),
    "50": Facts(_IMAGE_224, 25_557_032, 3_857_973_248, _BOTTLENECK_MAPS, _SOURCE, "3.8G"),
    "50-v1.5": Facts(_IMAGE_224, 25_557_032, 4_089_184_256, _BOTTLENECK_MAPS, _SOURCE),
    "101": Facts(_IMAGE_224, 44_549_160, 7_570_194_432, _BOTTLENECK_MAPS, _SOURCE, "7.6G"),
    "101-v1.5": Facts(_IMAGE_224, 44_549_160, 7_801_405_440, _BOTTLENECK_MAPS, _SOURCE),
    "152": Facts(_IMAGE_224, 60_192_808, 11_282_415_616, _BOTTLENECK_MAPS, _SOURCE, "11.3G"),
    "152-v1.5": Facts(_IMAGE_224, 60_192_808, 11_513_626_624, _BOTTLENECK_MAPS, _SOURCE),
    "cifar-8": Facts(_IMAGE_32, 75_290, 12_239_488, _CIFAR_MAPS, _SOURCE),
    "cifar-8-B": Facts(_IMAGE_32, 78_042, 12_501_632, _CIFAR_MAPS, _SOURCE),
    "cifar-8-C": Facts(_IMAGE_32, 78_330, 12_763_776, _CIFAR_MAPS, _SOURCE),
    "cifar-plain-8": Facts(_IMAGE_32, 75_290, 12_239_488, _CIFAR_MAPS, _SOURCE),
    "cifar-20": Facts(_IMAGE_32, 269_722, 40_551_040, _CIFAR_MAPS, _SOURCE, "0.27M"),
    "cifar-20-B": Facts(_IMAGE_32, 272_474, 40_813_184, _CIFAR_MAPS, _SOURCE),
    "cifar-20-C": Facts(_IMAGE_32, 283_962, 42_648_192, _CIFAR_MAPS, _SOURCE),
    "cifar-plain-20": Facts(_IMAGE_32, 269_722, 40_551_040, _CIFAR_MAPS, _SOURCE),
    "cifar-32": Facts(_IMAGE_32, 464_154, 68_862_592, _CIFAR_MAPS, _SOURCE, "0.46M"),
    "cifar-32-B": Facts(_IMAGE_32, 466_906, 69_124_736, _CIFAR_MAPS, _SOURCE),
    "cifar-32-C": Facts(_IMAGE_32, 489_594, 72_532_608, _CIFAR_MAPS, _SOURCE),
    "cifar-plain-32": Facts(_IMAGE_32, 464_154, 68_862_592, _CIFAR_MAPS, _SOURCE),
    "cifar-44": Facts(_IMAGE_32, 658_586, 97_174_144, _CIFAR_MAPS, _SOURCE, "0.66M"),
    "cifar-44-B": Facts(_IMAGE_32, 661_338, 97_436_288, _CIFAR_MAPS, _SOURCE),
    "cifar-44-C": Facts(_IMAGE_32, 695_226, 102_417_024, _CIFAR_MAPS, _SOURCE),
    "cifar-plain-44": Facts(_IMAGE_32, 658_586, 97_174_144, _CIFAR_MAPS, _SOURCE),
    "cifar-56": Facts(_IMAGE_32, 853_018, 125_485_696, _CIFAR_MAPS, _SOURCE, "0.85M"),
    "cifar-56-B": Facts(_IMAGE_32, 855_770, 125_747_840, _CIFAR_MAPS, _SOURCE),
    "cifar-56-C": Facts(_IMAGE_32, 900_858, 132_301_440, _CIFAR_MAPS, _SOURCE),
    "cifar-plain-56": Facts(_IMAGE_32, 853_018, 125_485_696, _CIFAR_MAPS, _SOURCE),
    "cifar-110": Facts(_IMAGE_32, 1_727_962, 252_887_680, _CIFAR_MAPS, _SOURCE, "1.7M"),
    "cifar-110-B": Facts(_IMAGE_32, 1_730_714, 253_149_824, _CIFAR_MAPS, _SOURCE),
    "cifar-110-C": Facts(_IMAGE_32, 1_826_202, 266_781_312, _CIFAR_MAPS, _SOURCE),
    "cifar-plain-110": Facts(_IMAGE_32, 1_727_962, 252_887_680, _CIFAR_MAPS, _SOURCE),
    "cifar-1202": Facts(_IMAGE_32, 19_421_274, 2_829_238_912, _CIFAR_MAPS, _SOURCE, "19.4M"),
    "cifar-1202-B": Facts(_IMAGE_32, 19_424_026, 2_829_501_056, _CIFAR_MAPS, _SOURCE),
    "cifar-1202-C": Facts(_IMAGE_32, 20_538_714, 2_986_263_168, _CIFAR_MAPS, _SOURCE),
    "cifar-plain-1202": Facts(_IMAGE_32, 19_421_274, 2_829_238_912, _CIFAR_MAPS, _SOURCE),
    "cifar-pre-29": Facts(_IMAGE_32, 312_218, 43_960_832, _PRE_MAPS, _PRE_SOURCE),
    "cifar-pre-164": Facts(_IMAGE_32, 1_703_258, 244_500_992, _PRE_MAPS, _PRE_SOURCE, "1.7M"),
    "cifar-pre-1001": Facts(_IMAGE_32, 10_327_706, 1_487_849_984, _PRE_MAPS, _PRE_SOURCE),
}
