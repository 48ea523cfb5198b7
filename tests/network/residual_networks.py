"""Stacks of residual blocks of which some can be left out by hand."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Stack(nn.Module):
    """Residual blocks of one shape; those not in ``run`` are left out by hand."""

    def __init__(self, blocks: int, run: tuple[int, ...] = ()) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.blocks = nn.ModuleList(
            nn.Sequential(nn.Conv2d(8, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 8, 1))
            for _ in range(blocks)
        )
        self.run = run or tuple(range(blocks))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for i in self.run:
            y = self.blocks[i](x).to(torch.float32)  # of which torch.export leaves an assertion
            x = F.relu(y + x) if i % 2 else F.relu(x + y)
        result: Tensor = self.head(x.mean((2, 3)))
        return result


class Encoder(nn.Module):
    """Transformer layers; those not in ``run`` are left out by hand, of post-norm ones all but the norms."""

    def __init__(self, pre_norm: bool, run: tuple[int, ...] = (0, 1, 2, 3)) -> None:
        super().__init__()
        self.embed, self.head = nn.Embedding(30, 16), nn.Linear(16, 3)
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(16, 2, 24, batch_first=True, norm_first=pre_norm) for _ in range(4)
        )
        self.run, self.pre_norm = run, pre_norm

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        for i, layer in enumerate(self.layers):
            if i in self.run:
                x = layer(x)
            elif not self.pre_norm:
                x = layer.norm2(layer.norm1(x))  # type: ignore[operator]
        result: Tensor = self.head(x.mean(1))
        return result
