"""Operators on integers: dequantise, the plain operator, quantise. That is the form in which runtimes find them again.

Those of the domain ``com.microsoft`` are what ONNX Runtime's quantiser writes (format QOperator).
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.quantization import (
    CONTRIB,
    Grid,
    dequantize,
    integer_format,
    quantize,
)
from slimline.sources.onnx.operators.table import TABLE, operator, optional
from slimline.sources.onnx.values import Known, Value, tensor


def plain(node: OnnxNode, kind: str, *inputs: Tensor | None) -> Tensor:
    """The result of the operator on real numbers, with this node's attributes."""
    result: Tensor = TABLE["", kind].function(replace(node, kind=kind, domain=""), *inputs)
    return result


def bias_grid(first: Value, second: Value) -> Grid:
    """Biases are int32 numbers whose scale is the product of the scales of the two operands."""
    if isinstance(first, Known) and isinstance(second, Known):
        return Grid(Known((first.array * second.array).reshape(-1), first.dtype), axis=0)
    one, other = tensor(first), tensor(second)
    assert one is not None and other is not None
    return Grid((one * other).reshape(-1), axis=0)


def result(y: Tensor, scale: Value, zero_point: Value, axis: int = 1) -> Tensor:
    """The result on its own grid, in the type of its zero point."""
    return quantize(y, Grid(scale, zero_point, axis), integer_format(zero_point))


@operator("QLinearConv", raw=True)
def qlinear_conv(node: OnnxNode, _: Any, *inputs: Value) -> Tensor:
    """Convolution: x, its scale and zero point; the weight's; the result's; the int32 bias."""
    x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero = inputs[:8]
    bias = optional(inputs, 8)
    weight = dequantize(w, Grid(w_scale, w_zero, axis=0))
    real_bias = None if bias is None else dequantize(bias, bias_grid(x_scale, w_scale))
    return result(plain(node, "Conv", dequantize(x, Grid(x_scale, x_zero)), weight, real_bias), y_scale, y_zero)


@operator("QLinearMatMul", raw=True)
def qlinear_matmul(_: OnnxNode, __: Any, *inputs: Value) -> Tensor:
    """Matrix product; scales may differ by row of the first operand, column of the second, row of the result."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero = inputs
    product = dequantize(a, Grid(a_scale, a_zero, axis=-2)) @ dequantize(b, Grid(b_scale, b_zero, axis=-1))
    return result(product, y_scale, y_zero, axis=-2)


@operator("ConvInteger", raw=True)
def conv_integer(node: OnnxNode, _: Any, x: Value, w: Value, x_zero: Value = None, w_zero: Value = None) -> Tensor:
    """Convolution of integers into int32; see `matmul_integer`."""
    return _rounded(plain(node, "Conv", _steps(x, x_zero, 1), _steps(w, w_zero, 0), None))


@operator("MatMulInteger", raw=True)
def matmul_integer(_: OnnxNode, __: Any, a: Value, b: Value, a_zero: Value = None, b_zero: Value = None) -> Tensor:
    """Matrix product of integers into int32.

    It is computed in float32, where training and the runtimes have it: exact up to sums of 2^24, and behind it to the
    seven digits that the float32 scale leaves of every such product.
    """
    return _rounded(_steps(a, a_zero, -2) @ _steps(b, b_zero, -1))


def _steps(q: Value, zero_point: Value, axis: int) -> Tensor:
    """Integers less their zero point, as real numbers."""
    x, zero = tensor(q), tensor(zero_point)
    assert x is not None
    if zero is None:
        return x.to(torch.float32)
    if zero.ndim == 1 and zero.shape[0] != 1:
        shape = [1] * x.ndim
        shape[axis] = -1
        zero = zero.reshape(shape)
    return x.to(torch.float32) - zero.reshape(zero.shape if zero.ndim > 1 else ()).to(torch.float32)


def _rounded(y: Tensor) -> Tensor:
    return y.round().to(torch.int32)


def unary(inputs: Sequence[Value]) -> tuple[Tensor, Value, Value]:
    """The real input of (x, its scale and zero point; the result's), and the result's."""
    x, x_scale, x_zero, y_scale = inputs[:4]
    return dequantize(x, Grid(x_scale, x_zero)), y_scale, _zero_like(x, optional(inputs, 4))


def _zero_like(x: Value, zero_point: Value) -> Value:
    """A zero point that was left out is a 0 of the input's type."""
    if zero_point is not None or x is None:
        return zero_point
    return Known(torch.zeros((), dtype=x.dtype).numpy(), x.dtype)


@operator("QLinearAdd", raw=True, domain=CONTRIB)
@operator("QLinearMul", raw=True, domain=CONTRIB)
def qlinear_binary(node: OnnxNode, _: Any, *inputs: Value) -> Tensor:
    """Sum or product of (a, its scale and zero point; b's; the result's)."""
    a, a_scale, a_zero, b, b_scale, b_zero, y_scale = inputs[:7]
    real_a, real_b = dequantize(a, Grid(a_scale, a_zero)), dequantize(b, Grid(b_scale, b_zero))
    y = real_a + real_b if node.kind == "QLinearAdd" else real_a * real_b
    return result(y, y_scale, _zero_like(a, optional(inputs, 7)))


@operator("QLinearSigmoid", raw=True, domain=CONTRIB)
def qlinear_sigmoid(_: OnnxNode, __: Any, *inputs: Value) -> Tensor:
    """Sigmoid."""
    x, scale, zero_point = unary(inputs)
    return result(torch.sigmoid(x), scale, zero_point)


@operator("QLinearLeakyRelu", raw=True, domain=CONTRIB)
def qlinear_leaky_relu(node: OnnxNode, _: Any, *inputs: Value) -> Tensor:
    """Leaky ReLU."""
    x, scale, zero_point = unary(inputs)
    return result(torch.nn.functional.leaky_relu(x, node.get("alpha", 0.01)), scale, zero_point)


@operator("QLinearSoftmax", raw=True, domain=CONTRIB)
def qlinear_softmax(node: OnnxNode, _: Any, *inputs: Value) -> Tensor:
    """Softmax; the attribute ``opset`` tells whether it follows the rule for opsets before 13."""
    x, scale, zero_point = unary(inputs)
    rule = replace(node, opset=node.get("opset", 13))
    return result(plain(rule, "Softmax", x), scale, zero_point)


@operator("QLinearGlobalAveragePool", raw=True, domain=CONTRIB)
def qlinear_global_average_pool(node: OnnxNode, _: Any, *inputs: Value) -> Tensor:
    """The mean over the spatial axes."""
    x, scale, zero_point = unary(inputs)
    first = 1 if node.get("channels_last", 0) else 2
    axes = list(range(first, first + x.ndim - 2))
    return result(x.mean(axes, keepdim=True), scale, zero_point)


@operator("QLinearAveragePool", raw=True, domain=CONTRIB)
def qlinear_average_pool(node: OnnxNode, _: Any, *inputs: Value) -> Tensor:
    """Average pooling."""
    x, scale, zero_point = unary(inputs)
    last = bool(node.get("channels_last", 0))
    y = plain(node, "AveragePool", x.movedim(-1, 1) if last else x)
    return result(y.movedim(1, -1) if last else y, scale, zero_point)


@operator("QLinearConcat", raw=True, domain=CONTRIB)
def qlinear_concat(node: OnnxNode, _: Any, *inputs: Value) -> Tensor:
    """Concatenation of (the result's scale and zero point; each part, its scale and zero point)."""
    scale, zero_point, *parts = inputs
    real = [dequantize(x, Grid(s, z)) for x, s, z in zip(parts[::3], parts[1::3], parts[2::3], strict=True)]
    return result(torch.cat(real, node.get("axis")), scale, zero_point)


@operator("QGemm", raw=True, domain=CONTRIB)
def qgemm(node: OnnxNode, _: Any, *inputs: Value) -> Tensor:
    """``alpha A' B' + C`` on integers; the result stays real where it is given no scale.

    Scales may differ by column of the product; C is int32 with the product of the operands' scales.
    """
    a, a_scale, a_zero, b, b_scale, b_zero = inputs[:6]
    c, y_scale, y_zero = (optional(inputs, position) for position in (6, 7, 8))
    transposed = bool(node.get("transB", 0))
    real_a = dequantize(a, Grid(a_scale, a_zero))
    real_b = dequantize(b, Grid(b_scale, b_zero, axis=0 if transposed else 1))
    real_c = None if c is None else dequantize(c, replace(bias_grid(a_scale, b_scale), axis=-1))
    real_a = real_a.t() if node.get("transA", 0) else real_a
    alpha = node.get("alpha", 1.0)
    if transposed and alpha == 1 and (real_c is None or real_c.ndim == 1):
        y = torch.nn.functional.linear(real_a, real_b, real_c)
    else:
        y = real_a @ (real_b.t() if transposed else real_b)
        y = y if alpha == 1 else y * alpha
        y = y if real_c is None else y + real_c
    return y if y_scale is None else result(y, y_scale, _zero_like(a, y_zero))
