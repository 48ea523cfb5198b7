"""Functions of one number, element by element."""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import operator
from slimline.sources.onnx.operators.unsigned import UNSIGNED, Operand, through_order

LARGEST_FLOAT = 3.4028234663852886e38
"""What files below opset 11 give as the end of a range that has none."""

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "Neg": torch.neg, "Ceil": torch.ceil, "Floor": torch.floor,
    "Round": torch.round,  # halves to the even neighbour, as in ONNX
    "Sqrt": torch.sqrt, "Exp": torch.exp, "Log": torch.log, "Reciprocal": torch.reciprocal, "Erf": torch.erf,
    "Sin": torch.sin, "Cos": torch.cos, "Tan": torch.tan, "Asin": torch.asin, "Acos": torch.acos, "Atan": torch.atan,
    "Sinh": torch.sinh, "Cosh": torch.cosh, "Asinh": torch.asinh, "Acosh": torch.acosh, "Atanh": torch.atanh,
    "Det": torch.linalg.det,
}  # fmt: skip
"""ONNX operator -> the torch function that is the same."""


@operator(*FUNCTIONS)
def function(node: OnnxNode, x: Tensor) -> Tensor:
    """The functions that torch has under another name."""
    return FUNCTIONS[node.kind](x)


@operator("Identity")
def identity(node: OnnxNode, x: Tensor) -> Tensor:
    """The input."""
    return x


@operator("Abs")
def absolute(node: OnnxNode, x: Tensor) -> Tensor:
    """Without the sign."""
    return x if x.dtype in UNSIGNED else torch.abs(x)


@operator("Sign")
def sign(node: OnnxNode, x: Tensor) -> Tensor:
    """-1, 0 or 1."""
    return (x != 0).to(x.dtype) if x.dtype in UNSIGNED else torch.sign(x)


@operator("IsNaN")
def is_nan(node: OnnxNode, x: Tensor) -> Tensor:
    """Where the value is not a number."""
    return torch.isnan(_wide(x))


@operator("IsInf")
def is_inf(node: OnnxNode, x: Tensor) -> Tensor:
    """Where the value is infinite, of both signs or of one."""
    x = _wide(x)
    negative, positive = node.get("detect_negative", 1), node.get("detect_positive", 1)
    if negative and positive:
        return torch.isinf(x)
    if not negative and not positive:
        return torch.zeros_like(x, dtype=torch.bool)
    return torch.isposinf(x) if positive else torch.isneginf(x)


def _wide(x: Tensor) -> Tensor:
    """Numbers of eight bits as float32: torch compares them in no other way."""
    return x.float() if x.element_size() == 1 else x


@operator("Clip", scalars=True)
def clip(node: OnnxNode, x: Tensor, low: Operand | None = None, high: Operand | None = None) -> Tensor:
    """Into a range whose ends are inputs, or attributes below opset 11; from zero up it is a ReLU."""
    if node.opset < 11:
        low, high = node.get("min"), node.get("max")
        low, high = None if low == -LARGEST_FLOAT else low, None if high == LARGEST_FLOAT else high
    if x.is_floating_point() and isinstance(low, float) and low == 0:
        if high is None:
            return F.relu(x)
        if isinstance(high, float) and high == 6:
            return F.relu6(x)
    result: Tensor = _limited(node, x, low, high)
    return result


def _limited(node: OnnxNode, x: Tensor, low: Any, high: Any) -> Any:
    if x.dtype in UNSIGNED:
        x = x if low is None else through_order(_at_least)(node, x, low)
        return x if high is None else through_order(_at_most)(node, x, high)
    if low is None and high is None:
        return x
    if isinstance(low, Tensor) != isinstance(high, Tensor):  # torch takes two of a kind
        low, high = None if low is None else _like(low, x), None if high is None else _like(high, x)
    return torch.clamp(x, low, high)


def _at_least(node: OnnxNode, x: Tensor, low: Operand) -> Tensor:
    return torch.maximum(x, _like(low, x))


def _at_most(node: OnnxNode, x: Tensor, high: Operand) -> Tensor:
    return torch.minimum(x, _like(high, x))


def _like(number: Operand, x: Tensor) -> Tensor:
    return number if isinstance(number, Tensor) else torch.full((), number, dtype=x.dtype)
