"""Shapes: read, squeeze, transpose, join, repeat, and blocks of pixels."""

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.limits import hint
from slimline.sources.onnx.operators.folding import Size, axes_of, entries, integers, is_concrete, moved
from slimline.sources.onnx.operators.table import on_known, operator
from slimline.sources.onnx.values import Array, Known, known

LARGEST_BYTES = 2**31
"""Of one value that an operator makes out of a few numbers."""


def refuse_absurd(shape: list[Size], dtype: torch.dtype) -> None:
    """Raise before a value is made that no network needs.

    Raises:
        SlimlineError: it would take more than `LARGEST_BYTES`.
    """
    size = math.prod(hint(entry) for entry in shape) * dtype.itemsize
    if size > LARGEST_BYTES:
        raise SlimlineError(
            f"it makes a value of the shape {[hint(entry) for entry in shape]}, {size / 2**30:,.1f} GiB; more "
            f"than {LARGEST_BYTES // 2**30} GiB is not plausible: check the file, or give smaller examples."
        )


@operator("Shape")
def shape(node: OnnxNode, x: Tensor) -> Known:
    """Sizes of the axes from ``start`` to ``end``; those that depend on the batch stay symbolic."""
    return known(list(x.shape)[node.get("start", 0) : node.get("end")])


@on_known("Shape")
def shape_known(node: OnnxNode, data: Known) -> Known:
    """Sizes of the axes of numbers that are known."""
    return known(list(data.array.shape)[node.get("start", 0) : node.get("end")])


@operator("Size")
def size(node: OnnxNode, x: Tensor) -> Known:
    """How many entries the value has."""
    return known(x.numel())


@on_known("Size")
def size_known(node: OnnxNode, data: Known) -> Known:
    """How many entries there are."""
    return known(data.array.size)


def _axes(node: OnnxNode, axes: Array | None) -> list[int] | None:
    """Axes are an attribute before opset 13."""
    chosen: list[int] | None = integers(axes) or node.get("axes")
    return chosen


@operator("Squeeze", known=(1,))
def squeeze(node: OnnxNode, x: Tensor, axes: Array | None = None) -> Tensor:
    """Remove axes of size one: those that are named, or all.

    Raises:
        SlimlineError: an axis has another size, or is the free batch.
    """
    chosen = _axes(node, axes)
    if chosen is None:
        dims = [d for d, length in enumerate(x.shape) if isinstance(length, int) and length == 1]
    else:
        dims = axes_of(chosen, x.ndim)
    for d in dims:
        if isinstance(x.shape[d], torch.SymInt):
            raise SlimlineError(
                f"it removes axis {d}, which holds the samples of a batch: export with a free batch axis."
            )
        if x.shape[d] != 1:
            raise SlimlineError(f"it removes axis {d}, which has the size {x.shape[d]} and not 1.")
    if not dims:
        return x
    return x.squeeze(dims[0]) if len(dims) == 1 else x.squeeze(tuple(dims))


@on_known("Squeeze")
def squeeze_known(node: OnnxNode, data: Known, axes: Known | None = None) -> Known:
    """Squeeze numbers that are known."""
    chosen = _axes(node, None if axes is None else axes.array)
    array = np.squeeze(data.array, None if chosen is None else tuple(chosen))
    return moved(node, array, data, *([] if axes is None else [axes]))


@operator("Unsqueeze", known=(1,))
def unsqueeze(node: OnnxNode, x: Tensor, axes: Array | None = None) -> Tensor:
    """Add axes of size one; they count in the result."""
    chosen = _axes(node, axes) or []
    for d in sorted(axes_of(chosen, x.ndim + len(chosen))):
        x = x.unsqueeze(d)
    return x


@on_known("Unsqueeze")
def unsqueeze_known(node: OnnxNode, data: Known, axes: Known | None = None) -> Known:
    """Unsqueeze numbers that are known, such as one size on its way into a shape."""
    chosen = _axes(node, None if axes is None else axes.array) or []
    return moved(node, np.expand_dims(data.array, tuple(chosen)), data, *([] if axes is None else [axes]))


@operator("Transpose")
def transpose(node: OnnxNode, x: Tensor) -> Tensor:
    """Axes in another order; reversed when ``perm`` is left out."""
    order = node.get("perm", list(range(x.ndim))[::-1])
    return x if list(order) == list(range(x.ndim)) else x.permute(order)


@on_known("Transpose")
def transpose_known(node: OnnxNode, data: Known) -> Known:
    """Transpose numbers that are known."""
    return moved(node, np.transpose(data.array, node.get("perm")), data)


@operator("Concat")
def concat(node: OnnxNode, *parts: Tensor) -> Tensor:
    """Join values along an axis."""
    return parts[0] if len(parts) == 1 else torch.cat(parts, node.get("axis"))


@on_known("Concat")
def concat_known(node: OnnxNode, *parts: Known) -> Known:
    """Join numbers that are known, such as the sizes of a shape."""
    return moved(node, np.concatenate([part.array for part in parts], node.get("axis")), *parts)


@operator("Expand", known=(1,))
def expand(node: OnnxNode, x: Tensor, shape: Array) -> Tensor:
    """Repeat axes of size one, in both directions: the shape may also be smaller than the value's.

    Raises:
        SlimlineError: the result is absurdly large.
    """
    target = entries(shape)
    sizes: list[Size] = [*[1] * (len(target) - x.ndim), *x.shape]
    target = [*[1] * (x.ndim - len(target)), *target]
    result = [_broadcast(a, b) for a, b in zip(sizes, target, strict=True)]
    refuse_absurd([a if _is(b, -1) else b for a, b in zip(sizes, result, strict=True)], x.dtype)
    if len(result) == x.ndim and all(_is(entry, -1) for entry in result):
        return x
    new = len(result) - x.ndim
    return x.expand([1 if i < new and _is(entry, -1) else entry for i, entry in enumerate(result)])


def _broadcast(have: Size, want: Size) -> Size:
    """The entry for torch's expand; -1 keeps an axis."""
    if _is(want, 1) or _is(want, -1) or (isinstance(want, int) and isinstance(have, int) and have == want):
        return -1
    # A symbolic size next to one that is not 1 has to be equal to it; comparing would bind the batch.
    return -1 if isinstance(want, torch.SymInt) and not _is(have, 1) else want


def _is(entry: Size, number: int) -> bool:
    return isinstance(entry, int) and entry == number


@on_known("Expand")
def expand_known(node: OnnxNode, data: Known, shape: Known) -> Any:
    """Expand numbers that are known."""
    if not is_concrete(shape):
        return NotImplemented
    target = np.broadcast_shapes(data.array.shape, tuple(int(entry) for entry in shape.array.tolist()))
    refuse_absurd(list(target), data.dtype)
    if math.prod(target) > LARGEST_FOLDED:
        return NotImplemented
    return moved(node, np.broadcast_to(data.array, target), data, shape)


LARGEST_FOLDED = 65_536
"""Entries of a repeated constant that is still a list of numbers and not a tensor."""


@operator("Tile", known=(1,))
def tile(node: OnnxNode, x: Tensor, repeats: Array) -> Tensor:
    """Repeat the value along its axes."""
    counts = entries(repeats)
    refuse_absurd([length * count for length, count in zip(x.shape, counts, strict=True)], x.dtype)
    if all(_is(count, 1) for count in counts):
        return x
    if all(_is(count, 1) or _is(length, 1) for length, count in zip(x.shape, counts, strict=True)):
        return x.expand([-1 if _is(count, 1) else count for count in counts])
    return x.repeat(counts)


@on_known("Tile")
def tile_known(node: OnnxNode, data: Known, repeats: Known) -> Any:
    """Tile numbers that are known."""
    if not is_concrete(repeats):
        return NotImplemented
    counts = [int(count) for count in repeats.array.tolist()]
    target: list[Size] = [length * count for length, count in zip(data.array.shape, counts, strict=True)]
    refuse_absurd(target, data.dtype)
    if math.prod(target) > LARGEST_FOLDED:
        return NotImplemented
    return moved(node, np.tile(data.array, counts), data, repeats)


@operator("DepthToSpace")
def depth_to_space(node: OnnxNode, x: Tensor) -> Tensor:
    """Channels become blocks of pixels; the block is the last part of a channel's number (CRD) or the first (DCR)."""
    block = node.get("blocksize")
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_shuffle(x, block)
    _, channels, height, width = x.shape
    blocks = x.reshape(-1, block, block, channels // block**2, height, width).permute(0, 3, 4, 1, 5, 2)
    return blocks.reshape(-1, channels // block**2, height * block, width * block)


@operator("SpaceToDepth")
def space_to_depth(node: OnnxNode, x: Tensor) -> Tensor:
    """Blocks of pixels become channels, in the order of DepthToSpace; ``mode`` exists since opset 28."""
    block = node.get("blocksize")
    if node.get("mode", "DCR") == "CRD":
        return F.pixel_unshuffle(x, block)
    _, channels, height, width = x.shape
    blocks = x.reshape(-1, channels, height // block, block, width // block, block).permute(0, 3, 5, 1, 2, 4)
    return blocks.reshape(-1, channels * block**2, height // block, width // block)
