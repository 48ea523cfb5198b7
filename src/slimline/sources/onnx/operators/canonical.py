"""Operators that ONNX lacks and `slimline.sources.onnx.rewrite` introduces."""

import torch.nn.functional as F
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import operator


@operator("Linear", domain="slimline")
def linear(node: OnnxNode, x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``x @ weight.T + bias`` with a weight of (out, in)."""
    return F.linear(x, weight, bias)
