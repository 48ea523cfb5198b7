"""Losses: the files of training graphs hold them."""

import torch.nn.functional as F
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import operator

NEVER = -(2**31)
"""An ignored label that no file uses, for losses that ignore none."""


@operator("NegativeLogLikelihoodLoss")
def negative_log_likelihood(node: OnnxNode, log_p: Tensor, labels: Tensor, weight: Tensor | None = None) -> Tensor:
    """``-weight[label] * log_p[label]`` per sample and position, or its sum or weighted mean.

    Args:
        log_p: (batch, classes, ...).
        labels: (batch, ...).
    """
    ignored, reduction = node.get("ignore_index", NEVER), node.get("reduction", "mean")
    return F.nll_loss(log_p, labels.long(), weight, ignore_index=ignored, reduction=reduction)


@operator("SoftmaxCrossEntropyLoss")
def softmax_cross_entropy(
    node: OnnxNode, scores: Tensor, labels: Tensor, weight: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """The loss of the log-softmax over axis 1, and the log-softmax itself."""
    log_p = F.log_softmax(scores, dim=1)
    return negative_log_likelihood(node, log_p, labels, weight), log_p
