"""Random zeros: the baseline that every other choice of zeros has to beat.

Liu, Chen, Chen, Shen, Mocanu, Wang, Pechenizkiy (2022). The Unreasonable Effectiveness of Random Pruning: Return of
the Most Naive Baseline for Sparse Training. arXiv:2202.02643.

    w = 0   where u is among the lowest share of its layer,  u ~ U(0, 1) for every weight

Ours differs: the network is trained before, not after; a trained one suffers more. Patterns.
Helps: shows what a choice of zeros is worth.  Does not: keep the score, nor make a network faster.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimline.methods.method import Method, Outcome, param, register
from slimline.methods.sparsify.layers import layers, zero_
from slimline.methods.sparsify.patterns import MOST, PATTERNS, pattern_of, zeros
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.workspace import Workspace


def random_scores(shape: Sequence[int], seed: int, name: str) -> Tensor:
    """The u of a layer; layers of one shape have others, and no layer's depend on which others there are."""
    digest = hashlib.sha256(f"{seed} {name}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
    return torch.rand(*shape, generator=generator, dtype=torch.float64)


@register
@dataclass(frozen=True)
class SparsifyRandom(Method):
    """Zero weights that are drawn at random."""

    sparsity: float = param(0.5, low=0.0, high=MOST, doc="share of each layer's weights; N:M says it itself")
    pattern: str = param("any", choices=PATTERNS, doc="'any', 'N:M' (N of M inputs stay) or blocks 'RxC'")
    skip: Sequence[str] = param((), doc="layers that are left alone, by name")
    seed: int = param(0, low=0, doc="which weights are drawn")

    needs = frozenset({"float weights"})
    cites = ("liu2022unreasonable",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result, pattern = network.copy(), pattern_of(self.pattern)
        found, skipped = layers(result, pattern, self.skip)
        share = pattern.share(self.sparsity)
        scores = {each: random_scores(each.stored(result).shape, self.seed, each.name) for each in found}
        changed = zero_(result, {each: zeros(drawn, share, pattern) for each, drawn in scores.items()})
        return Outcome(result, changed, pattern.without_effect(self.sparsity) | skipped)
