"""Spatial factorisation: a k x k convolution becomes a k x 1 one followed by a 1 x k one.

Jaderberg, Vedaldi, Zisserman (2014). Speeding up Convolutional Neural Networks with Low Rank Expansions.
arXiv:1405.3866, section 2.1, scheme 2; the closed form is that of Tai, Xiao, Zhang, Wang, E (2016), Convolutional
Neural Networks with Low-rank Regularization, arXiv:1511.06067.

    M[(i, a), (b, o)] = W[o, i, a, b] = sum_r  s_r u_r[i, a] v_r[b, o]
    vertical_r = sqrt(s_r) u_r, reading every input channel i;        horizontal: sqrt(s_r) v_r, writing every output o

Ours differs: kernels of three axes split into the first one and the other two; stride, padding and dilation go along
with their axis.
Helps: large kernels most, and 3 x 3 ones where the rank may be small.
Does not: help runtimes whose dense 3 x 3 convolution (Winograd) is faster per multiply-add than a 3 x 1 one.
"""

from dataclasses import dataclass

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
from slimline.methods.method import Method, Outcome, register
from slimline.network.network import Network
from slimline.numerics.decomposition import split
from slimline.task import Task
from slimline.training.workspace import Workspace


def rows_and_columns(weight: Tensor) -> Tensor:
    """M of the equation, (inputs * k, other axes of the kernel * outputs), of a weight (outputs, inputs, k, ...)."""
    return weight.movedim(0, -1).flatten(0, 1).flatten(1)


def vertical_and_horizontal(weight: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The weights (rank, inputs, k, 1, ...) and (outputs, rank, 1, ...) whose composition is closest."""
    outputs, inputs, first, *others = weight.shape
    horizontal, vertical = split(rows_and_columns(weight), rank)
    vertical = vertical.T.reshape(rank, inputs, first, *[1] * len(others))
    return vertical, horizontal.reshape(rank, 1, *others, outputs).movedim(-1, 0)


@register
@dataclass(frozen=True)
class FactorizeSpatial(Method):
    """Replace convolutions by one along the first axis of the kernel and one along the others."""

    rank: int = rank_param()
    choose: str = choose_param()
    energy: float = energy_param()
    budget: float = budget_param()
    multiple: int = multiple_param()
    layers: tuple[str, ...] = layers_param()

    needs = frozenset({"float weights"})
    cites = ("jaderberg2014speeding", "tai2016convolutional")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        scheme = Scheme(self.unsupported, sizes, lambda layer: [rows_and_columns(layer.weight)], parts, decompose)
        return factorize(network, self, scheme, self.layers)

    def unsupported(self, layer: Layer) -> list[str]:
        """Why a layer is left as it is; [] means it can be factorised."""
        if layer.axes and (layer.kernel[0] == 1 or set(layer.kernel[1:]) <= {1}):
            return [f"has a kernel of {' x '.join(map(str, layer.kernel))}"]
        return extended(layer)


def sizes(layer: Layer) -> tuple[int, ...]:
    """The smaller side of M."""
    return (min(rows_and_columns(layer.weight).shape),)


def parts(layer: Layer, ranks: Ranks) -> list[Part]:
    """Vertical first, with what belongs to the first axis."""
    (rank,) = ranks
    outputs, inputs, first, *others = layer.weight.shape
    return [
        Part("vertical", (rank, inputs, first, *[1] * len(others)), (0,)),
        Part("horizontal", (outputs, rank, 1, *others), tuple(range(1, layer.axes))),
    ]


def decompose(layer: Layer, ranks: Ranks) -> Decomposed:
    """The weights of the two factors."""
    return vertical_and_horizontal(layer.weight, *ranks), None
