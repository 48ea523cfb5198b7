"""Batch-norm folding: an inference-time batch norm after a convolution or linear layer is part of its weights.

Jacob et al. (2018), arXiv:1712.05877, equation 14; with g = gamma / sqrt(variance + eps):

    W' = g W          b' = g (b - mean) + beta

Ours differs: transposed and grouped convolutions too, and a norm behind a permutation or a flattening of the layer's
result, where every channel of the layer meets one channel of the norm.
Helps: always, it is exact and saves a pass over memory.  Does not: change what a runtime that folds by itself runs.
"""

from dataclasses import dataclass

from slimline.methods.method import Method, Outcome, register
from slimline.methods.simplify.batch_norms import fold_batch_norms_
from slimline.methods.simplify.channel_affine import plan_before
from slimline.methods.simplify.free_shapes import free_shapes
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.workspace import Workspace


@register
@dataclass(frozen=True)
class FoldBatchNorm(Method):
    """Fold every batch norm that follows a convolution or linear layer read by nothing else."""

    needs = frozenset({"float weights"})
    cites = ("jacob2018quantization",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        return Outcome(result, *fold_batch_norms_(result, free_shapes(result), plan_before))
