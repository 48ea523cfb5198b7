"""U-Net, with learned and with bilinear upsampling.

Ronneberger, Fischer, Brox (2015). U-Net: Convolutional Networks for Biomedical Image Segmentation. arXiv:1505.04597
Buda, Saha, Mazurowski (2019). Association of genomic subtypes of lower-grade gliomas with shape features automatically
extracted by a deep learning algorithm. doi:10.1016/j.compbiomed.2019.05.002 (batch norm, padded convolutions)
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded

GROUPS = 4


def double_convolution(inside: int, outside: int, norm: str) -> nn.Sequential:
    """Two 3 x 3 convolutions with norm ``batch`` or ``group``."""
    made: list[nn.Module] = []
    for channels in (inside, outside):
        made.append(nn.Conv2d(channels, outside, 3, padding=1, bias=False))
        made.append(nn.BatchNorm2d(outside) if norm == "batch" else nn.GroupNorm(GROUPS, outside))
        made.append(nn.ReLU())
    return nn.Sequential(*made)


class Up(nn.Module):
    """Twice the size: a transposed convolution, or bilinear and a 1 x 1 convolution."""

    def __init__(self, inside: int, outside: int, how: str) -> None:
        super().__init__()
        self.how = how
        self.conv = nn.ConvTranspose2d(inside, outside, 2, 2) if how == "learned" else nn.Conv2d(inside, outside, 1)

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "bilinear":
            x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
        result: Tensor = self.conv(x)
        return result


class UNet(nn.Module):
    """A score per class and pixel."""

    def __init__(
        self,
        channels: int = 3,
        classes: int = 1,
        width: int = 32,
        levels: int = 4,
        norm: str = "batch",
        up: str = "learned",
    ) -> None:
        super().__init__()
        widths = [width << level for level in range(levels + 1)]
        self.down = nn.ModuleList(
            double_convolution(a, b, norm) for a, b in zip([channels, *widths], widths, strict=False)
        )
        self.ups = nn.ModuleList(Up(2 * w, w, up) for w in reversed(widths[:-1]))
        self.joined = nn.ModuleList(double_convolution(2 * w, w, norm) for w in reversed(widths[:-1]))
        self.head = nn.Conv2d(width, classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x, kept = image, list[Tensor]()
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            kept.append(x)
        for up, joined, beside in zip(self.ups, self.joined, reversed(kept[:-1]), strict=True):
            x = joined(torch.cat([up(x), beside], 1))
        result: Tensor = self.head(x)
        return result


def architectures() -> list[Architecture]:
    """Both kinds of upsampling, with both norms."""
    inputs = images(3, 32)

    def learned() -> nn.Module:
        return UNet(classes=4, width=8, levels=3)

    def bilinear() -> nn.Module:
        return UNet(classes=4, width=8, levels=3, norm="group", up="bilinear")

    return [
        seeded("unet_transposed", "segmentation", learned, inputs),
        seeded("unet_bilinear", "segmentation", bilinear, inputs),
    ]
