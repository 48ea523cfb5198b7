"""GhostNet: half of the channels are made by cheap depthwise convolutions of the other half.

Han, Wang, Tian, Guo, Xu, Xu (2020). GhostNet: More Features from Cheap Operations. arXiv:1911.11907, table 1

    y = [conv(x), depthwise(conv(x))]
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded
from zoo.mobilenet_v3 import convolution, divisible

Row = tuple[int, int, int, bool, int]
"""Kernel, expanded channels, output channels, squeeze and excitation, stride."""
ROWS: tuple[Row, ...] = (
    (3, 16, 16, False, 1), (3, 48, 24, False, 2), (3, 72, 24, False, 1), (5, 72, 40, True, 2), (5, 120, 40, True, 1),
    (3, 240, 80, False, 2), (3, 200, 80, False, 1), (3, 184, 80, False, 1), (3, 184, 80, False, 1),
    (3, 480, 112, True, 1), (3, 672, 112, True, 1), (5, 672, 160, True, 2), (5, 960, 160, False, 1),
    (5, 960, 160, True, 1), (5, 960, 160, False, 1), (5, 960, 160, True, 1),
)  # fmt: skip


class GhostModule(nn.Module):
    """A 1 x 1 convolution to half of the channels, and a depthwise one for the rest."""

    def __init__(self, inside: int, outside: int, activation: str) -> None:
        super().__init__()
        half, self.outside = -(-outside // 2), outside
        self.primary = convolution(inside, half, 1, 1, 1, activation)
        self.cheap = convolution(half, half, 3, 1, half, activation)

    def forward(self, x: Tensor) -> Tensor:
        y = self.primary(x)
        return torch.cat([y, self.cheap(y)], 1)[:, : self.outside]


class Excite(nn.Module):
    """A factor for every channel, from the means of all."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        inner = divisible(channels / 4, 4)
        self.reduce, self.expand = nn.Conv2d(channels, inner, 1), nn.Conv2d(inner, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * F.hardsigmoid(self.expand(F.relu(self.reduce(x.mean((2, 3), keepdim=True)))))


class GhostBottleneck(nn.Module):
    """Two ghost modules, and a depthwise convolution between them where there is a stride."""

    def __init__(self, inside: int, row: Row) -> None:
        super().__init__()
        kernel, inner, outside, excite, stride = row
        made: list[nn.Module] = [GhostModule(inside, inner, "relu")]
        if stride > 1:
            made.append(convolution(inner, inner, kernel, stride, inner, "none"))
        if excite:
            made.append(Excite(inner))
        self.layers = nn.Sequential(*made, GhostModule(inner, outside, "none"))
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1 or inside != outside:
            self.shortcut = nn.Sequential(
                convolution(inside, inside, kernel, stride, inside, "none"),
                convolution(inside, outside, 1, 1, 1, "none"),
            )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layers(x) + self.shortcut(x)
        return result


class GhostNet(nn.Module):
    """The rows of a table between a stem and a head that pools before its wide 1 x 1 convolution."""

    def __init__(
        self, rows: tuple[Row, ...] = ROWS, width: float = 1.0, hidden: int = 1280, classes: int = 1000
    ) -> None:
        super().__init__()
        inside = divisible(16 * width, 4)
        made: list[nn.Module] = [convolution(3, inside, 3, 2, 1, "relu")]
        inner = inside
        for row in rows:
            kernel, _, _, excite, stride = row
            inner, outside = (divisible(channels * width, 4) for channels in row[1:3])
            made.append(GhostBottleneck(inside, (kernel, inner, outside, excite, stride)))
            inside = outside
        made.append(convolution(inside, inner, 1, 1, 1, "relu"))
        self.features = nn.Sequential(*made)
        self.widen, self.head = nn.Conv2d(inner, hidden, 1), nn.Linear(hidden, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(image), (1, 1))
        result: Tensor = self.head(F.relu(self.widen(x)).flatten(1))
        return result


def architectures() -> list[Architecture]:
    """Rows with every stride, at a bit less than half of their widths; some widths are odd when halved."""
    inputs = images(3, 64)

    def make() -> nn.Module:
        return GhostNet(ROWS[:5] + ROWS[5:12:2], 0.45, 64, 10)

    return [seeded("ghostnet", "cnn", make, inputs)]
