"""Activations, softmaxes and dropout."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import operator
from slimline.sources.onnx.values import Array

COERCED = 13
"""Opset below which a softmax is taken over all axes from ``axis`` on, and ``axis`` is 1 by default."""
SELU = (1.6732631921768188, 1.0507010221481323)
"""alpha and gamma of Klambauer et al. 2017 (arXiv:1706.02515) in float32."""

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Relu": F.relu, "HardSwish": F.hardswish, "Sigmoid": torch.sigmoid, "Tanh": torch.tanh, "Softplus": F.softplus,
    "Softsign": F.softsign, "Mish": F.mish,
}  # fmt: skip
"""ONNX operator without attributes -> the torch function that is the same."""


@operator(*FUNCTIONS)
def function(node: OnnxNode, x: Tensor) -> Tensor:
    """The activations that torch has under another name."""
    return FUNCTIONS[node.kind](x)


@operator("LeakyRelu")
def leaky_relu(node: OnnxNode, x: Tensor) -> Tensor:
    """``x``, or ``alpha x`` where it is negative."""
    return F.leaky_relu(x, node.get("alpha", 0.01))


@operator("PRelu", scalars=True)
def prelu(node: OnnxNode, x: Tensor, slope: Tensor | float) -> Tensor:
    """A slope for negative numbers: one, one per channel, or any that broadcasts to the input."""
    if not isinstance(slope, Tensor):
        return F.leaky_relu(x, slope) if x.is_floating_point() else torch.where(x < 0, x * slope, x)
    # sizes behind the batch axis, so that a slope for every channel is told apart without looking at the batch
    sizes = (1,) * (x.ndim - slope.ndim) + tuple(slope.shape)
    per_channel = x.ndim > 1 and sizes[1] == x.shape[1] and math.prod(sizes) == sizes[1]
    if per_channel and x.is_floating_point():
        return F.prelu(x, slope.reshape(-1))
    return torch.where(x < 0, x * slope, x)


@operator("Elu")
def elu(node: OnnxNode, x: Tensor) -> Tensor:
    """``x``, or ``alpha (exp(x) - 1)`` where it is negative."""
    return F.elu(x, node.get("alpha", 1.0))


@operator("Selu")
def selu(node: OnnxNode, x: Tensor) -> Tensor:
    """``gamma elu(x)``, with the constants of the paper unless others are given."""
    alpha, gamma = float(node.get("alpha", SELU[0])), float(node.get("gamma", SELU[1]))
    if math.isclose(alpha, SELU[0], rel_tol=1e-6) and math.isclose(gamma, SELU[1], rel_tol=1e-6):
        return F.selu(x)
    return F.elu(x, alpha) * gamma


@operator("Celu")
def celu(node: OnnxNode, x: Tensor) -> Tensor:
    """``max(0, x) + min(0, alpha (exp(x / alpha) - 1))``."""
    return F.celu(x, node.get("alpha", 1.0))


@operator("Gelu")
def gelu(node: OnnxNode, x: Tensor) -> Tensor:
    """``x Phi(x)``, exact or by tanh."""
    return F.gelu(x, approximate=node.get("approximate", "none"))


@operator("HardSigmoid")
def hard_sigmoid(node: OnnxNode, x: Tensor) -> Tensor:
    """``clip(alpha x + beta, 0, 1)``; torch has the one of slope 1/6, Keras and Paddle use 1/5."""
    alpha, beta = node.get("alpha", 0.2), node.get("beta", 0.5)
    if math.isclose(alpha, 1 / 6, rel_tol=1e-5) and beta == 0.5:
        return F.hardsigmoid(x)
    return torch.clamp(x * alpha + beta, 0.0, 1.0)


@operator("Swish")
def swish(node: OnnxNode, x: Tensor) -> Tensor:
    """``x sigmoid(alpha x)`` (Ramachandran et al. 2017, arXiv:1710.05941)."""
    alpha = node.get("alpha", 1.0)
    return F.silu(x) if alpha == 1 else x * torch.sigmoid(x * alpha)


@operator("SwiGLU")
def swiglu(node: OnnxNode, gate: Tensor, value: Tensor) -> Tensor:
    """Swish of the gate times the value (Shazeer 2020, arXiv:2002.05202)."""
    result: Tensor = swish(node, gate) * value
    return result


@operator("ThresholdedRelu")
def thresholded_relu(node: OnnxNode, x: Tensor) -> Tensor:
    """``x`` above ``alpha``, else zero."""
    return F.threshold(x, node.get("alpha", 1.0), 0.0)


@operator("Shrink")
def shrink(node: OnnxNode, x: Tensor) -> Tensor:
    """``x + bias`` below ``-lambd``, ``x - bias`` above ``lambd``, zero between."""
    bias, end = node.get("bias", 0.0), node.get("lambd", 0.5)
    if x.is_floating_point() and end >= 0 and bias in (0.0, end):
        return F.softshrink(x, end) if bias else F.hardshrink(x, end)
    moved = torch.where(x < -end, x + bias, torch.where(x > end, x - bias, 0.0))
    return moved if moved.dtype == x.dtype else moved.to(x.dtype)


def _hardmax(x: Tensor, dim: int) -> Tensor:
    """One at the first of the largest entries, zero elsewhere."""
    return torch.zeros_like(x).scatter(dim, x.argmax(dim, keepdim=True), 1)


SOFTMAXES: dict[str, Callable[[Tensor, int], Tensor]] = {
    "Softmax": lambda x, axis: F.softmax(x, axis),
    "LogSoftmax": lambda x, axis: F.log_softmax(x, axis),
    "Hardmax": _hardmax,
}


@operator(*SOFTMAXES)
def softmax(node: OnnxNode, x: Tensor) -> Tensor:
    """Over one axis; below opset 13 over the axis and all behind it together."""
    function = SOFTMAXES[node.kind]
    if node.opset >= COERCED:
        return function(x, node.get("axis", -1))
    axis = node.get("axis", 1)
    axis = axis + x.ndim if axis < 0 else axis
    if all(isinstance(size, int) and size == 1 for size in x.shape[axis + 1 :]):
        return function(x, axis)
    return function(x.flatten(axis), -1).reshape(x.shape)


@operator("Dropout", known=(1, 2))
def dropout(
    node: OnnxNode, x: Tensor, ratio: Array | None = None, training: Array | None = None
) -> Tensor | tuple[Tensor, Tensor]:
    """The input as it is; the ratio stays in the graph, for training.

    Where a file asks for its own training mode, the mask is that of the reference implementation (`onnx.reference`).
    """
    chance = node.get("ratio", 0.5) if node.opset < 12 or ratio is None else float(ratio.item())
    trains = training is not None and bool(training.item())
    if len(node.outputs) < 2 and not (trains and node.get("seed") is not None):
        return F.dropout(x, chance, trains)
    if not trains or chance == 0:
        mask_type = torch.bool if node.opset >= 10 else x.dtype
        return x, torch.ones_like(x, dtype=mask_type)
    stream = np.random.RandomState(node.get("seed"))
    mask = torch.from_numpy(stream.uniform(0, 1, tuple(x.shape)) >= chance)
    return x * mask / (1 - chance), mask
