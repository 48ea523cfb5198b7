"""Batch-norm folding, forwards: an inference-time batch norm before a convolution or linear layer is part of it too.

Ioffe and Szegedy (2015), Batch Normalization. arXiv:1502.03167, section 3.1: at inference the norm is one linear
transform per channel, which may be composed with what is linear. With g = gamma / sqrt(variance + eps):

    W'[o, c] = W[o, c] g[c]          b'[o] = b[o] + sum_c W[o, c] (beta[c] - g[c] mean[c])

Ours differs: between the two may stand what only moves numbers, such as a flattening, as at the end of face embedders.
A layer that pads with zeros takes in the scale only where the shift is 0, as zeros are put in behind the norm.
Helps: networks that normalise first and have no activation between (embedders, heads).
Does not: norms with an activation behind them, as in ResNet-v2 and DenseNet; layers behind it that pad.
"""

from dataclasses import dataclass

from slimline.methods.method import Method, Outcome, register
from slimline.methods.simplify.batch_norms import fold_batch_norms_
from slimline.methods.simplify.channel_affine import plan_behind
from slimline.methods.simplify.free_shapes import free_shapes
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.workspace import Workspace


@register
@dataclass(frozen=True)
class FoldBatchNormBefore(Method):
    """Fold every batch norm that stands before a convolution or linear layer and is read by nothing else."""

    needs = frozenset({"float weights"})
    cites = ("ioffe2015batch",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        return Outcome(result, *fold_batch_norms_(result, free_shapes(result), plan_behind))
