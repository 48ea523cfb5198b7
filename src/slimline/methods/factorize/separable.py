"""Network decoupling: a dense convolution becomes a depthwise one followed by a pointwise one.

Guo, Li, Lin, Chen, Li (2018). Network Decoupling: From Regular to Depthwise Separable Convolutions. arXiv:1808.05517,
section 3, equation 6.

For every input channel i, with W_i its slice of the weight as a matrix (outputs, positions of the kernel):

    W_i ~ sum_{r <= T} p_ir d_ir^T        d_ir: depthwise filter r of channel i,  p_ir: column (i, r) of the pointwise
    W_i = U S V^T,   d_ir = sqrt(s_r) v_r,   p_ir = sqrt(s_r) u_r

Ours differs: the sum over T pairs is one depthwise convolution with T filters per channel and one pointwise, since
nothing stands between; all channels get the same T, and the energy is that of all channels together.
Helps: 3 x 3 convolutions of many channels; T = 1 is MobileNet's layer.  Does not: help where depthwise convolutions are
slow per multiply-add; T = 1 loses much without training after it.
"""

from dataclasses import dataclass

from slimline.methods.factorize.factors import Decomposed, Layer, Part, Scheme, extended, factorize
from slimline.methods.factorize.ranks import (
    Ranks,
    budget_param,
    choose_param,
    energy_param,
    layers_param,
    rank_param,
)
from slimline.methods.method import Method, Outcome, register
from slimline.network.network import Network
from slimline.numerics.decomposition import channel_matrices, depthwise_and_pointwise
from slimline.task import Task
from slimline.training.workspace import Workspace


@register
@dataclass(frozen=True)
class FactorizeSeparable(Method):
    """Replace dense convolutions by depthwise and pointwise ones; the rank is the filters per input channel, T."""

    rank: int = rank_param()
    choose: str = choose_param()
    energy: float = energy_param()
    budget: float = budget_param()
    layers: tuple[str, ...] = layers_param()

    needs = frozenset({"float weights"})
    cites = ("guo2018network",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        scheme = Scheme(extended, sizes, lambda layer: [channel_matrices(layer.weight)], parts, decompose)
        return factorize(network, self, scheme, self.layers)


def sizes(layer: Layer) -> tuple[int, ...]:
    """The largest rank of one channel's matrix."""
    return (min(channel_matrices(layer.weight).shape[1:]),)


def parts(layer: Layer, ranks: Ranks) -> list[Part]:
    """Depthwise first, with stride, padding and dilation."""
    (rank,) = ranks
    outputs, inputs, *kernel = layer.weight.shape
    return [
        Part("depthwise", (inputs * rank, 1, *kernel), tuple(range(layer.axes)), groups=inputs),
        Part("pointwise", (outputs, inputs * rank, *[1] * len(kernel))),
    ]


def decompose(layer: Layer, ranks: Ranks) -> Decomposed:
    """The weights of the two factors."""
    return depthwise_and_pointwise(layer.weight, *ranks), None
