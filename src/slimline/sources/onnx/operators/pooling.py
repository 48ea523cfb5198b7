"""Pooling and its inverse."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.convolution import padded, padding
from slimline.sources.onnx.operators.resize import constant
from slimline.sources.onnx.operators.table import operator
from slimline.sources.onnx.values import Array

MAX_POOLS = {1: F.max_pool1d, 2: F.max_pool2d, 3: F.max_pool3d}
MEAN_POOLS = {1: F.avg_pool1d, 2: F.avg_pool2d, 3: F.avg_pool3d}


@dataclass(frozen=True)
class Windows:
    """Where the windows of a pooling node lie; every list has one entry per spatial axis."""

    sizes: list[int]
    kernel: list[int]
    strides: list[int]
    dilations: list[int]
    before: list[int]
    after: list[int]
    counts: list[int]
    """Windows on each axis."""

    def extent(self, axis: int) -> int:
        return (self.kernel[axis] - 1) * self.dilations[axis] + 1

    def mode_in_torch(self) -> bool | None:
        """The ``ceil_mode`` with which equal padding on both sides gives these windows; None when neither does."""
        if any(pad < 0 or 2 * pad > k for pad, k in zip(self.before, self.kernel, strict=True)):
            return None  # torch has no such padding
        for ceil in (False, True):
            axes = range(len(self.kernel))
            if all(_count(self, axis, self.before[axis], ceil) == self.counts[axis] for axis in axes):
                return ceil
        return None

    def padding_after(self) -> list[int]:
        """Entries after each axis with which the last window just fits; negative where entries are left over."""
        return [
            (self.counts[axis] - 1) * self.strides[axis] + self.extent(axis) - self.before[axis] - size
            for axis, size in enumerate(self.sizes)
        ]


def windows(node: OnnxNode, x: Tensor) -> Windows:
    """The windows of a pooling node on an input (batch, channels, *sizes); sizes have to be known."""
    sizes, kernel = list(x.shape[2:]), list(node.get("kernel_shape"))
    rank = len(kernel)
    before, after = padding(node, tuple(sizes), kernel)
    strides, dilations = list(node.get("strides", [1] * rank)), list(node.get("dilations", [1] * rank))
    found = Windows(sizes, kernel, strides, dilations, before, after, [])
    ceil = bool(node.get("ceil_mode", 0))
    found.counts.extend(_count(found, axis, after[axis], ceil) for axis in range(rank))
    return found


def _count(w: Windows, axis: int, after: int, ceil: bool) -> int:
    """Windows on an axis; with ``ceil`` the last may overhang, but none starts in the padding after the axis."""
    room, stride = w.sizes[axis] + w.before[axis] + after - w.extent(axis), w.strides[axis]
    count = (-(-room // stride) if ceil else room // stride) + 1
    return count - 1 if ceil and (count - 1) * stride >= w.sizes[axis] + w.before[axis] else count


def _of_rank(table: dict[int, Any], rank: int) -> Any:
    if rank not in table:
        raise SlimlineError(f"it pools over {rank} axes; one to three are supported.")
    return table[rank]


@operator("MaxPool")
def max_pool(node: OnnxNode, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
    """The largest entry of each window, and where it is when the node has a second output."""
    if not x.is_floating_point():
        found = max_pool(node, x.to(torch.float32))  # exact: ONNX has one-byte integers here
        return (found[0].to(x.dtype), found[1]) if isinstance(found, tuple) else found.to(x.dtype)
    w = windows(node, x)
    function, ceil = _of_rank(MAX_POOLS, len(w.kernel)), w.mode_in_torch()
    wants_places = len(node.outputs) > 1 and node.outputs[1] != ""
    if ceil is not None:
        result = function(x, w.kernel, w.strides, w.before, w.dilations, ceil_mode=ceil, return_indices=wants_places)
    else:
        x_padded = padded(x, w.before, w.padding_after(), float("-inf"))
        result = function(x_padded, w.kernel, w.strides, 0, w.dilations, return_indices=wants_places)
    if not wants_places:
        plain: Tensor = result
        return plain
    shift = [0] * len(w.kernel) if ceil is not None else w.before
    inner = w.sizes if ceil is not None else list(x_padded.shape[2:])
    return result[0], _places(result[1], inner, shift, w.sizes, bool(node.get("storage_order", 0)))


def _places(found: Tensor, inner: list[int], shift: list[int], sizes: list[int], by_columns: bool) -> Tensor:
    """Positions in a padded plane of sizes ``inner`` -> positions in the whole unpadded input, as ONNX counts them."""
    place = torch.zeros_like(found)
    step = 1
    for axis in range(len(sizes)) if by_columns else reversed(range(len(sizes))):
        along = found // math.prod(inner[axis + 1 :]) % inner[axis] - shift[axis]
        place = place + along * step
        step *= sizes[axis]
    planes = torch.arange(found.shape[0] * found.shape[1]).reshape(found.shape[0], found.shape[1], *[1] * len(sizes))
    return place + planes * math.prod(sizes)


@operator("AveragePool")
def average_pool(node: OnnxNode, x: Tensor) -> Tensor:
    """The mean of each window, with or without the padding in it."""
    w, with_padding = windows(node, x), bool(node.get("count_include_pad", 0))
    function, ceil = _of_rank(MEAN_POOLS, len(w.kernel)), w.mode_in_torch()
    if ceil is not None and (w.before == w.after or not with_padding) and w.dilations == [1] * len(w.kernel):
        result: Tensor = function(x, w.kernel, w.strides, w.before, ceil, with_padding)
        return result
    means, entries = _window_means(x, w), _entries(w, with_padding)
    whole = math.prod(w.kernel)
    if (entries == whole).all():
        return means
    return means * constant(whole / np.maximum(entries, 1), x.dtype)


def _window_means(x: Tensor, w: Windows) -> Tensor:
    """Means over all taps of each window, those in the padding counting as zeros."""
    x = padded(x, w.before, w.padding_after())
    if w.dilations == [1] * len(w.kernel):
        result: Tensor = _of_rank(MEAN_POOLS, len(w.kernel))(x, w.kernel, w.strides)
        return result
    for axis in range(len(w.kernel)):
        x = x.unfold(2 + axis, w.extent(axis), w.strides[axis])[..., :: w.dilations[axis]]
    return x.mean(list(range(-len(w.kernel), 0)))


def _entries(w: Windows, with_padding: bool) -> Array:
    """Taps of each window that count."""
    total: Array = np.ones([1] * len(w.kernel))
    for axis, size in enumerate(w.sizes):
        starts = np.arange(w.counts[axis]) * w.strides[axis] - w.before[axis]
        taps = starts[:, None] + np.arange(w.kernel[axis]) * w.dilations[axis]
        low, high = (-w.before[axis], size + w.after[axis]) if with_padding else (0, size)
        inside = ((taps >= low) & (taps < high)).sum(1)
        total = total * inside.reshape([-1 if other == axis else 1 for other in range(len(w.kernel))])
    return total


@operator("LpPool")
def lp_pool(node: OnnxNode, x: Tensor) -> Tensor:
    """The p-norm of each window."""
    w, p = windows(node, x), node.get("p", 2)
    return (_window_means(x.abs().pow(p), w) * math.prod(w.kernel)).pow(1 / p)


@operator("GlobalAveragePool")
def global_average_pool(node: OnnxNode, x: Tensor) -> Tensor:
    """The mean over every axis after the channels."""
    return x.mean(_spatial(x), keepdim=True)


@operator("GlobalMaxPool")
def global_max_pool(node: OnnxNode, x: Tensor) -> Tensor:
    """The largest entry over every axis after the channels."""
    return x.amax(_spatial(x), keepdim=True)


@operator("GlobalLpPool")
def global_lp_pool(node: OnnxNode, x: Tensor) -> Tensor:
    """The p-norm over every axis after the channels."""
    norm: Tensor = torch.linalg.vector_norm(x, node.get("p", 2), _spatial(x), keepdim=True)
    return norm


def _spatial(x: Tensor) -> tuple[int, ...]:
    return tuple(range(2, x.ndim))


@operator("MaxUnpool", known=(2,))
def max_unpool(node: OnnxNode, x: Tensor, places: Tensor, shape: Array | None = None) -> Tensor:
    """Each entry back where MaxPool found it, zeros elsewhere; a larger ``shape`` adds zeros after every axis."""
    kernel = node.get("kernel_shape")
    rank = len(kernel)
    strides, pads = node.get("strides", [1] * rank), node.get("pads", [0] * 2 * rank)
    sizes = [
        (x.shape[2 + axis] - 1) * strides[axis] - pads[axis] - pads[rank + axis] + kernel[axis] for axis in range(rank)
    ]
    plane = math.prod(sizes)
    flat = x.new_zeros(x.shape[0] * x.shape[1] * plane).scatter(0, places.reshape(-1), x.reshape(-1))
    whole = flat.reshape(x.shape[0], x.shape[1], *sizes)
    if shape is None or not len(shape):
        return whole
    return padded(whole, [0] * rank, [int(wanted) - size for wanted, size in zip(shape[-rank:], sizes, strict=True)])


@operator("MaxRoiPool", known=(1,))
def max_roi_pool(node: OnnxNode, x: Tensor, rois: Array) -> Tensor:
    """The largest entry of each cell of a grid laid on each region (Girshick 2015).

    Args:
        rois: (regions, 5), the sample and then left, top, right and bottom before scaling.
    """
    height, width = node.get("pooled_shape")
    scale = node.get("spatial_scale", 1.0)
    regions = []
    for region in rois.astype(np.float64):
        sample = x[int(region[0])]
        left, top, right, bottom = (math.floor(edge * scale + 0.5) for edge in region[1:])
        rows = _cells(top, max(bottom - top + 1, 1), height, x.shape[2])
        columns = _cells(left, max(right - left + 1, 1), width, x.shape[3])
        cells = [_largest(sample[:, r, c]) for r in rows for c in columns]
        regions.append(torch.stack(cells, dim=1).reshape(-1, height, width))
    return torch.stack(regions) if regions else x.new_zeros(0, x.shape[1], height, width)


def _cells(start: int, length: int, count: int, size: int) -> Sequence[slice]:
    edges = [
        (math.floor(i * length / count) + start, math.ceil((i + 1) * length / count) + start) for i in range(count)
    ]
    return [slice(min(max(low, 0), size), min(max(high, 0), size)) for low, high in edges]


def _largest(cell: Tensor) -> Tensor:
    """The largest entry per channel; zero where the cell lies outside the image."""
    return cell.amax((1, 2)) if cell.numel() else cell.new_zeros(cell.shape[0])
