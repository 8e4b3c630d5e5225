"""Builds the ResNets for CIFAR in plain PyTorch, since torchvision has none."""

from typing import Any


def resnet(torch: Any, depth: int, num_classes: int) -> Any:
    """Returns ResNet-`depth` for images of 32×32 with shortcuts of option A (ResNet §4.2).

    `depth` is 6n + 2, `torch` the package.
    """
    nn = torch.nn

    def conv_bn(inputs: int, outputs: int, stride: int) -> list[Any]:
        convolution = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        return [convolution, nn.BatchNorm2d(outputs)]

    class Block(nn.Module):
        """Two convolutions, and the input, padded with zero channels where sizes change."""

        def __init__(self, inputs: int, outputs: int, stride: int):
            super().__init__()
            first, second = conv_bn(inputs, outputs, stride), conv_bn(outputs, outputs, 1)
            self.residual = nn.Sequential(*first, nn.ReLU(inplace=True), *second)
            self.stride, self.new_channels = stride, outputs - inputs

        def forward(self, x: Any) -> Any:
            shortcut = x
            if self.new_channels:
                shortcut = x[:, :, :: self.stride, :: self.stride]
                shortcut = nn.functional.pad(shortcut, (0, 0, 0, 0, 0, self.new_channels))
            return nn.functional.relu(self.residual(x) + shortcut)

    blocks, inputs = [], 16
    for width in (16, 32, 64):
        for _ in range((depth - 2) // 6):
            blocks.append(Block(inputs, width, stride=1 if width == inputs else 2))
            inputs = width
    return nn.Sequential(
        *conv_bn(3, 16, 1),
        nn.ReLU(inplace=True),
        *blocks,
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, num_classes),
    )
