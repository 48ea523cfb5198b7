"""Factorisation by what it does to the data: the outputs of a layer change least, not its weights.

Wang, Zheng, Wan, Zhang (2024). SVD-LLM: Truncation-aware Singular Value Decomposition for Large Language Model
Compression. arXiv:2403.07378, section 3.1; for convolutions, and with the mean taken off: Zhang, Zou, He, Sun (2016),
Accelerating Very Deep Convolutional Networks for Classification and Detection, arXiv:1505.06798, section 3.1.

    min E |W x + b - W' x - b'|^2  over W' of rank r;   m = E x,   H = E (x - m)(x - m)^T = L L^T,   W L = U S V^T
    W' = U_r S_r V_r^T L^-1 = U_r (U_r^T W),    b' = b + (W - W') m        first: U_r^T W,  last: U_r

The error is the sum of the squares of the S that are left out; no other W' and b' have a smaller one.

Ours differs: L^-1 cancels, so L is not needed (W H W^T = U S^2 U^T) and inputs that depend on each other linearly need
no repair; b' takes in the mean, also where there was no b. For a convolution x is the patch under its kernel: the first
factor has the kernel, the last is pointwise (the linear case of Zhang et al.). What a layer reads is the original's.
Helps: changes the layer's answers to the samples less than `FactorizeSVD` of the same rank, which is the optimum for
inputs that are not correlated.
Does not: see what the samples do not show; few samples of a wide layer let it drop what others need.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from slimline.methods.factorize.factors import Decomposed, Layer, Part, Scheme, dense, factorize, layers
from slimline.methods.factorize.ranks import (
    Ranks,
    budget_param,
    choose_param,
    energy_param,
    layers_param,
    multiple_param,
    rank_param,
)
from slimline.methods.method import Method, Outcome, needs_data, param, register
from slimline.methods.readers import MOST_INPUTS, moments_in_turns, readers
from slimline.network.network import Network
from slimline.task import Samples, Task
from slimline.training.workspace import Workspace

RIDGE = 1e-6
"""Share of the mean square that every direction has as variance at least: of directions that the samples do not show,
those with larger weights are kept. Moments are sums of products in float32."""


@dataclass(frozen=True)
class Seen:
    """What a decomposition needs to know of the data."""

    u: Tensor
    """U, (outputs, outputs), float64."""
    s: Tensor
    """S, (outputs,), largest first: the standard deviations of the outputs along U."""
    mean: Tensor
    """m, (inputs,)."""


def seen(weight: Tensor, moments: Tensor) -> Seen:
    """U and S of W L.

    Args:
        weight: (outputs, inputs).
        moments: the sum over rows of [x; 1] [x; 1]^T, (inputs + 1, inputs + 1).
    """
    weight, mean = weight.double(), moments[:-1, -1] / moments[-1, -1]
    squares = moments[:-1, :-1] / moments[-1, -1]
    ridge = RIDGE * float(squares.diagonal().mean()) or 1.0  # of zeros alone: the plain decomposition
    covariance = squares - mean[:, None] * mean + ridge * torch.eye(len(mean), dtype=mean.dtype)
    variances, u = torch.linalg.eigh(weight @ covariance @ weight.T)
    return Seen(u.flip(1), variances.flip(0).clamp_min(0).sqrt(), mean)


def project(weight: Tensor, data: Seen, rank: int) -> tuple[Tensor, Tensor, Tensor]:
    """U_r^T W (rank, inputs), U_r (outputs, rank), scaled to one size component by component, and b' - b, (outputs,).

    Args:
        weight: (outputs, inputs).
    """
    u, weight = data.u[:, :rank], weight.double()
    first = u.T @ weight
    scale = first.norm(dim=1).clamp_min(torch.finfo(torch.float32).tiny).sqrt()
    # the decomposition leaves the signs open: the largest entry of every row of the first factor is positive
    scale = scale * torch.where(first.gather(1, first.abs().argmax(1, keepdim=True))[:, 0] < 0, -1.0, 1.0)
    return first / scale[:, None], u * scale, (weight - u @ first) @ data.mean


def seen_by_layer(network: Network, found: Sequence[Layer], samples: Samples) -> dict[str, Seen]:
    """For every layer by name; they take turns where the moments of all would not fit into memory."""
    known: dict[str, Seen] = {}
    by_name = {layer.name: layer for layer in found}
    for turn, moments in moments_in_turns(network, {layer.name: [weight_of(layer)] for layer in found}, samples):
        known |= {name: seen(by_name[name].weight.flatten(1), moments[weight_of(by_name[name])]) for name in turn}
    return known


def weight_of(layer: Layer) -> str:
    """The name of the weight of a layer."""
    return str(layer.node.args[1].target)  # type: ignore[union-attr]


@register
@dataclass(frozen=True)
class FactorizeWhitened(Method):
    """Replace linear layers and dense convolutions by two of lower rank that give nearly the same outputs."""

    rank: int = rank_param()
    choose: str = choose_param()
    energy: float = energy_param()
    budget: float = budget_param()
    multiple: int = multiple_param()
    samples: int = param(256, low=1, high=100000, doc="training samples that the layers are looked at with")
    layers: tuple[str, ...] = layers_param()

    needs = frozenset({"data", "float weights"})
    cites = ("wang2024svdllm", "zhang2016accelerating")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        samples = needs_data("Factorisation by the data", task, network).take(slice(0, self.samples))
        known = set(readers(network))
        found = [x for x in layers(network, self.layers, type(self).__name__)[0] if not unsupported(x, known)]
        by_layer = seen_by_layer(network, found, samples)
        scheme = Scheme(
            lambda layer: unsupported(layer, known),
            sizes,
            lambda layer: [spread_outputs(layer, by_layer[layer.name])],
            parts,
            lambda layer, ranks: decompose(layer, ranks, by_layer[layer.name]),
        )
        return factorize(network, self, scheme, self.layers)


def unsupported(layer: Layer, known: set[str]) -> list[str]:
    """Why a layer is left as it is; [] means it can be factorised.

    Args:
        known: the weights of the layers whose inputs can be looked at.
    """
    inputs, reasons = layer.weight[0].numel(), dense(layer)
    if inputs > MOST_INPUTS:
        return [*reasons, f"reads {inputs} values at once, over {MOST_INPUTS}"]
    if not reasons and weight_of(layer) not in known:
        reasons.append("has a bias that is shared or computed, a kernel of three axes, or padding given by a word")
    return reasons


def sizes(layer: Layer) -> tuple[int, ...]:
    """The largest rank of its weight as a matrix (outputs, inputs)."""
    return (min(layer.weight.flatten(1).shape),)


def parts(layer: Layer, ranks: Ranks) -> list[Part]:
    """The first has the kernel, with stride, padding and dilation."""
    (rank,) = ranks
    outputs, inputs, *kernel = layer.weight.shape
    first = Part("first", (rank, inputs, *kernel), tuple(range(layer.axes)))
    return [first, Part("last", (outputs, rank, *[1] * len(kernel)))]


def spread_outputs(layer: Layer, data: Seen) -> Tensor:
    """A matrix of the shape of W with the singular values of W L."""
    return F.pad(data.u * data.s, (0, layer.weight[0].numel() - len(data.s)))


def decompose(layer: Layer, ranks: Ranks, data: Seen) -> Decomposed:
    """The weights of the two factors, and what the bias takes in."""
    first, last, shift = project(layer.weight.flatten(1), data, *ranks)
    shapes = [part.shape for part in parts(layer, ranks)]
    return [first.reshape(shapes[0]), last.reshape(shapes[1])], shift
