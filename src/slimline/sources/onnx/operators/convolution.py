"""Convolutions and their relatives."""

import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import operator

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}


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


@operator("Conv")
def conv(node: OnnxNode, x: Tensor, w: Tensor, b: Tensor | None = None) -> Tensor:
    """Convolution in one to three dimensions; padding that differs on two sides becomes an operator of its own."""
    rank = w.ndim - 2
    before, after = padding(node, tuple(x.shape[2:]), list(w.shape[2:]))
    if before != after:
        flat = [side for pair in reversed(list(zip(before, after, strict=True))) for side in pair]
        x, before = F.pad(x, flat), [0] * rank
    strides, dilations = node.get("strides", [1] * rank), node.get("dilations", [1] * rank)
    result: Tensor = CONVOLUTIONS[rank](x, w, b, strides, before, dilations, node.get("group", 1))
    return result
