"""DenseNet: every layer reads what all layers before it in its block wrote.

Huang, Liu, van der Maaten, Weinberger (2017). Densely Connected Convolutional Networks. arXiv:1608.06993

    x[l] = H([x[0], x[1], ..., x[l-1]])        H: norm, relu, 1 x 1, norm, relu, 3 x 3
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded

BOTTLENECK = 4


class DenseLayer(nn.Module):
    """``growth`` new channels."""

    def __init__(self, inside: int, growth: int) -> None:
        super().__init__()
        inner = BOTTLENECK * growth
        self.norm1, self.conv1 = nn.BatchNorm2d(inside), nn.Conv2d(inside, inner, 1, bias=False)
        self.norm2, self.conv2 = nn.BatchNorm2d(inner), nn.Conv2d(inner, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(F.relu(self.norm1(x)))
        return torch.cat([x, self.conv2(F.relu(self.norm2(y)))], 1)


class Transition(nn.Module):
    """Half of the channels and half of the size."""

    def __init__(self, inside: int) -> None:
        super().__init__()
        self.norm, self.conv = nn.BatchNorm2d(inside), nn.Conv2d(inside, inside // 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return F.avg_pool2d(self.conv(F.relu(self.norm(x))), 2)


class DenseNet(nn.Module):
    """DenseNet-121 unless told otherwise."""

    def __init__(
        self, depths: tuple[int, ...] = (6, 12, 24, 16), growth: int = 32, width: int = 64, classes: int = 1000
    ) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        made: list[nn.Module] = []
        for block, depth in enumerate(depths):
            if block:
                made.append(Transition(width))
                width //= 2
            for _ in range(depth):
                made.append(DenseLayer(width, growth))
                width += growth
        self.blocks = nn.Sequential(*made)
        self.norm, self.head = nn.BatchNorm2d(width), nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.bn(self.conv(image))), 3, 2, 1)
        x = F.relu(self.norm(self.blocks(x)))
        result: Tensor = self.head(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))
        return result


def architectures() -> list[Architecture]:
    """Three short blocks."""
    inputs = images(3, 64)

    def make() -> nn.Module:
        return DenseNet((2, 3, 2), growth=8, width=16, classes=10)

    return [seeded("densenet", "cnn", make, inputs)]
