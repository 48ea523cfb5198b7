"""Arithmetic on two inputs or more, element by element."""

import functools
import operator as python
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import RunGraph, operator
from slimline.sources.onnx.operators.unsigned import Operand, quotient, signed, through_int64, through_order
from slimline.sources.onnx.values import Known, Value, tensor

RING: dict[str, Callable[[Any, Any], Any]] = {"Add": python.add, "Sub": python.sub, "Mul": python.mul}


@operator(*RING, scalars=True)
@through_int64
def ring(node: OnnxNode, a: Operand, b: Operand) -> Any:
    """Sum, difference or product."""
    return RING[node.kind](a, b)


@operator("Div", scalars=True)
def div(node: OnnxNode, a: Operand, b: Operand) -> Any:
    """Division; of integers, the quotient towards zero."""
    if not _integers(a, b):
        return a / b
    if _is_uint64(a, b):
        return quotient(*_tensors(signed(a), signed(b))).view(torch.uint64)
    return _truncated(node, a, b)


@through_int64
def _truncated(node: OnnxNode, a: Operand, b: Operand) -> Tensor:
    dividend = a if isinstance(a, Tensor) else _tensors(a, b)[0]
    return torch.div(dividend, b, rounding_mode="trunc")


@operator("Mod", scalars=True)
def mod(node: OnnxNode, a: Operand, b: Operand) -> Any:
    """The remainder, with the sign of the divisor; with ``fmod``, of the dividend."""
    if _is_uint64(a, b):
        dividend, divisor = _tensors(signed(a), signed(b))
        return (dividend - quotient(dividend, divisor) * divisor).view(torch.uint64)
    return _remainder(node, a, b)


@through_int64
def _remainder(node: OnnxNode, a: Operand, b: Operand) -> Tensor:
    dividend = a if isinstance(a, Tensor) else _tensors(a, b)[0]
    return torch.fmod(dividend, b) if node.get("fmod", 0) else torch.remainder(dividend, b)


def _integers(*values: Operand) -> bool:
    return not any(x.is_floating_point() or x.is_complex() for x in values if isinstance(x, Tensor))


def _is_uint64(*values: Operand) -> bool:
    return any(isinstance(x, Tensor) and x.dtype == torch.uint64 for x in values)


def _tensors(a: Operand, b: Operand) -> tuple[Tensor, Tensor]:
    """Both as tensors; a number takes the type of the other."""
    if isinstance(a, Tensor):
        return a, b if isinstance(b, Tensor) else torch.full((), b, dtype=a.dtype)
    assert isinstance(b, Tensor)
    return torch.full((), a, dtype=b.dtype), b


@operator("Pow", raw=True)
def power(node: OnnxNode, run_graph: RunGraph, base: Value, exponent: Value) -> Tensor:
    """``base ** exponent`` in the type of the base, whatever that of the exponent."""
    assert base is not None and exponent is not None
    number = _number(exponent, base)
    if number is not None:
        x = tensor(base)
        assert x is not None
        if x.is_floating_point():
            return torch.pow(x, number)
        return torch.pow(x, int(number)) if number == int(number) else torch.pow(x.double(), number).to(x.dtype)
    number = _number(base, exponent)
    if number is not None and isinstance(exponent, Tensor) and exponent.dtype == base.dtype:
        return torch.pow(number, exponent)
    x, y = tensor(base), signed(tensor(exponent))
    assert x is not None
    mixed = not x.is_floating_point() and y.is_floating_point()  # float64 holds every int32
    result = torch.pow(x.double() if mixed else x, y)
    return result if result.dtype == x.dtype else result.to(x.dtype)


def _number(value: Value, other: Value) -> float | int | None:
    """The value as a number when it is a constant of one element that does not add axes to the other."""
    if not isinstance(value, Known) or not isinstance(other, Tensor) or value.array.dtype == object:
        return None
    if value.array.size != 1 or value.array.ndim > other.ndim:
        return None
    entry: float | int = value.array.reshape(-1)[0].item()
    return entry


@operator("Max", scalars=True)
@through_order
def maximum(node: OnnxNode, *values: Operand) -> Operand:
    """The largest of the inputs; NaN where one of them is."""
    return functools.reduce(_larger, values)


def _larger(a: Operand, b: Operand) -> Operand:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.maximum(a, b)
    if isinstance(a, Tensor):
        return torch.clamp(a, min=b)
    return torch.clamp(b, min=a) if isinstance(b, Tensor) else max(a, b)


@operator("Min", scalars=True)
@through_order
def minimum(node: OnnxNode, *values: Operand) -> Operand:
    """The smallest of the inputs; NaN where one of them is."""
    return functools.reduce(_smaller, values)


def _smaller(a: Operand, b: Operand) -> Operand:
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return torch.minimum(a, b)
    if isinstance(a, Tensor):
        return torch.clamp(a, max=b)
    return torch.clamp(b, max=a) if isinstance(b, Tensor) else min(a, b)


@operator("Sum", scalars=True)
def total(node: OnnxNode, *values: Operand) -> Any:
    """The inputs added up."""
    return functools.reduce(lambda a, b: a + b, values)


@operator("Mean", scalars=True)
def mean(node: OnnxNode, *values: Operand) -> Any:
    """The inputs added up, by their number."""
    return total(node, *values) / len(values)
