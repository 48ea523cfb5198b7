"""SqueezeNet: few channels in, many out, and no linear layer.

Iandola et al. (2016). SqueezeNet: AlexNet-level accuracy with 50x fewer parameters and <0.5MB model size.
arXiv:1602.07360; version 1.1 of the authors' repository.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded

Row = tuple[int, int]
"""Squeezed channels, channels of each of the two expansions."""
TABLE: tuple[tuple[Row, ...], ...] = (
    ((16, 64), (16, 64)), ((32, 128), (32, 128)), ((48, 192), (48, 192), (64, 256), (64, 256)),
)  # fmt: skip


class Fire(nn.Module):
    """Squeeze, then 1 x 1 and 3 x 3 side by side."""

    def __init__(self, inside: int, row: Row) -> None:
        super().__init__()
        squeezed, outside = row
        self.squeeze = nn.Conv2d(inside, squeezed, 1)
        self.one, self.three = nn.Conv2d(squeezed, outside, 1), nn.Conv2d(squeezed, outside, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.squeeze(x))
        return torch.cat([F.relu(self.one(x)), F.relu(self.three(x))], 1)


class SqueezeNet(nn.Module):
    """A stem, groups of fire modules with pooling between them, a map per class and its mean."""

    def __init__(self, table: tuple[tuple[Row, ...], ...] = TABLE, stem: int = 64, classes: int = 1000) -> None:
        super().__init__()
        made: list[nn.Module] = [nn.Conv2d(3, stem, 3, 2), nn.ReLU()]
        inside = stem
        for rows in table:
            made.append(nn.MaxPool2d(3, 2, ceil_mode=True))
            for row in rows:
                made.append(Fire(inside, row))
                inside = 2 * row[1]
        self.features = nn.Sequential(*made)
        self.classifier = nn.Sequential(
            nn.Dropout(), nn.Conv2d(inside, classes, 1), nn.ReLU(), nn.AdaptiveAvgPool2d((1, 1))
        )

    def forward(self, image: Tensor) -> Tensor:
        return torch.flatten(self.classifier(self.features(image)), 1)


def architectures() -> list[Architecture]:
    """Five fire modules."""
    inputs = images(3, 64)

    def make() -> nn.Module:
        return SqueezeNet((((8, 16), (8, 20)), ((12, 24),), ((16, 32), (16, 40))), 16, 10)

    return [seeded("squeezenet", "cnn", make, inputs)]
