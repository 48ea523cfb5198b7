"""GoogLeNet: four branches side by side, concatenated.

Szegedy et al. (2015). Going Deeper with Convolutions. arXiv:1409.4842, table 1
Ours differs, as the usual ports do: batch norm, and 3 x 3 where the paper has 5 x 5.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded

Row = tuple[int, int, int, int, int, int]
"""Channels of: 1 x 1; 1 x 1 and 3 x 3 behind it; the same again; 1 x 1 behind the pooling."""
TABLE: tuple[tuple[Row, ...], ...] = (
    ((64, 96, 128, 16, 32, 32), (128, 128, 192, 32, 96, 64)),
    (
        (192, 96, 208, 16, 48, 64), (160, 112, 224, 24, 64, 64), (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64), (256, 160, 320, 32, 128, 128),
    ),
    ((256, 160, 320, 32, 128, 128), (384, 192, 384, 48, 128, 128)),
)  # fmt: skip


def convolution(inside: int, outside: int, kernel: int, stride: int = 1) -> nn.Sequential:
    """Convolution, batch norm, relu."""
    conv = nn.Conv2d(inside, outside, kernel, stride, kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outside, eps=0.001), nn.ReLU())


class Inception(nn.Module):
    """Four views of the same input."""

    def __init__(self, inside: int, row: Row) -> None:
        super().__init__()
        one, three_in, three, more_in, more, pooled = row
        self.one = convolution(inside, one, 1)
        self.three = nn.Sequential(convolution(inside, three_in, 1), convolution(three_in, three, 3))
        self.more = nn.Sequential(convolution(inside, more_in, 1), convolution(more_in, more, 3))
        self.pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1, ceil_mode=True), convolution(inside, pooled, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x), self.three(x), self.more(x), self.pooled(x)], 1)


class GoogLeNet(nn.Module):
    """A stem, groups of inception modules with pooling between them, a linear layer."""

    def __init__(
        self,
        table: tuple[tuple[Row, ...], ...] = TABLE,
        stem: tuple[int, int, int] = (64, 64, 192),
        classes: int = 1000,
    ) -> None:
        super().__init__()
        made: list[nn.Module] = [
            convolution(3, stem[0], 7, 2), nn.MaxPool2d(3, 2, ceil_mode=True), convolution(stem[0], stem[1], 1),
            convolution(stem[1], stem[2], 3),
        ]  # fmt: skip
        inside = stem[2]
        for rows in table:
            made.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            for row in rows:
                made.append(Inception(inside, row))
                inside = row[0] + row[2] + row[4] + row[5]
        self.features = nn.Sequential(*made)
        self.head = nn.Linear(inside, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = F.adaptive_avg_pool2d(self.features(image), 1)
        result: Tensor = self.head(F.dropout(torch.flatten(x, 1), 0.2, self.training))
        return result


def architectures() -> list[Architecture]:
    """Three modules."""
    inputs = images(3, 64)
    table: tuple[tuple[Row, ...], ...] = (
        ((16, 12, 20, 8, 12, 8), (20, 16, 24, 8, 16, 12)),
        ((24, 20, 32, 12, 20, 16),),
    )

    def make() -> nn.Module:
        return GoogLeNet(table, (16, 16, 32), 10)

    return [seeded("googlenet", "cnn", make, inputs)]
