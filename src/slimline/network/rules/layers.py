"""Layers with weights: convolutions, linear layers and tables."""

import numpy as np
import torch
from torch.fx import Node

from slimline.network.calls import argument, called, set_argument_
from slimline.network.ids import Axes, Ids
from slimline.network.operators import CONVOLUTIONS, TRANSPOSED
from slimline.network.propagation import Propagation
from slimline.network.rules.rule import rule

aten = torch.ops.aten
GROUPS = 6
"""Where the number of groups stands among the arguments."""
INPUT = "reads the network's input"


@rule(*CONVOLUTIONS)
def convolution(walk: Propagation, node: Node) -> Axes:
    """Plain: input channels are the weight's axis 1. In groups: those of a group, and every group has as many."""
    x, w = walk.of(node.args[0]), walk.of(node.args[1])
    walk.keep_places(node, [*x[2:], *w[2:]])
    w[2:] = [None] * (len(w) - 2)  # the extent of the kernel holds no channels
    outputs = w[0]
    space: Axes = [None] * (len(w) - 2)
    if _weight_is_computed(walk, node) or outputs is None:
        return [None, None, *space]
    _tie_bias(walk, node, outputs)
    groups, channels = int(argument(node, GROUPS, "groups", 1)), walk.shape(node.args[0])[1]
    if groups == 1:
        walk.tie(x[1], w[1], INPUT)
        return [None, outputs, *space]
    w[1] = _grouped(walk, node, x[1], outputs, w[1], (groups, channels // groups))
    return [None, outputs, *space]


def _grouped(
    walk: Propagation, node: Node, inputs: Ids | None, outputs: Ids, inside: Ids | None, sizes: tuple[int, int]
) -> Ids | None:
    """Inputs (groups, some), outputs (groups, some): ids of the channels inside a group, which all groups share."""
    groups, each = sizes
    reason = f"belongs to a convolution of {groups} groups, which have to stay alike in {called(node)}"
    if inputs is None:
        walk.freeze([outputs, inside], INPUT)
        return None
    rows, columns = walk.grid(inputs, sizes, reason)
    rows_out, _ = walk.grid(outputs, (groups, len(outputs) // groups), reason)
    rows = walk.tie(rows, rows_out, reason)
    if rows is not None:
        walk.rewrites[node.name] = lambda n, alive: set_argument_(n, GROUPS, "groups", int(alive(rows).sum()))
    if each == 1:
        return None  # one input channel per group: nothing to choose from
    return walk.tie(columns, inside, reason)


def _tie_bias(walk: Propagation, node: Node, outputs: Ids) -> None:
    bias = walk.of(argument(node, 2, "bias"))
    if bias:
        walk.tie(bias[0], outputs, f"meets a computed bias in {called(node)}")


def _weight_is_computed(walk: Propagation, node: Node) -> bool:
    """Freezes what a layer reads when its weight carries no ids: a quantised one, or one that is normalised first."""
    x, w, bias = (walk.of(argument(node, i, name)) for i, name in enumerate(("input", "weight", "bias")))
    if w[0] is not None and len(x) in (len(w), 0) or node.target is aten.linear.default and w[0] is not None:
        return False
    walk.freeze([*x, *w, *bias], f"meets a computed weight in {called(node)}")
    return True


@rule(*TRANSPOSED)
def transposed_convolution(walk: Propagation, node: Node) -> Axes:
    """The weight is (in, out / groups, ...)."""
    x, w = walk.of(node.args[0]), walk.of(node.args[1])
    walk.keep_places(node, [*x[2:], *w[2:]])
    w[2:] = [None] * (len(w) - 2)
    space: Axes = [None] * (len(w) - 2)
    if _weight_is_computed(walk, node) or w[0] is None or w[1] is None:
        return [None, None, *space]
    groups = int(argument(node, GROUPS, "groups", 1))
    inputs = walk.tie(x[1], w[0], INPUT)
    if groups == 1 or inputs is None:
        _tie_bias(walk, node, w[1])
        return [None, w[1] if groups == 1 else None, *space]
    reason = f"belongs to a transposed convolution of {groups} groups, which have to stay alike in {called(node)}"
    rows, _ = walk.grid(inputs, (groups, len(inputs) // groups), reason)
    if rows is not None:
        walk.rewrites[node.name] = lambda n, alive: set_argument_(n, GROUPS, "groups", int(alive(rows).sum()))
    outside = [0] * groups if rows is None else rows.tolist()
    outputs = np.array([walk.every([row, column]) for row in outside for column in w[1].tolist()], np.int64)
    _tie_bias(walk, node, outputs)
    return [None, outputs, *space]


@rule(aten.linear.default)
def linear(walk: Propagation, node: Node) -> Axes:
    """The last axis of the input is the weight's axis 1; the weight's axis 0 is the last axis of the result."""
    x, w = walk.of(node.args[0]), walk.of(node.args[1])
    if _weight_is_computed(walk, node) or w[0] is None:
        return [*x[:-1], None]
    walk.tie(x[-1], w[-1], INPUT)
    if len(w) == 1:  # one output, which has no axis
        return list(x[:-1])
    _tie_bias(walk, node, w[0])
    return [*x[:-1], w[0]]


@rule(aten.bilinear.default)
def bilinear(walk: Propagation, node: Node) -> Axes:
    """The weight is (out, first in, second in)."""
    one, two, w = (walk.of(node.args[i]) for i in range(3))
    walk.tie(one[-1], w[1], INPUT)
    walk.tie(two[-1], w[2], INPUT)
    bias = walk.of(argument(node, 3, "bias"))
    if bias:
        walk.tie(bias[0], w[0], f"meets a computed bias in {called(node)}")
    return [*one[:-1], w[0]]


@rule(aten._weight_norm.default)
def weight_norm(walk: Propagation, node: Node) -> Axes:
    """Direction times length, with one length for every position of one axis: without others it would change."""
    v, g, axis = list(walk.of(node.args[0])), walk.of(node.args[1]), int(argument(node, 2, "dim", 0))
    for other, ids in enumerate(v):
        if other != axis and ids is not None:
            walk.blur(ids, f"shares its length in {called(node)}")
    if axis >= 0 and walk.shape(node.args[1])[axis] == walk.shape(node.args[0])[axis]:
        v[axis] = walk.tie(v[axis], g[axis], f"meets an axis that cannot be pruned in {called(node)}")
    return v


@rule(aten.embedding.default, aten.embedding_bag.default, aten.embedding_bag.padding_idx)
def embedding(walk: Propagation, node: Node) -> Axes:
    """Rows of a table are chosen by number, so all of them stay; its columns are channels."""
    w = walk.of(node.args[0])
    walk.freeze([w[0], *walk.of(node.args[1])], f"is chosen by number in {called(node)}")
    if node.target is aten.embedding.default:
        return [*[None] * len(walk.shape(node.args[1])), w[1]]
    walk.parts[node.name] = [[None, w[1]], [None], [None], [None]]
    return []
