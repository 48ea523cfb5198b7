"""Networks of images without convolutions behind the patches and without attention.

Tolstikhin et al. (2021). MLP-Mixer: An all-MLP Architecture for Vision. arXiv:2105.01601
Liu, Dai, So, Le (2021). Pay Attention to MLPs. arXiv:2105.08050

    gMLP: y = x + V (u * (S norm(v) + b))        u, v: the halves of gelu(U norm(x)); S mixes the patches
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded


class MixerBlock(nn.Module):
    """A perceptron over the patches of each channel, then one over the channels of each patch."""

    def __init__(self, patches: int, width: int, token_hidden: int, channel_hidden: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.tokens = nn.Sequential(nn.Linear(patches, token_hidden), nn.GELU(), nn.Linear(token_hidden, patches))
        self.channels = nn.Sequential(nn.Linear(width, channel_hidden), nn.GELU(), nn.Linear(channel_hidden, width))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.tokens(self.norm1(x).transpose(1, 2)).transpose(1, 2)
        result: Tensor = x + self.channels(self.norm2(x))
        return result


class GatedBlock(nn.Module):
    """One half of the channels gates the other after its patches were mixed."""

    def __init__(self, patches: int, width: int, hidden: int) -> None:
        super().__init__()
        self.norm, self.spread = nn.LayerNorm(width), nn.Linear(width, hidden)
        self.gate_norm, self.gate = nn.LayerNorm(hidden // 2), nn.Linear(patches, patches)
        self.back = nn.Linear(hidden // 2, width)

    def forward(self, x: Tensor) -> Tensor:
        u, v = F.gelu(self.spread(self.norm(x))).chunk(2, -1)
        v = self.gate(self.gate_norm(v).transpose(1, 2)).transpose(1, 2)
        result: Tensor = x + self.back(u * v)
        return result


class PatchNetwork(nn.Module):
    """Patches, blocks, norm, the mean over patches, a linear layer."""

    def __init__(self, patch: int, width: int, blocks: list[nn.Module], classes: int) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, width, patch, patch)
        self.blocks = nn.Sequential(*blocks)
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, classes)

    def forward(self, image: Tensor) -> Tensor:
        x = torch.flatten(self.patches(image), 2).transpose(1, 2)
        result: Tensor = self.head(self.norm(self.blocks(x)).mean(1))
        return result


def mixer(depth: int, patches: int, width: int, hidden: tuple[int, int], patch: int, classes: int) -> PatchNetwork:
    """MLP-Mixer; ``hidden`` of the two perceptrons."""
    return PatchNetwork(patch, width, [MixerBlock(patches, width, *hidden) for _ in range(depth)], classes)


def gated(depth: int, patches: int, width: int, hidden: int, patch: int, classes: int) -> PatchNetwork:
    """A network of gated blocks (gMLP)."""
    return PatchNetwork(patch, width, [GatedBlock(patches, width, hidden) for _ in range(depth)], classes)


def architectures() -> list[Architecture]:
    """Sixteen patches."""
    inputs = images(3, 32)
    return [
        seeded("mlp_mixer", "mlp", lambda: mixer(3, 16, 40, (24, 80), 8, 10), inputs),
        seeded("gated_mlp", "mlp", lambda: gated(3, 16, 40, 96, 8, 10), inputs),
    ]
