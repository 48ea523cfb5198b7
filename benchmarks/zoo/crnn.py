"""CRNN: convolutions read a line of text, two recurrent layers spell it.

Shi, Bai, Yao (2017). An End-to-End Trainable Neural Network for Image-based Sequence Recognition. arXiv:1507.05717
"""

import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, images, seeded

POOLS: tuple[tuple[int, int] | None, ...] = ((2, 2), (2, 2), None, (2, 1), None, (2, 1), None)
"""Behind each convolution; the height shrinks to 1 while the width keeps a frame per four pixels."""
NORMED = (2, 4, 6)


class CRNN(nn.Module):
    """Logits of every frame, for lines that are 32 pixels high."""

    def __init__(
        self,
        widths: tuple[int, ...] = (64, 128, 256, 256, 512, 512, 512),
        hidden: int = 256,
        classes: int = 37,
    ) -> None:
        super().__init__()
        made: list[nn.Module] = []
        inside = 1
        for index, (width, pool) in enumerate(zip(widths, POOLS, strict=True)):
            last = index == len(widths) - 1
            made.append(nn.Conv2d(inside, width, 2 if last else 3, padding=0 if last else 1))
            if index in NORMED:
                made.append(nn.BatchNorm2d(width))
            made.append(nn.ReLU())
            if pool is not None:
                made.append(nn.MaxPool2d(2, pool, (0, 2 - pool[1])))
            inside = width
        self.features = nn.Sequential(*made)
        self.first = nn.LSTM(inside, hidden, bidirectional=True)
        self.between = nn.Linear(2 * hidden, hidden)
        self.second = nn.LSTM(hidden, hidden, bidirectional=True)
        self.head = nn.Linear(2 * hidden, classes)

    def forward(self, line: Tensor) -> Tensor:
        x = self.features(line).squeeze(2).permute(2, 0, 1)  # frames first, as recurrent layers want them
        x, _ = self.first(x)
        x, _ = self.second(self.between(x))
        return F.log_softmax(self.head(x), 2).transpose(0, 1)


def architectures() -> list[Architecture]:
    """An eighth of the paper's widths."""
    inputs = images(1, 32, 48, "line")
    return [seeded("crnn", "recurrent", lambda: CRNN((8, 16, 24, 32, 40, 48, 64), 24, 20), inputs)]
