"""Sums, means, extremes and norms over axes; positions of extremes; running sums."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from slimline.sources.onnx.graph import OnnxNode
from slimline.sources.onnx.operators.table import operator
from slimline.sources.onnx.operators.unsigned import UNSIGNED, signed, unsigned
from slimline.sources.onnx.values import Array

Reduction = Callable[[Tensor, list[int], bool], Tensor]
"""(x, axes, keep them as ones); axes are never empty."""


def reduced_axes(node: OnnxNode, rank: int, axes: Array | None) -> list[int]:
    """The axes to reduce, as given in an attribute (older files) or an input; none given means all or none."""
    given = node.get("axes") if axes is None else axes.reshape(-1).tolist()
    if given:
        return [int(axis) for axis in given]
    return [] if node.get("noop_with_empty_axes", 0) else list(range(rank))


def _mean(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.mean(axes, keepdim=keep)
    return torch.div(_sum(x, axes, keep), math.prod(x.shape[axis] for axis in axes), rounding_mode="trunc")


def _sum(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    if x.is_floating_point():
        return x.sum(axes, keepdim=keep)
    total = signed(x).sum(axes, keepdim=keep)  # in int64
    return unsigned(total, x.dtype) if total.dtype != x.dtype else total


def _extreme(x: Tensor, axes: list[int], keep: bool, largest: bool) -> Tensor:
    """The largest or smallest entry; of an empty set, the end of the type's range from which the search starts."""
    function = torch.amax if largest else torch.amin
    if x.dtype in (torch.uint32, torch.uint64):
        top = -(2**63) if x.dtype == torch.uint64 else 0  # flipping the top bit keeps the order in int64
        found = function(signed(x) ^ top, axes, keepdim=keep) ^ top
        return unsigned(found, x.dtype)
    if any(isinstance(x.shape[axis], int) and x.shape[axis] == 0 for axis in axes):
        sign = 1 if largest else -1
        first = -sign * math.inf if x.is_floating_point() else _end(x.dtype, largest)
        return torch.full(_shape_without(x, axes, keep), first, dtype=x.dtype)
    return function(x, axes, keepdim=keep)


def _end(dtype: torch.dtype, lowest: bool) -> int:
    if dtype == torch.bool:
        return 0 if lowest else 1
    info = torch.iinfo(dtype)
    return info.min if lowest else info.max


def _shape_without(x: Tensor, axes: Sequence[int], keep: bool) -> list[int]:
    gone = {axis % x.ndim for axis in axes}
    return [1 if i in gone else size for i, size in enumerate(x.shape) if keep or i not in gone]


def _prod(x: Tensor, axes: list[int], keep: bool) -> Tensor:
    wide = signed(x)
    for axis in sorted((axis % x.ndim for axis in axes), reverse=True):
        wide = wide.prod(axis, keepdim=keep)
    result: Tensor = wide if wide.dtype == x.dtype else unsigned(wide, x.dtype)
    return result


def _in_float(reduction: Reduction) -> Reduction:
    """Integers are reduced in float64."""

    def reduce(x: Tensor, axes: list[int], keep: bool) -> Tensor:
        return reduction(x, axes, keep) if x.is_floating_point() else reduction(x.double(), axes, keep).to(x.dtype)

    return reduce


REDUCTIONS: dict[str, Reduction] = {
    "ReduceMean": _mean,
    "ReduceSum": _sum,
    "ReduceMax": lambda x, axes, keep: _extreme(x, axes, keep, largest=True),
    "ReduceMin": lambda x, axes, keep: _extreme(x, axes, keep, largest=False),
    "ReduceProd": _prod,
    "ReduceL1": lambda x, axes, keep: _sum(x if x.dtype in UNSIGNED else x.abs(), axes, keep),
    "ReduceL2": _in_float(lambda x, axes, keep: torch.linalg.vector_norm(x, 2, axes, keepdim=keep)),
    "ReduceSumSquare": lambda x, axes, keep: unsigned(_sum(signed(x) * signed(x), axes, keep), x.dtype),
    "ReduceLogSum": _in_float(lambda x, axes, keep: x.sum(axes, keepdim=keep).log()),
    "ReduceLogSumExp": _in_float(lambda x, axes, keep: torch.logsumexp(x, axes, keepdim=keep)),
}


@operator(*REDUCTIONS, known=(1,))
def reduce(node: OnnxNode, x: Tensor, axes: Array | None = None) -> Tensor:
    """Reduce; over no axis, every element is a set of one, and gets an axis for that."""
    chosen, keep = reduced_axes(node, x.ndim, axes), bool(node.get("keepdims", 1))
    reduction = REDUCTIONS[node.kind]
    return reduction(x, chosen, keep) if chosen else reduction(x.unsqueeze(-1), [-1], False)


@operator("ArgMax", "ArgMin")
def arg_extreme(node: OnnxNode, x: Tensor) -> Tensor:
    """The position of the first extreme on an axis, or of the last."""
    axis, keep = node.get("axis", 0), bool(node.get("keepdims", 1))
    find: Callable[..., Tensor] = torch.argmax if node.kind == "ArgMax" else torch.argmin
    x = signed(x) ^ -(2**63) if x.dtype == torch.uint64 else signed(x)  # flipping the top bit keeps the order
    if node.get("select_last_index", 0):
        return torch.rsub(find(x.flip(axis), axis, keepdim=keep), x.shape[axis] - 1)
    return find(x, axis, keepdim=keep)


RUNNING: dict[str, tuple[Callable[..., Tensor], Callable[[Tensor], Tensor]]] = {
    "CumSum": (torch.cumsum, torch.zeros_like),
    "CumProd": (torch.cumprod, torch.ones_like),
}
"""Operator -> (function, what it starts with)."""


@operator(*RUNNING, known=(1,))
def running(node: OnnxNode, x: Tensor, axis: Array) -> Tensor:
    """Running results, from either end, with the own entry or without it."""
    function, neutral = RUNNING[node.kind]
    along, reverse, dtype = int(axis.item()), node.get("reverse", 0), x.dtype
    wide = signed(x)
    wide = wide.flip(along) if reverse else wide
    result = function(wide, along) if wide.is_floating_point() else function(wide, along, dtype=wide.dtype)
    if node.get("exclusive", 0):
        first = neutral(wide.narrow(along, 0, 1))
        result = torch.cat([first, result.narrow(along, 0, wide.shape[along] - 1)], along)
    result = result.flip(along) if reverse else result
    return result if result.dtype == dtype else unsigned(result, dtype)
