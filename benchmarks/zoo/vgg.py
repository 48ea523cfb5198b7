"""VGG: plain convolutions, and linear layers that read a flattened map.

Simonyan, Zisserman (2015). Very Deep Convolutional Networks for Large-Scale Image Recognition. arXiv:1409.1556
"""

from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded

VGG16 = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))


class VGG(nn.Module):
    """Groups of 3 x 3 convolutions, each with a pooling behind it, and three linear layers."""

    def __init__(
        self,
        groups: tuple[tuple[int, ...], ...] = VGG16,
        side: int = 224,
        hidden: int = 4096,
        norm: str = "none",
        classes: int = 1000,
    ) -> None:
        super().__init__()
        made: list[nn.Module] = []
        inside = 3
        for widths in groups:
            for width in widths:
                made.append(nn.Conv2d(inside, width, 3, padding=1))
                if norm == "batch":
                    made.append(nn.BatchNorm2d(width))
                made.append(nn.ReLU(inplace=True))
                inside = width
            made.append(nn.MaxPool2d(2))
            side //= 2
        self.features = nn.Sequential(*made)
        self.classifier = nn.Sequential(
            nn.Flatten(), nn.Linear(inside * side**2, hidden), nn.ReLU(inplace=True), nn.Dropout(),
            nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(), nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.classifier(self.features(image))
        return result


def architectures() -> list[Architecture]:
    """With and without batch norm."""
    inputs, groups = images(3, 32), ((12, 16), (24, 24), (32, 40))

    def plain() -> nn.Module:
        return VGG(groups, 32, 64, classes=10)

    def norm() -> nn.Module:
        return VGG(groups, 32, 64, "batch", 10)

    return [
        seeded("vgg", "cnn", plain, inputs),
        seeded("vgg_batch_norm", "cnn", norm, inputs),
    ]
