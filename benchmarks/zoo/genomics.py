"""Networks that read DNA, one channel per base.

Zhou, Troyanskaya (2015). Predicting effects of noncoding variants with deep learning-based sequence model.
doi:10.1038/nmeth.3547 (DeepSEA)
Quang, Xie (2016). DanQ: a hybrid convolutional and recurrent deep neural network for quantifying the function of DNA
sequences. doi:10.1093/nar/gkw226
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, Inputs, seeded

BASES = 4


class DeepSEA(nn.Module):
    """Three convolutions with pooling between them, two linear layers."""

    def __init__(
        self,
        widths: tuple[int, int, int] = (320, 480, 960),
        length: int = 1000,
        hidden: int = 925,
        targets: int = 919,
        kernel: int = 8,
    ) -> None:
        super().__init__()
        made: list[nn.Module] = []
        inside = BASES
        for index, width in enumerate(widths):
            made += [nn.Conv1d(inside, width, kernel), nn.ReLU()]
            length += 1 - kernel
            if index < len(widths) - 1:
                made += [nn.MaxPool1d(4), nn.Dropout(0.2)]
                length //= 4
            inside = width
        self.features = nn.Sequential(*made, nn.Dropout(0.5))
        self.hidden, self.head = nn.Linear(inside * length, hidden), nn.Linear(hidden, targets)

    def forward(self, dna: Tensor) -> Tensor:
        x = F.relu(self.hidden(self.features(dna).flatten(1)))
        return torch.sigmoid(self.head(x))


class DanQ(nn.Module):
    """A convolution finds motifs, an LSTM in both directions their grammar."""

    def __init__(  # noqa: PLR0913 - the published figures
        self,
        motifs: int = 320,
        kernel: int = 26,
        pool: int = 13,
        states: int = 320,
        length: int = 1000,
        hidden: int = 925,
        targets: int = 919,
    ) -> None:
        super().__init__()
        self.conv, self.pool = nn.Conv1d(BASES, motifs, kernel), nn.MaxPool1d(pool)
        self.lstm = nn.LSTM(motifs, states, batch_first=True, bidirectional=True)
        steps = (length + 1 - kernel) // pool
        self.hidden, self.head = nn.Linear(steps * 2 * states, hidden), nn.Linear(hidden, targets)

    def forward(self, dna: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv(dna))).transpose(1, 2)
        x, _ = self.lstm(x)
        return torch.sigmoid(self.head(F.relu(self.hidden(x.flatten(1)))))


def sequences(length: int) -> Inputs:
    """Random bases as one-hot channels."""

    def make(batch: int) -> dict[str, Tensor]:
        generator = torch.Generator().manual_seed(batch)
        bases = torch.randint(BASES, (batch, length), generator=generator)
        return {"dna": F.one_hot(bases, BASES).transpose(1, 2).float().contiguous()}

    return make


def architectures() -> list[Architecture]:
    """Both, narrow, on 200 bases."""
    inputs = sequences(200)
    return [
        seeded("deepsea", "dna", lambda: DeepSEA((16, 24, 32), 200, 48, 10), inputs),
        seeded("danq", "dna", lambda: DanQ(24, 12, 7, 16, 200, 48, 10), inputs),
    ]
