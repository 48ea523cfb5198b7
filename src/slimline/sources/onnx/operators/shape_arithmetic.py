"""Arithmetic on numbers that are known while tracing: shapes, whose batch may be symbolic, and small constants.

Plain numbers are computed in their own numpy type. An array that holds a symbolic size is one of Python objects, and so
is the result, until a number comes out that does not depend on the batch.
"""

import functools
import math
import operator as python
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.fx.experimental.symbolic_shapes import statically_known_true

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.reduction import reduced_axes
from slimline.sources.onnx.operators.table import on_known
from slimline.sources.onnx.values import TORCH_TYPES, Array, Known, known, numpy_type

Function = Callable[..., Any]
Result = Any
"""`Known`, or NotImplemented: then the operator runs on tensors."""
_NOT: Function = torch.sym_not
_FLOAT: Function = torch.sym_float
WHOLE = "biu"
"""Kinds of numpy types that hold whole numbers."""


def _computed(function: Function, symbolic: Function, dtype: torch.dtype, *values: Known) -> Result:
    """One function on numbers, another on entries of which some are symbolic; not for types that numpy lacks."""
    arrays = [value.array for value in values]
    if any(array.dtype == object for array in arrays):
        found = np.frompyfunc(symbolic, len(arrays), 1)(*(array.astype(object) for array in arrays))
        return known(np.asarray(found, dtype=object), dtype)
    if any(array.dtype.isbuiltin != 1 for array in arrays):
        return NotImplemented
    with np.errstate(all="ignore"):
        return Known(np.asarray(function(*arrays)), dtype)


def _quotient(a: Array, b: Array) -> Array:
    if a.dtype.kind in WHOLE:
        safe = np.where(b == 0, 1, b)
        return (a - np.fmod(a, safe)) // safe
    return np.asarray(a / b)


def _symbolic_quotient(a: Any, b: Any) -> Any:
    if isinstance(a, float | torch.SymFloat) or isinstance(b, float | torch.SymFloat):
        return a / b
    if isinstance(a, int) and isinstance(b, int):
        return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)
    # sizes are not negative, so that only the sign of the divisor tells rounding down from rounding to zero
    return -(a // -b) if isinstance(b, int) and b < 0 else a // b


BINARY: dict[str, tuple[Function, Function]] = {
    "Add": (np.add, python.add),
    "Sub": (np.subtract, python.sub),
    "Mul": (np.multiply, python.mul),
    "Div": (_quotient, _symbolic_quotient),
    "Max": (np.maximum, torch.sym_max),
    "Min": (np.minimum, torch.sym_min),
    "Sum": (np.add, python.add),
}


@on_known(*BINARY)
def arithmetic(node: OnnxNode, *values: Known) -> Result:
    """Sums, differences, products, quotients (of integers, towards zero) and extremes."""
    function, symbolic = BINARY[node.kind]
    return functools.reduce(lambda a, b: _computed(function, symbolic, values[0].dtype, a, b), values)


@on_known("Mod")
def remainder(node: OnnxNode, a: Known, b: Known) -> Result:
    """The remainder, as in `slimline.sources.onnx.operators.arithmetic`."""
    if node.get("fmod", 0):
        return _computed(np.fmod, math.fmod, a.dtype, a, b)
    return _computed(np.mod, python.mod, a.dtype, a, b)


@on_known("Pow")
def power(node: OnnxNode, a: Known, b: Known) -> Result:
    """In the type of the base."""

    def exact(x: Array, y: Array) -> Array:
        return np.power(x.astype(np.float64), y).astype(x.dtype) if y.dtype.kind == "f" else np.power(x, y)

    if a.array.dtype.kind in WHOLE and b.array.dtype.kind == "i" and bool((b.array < 0).any()):
        return NotImplemented
    return _computed(exact, python.pow, a.dtype, a, b)


def _settled(value: Any) -> Any:
    """True or False where a comparison of symbolic sizes has one answer for every batch."""
    if isinstance(value, torch.SymBool):
        if statically_known_true(value):
            return True
        return False if statically_known_true(_NOT(value)) else value
    return value


COMPARISONS: dict[str, tuple[Function, Function]] = {
    "Equal": (np.equal, python.eq), "Less": (np.less, python.lt), "LessOrEqual": (np.less_equal, python.le),
    "Greater": (np.greater, python.gt), "GreaterOrEqual": (np.greater_equal, python.ge),
    "And": (np.logical_and, python.and_), "Or": (np.logical_or, python.or_), "Xor": (np.logical_xor, python.ne),
}  # fmt: skip


@on_known(*COMPARISONS)
def comparison(node: OnnxNode, a: Known, b: Known) -> Result:
    """Comparisons, and connectives of truth values."""
    function, symbolic = COMPARISONS[node.kind]
    return _computed(function, lambda x, y: _settled(symbolic(x, y)), torch.bool, a, b)


@on_known("Not")
def negation(node: OnnxNode, x: Known) -> Result:
    """True where the input is false."""
    return _computed(np.logical_not, torch.sym_not, torch.bool, x)


@on_known("Where")
def where(node: OnnxNode, condition: Known, a: Known, b: Known) -> Result:
    """``a`` where the condition holds, else ``b``; the condition must not depend on the batch."""
    if condition.array.dtype == object or any(v.array.dtype.isbuiltin != 1 for v in (a, b)):
        return NotImplemented
    chosen = np.where(condition.array, a.array, b.array)
    return known(chosen, a.dtype) if chosen.dtype == object else Known(chosen, a.dtype)


UNARY: dict[str, tuple[Function, Function]] = {
    "Neg": (np.negative, python.neg),
    "Abs": (np.abs, abs),
    "Floor": (np.floor, math.floor),
    "Ceil": (np.ceil, math.ceil),
    "Sqrt": (np.sqrt, torch.sym_sqrt),
    "Reciprocal": (np.reciprocal, lambda x: 1.0 / x),
}


@on_known(*UNARY)
def function(node: OnnxNode, x: Known) -> Result:
    """Functions of one number that occur between a Shape and a Reshape."""
    numeric, symbolic = UNARY[node.kind]
    if node.kind in ("Floor", "Ceil"):  # Python's give whole numbers, ONNX's floats
        return _computed(numeric, lambda entry: _FLOAT(symbolic(entry)), x.dtype, x)
    return _computed(numeric, symbolic, x.dtype, x)


@on_known("Identity")
def identity(node: OnnxNode, x: Known) -> Result:
    """The input."""
    return x


@on_known("Cast")
def cast(node: OnnxNode, x: Known) -> Result:
    """To the type that an attribute names."""
    dtype = TORCH_TYPES.get(node.get("to"))
    return NotImplemented if dtype is None else _converted(x, dtype, node.get("to"))


@on_known("CastLike")
def cast_like(node: OnnxNode, x: Known, like: Known) -> Result:
    """To the type of the second input."""
    narrow = like.array.dtype != object and like.array.dtype.isbuiltin != 1  # torch holds it in another type
    return NotImplemented if narrow else _converted(x, like.dtype, None)


def _converted(x: Known, dtype: torch.dtype, to: int | None) -> Result:
    """In another type that numpy has."""
    if x.array.dtype != object and x.array.dtype.isbuiltin != 1:
        return NotImplemented
    if not hasattr(np, str(dtype).removeprefix("torch.")) or (to is not None and not _has_own_type(to)):
        return NotImplemented
    if x.dtype == dtype:
        return x
    if dtype == torch.bool:
        return _computed(lambda a: a != 0, lambda entry: _settled(entry != 0), dtype, x)
    symbolic = torch.sym_float if dtype.is_floating_point else torch.sym_int
    return _computed(lambda a: a.astype(numpy_type(dtype)), symbolic, dtype, x)


def _has_own_type(to: int) -> bool:
    """Not one of less than a byte, which shares the torch type of the byte."""
    return next(kind for kind, dtype in TORCH_TYPES.items() if dtype == TORCH_TYPES[to]) == to


REDUCTIONS: dict[str, tuple[Any, Function]] = {
    "ReduceProd": (np.multiply, python.mul),
    "ReduceSum": (np.add, python.add),
    "ReduceMax": (np.maximum, torch.sym_max),
    "ReduceMin": (np.minimum, torch.sym_min),
}


@on_known(*REDUCTIONS)
def reduction(node: OnnxNode, x: Known, axes: Known | None = None) -> Result:
    """Over the entries of axes, or over all."""
    chosen = reduced_axes(node, x.array.ndim, None if axes is None else axes.array)
    if x.array.size == 0 or (x.array.dtype != object and x.array.dtype.isbuiltin != 1):
        return NotImplemented
    numeric, symbolic = REDUCTIONS[node.kind]
    function = np.frompyfunc(symbolic, 2, 1) if x.array.dtype == object else numeric
    result, keep = x.array, bool(node.get("keepdims", 1))
    for axis in sorted((axis % x.array.ndim for axis in chosen), reverse=True):
        result = np.asarray(function.reduce(result, axis=axis, keepdims=keep))
    return known(result, x.dtype) if result.dtype == object else Known(result.astype(x.array.dtype), x.dtype)
