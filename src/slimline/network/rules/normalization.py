"""Normalisations: what they scale per channel follows it, and what they average over changes with its width."""

import torch
from torch.fx import Node

from slimline.network.calls import argument, called, set_argument_
from slimline.network.ids import Alive, Axes
from slimline.network.propagation import Propagation
from slimline.network.rules.rule import rule

aten = torch.ops.aten


@rule(aten.batch_norm.default, aten.instance_norm.default)
def batch_norm(walk: Propagation, node: Node) -> Axes:
    """Weight, bias, mean and variance follow axis 1 of the input; without a stored mean, others are averaged over."""
    x = list(walk.of(node.args[0]))
    averaged = [] if node.args[3] is not None else [ids for axis, ids in enumerate(x) if axis != 1 and ids is not None]
    for ids in averaged:
        walk.blur(ids, f"is averaged over by {called(node)}")
    for statistic in node.args[1:5]:
        axes = walk.of(statistic)
        if axes:
            walk.tie(x[1], axes[0], "normalises the network's input")
    return x


@rule(aten.layer_norm.default, aten.rms_norm.default)
def layer_norm(walk: Propagation, node: Node) -> Axes:
    """The last axes are averaged over: they can be pruned, but not without changing the average."""
    x = list(walk.of(node.args[0]))
    sizes = list(argument(node, 1))
    first = len(x) - len(sizes)
    for scale in (argument(node, 2, "weight"), argument(node, 3, "bias")):
        for axis, ids in enumerate(walk.of(scale), first):
            x[axis] = walk.tie(x[axis], ids, f"meets an axis that cannot be pruned in {called(node)}")
    normalised = [ids for ids in x[first:] if ids is not None]
    for ids in normalised:
        walk.blur(ids, f"is averaged over by {called(node)}")

    def narrow(n: Node, alive: Alive) -> None:
        left = [size if ids is None else int(alive(ids).sum()) for size, ids in zip(sizes, x[first:], strict=True)]
        n.update_arg(1, left)

    if normalised:
        walk.rewrites[node.name] = narrow
    return x


@rule(aten.group_norm.default)
def group_norm(walk: Propagation, node: Node) -> Axes:
    """Every group is averaged over on its own: whole groups can go, or the same place of every group."""
    x, count = list(walk.of(node.args[0])), int(argument(node, 1))
    for scale in (argument(node, 2, "weight"), argument(node, 3, "bias")):
        if walk.of(scale):
            x[1] = walk.tie(x[1], walk.of(scale)[0], "normalises the network's input")
    ids = x[1]
    if ids is None:
        return x
    groups, inside = walk.grid(ids, (count, len(ids) // count), f"is normalised in {count} groups by {called(node)}")
    if inside is not None:
        walk.blur(inside, f"is averaged over by {called(node)}")
    if groups is not None:
        walk.rewrites[node.name] = lambda n, alive: set_argument_(n, 1, "num_groups", int(alive(groups).sum()))
    return x
