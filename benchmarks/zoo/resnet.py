"""Bottleneck networks for large images: plain, with grouped convolutions, with squeeze and excitation.

He, Zhang, Ren, Sun (2016). Deep Residual Learning for Image Recognition. arXiv:1512.03385
Xie, Girshick, Dollar, Tu, He (2017). Aggregated Residual Transformations for Deep Neural Networks. arXiv:1611.05431
Hu, Shen, Albanie, Sun, Wu (2018). Squeeze-and-Excitation Networks. arXiv:1709.01507

    y = relu(F(x) * s + shortcut(x))        s = sigmoid(W2 relu(W1 mean(F(x)))), one number per channel
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded

EXPANSION = 4


class SqueezeExcite(nn.Module):
    """A factor between 0 and 1 for every channel, from the means of all."""

    def __init__(self, channels: int, reduction: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, channels // reduction, 1)
        self.expand = nn.Conv2d(channels // reduction, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        s = F.relu(self.reduce(x.mean((2, 3), keepdim=True)))
        return x * torch.sigmoid(self.expand(s))


class Bottleneck(nn.Module):
    """1 x 1, 3 x 3 (in groups), 1 x 1."""

    def __init__(self, inside: int, width: int, inner: int, stride: int, groups: int, reduction: int) -> None:
        super().__init__()
        outside = width * EXPANSION
        self.conv1, self.bn1 = nn.Conv2d(inside, inner, 1, bias=False), nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, 1, groups=groups, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv3, self.bn3 = nn.Conv2d(inner, outside, 1, bias=False), nn.BatchNorm2d(outside)
        self.excite = SqueezeExcite(outside, reduction) if reduction else nn.Identity()
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        return F.relu(self.excite(self.bn3(self.conv3(y))) + self.shortcut(x))


class ResNet(nn.Module):
    """Four stages; ResNeXt has ``groups`` of ``group_width`` channels, counted in the first stage.

    Args:
        reduction: of the squeeze and excitation; 0 for none.
    """

    def __init__(
        self,
        depths: tuple[int, ...] = (3, 4, 6, 3),
        width: int = 64,
        groups: int = 1,
        group_width: int = 64,
        reduction: int = 0,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 7, 2, 3, bias=False), nn.BatchNorm2d(width)
        self.pool = nn.MaxPool2d(3, 2, 1)
        made: list[nn.Module] = []
        inside = width
        for stage, depth in enumerate(depths):
            for index in range(depth):
                inner = groups * group_width << stage
                stride = 2 if stage and not index else 1
                made.append(Bottleneck(inside, width << stage, inner, stride, groups, reduction))
                inside = (width << stage) * EXPANSION
        self.blocks = nn.Sequential(*made)
        self.head = nn.Linear(inside, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(self.pool(F.relu(self.bn(self.conv(image)))))
        result: Tensor = self.head(F.adaptive_avg_pool2d(x, 1).flatten(1))
        return result


def architectures() -> list[Architecture]:
    """ResNeXt and SE-ResNet."""
    inputs, small = images(3, 64), {"depths": (1, 2, 1), "width": 16, "classes": 10}

    def resnext() -> nn.Module:
        return ResNet(**small, groups=4, group_width=4)  # type: ignore[arg-type]

    def se_resnet() -> nn.Module:
        return ResNet(**small, group_width=16, reduction=8)  # type: ignore[arg-type]

    return [
        seeded("resnext", "cnn", resnext, inputs),
        seeded("se_resnet", "cnn", se_resnet, inputs),
    ]
