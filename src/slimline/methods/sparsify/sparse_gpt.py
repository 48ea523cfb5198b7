"""SparseGPT: weights become zero column by column, and those to their right make up for them.

Frantar, Alistarh (2023). SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot. arXiv:2301.00774,
algorithm 1. The update is that of Optimal Brain Surgeon, row by row as in Frantar, Singh, Alistarh (2022), Optimal
Brain Compression, arXiv:2208.11580.

    H        = sum of x x^T over the rows that the layer reads, plus a damping on its diagonal
    e_j      = w_j^2 / [(H_j:,j:)^-1]_jj            what zeroing w_j costs once the columns before it are fixed
    w_j:    <- w_j: - w_j [(H_j:,j:)^-1]_j,j: / [(H_j:,j:)^-1]_jj      where w_j becomes zero

In every block of columns the weights of the lowest e become zero. All the inverses come from one Cholesky factor U of
H^-1 = U^T U: row j of (H_j:,j:)^-1 is U_jj U_j,j:.

Ours differs: the bias is the last column, which never goes and makes up for the mean of what is lost; convolutions read
their unfolded input. Counts are rounded along the columns, so that a layer has the share of zeros that was asked for.
Helps: bytes of a packed file, without training; where inputs are correlated, the weights that stay make up for it.
Does not: make a network faster: no dense runtime is faster for zeros. Nor replace training where most weights go.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimline.methods.method import Method, Outcome, needs_data, param, register
from slimline.methods.readers import Reader
from slimline.methods.sparsify.layers import Layer, dense, layers, zero_
from slimline.methods.sparsify.patterns import MOST, PATTERNS, Pattern, lowest, pattern_of, unit_scores, weights_of
from slimline.methods.visits import visit_
from slimline.network.network import Network, get_tensor
from slimline.task import Task
from slimline.training.workspace import Workspace

BLOCK = 128
"""Columns among which weights are compared, and after which the columns to the right are brought up to date."""


def upper_factor(hessian: Tensor, damping: float) -> Tensor:
    """U above.

    Args:
        damping: added to the diagonal of H, as a share of its mean.
    """
    added = damping * hessian.diagonal().mean().clamp_min(1e-30)
    damped = hessian + added * torch.eye(len(hessian), dtype=hessian.dtype)
    inverse = torch.cholesky_inverse(torch.linalg.cholesky(damped))
    upper: Tensor = torch.linalg.cholesky(inverse, upper=True)
    return upper


def left_over(
    matrix: Tensor, upper: Tensor, columns: int, share: float, pattern: Pattern, block: int = BLOCK
) -> tuple[Tensor, Tensor]:
    """Algorithm 1: what is left of the weights, and a mask of those that are zero.

    Weights that are zero already stay so, which the algorithm as it stands would undo, and count among the zeros.

    Args:
        matrix: W, float64 (outputs, columns and those that never go).
        upper: U, of as many rows and columns.
        columns: those that may go, which come first; the pattern divides them.
        share: of zeros among them.
        block: columns among which weights are compared.
    """
    left, mask = matrix.clone(), matrix == 0
    mask[:, columns:] = False
    size = max(1, block // pattern.columns) * pattern.columns
    for start in range(0, columns, size):
        end = min(start + size, columns)
        errors = torch.zeros_like(left[:, start:end])
        for j in range(start, end):
            stop = j + pattern.columns if pattern.kept else end
            if j == start or (pattern.kept and (j - start) % pattern.columns == 0):
                costs = (left[:, j:stop] / upper.diagonal()[j:stop]).square().masked_fill(mask[:, j:stop], -1.0)
                mask[:, j:stop] |= _cheapest(costs, j, share, pattern)
            errors[:, j - start] = left[:, j].where(mask[:, j], 0.0) / upper[j, j]
            left[:, j:end] -= errors[:, j - start, None] * upper[j, j:end]
        left[:, end:] -= errors @ upper[start:end, end:]
    return left.masked_fill(mask, 0.0), mask


def _cheapest(costs: Tensor, before: int, share: float, pattern: Pattern) -> Tensor:
    """A mask of the lowest costs, so many that all columns up to here have the share.

    Args:
        before: columns that were decided earlier.
    """
    units = unit_scores(costs, pattern)
    if pattern.kept:
        return torch.isfinite(units)
    done = len(units) * before // pattern.columns
    count = round(share * (done + units.numel())) - round(share * done)
    return weights_of(lowest(units.flatten(), count).view_as(units), pattern)


@register
@dataclass(frozen=True)
class SparseGPT(Method):
    """Zero weights and let the others of their row make up for them."""

    sparsity: float = param(0.5, low=0.0, high=MOST, doc="share of each layer's weights; N:M says it itself")
    pattern: str = param("any", choices=PATTERNS, doc="'any', 'N:M' (N of M inputs stay) or blocks 'RxC'")
    samples: int = param(128, low=1, high=100000, doc="training samples on which the inputs are looked at")
    damping: float = param(0.01, low=1e-6, high=1.0, doc="added to the diagonal of H, as a share of its mean")
    skip: Sequence[str] = param((), doc="layers that are left alone, by name")

    needs = frozenset({"data", "float weights"})
    cites = ("frantar2023sparsegpt", "frantar2022optimal")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        samples = needs_data("SparseGPT", task, network).take(slice(0, self.samples))
        result, pattern = network.copy(), pattern_of(self.pattern)
        found, skipped = layers(result, pattern, self.skip)
        found, not_dense = dense(result, found)
        by_weight, changed = {layer.weight: layer for layer in found}, list[str]()

        def visit(reader: Reader, rows: Iterator[Tensor]) -> None:
            moments = sum(((part.T @ part).double() for part in rows), torch.zeros((), dtype=torch.float64))
            mask = self._zeroed_(result, reader, by_weight[reader.weight], moments)
            changed.extend(zero_(result, {by_weight[reader.weight]: mask}))

        told = visit_(result, by_weight, samples, visit)
        return Outcome(result, changed, pattern.without_effect(self.sparsity) | skipped | not_dense | told)

    def _zeroed_(self, network: Network, reader: Reader, layer: Layer, moments: Tensor) -> Tensor:
        """Write what is left of a layer; the mask of its zeros."""
        inputs, pattern = get_tensor(network.module, reader.weight)[:1], pattern_of(self.pattern)
        order = layer.matrix(torch.arange(inputs.numel()).view(inputs.shape))[0]
        columns = len(order)
        if reader.bias is not None:
            order = torch.cat([order, torch.tensor([columns])])
        matrix = reader.matrix(network)
        upper = upper_factor(moments[order][:, order], self.damping)
        matrix[:, order], mask = left_over(matrix[:, order], upper, columns, pattern.share(self.sparsity), pattern)
        reader.set_matrix_(network, matrix)
        return mask[:, :columns]
