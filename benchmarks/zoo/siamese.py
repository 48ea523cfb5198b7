"""Two images through the same network: how alike are they?

Koch, Zemel, Salakhutdinov (2015). Siamese Neural Networks for One-shot Image Recognition.

    p = sigmoid(sum_j a[j] |h1[j] - h2[j]|)
"""

import torch
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded, together

Layer = tuple[int, int]
"""Filters and their size."""
LAYERS: tuple[Layer, ...] = ((64, 10), (128, 7), (128, 4), (256, 4))


class Siamese(nn.Module):
    """The probability that both images show the same."""

    def __init__(self, layers: tuple[Layer, ...] = LAYERS, side: int = 105, code: int = 4096) -> None:
        super().__init__()
        made: list[nn.Module] = []
        inside = 1
        for index, (width, kernel) in enumerate(layers):
            made += [nn.Conv2d(inside, width, kernel), nn.ReLU()]
            side += 1 - kernel
            if index < len(layers) - 1:
                made.append(nn.MaxPool2d(2))
                side //= 2
            inside = width
        self.tower = nn.Sequential(*made, nn.Flatten(), nn.Linear(inside * side**2, code), nn.Sigmoid())
        self.head = nn.Linear(code, 1)

    def forward(self, one: Tensor, other: Tensor) -> Tensor:
        return torch.sigmoid(self.head((self.tower(one) - self.tower(other)).abs()))


def architectures() -> list[Architecture]:
    """Drawings of 33 x 33."""
    inputs = together(images(1, 33, name="one"), _other)

    def make() -> nn.Module:
        return Siamese(((12, 4), (20, 4), (24, 3)), 33, 32)

    return [seeded("siamese", "siamese", make, inputs)]


def _other(batch: int) -> dict[str, Tensor]:
    """Images unlike the first ones."""
    return {"other": images(1, 33)(batch)["image"].flip(2)}
