"""TC-ResNet: spotting keywords with convolutions along time, the frequencies being channels.

Choi, Seo, Shin, Byun, Kersner, Kim, Kim, Ha (2019). Temporal Convolution for Real-time Keyword Spotting on Mobile
Devices. arXiv:1904.03814
"""

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, floats, seeded

KERNEL = 9


class TemporalBlock(nn.Module):
    """Two convolutions of nine frames and a shortcut."""

    def __init__(self, inside: int, outside: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv1d(inside, outside, KERNEL, stride, KERNEL // 2, bias=False)
        self.bn1 = nn.BatchNorm1d(outside)
        self.conv2 = nn.Conv1d(outside, outside, KERNEL, 1, KERNEL // 2, bias=False)
        self.bn2 = nn.BatchNorm1d(outside)
        self.shortcut: nn.Module = nn.Identity()
        if stride > 1:
            self.shortcut = nn.Sequential(
                nn.Conv1d(inside, outside, 1, stride, bias=False), nn.BatchNorm1d(outside), nn.ReLU()
            )

    def forward(self, x: Tensor) -> Tensor:
        y = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(y + self.shortcut(x))


class TCResNet(nn.Module):
    """The first width is that of the stem; each further one is a block of stride 2 and ``repeats`` - 1 others."""

    def __init__(
        self,
        widths: tuple[int, ...] = (16, 24, 32, 48),
        repeats: int = 1,
        coefficients: int = 40,
        classes: int = 12,
    ) -> None:
        super().__init__()
        self.stem = nn.Conv1d(coefficients, widths[0], 3, padding=1, bias=False)
        made: list[nn.Module] = []
        for inside, outside in zip(widths, widths[1:], strict=False):
            made += [TemporalBlock(inside, outside, 2)]
            made += [TemporalBlock(outside, outside, 1) for _ in range(repeats - 1)]
        self.blocks = nn.Sequential(*made)
        self.head = nn.Conv1d(widths[-1], classes, 1)

    def forward(self, spectrum: Tensor) -> Tensor:
        x = F.adaptive_avg_pool1d(self.blocks(self.stem(spectrum)), 1)
        result: Tensor = self.head(x).squeeze(2)
        return result


def architectures() -> list[Architecture]:
    """TC-ResNet8 as it is."""
    return [seeded("tc_resnet8", "audio", TCResNet, floats(spectrum=(40, 98)))]
