"""ONNX forms of the operators that the exporter lacks, or writes in a form that the runtimes cannot fuse.

The reasons are facts about ONNX Runtime 1.31 (see `slimline.runtimes.onnxruntime`); OpenVINO takes these forms as well.
`TRANSLATIONS` goes to `torch.onnx.export(custom_translation_table=...)`, which calls each function while it builds the
graph: arguments that are tensors are symbolic values, the others are plain numbers.
"""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401  (registers the operators)
from onnxscript import ir, opset18

if TYPE_CHECKING:
    TensorType = Any
else:  # the exporter reads this annotation to tell tensors from plain numbers
    from onnxscript.onnx_types import TensorType

op: Any = opset18
OPSET = 18
"""The exporter's own functions are written for 18; ONNX Runtime optimises files of opset 18, 21 and 23 alike."""


def dequantize_per_channel(  # noqa: PLR0913  (the operator's own parameters)
    input: TensorType,
    scales: TensorType,
    zero_points: TensorType,
    axis: int,
    quant_min: int,
    quant_max: int,
    dtype: int,
    out_dtype: int = -1,
) -> TensorType:
    """``scales * (input - zero_points)`` along ``axis``, with the zero points in the type that ONNX asks for.

    They are written out even when they are all 0, because ONNX Runtime makes a QGemm of nothing else. ONNX has none for
    int32; `write_onnx` has checked that they are 0.
    """
    if dtype == ir.DataType.INT32:
        return op.DequantizeLinear(input, scales, axis=axis)
    return op.DequantizeLinear(input, scales, op.Cast(zero_points, to=dtype), axis=axis)


def mean_dim(self: TensorType, dim: Any = None, keepdim: bool = False, dtype: int = -1) -> TensorType:
    """The mean over all spatial axes is GlobalAveragePool, which runtimes have for integers and for blocked layouts."""
    if dtype not in (-1, None):
        self = op.Cast(self, to=dtype)
    rank = len(self.shape)
    axes = sorted(axis % rank for axis in dim) if dim else []
    if rank > 2 and axes == list(range(2, rank)):
        pooled = op.GlobalAveragePool(self)
        return pooled if keepdim else op.Flatten(pooled)
    if not axes:
        return op.ReduceMean(self, keepdims=keepdim)
    return op.ReduceMean(self, op.Constant(value_ints=axes), keepdims=keepdim)


def hardtanh(self: TensorType, min_val: float = -1.0, max_val: float = 1.0) -> TensorType:
    """Clip, which ONNX Runtime absorbs into the quantisation behind it; the exporter's own Min and Max stay."""
    return op.Clip(self, op.Constant(value_float=float(min_val)), op.Constant(value_float=float(max_val)))


def relu6(self: TensorType) -> TensorType:
    """See `hardtanh`."""
    return hardtanh(self, 0.0, 6.0)


def linear(input: TensorType, weight: TensorType, bias: TensorType = None) -> TensorType:
    """``input @ weight.T + bias``; a quantised one of three or more axes becomes a matrix product between two reshapes.

    Otherwise ONNX Runtime adds the bias in floating point and cannot fuse what follows.
    """
    rank, inner = len(input.shape), list(input.shape)[1:-1]
    if rank == 2:
        return op.Gemm(input, weight, bias, transB=1)
    producer = weight.producer()
    if rank > 2 and producer is not None and producer.op_type == "DequantizeLinear" and _fixed(inner):
        outputs, features = weight.shape
        rows = op.Reshape(input, op.Constant(value_ints=[-1, int(features)]))
        product = op.Gemm(rows, weight, bias, transB=1)
        return op.Reshape(product, op.Constant(value_ints=[-1, *(int(n) for n in inner), int(outputs)]))
    product = op.MatMul(input, op.Transpose(weight, perm=[1, 0]))
    return product if bias is None else op.Add(product, bias)


def _fixed(sizes: Sequence[Any]) -> bool:
    return all(isinstance(size, int) for size in sizes)


aten = torch.ops.aten
TRANSLATIONS: dict[Callable[..., Any], Callable[..., Any]] = {
    torch.ops.quantized_decomposed.dequantize_per_channel.default: dequantize_per_channel,
    aten.mean.dim: mean_dim,
    aten.hardtanh.default: hardtanh,
    aten.relu6.default: relu6,
    aten.linear.default: linear,
}
