"""Magnitude pruning: the smallest weights become zero.

Han, Pool, Tran, Dally (2015). Learning both Weights and Connections for Efficient Neural Networks. arXiv:1506.02626,
section 3. One share for all layers together: Gale, Elsen, Hooker (2019), The State of Sparsity in Deep Neural Networks,
arXiv:1902.09574, section 3.

    w = 0   where |w| is among the lowest share of its layer, or of all layers together, or below a threshold

Ours differs: share and threshold may be given together, and what either asks for goes; patterns
(`slimline.methods.sparsify.patterns`).
Helps: bytes of a packed file (.gz of an .onnx; the .onnx itself stores its zeros); more with a `Distill` behind,
which keeps the zeros.
Does not: make a network faster: no dense runtime is faster for zeros. Nor see which inputs are large.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from slimline.methods.method import Method, Outcome, param, register
from slimline.methods.sparsify.layers import layers, zero_
from slimline.methods.sparsify.patterns import (
    MOST,
    PATTERNS,
    Pattern,
    pattern_of,
    unit_scores,
    weights_of,
    zeros_of_all,
)
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.workspace import Workspace


def below(magnitudes: Tensor, threshold: float, pattern: Pattern) -> Tensor:
    """A mask of the weights below a threshold; of blocks, those whose mean is."""
    if pattern.kept:
        return magnitudes < threshold
    return weights_of(unit_scores(magnitudes, pattern) < threshold * pattern.unit, pattern)


@register
@dataclass(frozen=True)
class SparsifyMagnitude(Method):
    """Zero the smallest weights."""

    sparsity: float = param(0.5, low=0.0, high=MOST, doc="share of the weights that become zero; N:M says it itself")
    scope: str = param("layer", choices=("layer", "network"), doc="the share of each layer, or of all together")
    threshold: float = param(0.0, low=0.0, doc="smaller weights become zero too; of blocks, their mean magnitude")
    pattern: str = param("any", choices=PATTERNS, doc="'any', 'N:M' (N of M inputs stay) or blocks 'RxC'")
    skip: Sequence[str] = param((), doc="layers that are left alone, by name")

    needs = frozenset({"float weights"})
    cites = ("han2015learning", "gale2019state")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result, pattern = network.copy(), pattern_of(self.pattern)
        found, skipped = layers(result, pattern, self.skip)
        magnitudes, share = [layer.stored(result).abs() for layer in found], pattern.share(self.sparsity)
        together = [magnitudes] if self.scope == "network" else [[each] for each in magnitudes]
        masks = [mask for scores in together for mask in zeros_of_all(scores, share, pattern)]
        masks = [mask | below(each, self.threshold, pattern) for mask, each in zip(masks, magnitudes, strict=True)]
        changed = zero_(result, dict(zip(found, masks, strict=True)))
        return Outcome(result, changed, pattern.without_effect(self.sparsity) | skipped)
