"""A language model whose last layer is its table of words, with attention written in both ways.

Vaswani et al. (2017). Attention Is All You Need. arXiv:1706.03762
Radford et al. (2019). Language Models are Unsupervised Multitask Learners (GPT-2).
Press, Wolf (2017). Using the Output Embedding to Improve Language Models. arXiv:1608.05859

    attention(Q, K, V) = softmax(Q K^T / sqrt(d)) V
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from zoo.architecture import Architecture, seeded, tokens

WORDS, LENGTH = 90, 18


def explicit_attention(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    """Causal attention, step by step."""
    length = q.shape[-2]
    later = torch.ones(length, length, dtype=torch.bool, device=q.device).triu(1)
    scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
    return torch.matmul(scores.masked_fill(later, float("-inf")).softmax(-1), v)


class Attention(nn.Module):
    """Queries, keys and values from one matrix; ``how`` is ``fused`` or ``explicit``."""

    def __init__(self, width: int, heads: int, how: str) -> None:
        super().__init__()
        self.read, self.write = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads, self.how = heads, how

    def forward(self, x: Tensor) -> Tensor:
        batch, length, width = x.shape
        q, k, v = (
            part.view(batch, length, self.heads, width // self.heads).transpose(1, 2)
            for part in self.read(x).split(width, dim=2)
        )
        if self.how == "fused":
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        else:
            y = explicit_attention(q, k, v)
        result: Tensor = self.write(y.transpose(1, 2).contiguous().view(batch, length, width))
        return result


class Block(nn.Module):
    """Attention and a perceptron, each behind its norm."""

    def __init__(self, width: int, heads: int, how: str) -> None:
        super().__init__()
        self.norm1, self.attention = nn.LayerNorm(width), Attention(width, heads, how)
        self.norm2 = nn.LayerNorm(width)
        self.perceptron = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(approximate="tanh"), nn.Linear(4 * width, width)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(self.norm1(x))
        result: Tensor = x + self.perceptron(self.norm2(x))
        return result


class LanguageModel(nn.Module):
    """The logits of the next word after every word; GPT-2 unless told otherwise."""

    def __init__(  # noqa: PLR0913 - the published figures
        self,
        words: int = 50257,
        length: int = 1024,
        width: int = 768,
        heads: int = 12,
        depth: int = 12,
        how: str = "fused",
    ) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(length, width)
        self.blocks = nn.Sequential(*(Block(width, heads, how) for _ in range(depth)))
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, words, bias=False)
        self.head.weight = self.words.weight

    def forward(self, tokens: Tensor) -> Tensor:
        places = torch.arange(tokens.shape[1], device=tokens.device)
        x = self.words(tokens) + self.places(places)
        result: Tensor = self.head(self.norm(self.blocks(x)))
        return result


def architectures() -> list[Architecture]:
    """The same model with attention as one operator and as matrix products."""
    inputs = tokens(WORDS, (LENGTH,))

    def fused() -> nn.Module:
        return LanguageModel(WORDS, 32, 48, 4, 2, "fused")

    def explicit() -> nn.Module:
        return LanguageModel(WORDS, 32, 48, 4, 2, "explicit")

    return [
        seeded("language_model_fused", "decoder", fused, inputs),
        seeded("language_model_explicit", "decoder", explicit, inputs),
    ]
