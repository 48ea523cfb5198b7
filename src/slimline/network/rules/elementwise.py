"""Operators that compute every position from the positions at the same place."""

import torch
from torch.fx import Node

from slimline.network.calls import argument, called
from slimline.network.ids import Axes, Ids
from slimline.network.propagation import Propagation
from slimline.network.rules.rule import rule

aten = torch.ops.aten


def operands(walk: Propagation, node: Node) -> list[Node]:
    """The tensors that a call reads."""
    return [value for value in node.all_input_nodes if value.name in walk.shapes]


@rule(
    aten.dropout.default, aten.feature_dropout.default, aten.alpha_dropout.default, aten.clone.default,
    aten.contiguous.default, aten.alias.default, aten.detach.default, aten.lift_fresh_copy.default,
    aten.detach_.default, aten.to.dtype, aten.to.dtype_layout, aten.to.device, aten._to_copy.default,
    aten.type_as.default,
    aten.zeros_like.default, aten.ones_like.default, aten.full_like.default, aten.rand_like.default,
    aten.randn_like.default, aten.empty_like.default, aten.hardswish.default, aten.hardsigmoid.default,
    aten.relu6.default, aten.bernoulli.default,
)  # fmt: skip
def unchanged(walk: Propagation, node: Node) -> Axes:
    """Every position stays what it is."""
    return list(walk.of(node.args[0]))


def broadcast(walk: Propagation, node: Node) -> Axes:
    """Axes are aligned from the right; an axis of length one is repeated and carries nothing."""
    return aligned(walk, node, operands(walk, node))


def aligned(walk: Propagation, node: Node, values: list[Node]) -> Axes:
    """The axes of a result to which these values are broadcast."""
    shape = walk.shapes[node.name]
    result: Axes = [None] * len(shape)
    for distance in range(1, len(shape) + 1):
        spanning = [
            walk.of(value)[-distance]
            for value in values
            if distance <= len(walk.shape(value)) and walk.shape(value)[-distance] == shape[-distance]
        ]
        result[-distance] = same_axis(walk, spanning, f"meets an axis that cannot be pruned in {called(node)}")
    return result


def same_axis(walk: Propagation, several: list[Ids | None], reason: str) -> Ids | None:
    """One axis of several values that stand beside each other."""
    tracked = [ids for ids in several if ids is not None]
    if len(tracked) < len(several):
        walk.freeze(tracked, reason)
        return None
    for ids in tracked[1:]:
        walk.merge(tracked[0], ids)
    return tracked[0] if tracked else None


@rule(aten.prelu.default)
def prelu(walk: Propagation, node: Node) -> Axes:
    """One slope for all channels, or one for each on axis 1."""
    x, slope = walk.of(node.args[0]), walk.of(node.args[1])
    if len(x) > 1 and slope and len(walk.shape(node.args[1])) == 1 and walk.shape(node.args[1])[0] > 1:
        walk.tie(x[1], slope[0], f"meets an axis that cannot be pruned in {called(node)}")
    return list(x)


@rule(aten.glu.default)
def gated(walk: Propagation, node: Node) -> Axes:
    """The first half of an axis times the sigmoid of the second."""
    x = list(walk.of(node.args[0]))
    axis = int(argument(node, 1, "dim", -1)) % len(x)
    ids = x[axis]
    if ids is not None:
        half = len(ids) // 2
        walk.merge(ids[:half], ids[half:])
        x[axis] = ids[:half]
    return x
