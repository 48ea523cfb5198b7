"""Comparison, choice and logic, of truth values and of bits."""

import operator as python
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import RunGraph, operator
from slimline.sources.onnx.operators.unsigned import (
    UNSIGNED,
    Operand,
    shifted_right,
    signed,
    through_int64,
    through_order,
)
from slimline.sources.onnx.values import Known, Value, tensor

MADE_BY_DEFAULT = (torch.float32, torch.int64, torch.bool)
"""Types that torch gives to Python's numbers."""


ORDER: dict[str, Callable[[Any, Any], Any]] = {
    "Equal": python.eq, "Less": python.lt, "LessOrEqual": python.le, "Greater": python.gt, "GreaterOrEqual": python.ge,
}  # fmt: skip
TRUTH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "And": torch.logical_and, "Or": torch.logical_or, "Xor": torch.logical_xor,
}  # fmt: skip
BITS: dict[str, Callable[[Any, Any], Any]] = {
    "BitwiseAnd": python.and_, "BitwiseOr": python.or_, "BitwiseXor": python.xor,
}  # fmt: skip


@operator(*ORDER, scalars=True)
@through_order
def comparison(node: OnnxNode, a: Operand, b: Operand) -> Any:
    """True where the relation holds."""
    return ORDER[node.kind](a, b)


@operator(*TRUTH)
def connective(node: OnnxNode, a: Tensor, b: Tensor) -> Tensor:
    """And, or, exclusive or."""
    return TRUTH[node.kind](a, b)


@operator("Not")
def negation(node: OnnxNode, x: Tensor) -> Tensor:
    """True where the input is false."""
    return torch.logical_not(x)


@operator("Where", raw=True)
def where(node: OnnxNode, run_graph: RunGraph, condition: Value, a: Value, b: Value) -> Tensor:
    """``a`` where the condition holds, else ``b``; a constant of one element stays a number if the type allows it."""
    chosen = tensor(condition)
    assert chosen is not None
    rank = max(value.ndim for value in (chosen, a, b) if isinstance(value, Tensor))
    both = isinstance(a, Known) and isinstance(b, Known)
    plain = not both or all(isinstance(v, Known) and v.dtype in MADE_BY_DEFAULT for v in (a, b))
    first: Any = _number(a, rank) if plain else tensor(a)
    second: Any = _number(b, rank) if plain else tensor(b)
    return torch.where(chosen, first, second)


def _number(value: Value, rank: int) -> Any:
    if isinstance(value, Known) and value.array.size == 1 and value.array.ndim <= rank:
        array = value.array.reshape(-1)
        if array.dtype.isbuiltin == 1 and array.dtype != object and value.dtype not in UNSIGNED:
            return array[0].item()
    return tensor(value)


@operator(*BITS, scalars=True)
@through_int64
def bitwise(node: OnnxNode, a: Operand, b: Operand) -> Any:
    """And, or, exclusive or of every bit."""
    return BITS[node.kind](a, b)


@operator("BitwiseNot")
@through_int64
def bitwise_not(node: OnnxNode, x: Tensor) -> Tensor:
    """Every bit turned."""
    return torch.bitwise_not(x)


@operator("BitShift")
def bit_shift(node: OnnxNode, x: Tensor, bits: Tensor) -> Tensor:
    """Shift left or right; signed numbers keep their sign on the way right."""
    if node.get("direction") == "RIGHT" and x.dtype == torch.uint64:
        return shifted_right(signed(x), signed(bits)).view(torch.uint64)
    result: Tensor = _shifted(node, x, bits)
    return result


@through_int64
def _shifted(node: OnnxNode, x: Tensor, bits: Tensor) -> Tensor:
    return x << bits if node.get("direction") == "LEFT" else x >> bits
