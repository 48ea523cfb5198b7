"""Values made from a few numbers: constants, ranges, diagonals, windows."""

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode, constant_value
from slimline.sources.onnx.operators.folding import entries, is_concrete
from slimline.sources.onnx.operators.shape import LARGEST_FOLDED, refuse_absurd
from slimline.sources.onnx.operators.table import RunGraph, on_known, operator
from slimline.sources.onnx.values import TORCH_TYPES, Array, Known, Value, known, numbers, numpy_type, to_tensor


@operator("Constant")
def constant(node: OnnxNode) -> Known:
    """The value of a Constant that the graph has not stored as one.

    Raises:
        SlimlineError: it is text.
    """
    array = constant_value(node.attributes)
    if array is None or array.dtype.kind in "OSU":
        raise SlimlineError("it holds text, and only numbers can be read.")
    return Known(array, to_tensor(array).dtype)


@operator("ConstantOfShape", known=(0,))
def constant_of_shape(node: OnnxNode, shape: Array) -> Value:
    """One number everywhere, zero in float when there is no ``value``.

    Raises:
        SlimlineError: the result is absurdly large.
    """
    value = to_tensor(node.get("value", np.zeros(1, np.float32)))
    sizes, number = entries(shape), value.reshape(-1)[0].item()
    refuse_absurd(sizes, value.dtype)
    filled = torch.full(sizes, number, dtype=value.dtype)
    if shape.dtype == object or math.prod(sizes) > LARGEST_FOLDED:
        return filled
    return Known(np.full(sizes, number, numpy_type(value.dtype)), value.dtype, filled)


@on_known("ConstantOfShape")
def constant_of_shape_known(node: OnnxNode, shape: Known) -> Value:
    """ConstantOfShape of a shape that is known."""
    result: Value = constant_of_shape(node, shape.array)
    return result


@operator("Range", raw=True)
def range_(node: OnnxNode, run_graph: RunGraph, start: Value, limit: Value, delta: Value) -> Value:
    """Numbers from ``start`` to before ``limit``; half precision is counted in single."""
    dtype = start.dtype if isinstance(start, (Known, Tensor)) else torch.int64
    ends = [_number(value, name) for value, name in ((start, "start"), (limit, "limit"), (delta, "delta"))]
    first, last, step = ends
    if any(isinstance(end, (torch.SymInt, torch.SymFloat)) for end in ends):
        return torch.arange(first, last, step, dtype=dtype)
    count = max(0, math.ceil((last - first) / step))
    refuse_absurd([count], dtype)
    if count > LARGEST_FOLDED:
        return torch.arange(first, last, step, dtype=dtype)
    wide = np.float32 if dtype in (torch.float16, torch.bfloat16) else numpy_type(dtype)
    return known((np.array(first, wide) + np.arange(count).astype(wide) * np.array(step, wide)).astype(wide), dtype)


def _number(value: Value, name: str) -> Any:
    if isinstance(value, Tensor) and value.dtype == torch.bfloat16:
        value = value.float()
    entry = numbers(value, name).reshape(-1)[0]
    return entry.item() if isinstance(entry, np.generic) else entry


@on_known("Range")
def range_known(node: OnnxNode, start: Known, limit: Known, delta: Known) -> Value:
    """Range between numbers that are known."""
    result: Value = range_(node, None, start, limit, delta)
    return result


@operator("EyeLike")
def eye_like(node: OnnxNode, x: Tensor) -> Tensor:
    """Ones on the k-th diagonal of a matrix with the shape of the input."""
    dtype = TORCH_TYPES[node.get("dtype")] if node.get("dtype") is not None else x.dtype
    k = node.get("k", 0)
    rows, columns = x.shape
    diagonal: Tensor = torch.arange(rows).unsqueeze(1) + k == torch.arange(columns)
    return diagonal.to(dtype)


@operator("HannWindow", "HammingWindow", "BlackmanWindow", known=(0,))
def window(node: OnnxNode, size: Array) -> Known:
    """A sum of cosines; a periodic window is a longer symmetric one without its end."""
    weights = {
        "HannWindow": (0.5, -0.5),
        "HammingWindow": (25 / 46, -21 / 46),
        "BlackmanWindow": (0.42, -0.5, 0.08),
    }[node.kind]
    length = int(size.reshape(-1)[0])
    dtype = TORCH_TYPES[node.get("output_datatype", 1)]
    refuse_absurd([length], dtype)
    turn = 2 * np.pi * np.arange(length) / max(1, length if node.get("periodic", 1) else length - 1)
    array = sum(weight * np.cos(i * turn) for i, weight in enumerate(weights))
    return known(array, dtype)


@on_known("HannWindow", "HammingWindow", "BlackmanWindow")
def window_known(node: OnnxNode, size: Known) -> Any:
    """Windows of a length that is known."""
    return window(node, size.array) if is_concrete(size) else NotImplemented
