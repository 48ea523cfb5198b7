"""An autoencoder of volumes: strided 3-d convolutions to a code, and transposed ones back."""

from torch import Tensor, nn

from zoo.architecture import Architecture, floats, seeded


class VolumeAutoencoder(nn.Module):
    """The volume as the network remembers it."""

    def __init__(self, channels: int, widths: tuple[int, ...], side: int, code: int) -> None:
        super().__init__()
        sizes = (channels, *widths)
        down: list[nn.Module] = []
        for inside, outside in zip(sizes, sizes[1:], strict=False):
            down += [nn.Conv3d(inside, outside, 3, 2, 1), nn.BatchNorm3d(outside), nn.LeakyReLU(0.1)]
        up: list[nn.Module] = []
        for inside, outside in zip(sizes[:1:-1], sizes[-2:0:-1], strict=True):
            up += [nn.ConvTranspose3d(inside, outside, 4, 2, 1), nn.BatchNorm3d(outside), nn.LeakyReLU(0.1)]
        self.small = (widths[-1], *[side >> len(widths)] * 3)
        flat = widths[-1] * (side >> len(widths)) ** 3
        self.encoder = nn.Sequential(*down, nn.Flatten(), nn.Linear(flat, code))
        self.spread = nn.Linear(code, flat)
        self.decoder = nn.Sequential(*up, nn.ConvTranspose3d(widths[0], channels, 4, 2, 1), nn.Sigmoid())

    def forward(self, volume: Tensor) -> Tensor:
        x = self.spread(self.encoder(volume)).view(-1, *self.small)
        result: Tensor = self.decoder(x)
        return result


def architectures() -> list[Architecture]:
    """Volumes of 16 x 16 x 16."""
    inputs = floats(volume=(1, 16, 16, 16))
    return [seeded("autoencoder_3d", "autoencoder", lambda: VolumeAutoencoder(1, (8, 16, 24), 16, 20), inputs)]
