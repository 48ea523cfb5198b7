"""Three of the four networks of the MLPerf Tiny benchmark; the fourth is a MobileNetV1.

Banbury et al. (2021). MLPerf Tiny Benchmark. arXiv:2106.07597
Zhang, Suda, Lai, Chandra (2017). Hello Edge: Keyword Spotting on Microcontrollers. arXiv:1711.07128 (DS-CNN)
"""

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, floats, images, seeded


class DSCNN(nn.Module):
    """Depthwise separable convolutions on a picture of 49 frames with 10 coefficients."""

    def __init__(self, width: int = 64, blocks: int = 4, classes: int = 12) -> None:
        super().__init__()
        self.pad = nn.ZeroPad2d((1, 1, 4, 5))  # as "same" pads an even kernel
        made: list[nn.Module] = [nn.Conv2d(1, width, (10, 4), 2), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout(0.2)]
        for _ in range(blocks):
            made += [nn.Conv2d(width, width, 3, padding=1, groups=width), nn.BatchNorm2d(width), nn.ReLU()]
            made += [nn.Conv2d(width, width, 1), nn.BatchNorm2d(width), nn.ReLU()]
        self.features = nn.Sequential(*made, nn.Dropout(0.4))
        self.head = nn.Linear(width, classes)

    def forward(self, spectrum: Tensor) -> Tensor:
        x = self.features(self.pad(spectrum))
        result: Tensor = self.head(F.avg_pool2d(x, tuple(x.shape[2:])).flatten(1))
        return result


class ResNet8(nn.Module):
    """One residual block in each of three stages; all convolutions have a bias."""

    def __init__(self, width: int = 16, classes: int = 10) -> None:
        super().__init__()
        self.conv, self.bn = nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width)
        self.branches, self.shortcuts = nn.ModuleList(), nn.ModuleList()
        inside = width
        for stage in range(3):
            outside, stride = width << stage, 2 if stage else 1
            self.branches.append(
                nn.Sequential(
                    nn.Conv2d(inside, outside, 3, stride, 1), nn.BatchNorm2d(outside), nn.ReLU(),
                    nn.Conv2d(outside, outside, 3, 1, 1), nn.BatchNorm2d(outside),
                )
            )  # fmt: skip
            self.shortcuts.append(nn.Conv2d(inside, outside, 1, stride) if stage else nn.Identity())
            inside = outside
        self.head = nn.Linear(inside, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = F.relu(self.bn(self.conv(image)))
        for branch, shortcut in zip(self.branches, self.shortcuts, strict=True):
            x = F.relu(branch(x) + shortcut(x))
        result: Tensor = self.head(F.avg_pool2d(x, 8).flatten(1))
        return result


class AnomalyAutoencoder(nn.Module):
    """Linear layers around a code of 8 numbers; what they cannot repeat is anomalous."""

    def __init__(self, inputs: int = 640, width: int = 128, code: int = 8) -> None:
        super().__init__()
        made: list[nn.Module] = []
        sizes = [inputs, *[width] * 4, code, *[width] * 4]
        for inside, outside in zip(sizes, sizes[1:], strict=False):
            made += [nn.Linear(inside, outside), nn.BatchNorm1d(outside), nn.ReLU()]
        self.layers = nn.Sequential(*made, nn.Linear(width, inputs))

    def forward(self, frames: Tensor) -> Tensor:
        result: Tensor = self.layers(frames)
        return result


def architectures() -> list[Architecture]:
    """All three as they are."""
    return [
        seeded("ds_cnn", "audio", DSCNN, images(1, 49, 10, "spectrum")),
        seeded("mlperf_resnet8", "cnn", ResNet8, images(3, 32)),
        seeded("mlperf_autoencoder", "autoencoder", AnomalyAutoencoder, floats(frames=(640,))),
    ]
