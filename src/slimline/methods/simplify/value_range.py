"""Between which two numbers the values of a tensor lie, whatever the inputs are."""

import math
from typing import Any

import torch
from torch.fx import Node

from slimline.methods.simplify.channel_affine import MOVES
from slimline.network.calls import arguments

aten = torch.ops.aten
Range = tuple[float, float]
ANY: Range = (-math.inf, math.inf)
KNOWN: dict[Any, Range] = {
    aten.sigmoid.default: (0.0, 1.0), aten.hardsigmoid.default: (0.0, 1.0), aten.softmax.int: (0.0, 1.0),
    aten._softmax.default: (0.0, 1.0), aten.tanh.default: (-1.0, 1.0), aten.exp.default: (0.0, math.inf),
    aten.abs.default: (0.0, math.inf), aten.sqrt.default: (0.0, math.inf),
}  # fmt: skip
CLAMPS = frozenset({
    aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.clamp.default, aten.clamp_min.default,
    aten.clamp_max.default, aten.clip.default,
})  # fmt: skip
KEEPS_RANGE = MOVES | {
    aten.max_pool1d.default, aten.max_pool2d.default, aten.max_pool3d.default, aten.amax.default, aten.amin.default,
    aten.upsample_nearest1d.vec, aten.upsample_nearest2d.vec, aten.upsample_nearest3d.vec, aten.expand.default,
}  # fmt: skip
"""Operators that choose among the values of their first argument."""
FARTHEST = 16
"""How many operators back to look."""


def clamp_limits(node: Node) -> Range | None:
    """The smallest and the largest number that a clamp lets through; None for other operators."""
    if node.target not in CLAMPS:
        return None
    if node.target is aten.relu.default:
        return 0.0, math.inf
    if node.target is aten.relu6.default:
        return 0.0, 6.0
    given = arguments(node)
    low, high = (given.get(f"{end}_val", given.get(end)) for end in ("min", "max"))
    if isinstance(low, Node) or isinstance(high, Node):
        return None
    return (-math.inf if low is None else float(low)), (math.inf if high is None else float(high))


def value_range(node: Node, farthest: int = FARTHEST) -> Range:
    """The range of a tensor's values; NaN aside, which every operator here passes on."""
    if not farthest or not isinstance(node.target, torch._ops.OpOverload):
        return ANY
    limits = clamp_limits(node)
    if limits is not None:
        low, high = value_range(node.all_input_nodes[0], farthest - 1)
        return min(max(low, limits[0]), limits[1]), max(min(high, limits[1]), limits[0])
    if node.target in KEEPS_RANGE:
        return value_range(node.all_input_nodes[0], farthest - 1)
    if node.target in (aten.cat.default, aten.concat.default):
        parts = [value_range(part, farthest // 2) for part in node.all_input_nodes]
        return min(low for low, _ in parts), max(high for _, high in parts)
    return KNOWN.get(node.target, ANY)
