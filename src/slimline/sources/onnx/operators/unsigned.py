"""Unsigned integers of 16, 32 and 64 bits, which torch stores and hardly computes with.

The first two fit into int64. The third shares its bits with int64: sums, differences, products and bitwise operators
come out the same (two's complement), and order is kept when the top bit is flipped.
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode

UNSIGNED = (torch.uint16, torch.uint32, torch.uint64)
TOP_BIT = -(2**63)
REST = 2**63 - 1

Operand = Tensor | int | float | bool
Function = Callable[..., Any]


def signed(x: Any) -> Any:
    """The value as int64, or its bits when it has 64 of them; anything else is returned as it is."""
    if isinstance(x, Tensor):
        if x.dtype == torch.uint64:
            return x.view(torch.int64)
        return x.to(torch.int64) if x.dtype in UNSIGNED else x
    return x - 2**64 if isinstance(x, int) and x > REST else x


def unsigned(x: Tensor, dtype: torch.dtype) -> Tensor:
    """The inverse of `signed`; what does not fit loses its upper bits."""
    return x.view(dtype) if dtype == torch.uint64 else x.to(dtype)


def through_int64(function: Function) -> Function:
    """Run an operator whose upper bits do not reach the lower ones on int64 where its inputs are unsigned."""

    @functools.wraps(function)
    def run(node: OnnxNode, *values: Any) -> Any:
        dtype = _unsigned_type(values)
        if dtype is None:
            return function(node, *values)
        return unsigned(function(node, *map(signed, values)), dtype)

    return run


def through_order(function: Function) -> Function:
    """Run an operator that only compares (Less, Max, ...) on int64 in the same order where its inputs are unsigned."""

    @functools.wraps(function)
    def run(node: OnnxNode, *values: Any) -> Any:
        dtype = _unsigned_type(values)
        if dtype is None:
            return function(node, *values)
        flip = dtype == torch.uint64
        result = function(node, *(signed(value) ^ TOP_BIT if flip else signed(value) for value in values))
        if result.dtype == torch.bool:
            return result
        return unsigned(result ^ TOP_BIT if flip else result, dtype)

    return run


def _unsigned_type(values: tuple[Any, ...]) -> torch.dtype | None:
    return next((v.dtype for v in values if isinstance(v, Tensor) and v.dtype in UNSIGNED), None)


def quotient(a: Tensor, b: Tensor) -> Tensor:
    """``a // b`` of uint64 numbers given by their bits: half the dividend is not negative, and the rest is made up."""
    double = torch.div((a >> 1) & REST, b, rounding_mode="trunc") << 1
    small = double + _at_least(a - double * b, b)
    return torch.where(b < 0, _at_least(a, b).to(torch.int64), small)


def _at_least(a: Tensor, b: Tensor) -> Tensor:
    return (a ^ TOP_BIT) >= (b ^ TOP_BIT)


def shifted_right(x: Tensor, bits: Tensor) -> Tensor:
    """``x >> bits`` of uint64 numbers given by their bits: zeros come in from the left."""
    return torch.where(bits > 0, ((x >> 1) & REST) >> (bits - 1).clamp(min=0), x)
