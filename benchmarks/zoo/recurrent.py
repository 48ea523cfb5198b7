"""Recurrent networks over words: the last state classifies, or every state tags.

Hochreiter, Schmidhuber (1997). Long Short-Term Memory. doi:10.1162/neco.1997.9.8.1735
Cho et al. (2014). Learning Phrase Representations using RNN Encoder-Decoder for Statistical Machine Translation.
arXiv:1406.1078
"""

import torch
from torch import Tensor, nn

from zoo.architecture import Architecture, floats, seeded, tokens

WORDS, LENGTH = 80, 16


class LSTMClassifier(nn.Module):
    """One direction, one layer; the last hidden state."""

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True)
        self.head = nn.Linear(hidden, classes)

    def forward(self, series: Tensor) -> Tensor:
        _, (hidden, _) = self.lstm(series)
        result: Tensor = self.head(hidden[-1])
        return result


class BidirectionalLSTM(nn.Module):
    """Two layers in both directions; the mean and the maximum over time."""

    def __init__(self, words: int, width: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.lstm = nn.LSTM(width, hidden, num_layers=2, batch_first=True, bidirectional=True, dropout=0.1)
        self.head = nn.Linear(4 * hidden, classes)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.lstm(self.embedding(tokens))
        result: Tensor = self.head(torch.cat([states.mean(1), states.amax(1)], 1))
        return result


class GRUTagger(nn.Module):
    """A class for every word."""

    def __init__(self, words: int, width: int, hidden: int, tags: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, width)
        self.gru = nn.GRU(width, hidden, batch_first=True, bidirectional=True)
        self.head = nn.Linear(2 * hidden, tags)

    def forward(self, tokens: Tensor) -> Tensor:
        states, _ = self.gru(self.embedding(tokens))
        result: Tensor = self.head(states)
        return result


def architectures() -> list[Architecture]:
    """One of each."""
    words = tokens(WORDS, (LENGTH,))
    return [
        seeded("lstm_classifier", "recurrent", lambda: LSTMClassifier(12, 24, 5), floats(series=(LENGTH, 12))),
        seeded("lstm_bidirectional", "recurrent", lambda: BidirectionalLSTM(WORDS, 20, 24, 5), words),
        seeded("gru_tagger", "recurrent", lambda: GRUTagger(WORDS, 20, 24, 7), words),
    ]
