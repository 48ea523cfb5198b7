"""Matrix products."""

import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import operator


@operator("MatMul")
def matmul(node: OnnxNode, a: Tensor, b: Tensor) -> Tensor:
    """The product of numpy's ``matmul``: the last two axes, the others broadcast."""
    return torch.matmul(a, b)


@operator("Gemm")
def gemm(node: OnnxNode, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """``alpha a b + beta c``; without factors, and with a as it is, that is a linear layer."""
    alpha, beta = node.get("alpha", 1.0), node.get("beta", 1.0)
    if alpha == beta == 1.0 and not node.get("transA", 0) and a.is_floating_point():
        weight = b if node.get("transB", 0) else b.t()
        if c is not None and c.ndim == 2 and c.shape[0] == 1 and c.shape[1] == weight.shape[0]:
            c = c.squeeze(0)
        if c is None or (c.ndim == 1 and c.shape[0] == weight.shape[0]):
            return F.linear(a, weight, c)
        return F.linear(a, weight) + c
    product = torch.matmul(a.t() if node.get("transA", 0) else a, b.t() if node.get("transB", 0) else b)
    product = _scaled(product, alpha)
    return product if c is None else product + _scaled(c, beta)


def _scaled(x: Tensor, factor: float) -> Tensor:
    """Integers stay integers: ONNX Runtime and the reference round the factor."""
    if factor == 1.0:
        return x
    return x * factor if x.is_floating_point() else x * int(factor)


@operator("Einsum")
def einsum(node: OnnxNode, *operands: Tensor) -> Tensor:
    """A sum of products in Einstein's notation, with or without ``->`` and ``...``."""
    result: Tensor = torch.einsum(node.get("equation").replace(" ", ""), *operands)
    return result
