"""ShuffleNet, first and second: cheap convolutions in groups, with channels exchanged between the groups.

Zhang, Zhou, Lin, Sun (2018). ShuffleNet: An Extremely Efficient Convolutional Neural Network for Mobile Devices.
arXiv:1707.01083
Ma, Zhang, Zheng, Sun (2018). ShuffleNet V2: Practical Guidelines for Efficient CNN Architecture Design.
arXiv:1807.11164

    shuffle: channel g * n + i  ->  channel i * groups + g
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded

DEPTHS = (4, 8, 4)


def shuffle(x: Tensor, groups: int) -> Tensor:
    """The first channels of all groups, then their second ones, and so on."""
    batch, channels, height, width = x.shape
    x = x.view(batch, groups, channels // groups, height, width)
    return x.transpose(1, 2).contiguous().view(batch, channels, height, width)


def convolution(inside: int, outside: int, kernel: int = 1, stride: int = 1, groups: int = 1) -> nn.Sequential:
    """A convolution and its batch norm."""
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside))


class Unit1(nn.Module):
    """Grouped 1 x 1, shuffle, depthwise, grouped 1 x 1; a stride concatenates where the others add."""

    def __init__(self, inside: int, outside: int, stride: int, groups: int, first: bool = False) -> None:
        super().__init__()
        inner, self.stride, self.groups = outside // 4, stride, groups
        new = outside - inside if stride > 1 else outside
        self.reduce = convolution(inside, inner, groups=1 if first else groups)
        self.depthwise = convolution(inner, inner, 3, stride, inner)
        self.expand = convolution(inner, new, groups=groups)

    def forward(self, x: Tensor) -> Tensor:
        y = shuffle(F.relu(self.reduce(x)), self.groups)
        y = self.expand(self.depthwise(y))
        if self.stride == 1:
            return F.relu(x + y)
        return F.relu(torch.cat([F.avg_pool2d(x, 3, 2, 1), y], 1))


class Unit2(nn.Module):
    """One half of the channels is left alone; a stride convolves both and doubles them."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        half = outside // 2
        reads = inside if stride > 1 else half
        self.beside = (
            nn.Sequential(convolution(inside, inside, 3, stride, inside), convolution(inside, half), nn.ReLU())
            if stride > 1
            else None
        )
        self.branch = nn.Sequential(
            convolution(reads, half), nn.ReLU(), convolution(half, half, 3, stride, half), convolution(half, half),
            nn.ReLU(),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        if self.beside is None:
            alone, read = x.chunk(2, dim=1)
        else:
            alone, read = self.beside(x), x
        return shuffle(torch.cat([alone, self.branch(read)], 1), 2)


class ShuffleNet(nn.Module):
    """A stem, three stages, in the second version one more convolution, and a linear layer."""

    def __init__(
        self,
        unit: Callable[[int, int, int, int], nn.Module],
        widths: tuple[int, ...],
        last: int = 0,
        depths: tuple[int, ...] = DEPTHS,
        stem: int = 24,
        classes: int = 1000,
    ) -> None:
        super().__init__()
        self.stem = nn.Sequential(convolution(3, stem, 3, 2), nn.ReLU(), nn.MaxPool2d(3, 2, 1))
        made: list[nn.Module] = []
        inside = stem
        for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
            for index in range(depth):
                made.append(unit(inside, width, 1 if index else 2, stage))
                inside = width
        if last:
            made += [convolution(inside, last), nn.ReLU()]
        self.blocks = nn.Sequential(*made)
        self.head = nn.Linear(last or inside, classes)

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.head(self.blocks(self.stem(image)).mean([2, 3]))
        return result


def shufflenet_v1(
    groups: int = 3, widths: tuple[int, ...] = (240, 480, 960), depths: tuple[int, ...] = DEPTHS, classes: int = 1000
) -> ShuffleNet:
    """The first version; its very first 1 x 1 convolution has too few channels for groups."""

    def unit(inside: int, outside: int, stride: int, stage: int) -> nn.Module:
        return Unit1(inside, outside, stride, groups, first=stride > 1 and stage == 0)

    return ShuffleNet(unit, widths, depths=depths, classes=classes)


def shufflenet_v2(
    widths: tuple[int, ...] = (116, 232, 464),
    last: int = 1024,
    depths: tuple[int, ...] = DEPTHS,
    classes: int = 1000,
) -> ShuffleNet:
    """The second version."""
    return ShuffleNet(lambda inside, out, stride, _: Unit2(inside, out, stride), widths, last, depths, classes=classes)


def architectures() -> list[Architecture]:
    """Both versions."""
    inputs = images(3, 64)

    def first() -> nn.Module:
        return shufflenet_v1(3, (48, 96, 192), (2, 2, 1), classes=10)

    def second() -> nn.Module:
        return shufflenet_v2((32, 48, 64), 96, (2, 3, 2), classes=10)

    return [
        seeded("shufflenet_v1", "cnn", first, inputs),
        seeded("shufflenet_v2", "cnn", second, inputs),
    ]
