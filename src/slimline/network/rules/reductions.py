"""Operators that read all positions of an axis at once."""

from collections.abc import Iterable
from typing import Any

import torch
from torch.fx import Node

from slimline.network.calls import argument, called
from slimline.network.ids import Axes
from slimline.network.propagation import Propagation
from slimline.network.rules.rule import rule

aten = torch.ops.aten
SUMS = (aten.sum.dim_IntList, aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim)
"""Zeros change nothing here."""
DIM: dict[Any, int] = {aten.linalg_vector_norm.default: 2, aten.norm.ScalarOpt_dim: 2}
"""Where the axes stand among the arguments, if not in the second place."""


def chosen_axes(chosen: Any, count: int) -> set[int]:
    """Axes named by one number, several, or none, which means all."""
    if chosen is None or chosen == []:
        return set(range(count))
    named: Iterable[int] = [chosen] if isinstance(chosen, int) else chosen
    return {int(d) % count for d in named}


@rule(
    aten.mean.dim, aten.sum.dim_IntList, aten.amax.default, aten.amin.default, aten.var.dim, aten.var.correction,
    aten.std.dim, aten.std.correction, aten.linalg_vector_norm.default, aten.norm.ScalarOpt_dim, aten.logsumexp.default,
)  # fmt: skip
def reduction(walk: Propagation, node: Node) -> Axes:
    """What is averaged over can be pruned, but not without changing the average; a sum stays what it is."""
    x, place = walk.of(node.args[0]), DIM.get(node.target, 1)
    reduced = chosen_axes(argument(node, place, "dim"), len(x))
    for axis in reduced:
        ids = x[axis]
        if ids is not None and node.target not in SUMS:
            walk.blur(ids, f"is averaged over by {called(node)}")
    if len(walk.shapes[node.name]) == len(x):
        return [None if d in reduced else ids for d, ids in enumerate(x)]
    return [ids for d, ids in enumerate(x) if d not in reduced]


@rule(aten.max.dim, aten.min.dim)
def extreme(walk: Propagation, node: Node) -> Axes:
    """The largest or smallest value along an axis, and where it was found: that axis stays."""
    x = list(walk.of(node.args[0]))
    axis = int(argument(node, 1)) % len(x)
    walk.freeze([x[axis]], f"is searched by {called(node)}")
    left: Axes = [ids for d, ids in enumerate(x) if d != axis]
    if argument(node, 2, "keepdim", False):
        left.insert(axis, None)
    walk.parts[node.name] = [left, list(left)]
    return []


@rule(
    aten.softmax.int, aten._softmax.default, aten.log_softmax.int, aten._log_softmax.default, aten.cumsum.default,
    aten.cumprod.default, aten.roll.default, aten.flip.default, aten.logcumsumexp.default,
)  # fmt: skip
def along(walk: Propagation, node: Node) -> Axes:
    """An axis along which order or sum matters stays; the others pass."""
    x = list(walk.of(node.args[0]))
    place = 2 if node.target is aten.roll.default else 1
    for axis in chosen_axes(argument(node, place, "dims" if place == 2 else "dim"), len(x)):
        walk.freeze([x[axis]], f"is read as a whole by {called(node)}")
        x[axis] = None
    return x


@rule(aten.argmax.default, aten.argmin.default)
def place_of_extreme(walk: Propagation, node: Node) -> Axes:
    """Numbers of positions: the axis stays."""
    x = walk.of(node.args[0])
    reduced = chosen_axes(argument(node, 1, "dim"), len(x))
    walk.freeze([x[d] for d in reduced], f"is searched by {called(node)}")
    if len(walk.shapes[node.name]) == len(x):
        return [None if d in reduced else ids for d, ids in enumerate(x)]
    return [ids for d, ids in enumerate(x) if d not in reduced]
