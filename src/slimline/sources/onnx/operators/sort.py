"""Order and search: TopK, NonZero, Unique."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.folding import axes_of, entries, is_concrete
from slimline.sources.onnx.operators.slicing import part
from slimline.sources.onnx.operators.table import on_known, operator
from slimline.sources.onnx.values import Array, Known, known, numbers


@operator("TopK", known=(1,))
def top_k(node: OnnxNode, x: Tensor, k: Array | None = None) -> tuple[Tensor, Tensor]:
    """The largest or smallest entries of an axis and their places; k is an attribute before opset 10.

    Of equal entries ONNX takes the first. Equal integers are common, so that those are sorted; of equal floating point
    numbers any may come in a traced network.
    """
    count = node.get("k") if k is None else entries(k)[0]
    axis = axes_of([node.get("axis", -1)], x.ndim)[0]
    largest = bool(node.get("largest", 1))
    if x.is_floating_point() and torch.compiler.is_exporting():
        values, places = torch.topk(x, count, axis, largest, bool(node.get("sorted", 1)))
        return values, places
    values, places = torch.sort(x, dim=axis, descending=largest, stable=True)
    return part(values, axis, 0, count), part(places, axis, 0, count)


@operator("NonZero", known=(0,))
def non_zero(node: OnnxNode, x: Array) -> Known:
    """Coordinates of what is not zero, one axis per row; they have to be known while a network is traced."""
    return known(np.array(np.nonzero(np.atleast_1d(x)))[: max(1, x.ndim)])


@on_known("NonZero")
def non_zero_known(node: OnnxNode, x: Known) -> Any:
    """NonZero of numbers that are known."""
    return non_zero(node, x.array) if is_concrete(x) else NotImplemented


@operator("Unique")
def unique(node: OnnxNode, x: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Different entries, or slices of an axis, where each stands first, which one each is, and how often it occurs."""
    axis = node.get("axis")
    array = numbers(x.float() if x.dtype == torch.bfloat16 else x, "which entries differ")
    values, first, inverse, counts = np.unique(array, True, True, True, axis)
    if not node.get("sorted", 1):
        order = np.argsort(first)
        place = np.empty_like(order)
        place[order] = np.arange(len(order))
        values = np.take(values, order, 0 if axis is None else axis)
        first, counts, inverse = first[order], counts[order], place[inverse]
    others = (torch.from_numpy(array.reshape(-1).astype(np.int64)) for array in (first, inverse, counts))
    return (torch.from_numpy(values).to(x.dtype), *others)  # type: ignore[return-value]
