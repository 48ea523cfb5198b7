"""Wanda: a weight counts as much as it is large and as what it multiplies is large.

Sun, Liu, Bair, Kolter (2023). A Simple and Effective Pruning Approach for Large Language Models. arXiv:2306.11695,
equation 1.

    S_ij = |W_ij| ||X_j||_2        in every row i, the lowest share becomes zero

Ours differs: a convolution is scored on its unfolded input, where X_j is a channel under one place of the kernel;
blocks of R outputs are compared within their R rows.
Helps: bytes of a packed file, in one pass over a few samples, without training; where inputs differ much in size, as in
large transformers.
Does not: make a network faster: no dense runtime is faster for zeros. Nor change the weights that stay, nor see that
inputs are correlated, as `SparseGPT` does.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimline.methods.method import Method, Outcome, needs_data, param, register
from slimline.methods.readers import Reader
from slimline.methods.sparsify.layers import dense, layers, zero_
from slimline.methods.sparsify.patterns import MOST, PATTERNS, pattern_of, zeros_of_rows
from slimline.methods.visits import visit_
from slimline.network.network import Network, get_tensor
from slimline.task import Task
from slimline.training.workspace import Workspace


def wanda_scores(weight: Tensor, norms: Tensor) -> Tensor:
    """S above; weight (outputs, ...), norms of the inputs (...)."""
    return weight.abs() * norms


@register
@dataclass(frozen=True)
class Wanda(Method):
    """Zero the weights that are small for the inputs which they multiply."""

    sparsity: float = param(0.5, low=0.0, high=MOST, doc="share of every output's weights; N:M says it itself")
    pattern: str = param("any", choices=PATTERNS, doc="'any', 'N:M' (N of M inputs stay) or blocks 'RxC'")
    samples: int = param(128, low=1, high=100000, doc="training samples on which the inputs are looked at")
    skip: Sequence[str] = param((), doc="layers that are left alone, by name")

    needs = frozenset({"data", "float weights"})
    cites = ("sun2023simple",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        samples = needs_data("Wanda", task, network).take(slice(0, self.samples))
        result, pattern = network.copy(), pattern_of(self.pattern)
        found, skipped = layers(result, pattern, self.skip)
        found, not_dense = dense(result, found)
        by_weight, changed = {layer.weight: layer for layer in found}, list[str]()

        def visit(reader: Reader, rows: Iterator[Tensor]) -> None:
            layer, weight = by_weight[reader.weight], get_tensor(result.module, reader.weight).detach()
            squares = torch.stack([part[:, :-1].double().square().sum(0) for part in rows]).sum(0)
            scores = layer.matrix(wanda_scores(weight, squares.sqrt().view(weight.shape[1:])))
            changed.extend(zero_(result, {layer: zeros_of_rows(scores, pattern.share(self.sparsity), pattern)}))

        told = visit_(result, by_weight, samples, visit)
        return Outcome(result, changed, pattern.without_effect(self.sparsity) | skipped | not_dense | told)
