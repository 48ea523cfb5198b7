"""ResNet for images of 32 x 32, with both of its shortcuts.

He, Zhang, Ren, Sun (2016). Deep Residual Learning for Image Recognition. arXiv:1512.03385, section 4.2

    y = relu(F(x) + shortcut(x))        A: every second pixel, and channels of zeros around it     B: 1 x 1 convolution
"""

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int, option: str) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inside, outside, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outside)
        self.conv2 = nn.Conv2d(outside, outside, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outside)
        self.stride, self.more = stride, outside - inside
        self.shortcut: nn.Module | None = None
        if option == "B" and (stride > 1 or self.more):
            self.shortcut = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + (self.padded(x) if self.shortcut is None else self.shortcut(x)))

    def padded(self, x: Tensor) -> Tensor:
        """Option A, which has no weights."""
        if self.stride > 1:
            x = x[:, :, :: self.stride, :: self.stride]
        before = self.more // 2
        return F.pad(x, (0, 0, 0, 0, before, self.more - before)) if self.more else x


class CifarResNet(nn.Module):
    """``blocks`` in each of three stages: 6 n + 2 layers."""

    def __init__(self, blocks: int = 3, width: int = 16, option: str = "A", classes: int = 10) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width)
        made: list[nn.Module] = []
        inside = width
        for stage in range(3):
            outside = width << stage
            for index in range(blocks):
                made.append(Block(inside, outside, 2 if stage and not index else 1, option))
                inside = outside
        self.blocks = nn.Sequential(*made)
        self.head = nn.Linear(inside, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = self.blocks(F.relu(self.bn(self.conv(image))))
        result: Tensor = self.head(x.mean((2, 3)))
        return result


def architectures() -> list[Architecture]:
    """ResNet-20 with both shortcuts."""
    inputs = images(3, 32)
    return [
        seeded("cifar_resnet20_a", "cnn", lambda: CifarResNet(option="A"), inputs),
        seeded("cifar_resnet20_b", "cnn", lambda: CifarResNet(option="B"), inputs),
    ]
