"""Conversions between number formats, and the reading of bits as another format.

Integers of two and four bits are held in int8 and uint8, and float4 and float8e8m0 in float32: torch computes with none
of them, and their values are what matters.
"""

import math

import onnx
import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import RunGraph, operator
from slimline.sources.onnx.values import TORCH_TYPES, Known, Value, tensor

KINDS = onnx.TensorProto
FEW_BITS: dict[int, tuple[int, bool]] = {
    KINDS.INT4: (4, True),
    KINDS.UINT4: (4, False),
    KINDS.INT2: (2, True),
    KINDS.UINT2: (2, False),
}
"""Integers of less than a byte -> (bits, signed)."""
FLOAT8 = {
    torch.float8_e4m3fn: (448.0, 464.0, math.nan),
    torch.float8_e4m3fnuz: (240.0, 248.0, math.nan),
    torch.float8_e5m2: (57344.0, 61440.0, math.inf),
    torch.float8_e5m2fnuz: (57344.0, 61440.0, math.nan),
}
"""Format -> (largest number, where rounding leaves the range, what lies beyond)."""


@operator("Cast")
def cast(node: OnnxNode, x: Tensor) -> Tensor:
    """To the type that an attribute names."""
    return converted(x, int(node.get("to")), bool(node.get("saturate", 1)), node.get("round_mode", "up"))


@operator("CastLike", raw=True)
def cast_like(node: OnnxNode, run_graph: RunGraph, value: Value, like: Value) -> Tensor:
    """To the type of the second input.

    A type of less than a byte is told from int8 where the second input is a constant.
    """
    x = tensor(value)
    assert x is not None and like is not None
    if isinstance(like, Known) and like.array.dtype != object:
        to = int(onnx.helper.np_dtype_to_tensor_dtype(like.array.dtype))
    else:
        to = next(kind for kind, dtype in TORCH_TYPES.items() if dtype == like.dtype)
    return converted(x, to, bool(node.get("saturate", 1)), node.get("round_mode", "up"))


def converted(x: Tensor, to: int, saturate: bool = True, round_mode: str = "up") -> Tensor:
    """Numbers in another format.

    Args:
        to: data type as ONNX numbers them.
        saturate: what leaves the range of a float of eight bits becomes its largest number, not infinity or NaN.
        round_mode: up, down or nearest, for float8e8m0.

    Raises:
        SlimlineError: the type is text or unknown.
    """
    if to in FEW_BITS:
        bits, signed = FEW_BITS[to]
        whole, half = x.to(torch.int32) & (1 << bits) - 1, 1 << bits - 1
        return ((whole ^ half) - half).to(torch.int8) if signed else whole.to(torch.uint8)
    if to == KINDS.FLOAT4E2M1:
        return _to_float4(x.float())
    if to == KINDS.FLOAT8E8M0:
        return _to_power_of_two(x.float(), saturate, round_mode)
    if to not in TORCH_TYPES:
        raise SlimlineError(f"it converts to the type number {to}, which torch has no counterpart for.")
    dtype = TORCH_TYPES[to]
    if x.dtype == dtype:
        return x
    return _to_float8(x.float(), dtype, saturate) if dtype in FLOAT8 else x.to(dtype)


def _to_float8(x: Tensor, dtype: torch.dtype, saturate: bool) -> Tensor:
    largest, end, beyond = FLOAT8[dtype]
    rounded = x.clamp(-largest, largest)
    if not saturate:
        outside = x.abs() > end if dtype == torch.float8_e4m3fn else x.abs() >= end
        rounded = torch.where(outside, x.sign() * beyond, rounded)
    return rounded.to(dtype)


def _to_float4(x: Tensor) -> Tensor:
    """The nearest of 0, 0.5, 1, 1.5, 2, 3, 4, 6, halves to the even code; NaN becomes -0, as in ONNX's tests."""
    size = x.abs().clamp(max=6.0)
    step = torch.where(size < 2, 0.5, torch.where(size < 4, 1.0, 2.0))
    return torch.where(x.isnan(), -0.0, torch.copysign(torch.round(size / step) * step, x))


def _to_power_of_two(x: Tensor, saturate: bool, round_mode: str) -> Tensor:
    """The power of two above, below or nearest, from 2**-127 to 2**127 (OCP Microscaling Formats 1.0, 5.4.1)."""
    bits = x.view(torch.int32)
    exponent, fraction = (bits >> 23) & 0xFF, bits & 0x7FFFFF
    half = 0x400000
    if round_mode == "up":
        above = fraction > 0
    elif round_mode == "nearest":
        above = (fraction > half) | ((fraction == half) & (exponent > 0))
    else:
        above = torch.zeros_like(fraction, dtype=torch.bool)
    raised = exponent + above
    if saturate:
        raised = raised.clamp(max=0xFE)
    power = torch.ldexp(torch.ones_like(x), raised - 127)
    return torch.where((exponent == 0xFF) | (raised > 0xFE), torch.nan, power)


@operator("BitCast")
def bit_cast(node: OnnxNode, x: Tensor) -> Tensor:
    """The same bits read as another type of the same width."""
    to = int(node.get("to"))
    if to in FEW_BITS:
        return converted(x, to)  # in two's complement the lower bits are the number
    if to not in TORCH_TYPES:
        raise SlimlineError(f"it reads bits as the type number {to}, which torch has no counterpart for.")
    dtype = TORCH_TYPES[to]
    if dtype.itemsize != x.element_size():
        raise SlimlineError(f"it reads numbers of {8 * x.element_size()} bits as {dtype}, which has another width.")
    return x if x.dtype == dtype else x.view(dtype)
