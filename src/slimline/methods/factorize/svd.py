"""Singular value decomposition: a linear layer or pointwise convolution becomes two thinner ones.

Denton, Zaremba, Bruna, LeCun, Fergus (2014). Exploiting Linear Structure Within Convolutional Networks for Efficient
Evaluation. arXiv:1404.0736, section 3.2. Nothing of rank r is closer: Eckart & Young 1936, doi:10.1007/BF02288367.

    W = U S V^T  ~  (U_r sqrt(S_r)) (sqrt(S_r) V_r^T)        y = last(first(x)) + b

Ours differs: both factors get the same share of S, so that both learn at the same pace when they are trained.
Helps: wide linear layers and pointwise convolutions whose outputs depend on few directions of their input.
Does not: help small layers, where a second operator costs more than it saves; look at the data (`FactorizeWhitened`
does).
"""

from dataclasses import dataclass

from slimline.methods.factorize.factors import Decomposed, Layer, Part, Scheme, dense, factorize
from slimline.methods.factorize.ranks import (
    Ranks,
    budget_param,
    choose_param,
    energy_param,
    layers_param,
    multiple_param,
    rank_param,
)
from slimline.methods.method import Method, Outcome, register
from slimline.network.network import Network
from slimline.numerics.decomposition import split
from slimline.task import Task
from slimline.training.workspace import Workspace


@register
@dataclass(frozen=True)
class FactorizeSVD(Method):
    """Replace linear layers and pointwise convolutions by two of lower rank."""

    rank: int = rank_param()
    choose: str = choose_param()
    energy: float = energy_param()
    budget: float = budget_param()
    multiple: int = multiple_param()
    layers: tuple[str, ...] = layers_param()

    needs = frozenset({"float weights"})
    cites = ("denton2014exploiting",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        scheme = Scheme(self.unsupported, sizes, lambda layer: [layer.weight.flatten(1)], parts, decompose)
        return factorize(network, self, scheme, self.layers)

    def unsupported(self, layer: Layer) -> list[str]:
        """Why a layer is left as it is; [] means it can be factorised."""
        extent = [] if set(layer.kernel) <= {1} else [f"has a kernel of {' x '.join(map(str, layer.kernel))}"]
        return extent + dense(layer)


def sizes(layer: Layer) -> tuple[int, ...]:
    """The largest rank of its weight."""
    return (min(layer.weight.shape[:2]),)


def parts(layer: Layer, ranks: Ranks) -> list[Part]:
    """A stride belongs to the first factor: what it drops need not be computed."""
    (rank,) = ranks
    outputs, inputs, *ones = layer.weight.shape
    return [Part("first", (rank, inputs, *ones), tuple(range(layer.axes))), Part("last", (outputs, rank, *ones))]


def decompose(layer: Layer, ranks: Ranks) -> Decomposed:
    """The weights of the two factors."""
    factors = split(layer.weight.flatten(1), *ranks)
    shapes = [part.shape for part in parts(layer, ranks)]
    return [factor.reshape(shape) for factor, shape in zip(factors, shapes, strict=True)], None
