"""MobileNetV3: inverted residuals with squeeze and excitation and with activations made of straight lines.

Howard et al. (2019). Searching for MobileNetV3. arXiv:1905.02244, tables 1 and 2

    hardswish(x) = x relu6(x + 3) / 6        hardsigmoid(x) = relu6(x + 3) / 6
"""

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded

Row = tuple[int, int, int, bool, str, int]
"""Kernel, expanded channels, output channels, squeeze and excitation, activation, stride."""
LARGE: tuple[Row, ...] = (
    (3, 16, 16, False, "relu", 1), (3, 64, 24, False, "relu", 2), (3, 72, 24, False, "relu", 1),
    (5, 72, 40, True, "relu", 2), (5, 120, 40, True, "relu", 1), (5, 120, 40, True, "relu", 1),
    (3, 240, 80, False, "hardswish", 2), (3, 200, 80, False, "hardswish", 1), (3, 184, 80, False, "hardswish", 1),
    (3, 184, 80, False, "hardswish", 1), (3, 480, 112, True, "hardswish", 1), (3, 672, 112, True, "hardswish", 1),
    (5, 672, 160, True, "hardswish", 2), (5, 960, 160, True, "hardswish", 1), (5, 960, 160, True, "hardswish", 1),
)  # fmt: skip
SMALL: tuple[Row, ...] = (
    (3, 16, 16, True, "relu", 2), (3, 72, 24, False, "relu", 2), (3, 88, 24, False, "relu", 1),
    (5, 96, 40, True, "hardswish", 2), (5, 240, 40, True, "hardswish", 1), (5, 240, 40, True, "hardswish", 1),
    (5, 120, 48, True, "hardswish", 1), (5, 144, 48, True, "hardswish", 1), (5, 288, 96, True, "hardswish", 2),
    (5, 576, 96, True, "hardswish", 1), (5, 576, 96, True, "hardswish", 1),
)  # fmt: skip
ACTIVATIONS: dict[str, type[nn.Module]] = {"relu": nn.ReLU, "hardswish": nn.Hardswish, "none": nn.Identity}


def divisible(channels: float, by: int = 8) -> int:
    """The nearest multiple, but never less than nine tenths."""
    rounded = max(by, int(channels + by / 2) // by * by)
    return rounded + by if rounded < 0.9 * channels else rounded


def convolution(  # noqa: PLR0913 - those of Conv2d, and the activation
    inside: int, outside: int, kernel: int, stride: int, groups: int, activation: str
) -> nn.Sequential:
    """Convolution, batch norm, activation."""
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside), ACTIVATIONS[activation]())


class SqueezeExcite(nn.Module):
    """A factor for every channel, from the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = divisible(channels / 4)
        self.reduce, self.expand = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        s = self.expand(F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1))))
        return x * F.hardsigmoid(s)


class InvertedResidual(nn.Module):
    """Expand, depthwise, excite, project."""

    def __init__(self, inside: int, row: Row) -> None:
        super().__init__()
        kernel, inner, outside, excite, activation, stride = row
        made: list[nn.Module] = []
        if inner != inside:
            made.append(convolution(inside, inner, 1, 1, 1, activation))
        made.append(convolution(inner, inner, kernel, stride, inner, activation))
        if excite:
            made.append(SqueezeExcite(inner))
        made.append(convolution(inner, outside, 1, 1, 1, "none"))
        self.layers = nn.Sequential(*made)
        self.adds = stride == 1 and inside == outside

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return x + y if self.adds else y


class MobileNetV3(nn.Module):
    """The rows of a table between a stem and two linear layers."""

    def __init__(
        self, rows: tuple[Row, ...] = LARGE, width: float = 1.0, hidden: int = 1280, classes: int = 1000
    ) -> None:
        super().__init__()
        inside = divisible(16 * width)
        made: list[nn.Module] = [convolution(3, inside, 3, 2, 1, "hardswish")]
        for kernel, inner, outside, excite, activation, stride in rows:
            scaled = (kernel, divisible(inner * width), divisible(outside * width), excite, activation, stride)
            made.append(InvertedResidual(inside, scaled))
            inside = scaled[2]
        made.append(convolution(inside, 6 * inside, 1, 1, 1, "hardswish"))
        self.features = nn.Sequential(*made)
        self.classifier = nn.Sequential(
            nn.Linear(6 * inside, hidden), nn.Hardswish(), nn.Dropout(0.2), nn.Linear(hidden, classes)
        )

    def forward(self, image: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(image), 1)
        result: Tensor = self.classifier(x.flatten(1))
        return result


def architectures() -> list[Architecture]:
    """Both tables at less than half of their widths."""
    inputs = images(3, 64)

    def small() -> nn.Module:
        return MobileNetV3(SMALL, 0.4, 96, 10)

    def large() -> nn.Module:
        return MobileNetV3(LARGE, 0.3, 96, 10)

    return [
        seeded("mobilenet_v3_small", "cnn", small, inputs),
        seeded("mobilenet_v3_large", "cnn", large, inputs),
    ]
