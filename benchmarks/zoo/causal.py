"""Convolutions that never look ahead.

Bai, Kolter, Koltun (2018). An Empirical Evaluation of Generic Convolutional and Recurrent Networks for Sequence
Modeling. arXiv:1803.01271 (TCN)
van den Oord et al. (2016). WaveNet: A Generative Model for Raw Audio. arXiv:1609.03499

    y[t] = sum_k w[k] x[t - d k]        d = 1, 2, 4, ...        WaveNet: tanh(conv(x)) * sigmoid(conv'(x))
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm

from zoo.architecture import Architecture, floats, seeded, tokens

LEVELS, LENGTH = 60, 32


class CausalConvolution(nn.Module):
    """Padded on the left only, as far as it reaches."""

    def __init__(self, inside: int, outside: int, kernel: int, dilation: int, norm: str = "none") -> None:
        super().__init__()
        conv = nn.Conv1d(inside, outside, kernel, dilation=dilation)
        self.conv = weight_norm(conv) if norm == "weight" else conv
        self.before = (kernel - 1) * dilation

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.conv(F.pad(x, (self.before, 0)))
        return result


class TemporalBlock(nn.Module):
    """Two causal convolutions and a shortcut."""

    def __init__(self, inside: int, outside: int, kernel: int, dilation: int, norm: str) -> None:
        super().__init__()
        self.conv1 = CausalConvolution(inside, outside, kernel, dilation, norm)
        self.conv2 = CausalConvolution(outside, outside, kernel, dilation, norm)
        self.shortcut = nn.Conv1d(inside, outside, 1) if inside != outside else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        y = F.dropout(F.relu(self.conv1(x)), 0.1, self.training)
        y = F.dropout(F.relu(self.conv2(y)), 0.1, self.training)
        return F.relu(y + self.shortcut(x))


class TCN(nn.Module):
    """A value for every step, from that step and those before it."""

    def __init__(
        self,
        inside: int = 1,
        width: int = 25,
        levels: int = 8,
        kernel: int = 7,
        classes: int = 10,
        norm: str = "weight",
    ) -> None:
        super().__init__()
        widths = [inside, *[width] * levels]
        self.blocks = nn.Sequential(*(TemporalBlock(widths[i], width, kernel, 2**i, norm) for i in range(levels)))
        self.head = nn.Linear(width, classes)

    def forward(self, series: Tensor) -> Tensor:
        result: Tensor = self.head(self.blocks(series).transpose(1, 2))
        return result


class GatedLayer(nn.Module):
    """A gated causal convolution; what goes on and what goes to the end."""

    def __init__(self, width: int, skip: int, dilation: int) -> None:
        super().__init__()
        self.filter, self.gate = (CausalConvolution(width, width, 2, dilation) for _ in range(2))
        self.on, self.skip = nn.Conv1d(width, width, 1), nn.Conv1d(width, skip, 1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        y = torch.tanh(self.filter(x)) * torch.sigmoid(self.gate(x))
        return x + self.on(y), self.skip(y)


class WaveNet(nn.Module):
    """The logits of the next level of a sound, after every level so far."""

    def __init__(self, levels: int, width: int, skip: int, layers: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(levels, width)
        self.layers = nn.ModuleList(GatedLayer(width, skip, 2**i) for i in range(layers))
        self.end = nn.Sequential(nn.ReLU(), nn.Conv1d(skip, skip, 1), nn.ReLU(), nn.Conv1d(skip, levels, 1))

    def forward(self, tokens: Tensor) -> Tensor:
        x, skips = self.embedding(tokens).transpose(1, 2), []
        for layer in self.layers:
            x, skip = layer(x)
            skips.append(skip)
        result: Tensor = self.end(torch.stack(skips).sum(0))
        return result


def architectures() -> list[Architecture]:
    """TCN with and without its weight norm, and WaveNet."""
    series = floats(series=(3, LENGTH))
    return [
        seeded("tcn", "sequence", lambda: TCN(3, 20, 4, 3, 6, "none"), series),
        seeded("tcn_weight_norm", "sequence", lambda: TCN(3, 20, 4, 3, 6), series),
        seeded("wavenet", "sequence", lambda: WaveNet(LEVELS, 16, 24, 5), tokens(LEVELS, (LENGTH,))),
    ]
