"""One small rule per operator: how channel ids pass through it.

A rule takes the walk and the node, merges ids that must live or die together, and returns the axes of the result. A
rule
whose operator holds a constant that depends on a channel count also leaves a rewrite for it. An operator without a rule
freezes what goes in, with the reason, so that an unknown operator can never be pruned wrongly.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from slimline.network.axes import Alive, Axes, Ids, Propagation

Rule = Callable[[Propagation, Node], Axes]
aten = torch.ops.aten
RULES: dict[Any, Rule] = {}


def rule_for(target: Any) -> Rule:
    """The rule of an operator; `unknown` when it has none."""
    return RULES.get(target, unknown)


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Make a function the rule of these operators."""

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return add


def unknown(walk: Propagation, node: Node) -> Axes:
    """No rule: nothing that flows in can be pruned."""
    for value in node.all_input_nodes:
        walk.freeze(walk.of(value), f"flows into {_name(node)}, which has no axis rule")
    return [None] * len(walk.shapes.get(node.name, ()))


def _name(node: Node) -> str:
    return f"{getattr(node.target, '__name__', node.target)} ({node.name})"


def _argument(node: Node, position: int, name: str, default: Any = None) -> Any:
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def _shape(walk: Propagation, value: object) -> tuple[int, ...]:
    assert isinstance(value, Node)
    return walk.shapes[value.name]


def _tie(walk: Propagation, a: Ids | None, b: Ids | None, reason: str) -> None:
    """Merge two axes; where one cannot be pruned, neither can the other."""
    if a is not None and b is not None:
        walk.merge(a, b)
    else:
        walk.freeze([a, b], reason)


@rule(
    aten.conv1d.default, aten.conv2d.default, aten.conv3d.default,
    aten.conv1d.padding, aten.conv2d.padding, aten.conv3d.padding,
)  # fmt: skip
def convolution(walk: Propagation, node: Node) -> Axes:
    """Plain: input channels are the weight's axis 1. Depthwise: output j reads input j // multiplier."""
    x, w = walk.of(node.args[0]), walk.of(node.args[1])
    bias = walk.of(_argument(node, 2, "bias"))
    groups = _argument(node, 6, "groups", 1)
    w[2:] = [None] * (len(w) - 2)  # the extent of the kernel holds no channels
    inputs, outputs = x[1], w[0]
    if _weight_is_computed(walk, node) or outputs is None:
        return [None] * len(w)
    if bias:
        _tie(walk, bias[0], outputs, f"meets a computed bias in {_name(node)}")
    channels = _shape(walk, node.args[0])[1]
    if groups == 1:
        _tie(walk, inputs, w[1], "reads the network's input")
    elif groups == channels:
        w[1] = None  # one input channel per group: nothing to choose from
        source = None if inputs is None else np.repeat(inputs, len(outputs) // channels)
        _tie(walk, source, outputs, "reads the network's input")
        if inputs is not None:
            tracked = inputs
            walk.rewrites[node.name] = lambda n, alive: _set_groups(n, int(alive(tracked).sum()))
    else:
        walk.freeze([inputs, *w], f"belongs to a convolution of {groups} groups")
    return [None, outputs, *[None] * (len(w) - 2)]


def _weight_is_computed(walk: Propagation, node: Node) -> bool:
    """Freezes what a layer reads when its weight carries no ids: a quantised one, or one that is normalised first."""
    x, w, bias = (walk.of(_argument(node, i, name)) for i, name in enumerate(("input", "weight", "bias")))
    if w[0] is not None:
        return False
    walk.freeze([*x, *w, *bias], f"meets a computed weight in {_name(node)}")
    return True


def _set_groups(node: Node, groups: int) -> None:
    if len(node.args) > 6:
        node.update_arg(6, groups)
    else:
        node.update_kwarg("groups", groups)


@rule(aten.conv_transpose2d.input)
def transposed_convolution(walk: Propagation, node: Node) -> Axes:
    """The weight is (in, out / groups, kh, kw)."""
    x, w = walk.of(node.args[0]), walk.of(node.args[1])
    bias = walk.of(_argument(node, 2, "bias"))
    w[2:] = [None, None]
    if _weight_is_computed(walk, node):
        return [None] * len(w)
    if _argument(node, 6, "groups", 1) != 1:
        walk.freeze([x[1], *w, *bias], "belongs to a grouped transposed convolution")
        return [None] * len(w)
    _tie(walk, x[1], w[0], "reads the network's input")
    if bias:
        _tie(walk, bias[0], w[1], f"meets a computed bias in {_name(node)}")
    return [None, w[1], None, None]


@rule(aten.linear.default)
def linear(walk: Propagation, node: Node) -> Axes:
    """The last axis of the input is the weight's axis 1; the weight's axis 0 is the last axis of the result."""
    x, w = walk.of(node.args[0]), walk.of(node.args[1])
    bias = walk.of(_argument(node, 2, "bias"))
    if _weight_is_computed(walk, node):
        return [*x[:-1], None]
    _tie(walk, x[-1], w[1], "reads the network's input")
    if bias:
        _tie(walk, bias[0], w[0], f"meets a computed bias in {_name(node)}")
    return [*x[:-1], w[0]]


@rule(aten.batch_norm.default)
def batch_norm(walk: Propagation, node: Node) -> Axes:
    """Weight, bias, mean and variance follow axis 1 of the input."""
    x = walk.of(node.args[0])
    for statistic in node.args[1:5]:
        axes = walk.of(statistic)
        if axes:
            _tie(walk, x[1], axes[0], "normalises the network's input")
    return x


@rule(
    aten.relu.default, aten.relu6.default, aten.hardtanh.default, aten.sigmoid.default, aten.tanh.default,
    aten.silu.default, aten.gelu.default, aten.hardswish.default, aten.hardsigmoid.default, aten.leaky_relu.default,
    aten.elu.default, aten.softplus.default, aten.mish.default, aten.clamp.default, aten.neg.default, aten.abs.default,
    aten.dropout.default, aten.clone.default, aten.contiguous.default, aten.alias.default, aten.detach.default,
    aten.exp.default, aten.sqrt.default, aten.rsqrt.default, aten.pow.Tensor_Scalar, aten.to.dtype,
    aten._to_copy.default,
    aten.feature_dropout.default, aten.clamp_min.default,
)  # fmt: skip
def elementwise(walk: Propagation, node: Node) -> Axes:
    """Every position stays what it is."""
    return walk.of(node.args[0])


@rule(
    aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor, aten.maximum.default, aten.minimum.default,
    aten.add.Scalar, aten.sub.Scalar, aten.mul.Scalar, aten.div.Scalar,
)  # fmt: skip
def broadcast(walk: Propagation, node: Node) -> Axes:
    """Axes are aligned from the right; an axis of length one is repeated and carries nothing."""
    operands = [a for a in node.args[:2] if isinstance(a, Node) and a.name in walk.shapes]
    result: Axes = [None] * len(walk.shapes[node.name])
    for distance in range(1, len(result) + 1):
        tracked: Ids | None = None
        for index, operand in enumerate(operands):
            shape, axes = walk.shapes[operand.name], walk.of(operand)
            if distance > len(shape) or (shape[-distance] == 1 and walk.shapes[node.name][-distance] != 1):
                continue
            ids = axes[-distance]
            if index and (tracked is not None or ids is not None) and _spans(walk, operands[0], distance, node):
                _tie(walk, tracked, ids, f"meets an axis that cannot be pruned in {_name(node)}")
            tracked = tracked if tracked is not None else ids
        result[-distance] = tracked
    return result


def _spans(walk: Propagation, operand: Node, distance: int, node: Node) -> bool:
    """Whether an operand really has this axis rather than being repeated along it."""
    shape = walk.shapes[operand.name]
    return distance <= len(shape) and shape[-distance] == walk.shapes[node.name][-distance]


@rule(
    aten.max_pool2d.default, aten.avg_pool2d.default, aten.adaptive_avg_pool2d.default, aten.max_pool1d.default,
    aten.avg_pool1d.default, aten.adaptive_avg_pool1d.default, aten.adaptive_max_pool2d.default,
    aten.upsample_nearest2d.vec, aten.upsample_bilinear2d.vec,
)  # fmt: skip
def pooling(walk: Propagation, node: Node) -> Axes:
    """Channels stay, space shrinks or grows."""
    x = walk.of(node.args[0])
    return [x[0], x[1], *[None] * (len(x) - 2)]


@rule(aten.mean.dim, aten.sum.dim_IntList, aten.amax.default)
def reduction(walk: Propagation, node: Node) -> Axes:
    """Reducing over a channel axis would change with its width: it stays."""
    x = walk.of(node.args[0])
    chosen = _argument(node, 1, "dim")
    dims = range(len(x)) if not chosen else [chosen] if isinstance(chosen, int) else chosen
    reduced = {d % len(x) for d in dims}
    walk.freeze([x[d] for d in reduced], f"is averaged over by {_name(node)}")
    if _argument(node, 2, "keepdim", False):
        return [None if d in reduced else ids for d, ids in enumerate(x)]
    return [ids for d, ids in enumerate(x) if d not in reduced]


@rule(aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten._unsafe_view.default)
def reshape(walk: Propagation, node: Node) -> Axes:
    """Axes that merge: a channel owns all its positions. An axis that splits cannot be pruned."""
    source = node.args[0]
    assert isinstance(source, Node)
    x, before, after = walk.of(source), walk.shapes[source.name], walk.shapes[node.name]
    result: Axes = [None] * len(after)
    for left, right in _matching(before, after):
        tracked = [i for i in left if x[i] is not None and before[i] > 1]
        wide = [i for i in right if after[i] > 1]
        if not tracked:
            continue
        if len(wide) > 1 or len(tracked) > 1:
            walk.freeze([x[i] for i in tracked], f"is split or mixed by {_name(node)}")
            continue
        ids = x[tracked[0]]
        assert ids is not None
        lengths = [before[i] for i in left]
        place = left.index(tracked[0])
        spread = np.tile(np.repeat(ids, math.prod(lengths[place + 1 :])), math.prod(lengths[:place]))
        result[wide[0] if wide else right[0]] = spread
    if node.target is not aten.flatten.using_ints:
        tracked_axes = list(result)
        walk.rewrites[node.name] = lambda n, alive: _set_sizes(n, tracked_axes, alive)
    return result


def _matching(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
    """Split two shapes of equal product into the shortest runs of axes whose products agree."""
    runs, i, j = [], 0, 0
    while i < len(before) or j < len(after):
        left, right = [], []
        a = b = 1
        while True:
            if i < len(before) and (a <= b or j >= len(after)):
                left.append(i)
                a *= before[i]
                i += 1
            elif j < len(after):
                right.append(j)
                b *= after[j]
                j += 1
            if a == b and ((left and right) or (i >= len(before) and j >= len(after))):
                break
        runs.append((left, right))
    return runs


def _set_sizes(node: Node, axes: Axes, alive: Alive) -> None:
    sizes = list(node.args[1])  # type: ignore[arg-type]
    for i, ids in enumerate(axes):
        if ids is not None and isinstance(sizes[i], int) and sizes[i] != -1:
            sizes[i] = int(alive(ids).sum())
    node.update_arg(1, sizes)


@rule(aten.permute.default)
def permute(walk: Propagation, node: Node) -> Axes:
    """Axes change places and take their ids along."""
    x = walk.of(node.args[0])
    order: list[int] = node.args[1]  # type: ignore[assignment]
    return [x[d] for d in order]


@rule(aten.transpose.int)
def transpose(walk: Propagation, node: Node) -> Axes:
    """Two axes change places."""
    x = list(walk.of(node.args[0]))
    a, b = int(node.args[1]), int(node.args[2])  # type: ignore[arg-type]
    x[a], x[b] = x[b], x[a]
    return x


@rule(aten.unsqueeze.default)
def unsqueeze(walk: Propagation, node: Node) -> Axes:
    """A new axis of length one carries nothing."""
    x = list(walk.of(node.args[0]))
    place = int(node.args[1])  # type: ignore[arg-type]
    x.insert(place if place >= 0 else place + len(x) + 1, None)
    return x


@rule(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default)
def squeeze(walk: Propagation, node: Node) -> Axes:
    """Axes of length one disappear."""
    x, shape = walk.of(node.args[0]), _shape(walk, node.args[0])
    chosen = _argument(node, 1, "dim")
    dims = range(len(x)) if chosen is None else [chosen] if isinstance(chosen, int) else chosen
    gone = {d % len(x) for d in dims if shape[d] == 1}
    return [ids for d, ids in enumerate(x) if d not in gone]


@rule(aten.cat.default)
def concatenate(walk: Propagation, node: Node) -> Axes:
    """Ids stand side by side on the joined axis and are merged on the others."""
    parts = [walk.of(p) for p in node.args[0]]  # type: ignore[union-attr]
    joined = int(_argument(node, 1, "dim", 0)) % len(parts[0])
    result: Axes = list(parts[0])
    for part in parts[1:]:
        for axis, ids in enumerate(part):
            if axis != joined and (ids is not None or result[axis] is not None):
                _tie(walk, result[axis], ids, f"meets an axis that cannot be pruned in {_name(node)}")
    pieces = [part[joined] for part in parts]
    if any(p is None for p in pieces):
        walk.freeze(pieces, f"is joined with an axis that cannot be pruned in {_name(node)}")
        result[joined] = None
    else:
        result[joined] = np.concatenate([p for p in pieces if p is not None])
    return result


@rule(aten.slice.Tensor)
def slice_axis(walk: Propagation, node: Node) -> Axes:
    """A run of consecutive channels keeps its ids; the bounds are rewritten."""
    x = list(walk.of(node.args[0]))
    axis = int(_argument(node, 1, "dim", 0)) % len(x)
    ids = x[axis]
    if ids is None:
        return x
    start, end, step = (
        _argument(node, i, name, d) for i, name, d in ((2, "start", 0), (3, "end", None), (4, "step", 1))
    )
    if step != 1 or not all(isinstance(bound, int) or bound is None for bound in (start, end)):
        walk.freeze([ids], f"is read with a step by {_name(node)}")
        x[axis] = None
        return x
    first, last, _ = slice(start, end).indices(len(ids))
    x[axis] = ids[first:last]

    def shift(n: Node, alive: Alive) -> None:
        n.args = (*n.args[:1], axis, int(alive(ids[:first]).sum()), int(alive(ids[:last]).sum()), 1)
        n.kwargs = {}

    walk.rewrites[node.name] = shift
    return x


@rule(aten.pad.default, aten.constant_pad_nd.default)
def pad(walk: Propagation, node: Node) -> Axes:
    """Padding a channel axis adds constant channels with ids of their own (option-A shortcuts, He et al. 2015)."""
    x = list(walk.of(node.args[0]))
    amounts = list(node.args[1])  # type: ignore[arg-type]
    constant = node.target is aten.constant_pad_nd.default or _argument(node, 2, "mode", "constant") == "constant"
    added: dict[int, tuple[Ids, Ids]] = {}
    for distance in range(len(amounts) // 2):
        axis, (before, after) = len(x) - 1 - distance, amounts[2 * distance : 2 * distance + 2]
        ids = x[axis]
        if ids is None or before == after == 0:
            continue
        if not constant or before < 0 or after < 0:
            walk.freeze([ids], f"is padded by {_name(node)}")
            x[axis] = None
            continue
        added[2 * distance] = walk.fresh(before), walk.fresh(after)
        x[axis] = np.concatenate([added[2 * distance][0], ids, added[2 * distance][1]])

    def shrink(n: Node, alive: Alive) -> None:
        sizes = list(n.args[1])  # type: ignore[arg-type]
        for place, (left, right) in added.items():
            sizes[place : place + 2] = [int(alive(left).sum()), int(alive(right).sum())]
        n.update_arg(1, sizes)

    if added:
        walk.rewrites[node.name] = shrink
    return x


@rule(aten.sym_size.int)
def size(walk: Propagation, node: Node) -> Axes:
    """Only the batch axis has a symbolic size; a number carries no ids."""
    return []
