"""Parts of a value: Slice, Split, Compress and triangles."""

import itertools
from typing import Any

import numpy as np
import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.folding import Size, axes_of, entries, integers, is_concrete, moved
from slimline.sources.onnx.operators.table import on_known, operator
from slimline.sources.onnx.values import Array, Known

END = 2**63 - 1
"""What ATen writes for the end of an axis."""


def part(x: Tensor, axis: int, start: Size, end: Size, step: int = 1) -> Tensor:
    """``x[start:end:step]`` on one axis: one operator, where indexing would also slice the axes before it."""
    whole = isinstance(start, int) and start == 0 and step == 1
    if (
        whole
        and isinstance(end, int)
        and (end >= 2**31 - 1 or (isinstance(x.shape[axis], int) and end >= x.shape[axis]))
    ):
        return x
    result: Tensor = torch.ops.aten.slice.Tensor(x, axis, start, end, step)
    return result


@operator("Slice", known=(1, 2, 3, 4))
def slice_(
    node: OnnxNode,
    x: Tensor,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Tensor:
    """Runs along axes; bounds are attributes before opset 10."""
    first = node.get("starts", []) if starts is None else entries(starts)
    last = node.get("ends", []) if ends is None else entries(ends)
    stride = integers(steps) or [1] * len(first)
    chosen = integers(axes) or node.get("axes") or list(range(len(first)))
    for axis, start, end, step in zip(axes_of(chosen, x.ndim), first, last, stride, strict=True):
        x = part(x, axis, start, min_end(end), step) if step > 0 else _backwards(x, axis, (start, end), step)
    return x


def min_end(end: Size) -> Size:
    """An end that torch can hold; files write the largest 32-bit or 64-bit number for "to the end"."""
    return min(end, END) if isinstance(end, int) else end


def _backwards(x: Tensor, axis: int, bounds: tuple[Size, Size], step: int) -> Tensor:
    """A slice with a negative step: the axis is reversed, and so are the bounds."""
    length = x.shape[axis]
    # A bound that counts from the end counts from the start of the reversed axis, whatever the size is.
    start, end = (-1 - bound if isinstance(bound, int) and bound < 0 else length - 1 - bound for bound in bounds)
    if isinstance(bounds[0], int) and bounds[0] >= 2**31 - 1:
        start = 0
    return part(torch.flip(x, [axis]), axis, _not_negative(start), _not_negative(end), -step)


def _not_negative(bound: Size) -> Size:
    if isinstance(bound, int):
        return max(0, bound)
    result: Size = torch.sym_max(0, bound)  # type: ignore[no-untyped-call]
    return result


@on_known("Slice")
def slice_known(
    node: OnnxNode,
    data: Known,
    starts: Known | None = None,
    ends: Known | None = None,
    axes: Known | None = None,
    steps: Known | None = None,
) -> Any:
    """Slice numbers that are known, such as sizes out of a shape."""
    bounds = (starts, ends, axes, steps)
    if not all(is_concrete(value) for value in bounds):
        return NotImplemented
    first = node.get("starts", []) if starts is None else integers(starts.array)
    last = node.get("ends", []) if ends is None else integers(ends.array)
    stride = [1] * len(first) if steps is None else integers(steps.array)
    chosen = node.get("axes", list(range(len(first)))) if axes is None else integers(axes.array)
    places = [slice(None)] * data.array.ndim
    for axis, start, end, step in zip(axes_of(chosen, data.array.ndim), first, last, stride, strict=True):
        places[axis] = slice(start, end, step)
    given = itertools.dropwhile(lambda value: value is None, reversed(bounds))
    return moved(node, data.array[tuple(places)], data, *list(given)[::-1])


@operator("Split", known=(1,))
def split(node: OnnxNode, x: Tensor, sizes: Array | None = None) -> tuple[Tensor, ...]:
    """Parts along an axis, as slices: each of them says which channels it reads.

    Sizes are an attribute before opset 13; without them the parts are equal, and the last may be smaller.
    """
    axis = axes_of([node.get("axis", 0)], x.ndim)[0]
    given = node.get("split") if sizes is None else entries(sizes)
    ends = _ends(node, x.shape[axis], given)
    return tuple(part(x, axis, start, end) for start, end in itertools.pairwise(ends))


def _ends(node: OnnxNode, length: Size, sizes: list[Size] | None) -> list[Size]:
    if sizes is None:
        count = node.get("num_outputs", len(node.outputs))
        size = (length + count - 1) // count
        return [*(size * i for i in range(count)), length]
    ends: list[Size] = [0]
    for size in sizes:
        ends.append(ends[-1] + size)
    if isinstance(length, int) and isinstance(ends[-1], int) and ends[-1] != length:
        raise SlimlineError(f"it splits an axis of size {length} into {sizes}, which is not the same.")
    return ends


@on_known("Split")
def split_known(node: OnnxNode, data: Known, sizes: Known | None = None) -> Any:
    """Split numbers that are known."""
    if not is_concrete(sizes):
        return NotImplemented
    axis = axes_of([node.get("axis", 0)], data.array.ndim)[0]
    given = node.get("split") if sizes is None else entries(sizes.array)
    ends = [int(end) for end in _ends(node, data.array.shape[axis], given)]
    values = (data,) if sizes is None else (data, sizes)
    parts = np.split(data.array, ends[1:-1], axis)
    return tuple(moved(node, array, *values, part=i) for i, array in enumerate(parts))


@operator("Compress", known=(1,))
def compress(node: OnnxNode, x: Tensor, condition: Array) -> Tensor:
    """The entries of an axis, or of the flattened value, where the condition holds."""
    axis = node.get("axis")
    if axis is None:
        x, axis = x.reshape(-1), 0
    places = np.flatnonzero(condition)
    return torch.index_select(x, axis, torch.from_numpy(places))


@operator("Trilu", known=(1,))
def trilu(node: OnnxNode, x: Tensor, k: Array | None = None) -> Tensor:
    """The upper or lower triangle of the last two axes, from the k-th diagonal."""
    diagonal = (integers(k) or [0])[0]
    return torch.triu(x, diagonal) if node.get("upper", 1) else torch.tril(x, diagonal)


@on_known("Trilu")
def trilu_known(node: OnnxNode, data: Known, k: Known | None = None) -> Any:
    """A triangle of numbers that are known."""
    if not (is_concrete(data) and is_concrete(k)):
        return NotImplemented
    diagonal = (integers(None if k is None else k.array) or [0])[0]
    array = np.triu(data.array, diagonal) if node.get("upper", 1) else np.tril(data.array, diagonal)
    return moved(node, array, data, *([] if k is None else [k]))
