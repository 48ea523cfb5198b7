"""Convolutions and their relatives."""

import functools
import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.errors import SlimlineError
from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.resize import constant, corners
from slimline.sources.onnx.operators.table import operator
from slimline.sources.onnx.values import Array

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
TRANSPOSED = {1: F.conv_transpose1d, 2: F.conv_transpose2d, 3: F.conv_transpose3d}


def padding(node: OnnxNode, sizes: tuple[int, ...], kernel: list[int]) -> tuple[list[int], list[int]]:
    """Zeros before and after each spatial axis, from ``pads`` or ``auto_pad`` (ONNX, Conv).

    Args:
        sizes: spatial sizes of the input.
        kernel: extent of the kernel on each spatial axis, before dilation.
    """
    rank = len(kernel)
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    mode = node.get("auto_pad", "NOTSET")
    if mode == "VALID":
        return [0] * rank, [0] * rank
    if mode in ("SAME_UPPER", "SAME_LOWER"):
        before, after = [], []
        for size, k, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
            total = max(0, (-(-size // stride) - 1) * stride + (k - 1) * dilation + 1 - size)
            less, more = total // 2, total - total // 2
            before.append(less if mode == "SAME_UPPER" else more)
            after.append(more if mode == "SAME_UPPER" else less)
        return before, after
    pads = node.get("pads", [0] * 2 * rank)
    return list(pads[:rank]), list(pads[rank:])


def padded(x: Tensor, before: list[int], after: list[int], value: float = 0.0) -> Tensor:
    """The spatial axes with a constant before and after them; a negative number of entries cuts them off."""
    if not any(before) and not any(after):
        return x
    return F.pad(x, [side for pair in reversed(list(zip(before, after, strict=True))) for side in pair], value=value)


@operator("Conv")
def conv(node: OnnxNode, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Convolution in one to three dimensions; padding that differs on two sides becomes an operator of its own."""
    rank = w.ndim - 2
    before, after = padding(node, tuple(x.shape[2:]), list(w.shape[2:]))
    if before != after:
        x, before = padded(x, before, after), [0] * rank
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    result: Tensor = _of_rank(CONVOLUTIONS, rank)(x, w, b, strides, before, dilations, node.get("group", 1))
    return result


def _of_rank(table: dict[int, Any], rank: int) -> Any:
    if rank not in table:
        raise SlimlineError(f"it convolves over {rank} axes; one to three are supported.")
    return table[rank]


@operator("ConvTranspose")
def conv_transpose(node: OnnxNode, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Transposed convolution; where its padding is none that torch has, the full result is cut afterwards."""
    rank = w.ndim - 2
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    before, after, extra = transposed_padding(node, tuple(x.shape[2:]), list(w.shape[2:]))
    function, group = _of_rank(TRANSPOSED, rank), node.get("group", 1)
    missing = [more + start - end for more, start, end in zip(extra, before, after, strict=True)]
    limits = [max(stride, dilation) for stride, dilation in zip(strides, dilations, strict=True)]
    if min(before) >= 0 and all(0 <= m < limit for m, limit in zip(missing, limits, strict=True)):
        result: Tensor = function(x, w, b, strides, before, missing, group, dilations)
        return result
    left, right = [-n for n in before], [more - n for more, n in zip(extra, after, strict=True)]
    if max(*left, *right) <= 0:
        return padded(function(x, w, b, strides, 0, 0, group, dilations), left, right)
    grown = padded(function(x, w, None, strides, 0, 0, group, dilations), left, right)
    return grown if b is None else grown + b.reshape(-1, *[1] * rank)


def transposed_padding(
    node: OnnxNode, sizes: tuple[int, ...], kernel: list[int]
) -> tuple[list[int], list[int], list[int]]:
    """What a transposed convolution cuts off before and after each axis, and adds after it.

    Args:
        sizes: spatial sizes of the input.
        kernel: extent of the kernel on each spatial axis, before dilation.
    """
    rank, mode = len(kernel), node.get("auto_pad", "NOTSET")
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    extra = list(node.get("output_padding", [0] * rank))
    wanted = node.get("output_shape")
    if wanted is None and mode in ("SAME_UPPER", "SAME_LOWER"):
        wanted = [size * stride for size, stride in zip(sizes, strides, strict=True)]
    if not wanted:
        return *padding(node, sizes, kernel), extra
    before, after = [], []
    for axis, target in enumerate(wanted[-rank:]):
        whole = strides[axis] * (sizes[axis] - 1) + (kernel[axis] - 1) * dilations[axis] + 1
        total = max(0, whole + extra[axis] - target)
        extra[axis] += max(0, target - whole - extra[axis])
        less, more = total // 2, total - total // 2
        before.append(less if mode == "SAME_UPPER" else more)
        after.append(more if mode == "SAME_UPPER" else less)
    return before, after, extra


@operator("CausalConvWithState")
def causal_conv_with_state(
    node: OnnxNode, x: Tensor, w: Tensor, b: Tensor | None = None, past: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """One filter per channel that looks back only; what it will look back at next time is the second output.

    Args:
        x: (batch, channels, length).
        w: (channels, 1, k).
        past: (batch, channels, k - 1), zeros when left out.
    """
    back = w.shape[-1] - 1
    seen = F.pad(x, [back, 0]) if past is None else torch.cat([past, x], dim=-1)
    y = F.conv1d(seen, w, b, groups=w.shape[0])
    activation = node.get("activation", "none")
    if activation not in ("none", "silu", "swish"):
        raise SlimlineError(f"its activation is {activation!r}; there are none, silu and swish.")
    return (y if activation == "none" else F.silu(y)), seen[..., seen.shape[-1] - back :]


@operator("DeformConv")
def deform_conv(
    node: OnnxNode, x: Tensor, w: Tensor, offset: Tensor, b: Tensor | None = None, mask: Tensor | None = None
) -> Tensor:
    """Convolution that reads beside its grid (Dai et al. 2017, and 2018 with a mask), as sampling and a product.

    Args:
        x: (batch, channels, height, width).
        w: (out, channels / group, kh, kw).
        offset: (batch, offset_group * kh * kw * 2, out height, out width), vertical before horizontal.
        mask: (batch, offset_group * kh * kw, out height, out width).
    """
    if w.ndim != 4:
        raise SlimlineError(f"it convolves over {w.ndim - 2} axes; a deformable convolution has two here.")
    taps, (height, width), parts = w.shape[2] * w.shape[3], offset.shape[-2:], node.get("offset_group", 1)
    start = _kernel_positions(node, list(w.shape[2:]), (height, width))
    places = (offset.reshape(-1, taps, 2, height, width) + constant(start, offset.dtype)).flatten(3)
    maps = x.reshape(-1, x.shape[1] // parts, *x.shape[2:])  # each offset group reads channels of its own
    terms = corners(maps, places[:, :, 0].flatten(1), places[:, :, 1].flatten(1))
    read = functools.reduce(torch.add, terms).reshape(-1, parts, x.shape[1] // parts, taps, height, width)
    if mask is not None:
        read = read * mask.reshape(-1, parts, 1, taps, height, width)
    group = node.get("group", 1)
    columns = read.reshape(-1, group, x.shape[1] // group * taps, height * width)
    y = torch.matmul(w.reshape(group, w.shape[0] // group, -1), columns).reshape(-1, w.shape[0], height, width)
    return y if b is None else y + b.reshape(-1, 1, 1)


def _kernel_positions(node: OnnxNode, kernel: list[int], sizes: tuple[int, int]) -> Array:
    """Where each tap of a kernel reads without an offset: (taps, 2, height, width)."""
    strides, dilations = node.get("strides", [1, 1]), node.get("dilations", [1, 1])
    pads = node.get("pads", [0] * 4)
    lines = [
        np.arange(kernel[axis])[:, None] * dilations[axis] + np.arange(sizes[axis]) * strides[axis] - pads[axis]
        for axis in (0, 1)
    ]
    shape = (*kernel, *sizes)
    down = np.broadcast_to(lines[0][:, None, :, None], shape).reshape(-1, *sizes)
    right = np.broadcast_to(lines[1][None, :, None, :], shape).reshape(-1, *sizes)
    return np.stack([down, right], axis=1).astype(np.float64)


@operator("Col2Im", known=(1, 2))
def col2im(node: OnnxNode, x: Tensor, image: Array, block: Array) -> Tensor:
    """Adds the columns (batch, channels * taps, places) up where they came from; places outside the image are lost."""
    sizes, kernel = [int(n) for n in image], [int(n) for n in block]
    rank = len(sizes)
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    before, after = padding(node, tuple(sizes), kernel)
    if rank == 2 and before == after:
        return F.fold(x, tuple(sizes), tuple(kernel), tuple(dilations), tuple(before), tuple(strides))
    full = [size + left + right for size, left, right in zip(sizes, before, after, strict=True)]
    lines = []
    for axis in range(rank):
        count = (full[axis] - dilations[axis] * (kernel[axis] - 1) - 1) // strides[axis] + 1
        lines.append(np.arange(kernel[axis])[:, None] * dilations[axis] + np.arange(count) * strides[axis])
    places = np.zeros([len(line) for line in lines] + [line.shape[1] for line in lines], dtype=np.int64)
    for axis, line in enumerate(lines):
        shape = [1] * 2 * rank
        shape[axis], shape[rank + axis] = line.shape
        places += line.reshape(shape) * math.prod(full[axis + 1 :])
    flat = x.reshape(x.shape[0], -1, places.size)
    canvas = flat.new_zeros(flat.shape[0], flat.shape[1], math.prod(full))
    summed = canvas.index_add(2, torch.from_numpy(places.reshape(-1)), flat)
    return padded(summed.reshape(*flat.shape[:2], *full), [-n for n in before], [-n for n in after])
