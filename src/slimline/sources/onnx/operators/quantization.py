"""Quantise and dequantise, in the standard form of a quantised network where it has one.

    q = clamp(round(x / s) + z)        x = (q - z) s

The standard form, `torch.ops.quantized_decomposed`, takes int8 and uint8 (and int32 for biases) with one float32 scale
per tensor, which becomes a Python number, or one per channel, which stay stored tensors. Everything else, such as
blocks of four-bit weights, activations of sixteen bits, and scales that are computed at run time, becomes arithmetic.
"""

from dataclasses import dataclass
from typing import Any

import torch
import torch.ao.quantization.fx._decomposed  # noqa: F401  (registers the operators)
from onnx import TensorProto, helper
from torch import Tensor
from torch.utils._python_dispatch import _disable_current_modes

from slimline.errors import SlimlineError
from slimline.numerics.formats import IntFormat
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import operator
from slimline.sources.onnx.values import TORCH_TYPES, Array, Known, Value, tensor, to_tensor

decomposed = torch.ops.quantized_decomposed
CONTRIB = "com.microsoft"
INTEGERS: dict[int, IntFormat] = {
    TensorProto.UINT8: IntFormat("uint8", 0, 255, torch.uint8),
    TensorProto.INT8: IntFormat("int8", -128, 127, torch.int8),
    TensorProto.UINT16: IntFormat("uint16", 0, 65535, torch.uint16),
    TensorProto.INT16: IntFormat("int16", -32768, 32767, torch.int16),
    TensorProto.INT32: IntFormat("int32", -(2**31), 2**31 - 1, torch.int32),
    TensorProto.UINT4: IntFormat("uint4", 0, 15, torch.uint8),
    TensorProto.INT4: IntFormat("int4", -8, 7, torch.int8),
    TensorProto.UINT2: IntFormat("uint2", 0, 3, torch.uint8),
    TensorProto.INT2: IntFormat("int2", -2, 1, torch.int8),
}
NARROW_FLOATS: dict[int, torch.dtype] = {
    kind: TORCH_TYPES[kind]
    for kind in (
        TensorProto.FLOAT8E4M3FN,
        TensorProto.FLOAT8E4M3FNUZ,
        TensorProto.FLOAT8E5M2,
        TensorProto.FLOAT8E5M2FNUZ,
    )
}
LARGEST_E2M1 = 6.0


@dataclass(frozen=True)
class Grid:
    """The real numbers that integers stand for."""

    scale: Value
    zero_point: Value = None
    axis: int = 1
    """The axis along which scales differ, when there are several."""
    block: int = 0
    """Neighbours on the axis that share a scale; 0 when blocks are not used."""

    def scales(self) -> Tensor:
        result = tensor(self.scale)
        assert result is not None
        return result

    @property
    def standard(self) -> bool:
        """Whether scales and zero points are constants of the standard form."""
        return (
            isinstance(self.scale, Known)
            and (self.zero_point is None or isinstance(self.zero_point, Known))
            and self.scale.dtype == torch.float32
            and self.scale.array.ndim <= 1
            and not self.block
        )

    def whole_tensor(self) -> tuple[float, int] | None:
        """Scale and zero point when there is one of each, for a standard grid."""
        assert isinstance(self.scale, Known) and not isinstance(self.zero_point, Tensor)
        if self.scale.array.size != 1:
            return None
        zero = 0 if self.zero_point is None else int(self.zero_point.array.reshape(-1)[0])
        return float(self.scale.array.reshape(-1)[0]), zero

    def per_channel(self) -> tuple[Tensor, Tensor]:
        """Scales and zero points as stored tensors, for a standard grid.

        Zero points are stored in int64, since a difference of two uint8 would wrap around.
        """
        assert isinstance(self.scale, Known) and not isinstance(self.zero_point, Tensor)
        scales = self.scale.stored if self.scale.stored is not None else constant(self.scale.array)
        if self.zero_point is not None and self.zero_point.stored is not None and self.zero_point.dtype == torch.int32:
            return scales, self.zero_point.stored
        zeros = self.scale.array * 0 if self.zero_point is None else self.zero_point.array
        return scales, constant(zeros.astype("int64"))


def constant(array: Array) -> Tensor:
    """A tensor that tracing stores beside the weights, with no operator in the graph that makes it."""
    with _disable_current_modes():
        return to_tensor(array)


def element_type(value: Value) -> int:
    """The ONNX type of a value; four-bit integers are told from bytes for constants only."""
    if isinstance(value, Known) and value.array.dtype != object:
        return int(helper.np_dtype_to_tensor_dtype(value.array.dtype))
    assert value is not None
    return next(kind for kind, dtype in TORCH_TYPES.items() if dtype == value.dtype)


def integer_format(value: Value) -> IntFormat:
    """The format of an integer tensor or zero point; uint8 when it was left out.

    Raises:
        SlimlineError: it is not an integer of up to 32 bits.
    """
    kind = TensorProto.UINT8 if value is None else element_type(value)
    if kind not in INTEGERS:
        raise SlimlineError(f"numbers of type {TensorProto.DataType.Name(kind)} are not quantised integers.")
    return INTEGERS[kind]


def quantize(x: Tensor, grid: Grid, fmt: IntFormat, precision: torch.dtype | None = None) -> Tensor:
    """The nearest integers, ties to even, within the format."""
    single = precision in (None, torch.float32) and x.dtype == torch.float32
    if single and grid.standard and fmt.name in ("int8", "uint8"):
        limits = (fmt.low, fmt.high, fmt.dtype)
        pair = grid.whole_tensor()
        if pair is not None:
            result: Tensor = decomposed.quantize_per_tensor.default(x, *pair, *limits)
        else:
            result = decomposed.quantize_per_channel.default(x, *grid.per_channel(), grid.axis % x.ndim, *limits)
        return result
    scale = spread(grid.scales(), grid, x)
    steps = (x.to(precision or scale.dtype) / scale.to(precision or scale.dtype)).round().to(torch.float32)
    zero = tensor(grid.zero_point)
    steps = steps if zero is None else steps + spread(zero, grid, x).to(torch.float32)
    return steps.clamp(fmt.low, fmt.high).to(torch.int32).to(fmt.dtype)


def dequantize(q: Value, grid: Grid, out: torch.dtype | None = None) -> Tensor:
    """The real numbers that integers, or narrow floating-point numbers, stand for."""
    moved = isinstance(q, Known) and q.stored is None and q.array.dtype != object
    x = constant(q.array) if isinstance(q, Known) and moved else tensor(q)
    assert x is not None
    fmt = INTEGERS.get(element_type(q))
    if (
        fmt is not None
        and grid.standard
        and out in (None, torch.float32)
        and fmt.dtype not in (torch.int16, torch.uint16)
    ):
        limits = (fmt.low, fmt.high, fmt.dtype)
        pair = grid.whole_tensor()
        if pair is not None:
            result: Tensor = decomposed.dequantize_per_tensor.default(x, *pair, *limits)
        else:
            result = decomposed.dequantize_per_channel.default(x, *grid.per_channel(), grid.axis % x.ndim, *limits)
        return result
    steps, zero = x.to(torch.float32), tensor(grid.zero_point)
    steps = steps if zero is None else steps - spread(zero, grid, x).to(torch.float32)
    scale = spread(grid.scales(), grid, x)
    return (steps * scale.to(torch.float32)).to(out or scale.dtype)


def spread(values: Tensor, grid: Grid, x: Tensor) -> Tensor:
    """Scales or zero points in a shape that broadcasts to a tensor's."""
    if grid.block:
        axis = grid.axis % x.ndim
        return values.repeat_interleave(grid.block, axis).narrow(axis, 0, x.shape[axis])
    if values.ndim == 1 and values.shape[0] != 1:
        shape = [1] * x.ndim
        shape[grid.axis] = -1
        return values.reshape(shape)
    return values.reshape(()) if values.ndim == 1 else values


@operator("QuantizeLinear", raw=True)
@operator("QuantizeLinear", raw=True, domain=CONTRIB)
def quantize_linear(node: OnnxNode, _: Any, x: Value, scale: Value, zero_point: Value = None) -> Tensor:
    """Integers, or narrow floating-point numbers, from real ones."""
    grid = Grid(scale, zero_point, node.get("axis", 1), node.get("block_size", 0))
    precision = TORCH_TYPES[node.get("precision")] if node.get("precision", 0) else None
    given, real = node.get("output_dtype", 0), tensor(x)
    kind = given or (TensorProto.UINT8 if zero_point is None else element_type(zero_point))
    assert real is not None
    if kind in INTEGERS:
        return quantize(real, grid, INTEGERS[kind], precision)
    spread_scale = spread(grid.scales(), grid, real)
    ratio = real.to(precision or spread_scale.dtype) / spread_scale.to(precision or spread_scale.dtype)
    if kind == TensorProto.FLOAT4E2M1:
        return to_e2m1(ratio.to(torch.float32))
    if kind not in NARROW_FLOATS:
        raise SlimlineError(f"quantising to {TensorProto.DataType.Name(kind)} is not supported.")
    dtype = NARROW_FLOATS[kind]
    largest = torch.finfo(dtype).max
    return (ratio.clamp(-largest, largest) if node.get("saturate", 1) else ratio).to(dtype)


def to_e2m1(x: Tensor) -> Tensor:
    """The nearest four-bit floating-point numbers 0, 0.5, 1, 1.5, 2, 3, 4 and 6, and their negatives, ties to even.

    They are kept in float32: torch computes nothing in four bits.
    """
    size = x.abs().clamp(max=LARGEST_E2M1)
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return torch.copysign((size / step).round() * step, x)


@operator("DequantizeLinear", raw=True)
@operator("DequantizeLinear", raw=True, domain=CONTRIB)
def dequantize_linear(node: OnnxNode, _: Any, x: Value, scale: Value, zero_point: Value = None) -> Tensor:
    """Real numbers from integers."""
    out = TORCH_TYPES[node.get("output_dtype")] if node.get("output_dtype", 0) else None
    return dequantize(x, Grid(scale, zero_point, node.get("axis", 1), node.get("block_size", 0)), out)


@operator("DynamicQuantizeLinear")
def dynamic_quantize_linear(_: OnnxNode, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """uint8 numbers, their scale and their zero point, from the range of the whole tensor."""
    low, high = x.amin().clamp(max=0), x.amax().clamp(min=0)
    scale = (high - low) / 255
    scale = torch.where(scale == 0, torch.ones_like(scale), scale)
    zero = (-low / scale).round().clamp(0, 255)
    return (x / scale).round().add(zero).clamp(0, 255).to(torch.uint8), scale, zero.to(torch.uint8)
