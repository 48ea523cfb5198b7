"""Residual networks that normalise first, deep or wide.

He, Zhang, Ren, Sun (2016). Identity Mappings in Deep Residual Networks. arXiv:1603.05027
Zagoruyko, Komodakis (2016). Wide Residual Networks. arXiv:1605.07146

    y = F(relu(norm(x))) + x        where the shape changes: + conv1x1(relu(norm(x)))
"""

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded


class PreActBlock(nn.Module):
    """Convolutions behind their batch norms; the shortcut is left alone wherever it can be."""

    def __init__(self, inside: int, width: int, stride: int, expansion: int) -> None:
        super().__init__()
        outside = width * expansion
        bottleneck = [(1, 1, width), (3, stride, width), (1, 1, outside)]
        basic = [(3, stride, width), (3, 1, outside)]
        self.norms, self.convs = nn.ModuleList(), nn.ModuleList()
        channels = inside
        for kernel, step, filters in bottleneck if expansion > 1 else basic:
            self.norms.append(nn.BatchNorm2d(channels))
            self.convs.append(nn.Conv2d(channels, filters, kernel, step, kernel // 2, bias=False))
            channels = filters
        changes = stride > 1 or inside != outside
        self.shortcut = nn.Conv2d(inside, outside, 1, stride, bias=False) if changes else None

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.norms[0](x))
        if self.shortcut is not None:
            x = self.shortcut(y)
        y = self.convs[0](y)
        for norm, conv in zip(list(self.norms)[1:], list(self.convs)[1:], strict=True):
            y = conv(F.relu(norm(y)))
        result: Tensor = x + y
        return result


class PreActResNet(nn.Module):
    """Three stages of ``blocks``; ``widen`` multiplies their widths, ``expansion`` 4 makes bottlenecks."""

    def __init__(self, blocks: int, width: int = 16, widen: int = 1, expansion: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        made: list[nn.Module] = []
        inside = width
        for stage in range(3):
            for index in range(blocks):
                made.append(PreActBlock(inside, width * widen << stage, 2 if stage and not index else 1, expansion))
                inside = (width * widen << stage) * expansion
        self.blocks = nn.Sequential(*made)
        self.norm, self.head = nn.BatchNorm2d(inside), nn.Linear(inside, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.norm(self.blocks(self.conv(image))))
        result: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return result


def architectures() -> list[Architecture]:
    """A narrow one of bottlenecks and a wide one."""
    inputs = images(3, 32)

    def deep() -> nn.Module:
        return PreActResNet(2, width=8, expansion=4)

    def wide() -> nn.Module:
        return PreActResNet(1, width=8, widen=4)

    return [
        seeded("preact_resnet", "cnn", deep, inputs),
        seeded("wide_resnet", "cnn", wide, inputs),
    ]
