"""CP factorisation: a k x k convolution becomes 1 x 1, k x 1 depthwise, 1 x k depthwise, 1 x 1.

Lebedev, Ganin, Rakhuba, Oseledets, Lempitsky (2015). Speeding-up Convolutional Neural Networks Using Fine-tuned
CP-Decomposition. arXiv:1412.6553, section 3.

Alternating least squares: Kolda, Bader (2009). Tensor Decompositions and Applications. SIAM Review 51:455-500,
section 3.4.

    W[o, i, a, b] ~ sum_{r <= R}  L[o, r] F[i, r] Y[a, r] X[b, r]        first: F^T, vertical: Y, horizontal: X, last: L

By alternating least squares: each matrix in turn solves its linear problem while the others stay.

Ours differs: Lebedev et al. use non-linear least squares; starts from nested singular value decompositions, which need
no random numbers, instead of from several random starts; each component's norm is shared evenly by its four vectors, as
Lebedev et al. saw gradients explode without; axes of any number. Nobody knows a matrix whose singular values give the
best R: ``energy`` and ``vbmf`` look at the unfoldings by inputs and by outputs and take the larger rank, which R cannot
be below for the same error.
Helps: far fewer multiply-adds than any other factorisation of one convolution.  Does not: help where depthwise
convolutions are slow, and few ranks need training after them.
"""

from dataclasses import dataclass
from math import prod

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

SINGULAR = 1e-6
"""Ratio of the diagonal of a Cholesky factor below which its solution is mostly rounding."""
ALONG = {1: ("along",), 2: ("vertical", "horizontal"), 3: ("deep", "vertical", "horizontal")}
"""What the factor of every axis of the kernel is called."""


def cp(tensor: Tensor, rank: int, iterations: int, tolerance: float) -> list[Tensor]:
    """One matrix (size of the axis, rank) for every axis, in float64.

    Args:
        iterations: rounds over all axes, at most.
        tolerance: ends when a round lowers the squared error by less than this share of the tensor's.
    """
    x = tensor.detach().double()
    matrix, whole = x.flatten(1), float(x.square().sum())
    factors, before = nested_components(x, rank), float("inf")
    for _ in range(iterations):
        mixed = matrix @ _products(factors[1:])
        factors[0] = _solved(mixed, _grams(factors, 0))
        rest = (matrix.T @ factors[0]).reshape(*x.shape[1:], -1)  # of all axes but the first, which is the longest
        for axis in range(1, x.ndim):
            mixed = _contracted(rest, factors[1:], axis - 1)
            factors[axis] = _solved(mixed, _grams(factors, axis))
        fitted = _grams(factors, x.ndim - 1) * (factors[-1].T @ factors[-1])
        error = whole - 2 * float((mixed * factors[-1]).sum()) + float(fitted.sum())
        if before - error < tolerance * whole:
            break
        before = error
        factors = balanced(factors)  # else one vector of a component grows while another vanishes
    return balanced(factors)


def nested_components(x: Tensor, rank: int) -> list[Tensor]:
    """Rank-1 tensors from singular value decompositions inside one another, the heaviest of them at every level."""
    rest, scale, factors = x[None], x.new_ones(1), list[Tensor]()
    for axis in range(x.ndim - 1):
        u, s, v = torch.linalg.svd(rest.flatten(2), full_matrices=False)
        weights = scale[:, None] * s
        order = weights.flatten().argsort(descending=True, stable=True)[:rank]
        which, component = order // s.shape[1], order % s.shape[1]
        factors = [f[which] for f in factors] + [u[which, :, component]]
        scale, rest = weights.flatten()[order], v[which, component].reshape(-1, *x.shape[axis + 1 :])
    return balanced([(factors[0] * scale[:, None]).T, *(f.T for f in factors[1:]), rest.T])


def _products(factors: list[Tensor]) -> Tensor:
    """The components of several axes written out, (positions, rank)."""
    found = factors[0]
    for factor in factors[1:]:
        found = (found[:, None] * factor[None]).flatten(0, 1)
    return found


def _grams(factors: list[Tensor], axis: int) -> Tensor:
    """The products of the Gram matrices of all axes but one, (rank, rank)."""
    return torch.stack([f.T @ f for a, f in enumerate(factors) if a != axis]).prod(0)


def _solved(mixed: Tensor, grams: Tensor) -> Tensor:
    """The F with F grams = mixed, or the nearest where components depend on each other."""
    triangle, failed = torch.linalg.cholesky_ex(grams)
    diagonal = triangle.diagonal()
    if failed or float(diagonal.min()) < SINGULAR * float(diagonal.max()):
        inverse: Tensor = torch.linalg.pinv(grams, hermitian=True)  # ten times slower
        return mixed @ inverse
    return torch.cholesky_solve(mixed.T, triangle).T


def _contracted(rest: Tensor, factors: list[Tensor], axis: int) -> Tensor:
    """(*axes, rank) times the vectors of all axes but one, summed over these: (size of the axis, rank)."""
    for other in reversed(range(len(factors))):
        if other != axis:
            between = [1] * (rest.ndim - 2 - other)
            rest = (rest * factors[other].reshape(-1, *between, factors[other].shape[1])).sum(other)
    return rest


def balanced(factors: list[Tensor]) -> list[Tensor]:
    """The same components, each with vectors of one norm."""
    norms = torch.stack([f.norm(dim=0) for f in factors])
    shared = norms.log().mean(0).exp()
    return [f * torch.where(n > 0, shared / n, 0.0) for f, n in zip(factors, norms, strict=True)]


@register
@dataclass(frozen=True)
class FactorizeCP(Method):
    """Replace convolutions by depthwise ones along each axis between two pointwise ones."""

    rank: int = rank_param()
    choose: str = choose_param()
    energy: float = energy_param()
    budget: float = budget_param()
    multiple: int = multiple_param()
    iterations: int = param(100, low=1, high=100000, doc="rounds of alternating least squares, at most")
    tolerance: float = param(
        1e-4, low=0.0, high=1.0, doc="a round that lowers the squared error by less than this share is the last"
    )
    layers: tuple[str, ...] = layers_param()

    needs = frozenset({"float weights"})
    cites = ("lebedev2015speeding", "kolda2009tensor")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        scheme = Scheme(extended, sizes, matrices, parts, self.decompose)
        return factorize(network, self, scheme, self.layers)

    def decompose(self, layer: Layer, ranks: Ranks) -> Decomposed:
        """The weights of the factors; axes of size one are a number, which the first takes in."""
        last, first, *along = cp(layer.weight, max(ranks), self.iterations, self.tolerance)
        for axis, factor in enumerate(along):
            first = first * factor if layer.kernel[axis] == 1 else first
        factors = [first.T, *(f.T for f, k in zip(along, layer.kernel, strict=True) if k > 1), last]
        chain = parts(layer, ranks)
        return [factor.reshape(part.shape) for factor, part in zip(factors, chain, strict=True)], None


def sizes(layer: Layer) -> tuple[int, ...]:
    """No tensor needs more components than all of its axes but the longest have positions; once for each unfolding."""
    most = layer.weight.numel() // max(layer.weight.shape)
    return (most, most)


def matrices(layer: Layer) -> tuple[Tensor, ...]:
    """The unfoldings by inputs and by outputs."""
    return layer.weight.transpose(0, 1).flatten(1), layer.weight.flatten(1)


def parts(layer: Layer, ranks: Ranks) -> list[Part]:
    """Stride, padding and dilation belong to the factor along their axis; without one, to the first."""
    rank = max(ranks)
    outputs, inputs, *kernel = layer.weight.shape
    ones = [1] * len(kernel)
    short = tuple(axis for axis, k in enumerate(kernel) if k == 1)
    chain = [Part("first", (rank, inputs, *ones), short)]
    for axis, k in enumerate(kernel):
        if k > 1:
            extent = [k if a == axis else 1 for a in range(len(kernel))]
            chain.append(Part(ALONG[layer.axes][axis], (rank, 1, *extent), (axis,), groups=rank))
    assert prod(layer.kernel) > 1
    return [*chain, Part("last", (outputs, rank, *ones))]
