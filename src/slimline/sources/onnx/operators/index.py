"""Reading by index: Gather and its relatives, one-hot codes and reversed sequences."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.folding import axes_of, is_concrete, moved
from slimline.sources.onnx.operators.slicing import part
from slimline.sources.onnx.operators.table import RunGraph, on_known, operator
from slimline.sources.onnx.values import Known, Value, tensor

INDEX_TYPES = (torch.int32, torch.int64)


def as_tensor(value: Value) -> Tensor:
    """A value that is not left out, as a tensor."""
    result = tensor(value)
    assert result is not None
    return result


def whole(indices: Tensor) -> Tensor:
    """Indices in the type that torch takes everywhere."""
    return indices if indices.dtype == torch.int64 else indices.to(torch.int64)


def from_the_front(indices: Tensor, length: Any) -> Tensor:
    """Indices with the negative ones counted from the start of an axis."""
    return torch.where(indices < 0, indices + length, indices)


@operator("Gather", raw=True)
def gather(node: OnnxNode, run_graph: RunGraph, data: Known | Tensor, indices: Known | Tensor) -> Tensor:
    """Entries of an axis: an embedding, a selection, a slice, or an index.

    A table of weights that is read by computed indices is an embedding. There an index must not be negative, which no
    token is; it raises when the network runs.
    """
    x = as_tensor(data)
    axis = axes_of([node.get("axis", 0)], x.ndim)[0]
    if isinstance(indices, Known) and is_concrete(indices):
        return _gather_known(x, axis, indices)
    index = as_tensor(indices)
    index = index if index.dtype in INDEX_TYPES else whole(index)
    if isinstance(data, Known) and x.ndim == 2 and axis == 0:
        return F.embedding(index, x)
    result: Tensor = torch.ops.aten.index.Tensor(x, [*[None] * axis, index])
    return result


def _gather_known(x: Tensor, axis: int, indices: Known) -> Tensor:
    length = x.shape[axis]
    array = indices.array.astype(np.int64)
    if array.ndim == 0:
        return x.select(axis, int(array))
    if array.size and array.min() < 0:
        if isinstance(length, torch.SymInt):
            raise SlimlineError(f"it counts from the end of axis {axis}, which holds the samples of a batch.")
        array = np.where(array < 0, array + length, array)
    if isinstance(length, int) and array.size and array.max() >= length:
        raise SlimlineError(f"it reads entry {array.max()} of axis {axis}, which has {length}.")
    if array.ndim == 1 and array.size and (np.diff(array) == 1).all():
        return part(x, axis, int(array[0]), int(array[-1]) + 1)
    same = array is indices.array or bool((array == indices.array).all())
    index = as_tensor(indices) if same and indices.stored is not None else torch.from_numpy(array)
    index = index if index.dtype in INDEX_TYPES else whole(index)
    if array.ndim == 1:
        return torch.index_select(x, axis, index)
    if x.ndim == 2 and axis == 0:
        return F.embedding(index, x)
    result: Tensor = torch.ops.aten.index.Tensor(x, [*[None] * axis, index])
    return result


@on_known("Gather")
def gather_known(node: OnnxNode, data: Known, indices: Known) -> Any:
    """Gather from numbers that are known, such as sizes out of a shape."""
    if not is_concrete(indices):
        return NotImplemented
    axis = axes_of([node.get("axis", 0)], data.array.ndim)[0]
    array = np.asarray(np.take(data.array, indices.array.astype(np.int64), axis), dtype=data.array.dtype)
    if data.stored is not None and data.dtype.is_floating_point and data.array.size > 1:
        stored = _gather_known(data.stored, axis, indices)
        return Known(array, data.dtype, stored)
    return moved(node, array, data, indices)


@operator("GatherElements")
def gather_elements(node: OnnxNode, x: Tensor, indices: Tensor) -> Tensor:
    """One entry along an axis for every index."""
    axis = axes_of([node.get("axis", 0)], x.ndim)[0]
    return torch.gather(x, axis, from_the_front(whole(indices), x.shape[axis]))


@operator("GatherND")
def gather_nd(node: OnnxNode, x: Tensor, indices: Tensor) -> Tensor:
    """Slices of the value at the coordinates on the last axis of the indices; ``batch_dims`` axes run along."""
    shared = node.get("batch_dims", 0)
    places: list[Tensor] = []
    for d in range(shared):
        run = torch.arange(x.shape[d])
        places.append(run.reshape([-1 if i == d else 1 for i in range(indices.ndim - 1)]))
    places += whole(indices).unbind(-1)
    result: Tensor = torch.ops.aten.index.Tensor(x, places)
    return result


@operator("OneHot", known=(1,))
def one_hot(node: OnnxNode, indices: Tensor, depth: Any, values: Tensor) -> Tensor:
    """The second of two values where the position on a new axis is the index, the first elsewhere."""
    count = int(depth.reshape(-1)[0])
    axis = axes_of([node.get("axis", -1)], indices.ndim + 1)[0]
    if not indices.is_floating_point():
        indices = whole(indices)
    positions = torch.arange(count).reshape([-1 if d == axis else 1 for d in range(indices.ndim + 1)])
    hot = from_the_front(indices, count).unsqueeze(axis) == positions
    return torch.where(hot, values[1], values[0])


@operator("ReverseSequence")
def reverse_sequence(node: OnnxNode, x: Tensor, lengths: Tensor) -> Tensor:
    """The first entries of every sequence in reverse order, as many as its length says."""
    time, batch = node.get("time_axis", 0), node.get("batch_axis", 1)
    positions = torch.arange(x.shape[time]).reshape([-1 if d == time else 1 for d in range(x.ndim)])
    ends = whole(lengths).reshape([-1 if d == batch else 1 for d in range(x.ndim)])
    source = torch.where(positions < ends, ends - 1 - positions, positions)
    return torch.gather(x, time, source.expand(x.shape))
