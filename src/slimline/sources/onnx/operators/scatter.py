"""Writing by index: ScatterElements, ScatterND, TensorScatter."""

import math

import torch
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.folding import axes_of
from slimline.sources.onnx.operators.index import from_the_front, whole
from slimline.sources.onnx.operators.table import operator

REDUCTIONS = {"add": "sum", "mul": "prod", "max": "amax", "min": "amin"}


def _reduction(node: OnnxNode) -> str | None:
    """Torch's name of the reduction, or None where an entry is replaced."""
    name = node.get("reduction", "none")
    if name != "none" and name not in REDUCTIONS:
        raise SlimlineError(f"it combines entries by {name!r}, which ONNX does not have.")
    return REDUCTIONS.get(name)


@operator("Scatter", "ScatterElements")
def scatter_elements(node: OnnxNode, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy of the value with one entry along an axis replaced, or combined, for every index."""
    axis = axes_of([node.get("axis", 0)], x.ndim)[0]
    places = from_the_front(whole(indices), x.shape[axis])
    how = _reduction(node)
    return x.scatter(axis, places, updates) if how is None else x.scatter_reduce(axis, places, updates, how)


@operator("ScatterND")
def scatter_nd(node: OnnxNode, x: Tensor, indices: Tensor, updates: Tensor) -> Tensor:
    """A copy of the value with the slices at the coordinates on the last axis of the indices replaced, or combined."""
    how = _reduction(node)
    places = whole(indices).unbind(-1)
    if how in (None, "sum"):
        return x.index_put(places, updates, accumulate=how == "sum")
    depth = indices.shape[-1]
    inner = math.prod(x.shape[depth:])
    row: Tensor = torch.zeros_like(places[0])
    for length, place in zip(x.shape[:depth], places, strict=True):
        row = row * length + from_the_front(place, length)
    rows = row.reshape(-1, 1).expand(-1, inner)
    flat = x.reshape(math.prod(x.shape[:depth]), inner)
    return flat.scatter_reduce(0, rows, updates.reshape(-1, inner), str(how)).reshape(x.shape)


@operator("TensorScatter")
def tensor_scatter(node: OnnxNode, cache: Tensor, update: Tensor, starts: Tensor | None = None) -> Tensor:
    """A cache of keys or values with a run of new ones, which starts at another place for every sample."""
    axis = axes_of([node.get("axis", -2)], cache.ndim)[0]
    places = torch.arange(update.shape[axis]).reshape([-1 if d == axis else 1 for d in range(cache.ndim)])
    if starts is not None:
        places = places + whole(starts).reshape([-1] + [1] * (cache.ndim - 1))
    if node.get("mode", "linear") == "circular":
        places = places % cache.shape[axis]
    return cache.scatter(axis, places.expand(update.shape), update)
