"""The published torch networks at any width, with the state dicts of torchvision."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def alexnet(width: float, classes: int) -> nn.Module:
    """torchvision's `alexnet`, that of "One weird trick"."""
    c1, c2, c3, c4, c5, hidden = (round(c * width) for c in (64, 192, 384, 256, 256, 4096))
    return Scored(
        nn.Sequential(
            *(nn.Conv2d(3, c1, 11, 4, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(c1, c2, 5, 1, 2), nn.ReLU(), nn.MaxPool2d(3, 2)),
            *(nn.Conv2d(c2, c3, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(c3, c4, 3, 1, 1), nn.ReLU()),
            *(nn.Conv2d(c4, c5, 3, 1, 1), nn.ReLU(), nn.MaxPool2d(3, 2)),
        ),
        nn.AdaptiveAvgPool2d(6),
        nn.Sequential(
            *(nn.Dropout(), nn.Linear(c5 * 36, hidden), nn.ReLU()),
            *(nn.Dropout(), nn.Linear(hidden, hidden), nn.ReLU()),
            nn.Linear(hidden, classes),
        ),
    )


def vgg(counts: tuple[int, ...], batch_norm: bool, width: float, classes: int) -> nn.Module:
    """`vgg11` … `vgg19_bn`: `counts` 3×3 convolutions in each of five stages."""
    layers, before = [], 3
    for count, channels in zip(counts, (64, 128, 256, 512, 512), strict=True):
        for _ in range(count):
            layers.append(nn.Conv2d(before, round(channels * width), 3, padding=1))
            before = round(channels * width)
            layers += [nn.BatchNorm2d(before), nn.ReLU()] if batch_norm else [nn.ReLU()]
        layers.append(nn.MaxPool2d(2))
    hidden = round(4096 * width)
    classifier = nn.Sequential(
        *(nn.Linear(before * 49, hidden), nn.ReLU(), nn.Dropout()),
        *(nn.Linear(hidden, hidden), nn.ReLU(), nn.Dropout()),
        nn.Linear(hidden, classes),
    )
    return Scored(nn.Sequential(*layers), nn.AdaptiveAvgPool2d(7), classifier)


class Scored(nn.Module):
    def __init__(self, features: nn.Module, average: nn.Module, classifier: nn.Module):
        super().__init__()
        self.features, self.avgpool, self.classifier = features, average, classifier

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.avgpool(self.features(x)).flatten(1))


class Residual(nn.Module):
    """A block of `resnet18` or, with `bottleneck`, of `resnet50`; `late` strides in the 3×3."""

    def __init__(self, before: int, width: int, stride: int, bottleneck: bool, late: bool):
        super().__init__()
        after = 4 * width if bottleneck else width
        first = 1 if late or not bottleneck else stride
        if bottleneck:
            self.conv1 = nn.Conv2d(before, width, 1, first, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, stride // first, 1, bias=False)
            self.conv3, self.bn3 = nn.Conv2d(width, after, 1, bias=False), nn.BatchNorm2d(after)
        else:
            self.conv1 = nn.Conv2d(before, width, 3, stride, 1, bias=False)
            self.conv2 = nn.Conv2d(width, width, 3, 1, 1, bias=False)
        self.bn1, self.bn2 = nn.BatchNorm2d(width), nn.BatchNorm2d(width)
        self.downsample = None
        if stride != 1 or before != after:
            self.downsample = nn.Sequential(
                nn.Conv2d(before, after, 1, stride, bias=False), nn.BatchNorm2d(after)
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(self.bn1(self.conv1(x)).relu()))
        if hasattr(self, "conv3"):
            y = self.bn3(self.conv3(y.relu()))
        return (y + (x if self.downsample is None else self.downsample(x))).relu()


class ResNet(nn.Module):
    """`resnet18` … `resnet152`."""

    def __init__(
        self, counts: tuple[int, ...], bottleneck: bool, late: bool, width: float, classes: int
    ):
        super().__init__()
        before = round(64 * width)
        self.conv1, self.bn1 = nn.Conv2d(3, before, 7, 2, 3, bias=False), nn.BatchNorm2d(before)
        for stage, count in enumerate(counts):
            blocks, channels = [], round(64 * 2**stage * width)
            for i in range(count):
                blocks.append(
                    Residual(before, channels, 2 if stage and not i else 1, bottleneck, late)
                )
                before = channels * (4 if bottleneck else 1)
            setattr(self, f"layer{stage + 1}", nn.Sequential(*blocks))
        self.fc = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.max_pool2d(self.bn1(self.conv1(x)).relu(), 3, 2, 1)
        for name, stage in self.named_children():
            x = stage(x) if name.startswith("layer") else x
        return self.fc(x.mean((2, 3)))


class DenseLayer(nn.Module):
    def __init__(self, before: int, growth: int):
        super().__init__()
        self.norm1, self.conv1 = (
            nn.BatchNorm2d(before),
            nn.Conv2d(before, 4 * growth, 1, bias=False),
        )
        self.norm2, self.conv2 = (
            nn.BatchNorm2d(4 * growth),
            nn.Conv2d(4 * growth, growth, 3, padding=1, bias=False),
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(self.norm2(self.conv1(self.norm1(x).relu())).relu())
        return torch.cat([x, y], 1)


class Transition(nn.Module):
    def __init__(self, before: int):
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(before), nn.Conv2d(before, before // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return functional.avg_pool2d(self.conv(self.norm(x).relu()), 2)


def densenet(counts: tuple[int, ...], growth: int, classes: int) -> nn.Module:
    """`densenet121` … `densenet201`, which start with twice the growth rate."""
    features, channels = nn.Sequential(), 2 * growth
    features.add_module("conv0", nn.Conv2d(3, channels, 7, 2, 3, bias=False))
    features.add_module("norm0", nn.BatchNorm2d(channels))
    features.add_module("relu0", nn.ReLU())
    features.add_module("pool0", nn.MaxPool2d(3, 2, 1))
    for i, count in enumerate(counts, 1):
        block = nn.Sequential()
        for j in range(1, count + 1):
            block.add_module(f"denselayer{j}", DenseLayer(channels, growth))
            channels += growth
        features.add_module(f"denseblock{i}", block)
        if i < len(counts):
            features.add_module(f"transition{i}", Transition(channels))
            channels //= 2
    features.add_module("norm5", nn.BatchNorm2d(channels))
    features.add_module("relu5", nn.ReLU())
    return Scored(features, nn.AdaptiveAvgPool2d(1), nn.Linear(channels, classes))


class Normalised(nn.Module):
    """GoogLeNet's convolution with batch normalisation and ReLU."""

    def __init__(self, before: int, after: int, size: int, stride: int = 1):
        super().__init__()
        self.conv = nn.Conv2d(before, after, size, stride, size // 2, bias=False)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        return self.bn(self.conv(x)).relu()


class Inception(nn.Module):
    def __init__(
        self, before: int, one: int, reduce3: int, three: int, reduce5: int, five: int, proj: int
    ):
        super().__init__()
        self.branch1 = Normalised(before, one, 1)
        self.branch2 = nn.Sequential(Normalised(before, reduce3, 1), Normalised(reduce3, three, 3))
        self.branch3 = nn.Sequential(Normalised(before, reduce5, 1), Normalised(reduce5, five, 3))
        self.branch4 = nn.Sequential(
            nn.MaxPool2d(3, 1, 1, ceil_mode=True), Normalised(before, proj, 1)
        )

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([branch(x) for branch in self.children()], 1)


class Auxiliary(nn.Module):
    def __init__(self, before: int, channels: int, hidden: int, classes: int):
        super().__init__()
        self.conv = Normalised(before, channels, 1)
        self.fc1, self.fc2 = nn.Linear(16 * channels, hidden), nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(functional.adaptive_avg_pool2d(x, 4))
        return self.fc2(self.fc1(x.flatten(1)).relu())


class GoogLeNet(nn.Module):
    """`googlenet` with `aux_logits`, without dropout; in training returns logits, aux1, aux2."""

    def __init__(self, table: dict[str, tuple[int, ...] | None], width: float, classes: int):
        super().__init__()
        c64, c192, c128, hidden = (round(c * width) for c in (64, 192, 128, 1024))
        self.conv1, self.conv2 = Normalised(3, c64, 7, 2), Normalised(c64, c64, 1)
        self.conv3, before = Normalised(c64, c192, 3), c192
        self.order = list(table)
        for name, row in table.items():
            if row is None:
                continue
            scaled = [max(1, round(c * width)) for c in row]
            self.add_module(name.replace("_", ""), Inception(before, *scaled))
            before = scaled[0] + scaled[2] + scaled[4] + scaled[5]
            if name == "inception_4a":
                self.aux1 = Auxiliary(before, c128, hidden, classes)
            if name == "inception_4d":
                self.aux2 = Auxiliary(before, c128, hidden, classes)
        self.fc = nn.Linear(before, classes)

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        heads = ()
        x = functional.max_pool2d(self.conv1(x), 3, 2, ceil_mode=True)
        x = functional.max_pool2d(self.conv3(self.conv2(x)), 3, 2, ceil_mode=True)
        for name in self.order:
            if name.startswith("pool"):
                x = functional.max_pool2d(x, 2 if name == "pool4" else 3, 2, ceil_mode=True)
                continue
            x = self.get_submodule(name.replace("_", ""))(x)
            if self.training and name == "inception_4a":
                heads += (self.aux1(x),)
            if self.training and name == "inception_4d":
                heads += (self.aux2(x),)
        return (self.fc(x.mean((2, 3))), *heads)
