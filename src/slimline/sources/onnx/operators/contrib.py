"""Fused operators of the domain ``com.microsoft`` that ONNX Runtime's optimiser and exporters write."""

import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.quantization import CONTRIB
from slimline.sources.onnx.operators.quantized import plain
from slimline.sources.onnx.operators.table import operator


@operator("Gelu", "BiasGelu", domain=CONTRIB)
def gelu(_: OnnxNode, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """The exact GELU, of a sum for BiasGelu."""
    return F.gelu(x if bias is None else x + bias)


@operator("FastGelu", domain=CONTRIB)
def fast_gelu(_: OnnxNode, x: Tensor, bias: Tensor | None = None) -> Tensor:
    """GELU by its tanh formula."""
    return F.gelu(x if bias is None else x + bias, approximate="tanh")


@operator("QuickGelu", domain=CONTRIB)
def quick_gelu(node: OnnxNode, x: Tensor) -> Tensor:
    """``x sigmoid(alpha x)``."""
    return x * torch.sigmoid(x * node.get("alpha", 1.702))


@operator("FusedMatMul", "TransposeMatMul", domain=CONTRIB)
def fused_matmul(node: OnnxNode, a: Tensor, b: Tensor) -> Tensor:
    """``alpha A' B'`` where either operand may be transposed.

    ``transBatchA`` first moves the first axis of an operand of three or more axes to the last place but one.
    """
    a = _operand(a, node.get("transA", 0), node.get("transBatchA", 0))
    b = _operand(b, node.get("transB", 0), node.get("transBatchB", 0))
    alpha = node.get("alpha", 1.0)
    return a @ b if alpha == 1 else (a @ b) * alpha


def _operand(x: Tensor, swap: int, batch: int) -> Tensor:
    x = x.movedim(0, -2) if batch and x.ndim > 2 else x
    return x.transpose(-1, -2) if swap and x.ndim > 1 else x


@operator("FusedGemm", domain=CONTRIB)
def fused_gemm(node: OnnxNode, a: Tensor, b: Tensor, c: Tensor | None = None) -> Tensor:
    """``activation(alpha A' B' + beta C)``."""
    parameters = [node.get(f"activation_{name}") for name in ("alpha", "beta", "gamma")]
    return _activated(node, plain(node, "Gemm", a, b, c), [p for p in parameters if p is not None])


@operator("FusedConv", domain=CONTRIB)
def fused_conv(node: OnnxNode, x: Tensor, w: Tensor, b: Tensor | None = None, z: Tensor | None = None) -> Tensor:
    """``activation(conv(x) + z)``."""
    y = plain(node, "Conv", x, w, b)
    return _activated(node, y if z is None else y + z, node.get("activation_params", []))


def _activated(node: OnnxNode, x: Tensor, parameters: list[float]) -> Tensor:
    """The activation that was fused, with its parameters in the order of its definition."""
    match node.get("activation", ""):
        case "":
            return x
        case "Relu":
            return F.relu(x)
        case "Tanh":
            return torch.tanh(x)
        case "Sigmoid":
            return torch.sigmoid(x)
        case "LeakyRelu":
            return F.leaky_relu(x, parameters[0] if parameters else 0.01)
        case "Clip":
            low, high = parameters[:2]
            return F.relu6(x) if (low, high) == (0, 6) else F.hardtanh(x, low, high)
        case "HardSigmoid":
            alpha, beta = parameters[:2] if parameters else (0.2, 0.5)
            return (x * alpha + beta).clamp(0, 1)
        case other:
            raise SlimlineError(f"the fused activation {other!r} is not supported.")


@operator("SkipLayerNormalization", domain=CONTRIB)
def skip_layer_normalization(
    node: OnnxNode,
    x: Tensor,
    skip: Tensor,
    gamma: Tensor,
    beta: Tensor | None = None,
    bias: Tensor | None = None,
) -> tuple[Tensor | None, ...]:
    """Layer normalisation of ``x + skip + bias``; also returns mean, inverse deviation and that sum when asked."""
    total = x + skip if bias is None else x + skip + bias
    epsilon = node.get("epsilon", 1e-12)
    y = F.layer_norm(total, (total.shape[-1],), gamma, beta, epsilon)
    if not any(node.outputs[1:3]):
        return y, None, None, total
    mean = total.mean(-1, keepdim=True)
    inverse = torch.rsqrt((total - mean).square().mean(-1, keepdim=True) + epsilon)
    return y, mean, inverse, total
