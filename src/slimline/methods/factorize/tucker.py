"""Tucker-2 factorisation: a k x k convolution becomes 1 x 1, k x k between fewer channels, 1 x 1.

Kim, Park, Yoo, Choi, Yang, Shin (2016). Compression of Deep Convolutional Neural Networks for Fast and Low Power Mobile
Applications. arXiv:1511.06530, section 3.1. The iteration: De Lathauwer, De Moor, Vandewalle 2000,
doi:10.1137/S0895479898346995 (HOOI).

    W[o, i, ..] ~ sum_{p, q} C[p, q, ..] U[o, p] V[i, q]          first: V^T, core: C, last: U
    U, V: the leading singular vectors of W unfolded by outputs and by inputs; then each in turn of W times the other
    C = W x U^T x V^T

Ours differs: where all channels of one side are kept, its 1 x 1 convolution is left out (Tucker-1).
Helps: deep convolutions of many channels; keeps the fast dense k x k kernel.  Does not: help layers of few channels;
small errors of many layers add up, and training has to follow.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from slimline.methods.factorize.factors import Decomposed, Layer, Part, Scheme, extended, factorize
from slimline.methods.factorize.ranks import (
    Ranks,
    budget_param,
    choose_param,
    energy_param,
    layers_param,
    multiple_param,
    rank_param,
)
from slimline.methods.method import Method, Outcome, param, register
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.workspace import Workspace


def unfoldings(weight: Tensor) -> tuple[Tensor, Tensor]:
    """W by inputs, (inputs, the rest), and by outputs, (outputs, the rest)."""
    return weight.transpose(0, 1).flatten(1), weight.flatten(1)


def tucker2(weight: Tensor, ranks: Sequence[int], iterations: int) -> tuple[Tensor, Tensor, Tensor]:
    """V (inputs, rank), C (rank of outputs, rank of inputs, *kernel) and U (outputs, rank), in float64.

    Args:
        ranks: of the inputs and of the outputs.
    """
    w = weight.detach().double()
    of_inputs, of_outputs = ranks
    v, u = (_leading(matrix, rank) for matrix, rank in zip(unfoldings(w), ranks, strict=True))
    for _ in range(iterations):
        u = _leading(torch.einsum("oi...,iq->oq...", w, v).flatten(1), of_outputs)
        v = _leading(torch.einsum("oi...,op->ip...", w, u).flatten(1), of_inputs)
    return v, torch.einsum("oi...,op,iq->pq...", w, u, v), u


def _leading(matrix: Tensor, rank: int) -> Tensor:
    """The leading left singular vectors, (rows, rank), from the smaller product of the matrix with itself."""
    if len(matrix) <= matrix.shape[1]:
        vectors: Tensor = torch.linalg.eigh(matrix @ matrix.T)[1].flip(1)[:, :rank]
    else:
        vectors = torch.linalg.svd(matrix, full_matrices=rank > matrix.shape[1])[0][:, :rank]
    # the decomposition leaves the signs open
    return vectors * torch.where(vectors.gather(0, vectors.abs().argmax(0, keepdim=True)) < 0, -1.0, 1.0)


@register
@dataclass(frozen=True)
class FactorizeTucker(Method):
    """Replace convolutions by a smaller one between two pointwise ones."""

    rank: int = rank_param()
    choose: str = choose_param()
    energy: float = energy_param()
    budget: float = budget_param()
    multiple: int = multiple_param()
    iterations: int = param(5, low=0, high=1000, doc="rounds of refinement after the first guess")
    layers: tuple[str, ...] = layers_param()

    needs = frozenset({"float weights"})
    cites = ("kim2016compression",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        scheme = Scheme(extended, sizes, lambda layer: unfoldings(layer.weight), parts, self.decompose)
        return factorize(network, self, scheme, self.layers)

    def decompose(self, layer: Layer, ranks: Ranks) -> Decomposed:
        """The weights of the factors that are left."""
        outputs, inputs, *kernel = layer.weight.shape
        ones = [1] * len(kernel)
        v, core, u = tucker2(layer.weight, ranks, self.iterations)
        if v.shape[1] == inputs:
            core = torch.einsum("pq...,iq->pi...", core, v)
        if u.shape[1] == outputs:
            core = torch.einsum("pq...,op->oq...", core, u)
        weights = {"first": v.T.reshape(-1, inputs, *ones), "core": core, "last": u.reshape(outputs, -1, *ones)}
        return [weights[part.name] for part in parts(layer, ranks)], None


def sizes(layer: Layer) -> tuple[int, ...]:
    """The ranks of the two unfoldings, at most."""
    return tuple(min(matrix.shape) for matrix in unfoldings(layer.weight))


def parts(layer: Layer, ranks: Ranks) -> list[Part]:
    """Stride, padding and dilation belong to the core."""
    outputs, inputs, *kernel = layer.weight.shape
    ones, (of_inputs, of_outputs) = [1] * len(kernel), ranks
    first = [Part("first", (of_inputs, inputs, *ones))] if of_inputs < inputs else []
    last = [Part("last", (outputs, of_outputs, *ones))] if of_outputs < outputs else []
    return [*first, Part("core", (of_outputs, of_inputs, *kernel), tuple(range(layer.axes))), *last]
