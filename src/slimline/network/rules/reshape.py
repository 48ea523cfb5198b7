"""Operators that arrange the same values in other axes."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.fx import Node

from slimline.network.calls import argument, called, set_argument_
from slimline.network.ids import ALWAYS, Alive, Axes, Ids
from slimline.network.propagation import Propagation
from slimline.network.rules.rule import rule

aten = torch.ops.aten


@rule(
    aten.view.default, aten.reshape.default, aten.flatten.using_ints, aten._unsafe_view.default,
    aten.unflatten.int, aten.view_as.default, aten.reshape_as.default,
)  # fmt: skip
def reshape(walk: Propagation, node: Node) -> Axes:
    """Axes that merge: a position depends on all it was made of. An axis that splits is a grid."""
    x, before, after = walk.of(node.args[0]), walk.shape(node.args[0]), walk.shapes[node.name]
    result: Axes = [None] * len(after)
    for left, right in matching(before, after):
        cells = _cells(walk, [x[i] for i in left], [before[i] for i in left])
        if cells is None:
            continue
        if not right:  # an axis of length one that goes
            continue
        split = walk.grid(cells, tuple(after[j] for j in right), f"is split or mixed by {called(node)}")
        for j, ids in zip(right, split, strict=True):
            result[j] = ids
        if len(cells) == 1:
            result[right[0]] = cells
    if node.target in SIZED:
        walk.rewrites[node.name] = lambda n, alive: _set_sizes(n, SIZED[n.target], result, alive)
    elif node.target is aten.unflatten.int:
        axis = int(argument(node, 1)) % len(before)
        some = result[axis : axis + len(after) - len(before) + 1]
        walk.rewrites[node.name] = lambda n, alive: _set_sizes(n, 2, some, alive)
    return result


SIZED: dict[Any, int] = {aten.view.default: 1, aten.reshape.default: 1, aten._unsafe_view.default: 1}
"""Where the sizes of the result stand among the arguments."""


def _cells(walk: Propagation, axes: Sequence[Ids | None], sizes: Sequence[int]) -> Ids | None:
    """Ids of the positions of several axes laid out one after the other; None where none of them has any."""
    tracked = [i for i, ids in enumerate(axes) if ids is not None]
    if not tracked:
        return None
    if len(tracked) == 1:
        (place,) = tracked
        ids = axes[place]
        assert ids is not None
        return np.tile(np.repeat(ids, math.prod(sizes[place + 1 :])), math.prod(sizes[:place]))
    lists = [[ALWAYS] * size if ids is None else ids.tolist() for ids, size in zip(axes, sizes, strict=True)]
    return np.array([walk.every(parts) for parts in itertools.product(*lists)], np.int64)


def matching(before: tuple[int, ...], after: tuple[int, ...]) -> list[tuple[list[int], list[int]]]:
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


def _set_sizes(node: Node, place: int, axes: Axes, alive: Alive) -> None:
    """Write how many positions are left; a size that the graph computes from the batch is left to be found out."""
    sizes = list(argument(node, place))
    for i, ids in enumerate(axes):
        if ids is None or alive(ids).all():
            continue
        if isinstance(sizes[i], int):
            sizes[i] = sizes[i] if sizes[i] == -1 else int(alive(ids).sum())
        else:
            sizes[i] = -1
    node.update_arg(place, sizes)


@rule(aten.permute.default)
def permute(walk: Propagation, node: Node) -> Axes:
    """Axes change places and take their ids along."""
    x = walk.of(node.args[0])
    order: list[int] = argument(node, 1)
    return [x[d] for d in order]


@rule(
    aten.transpose.int, aten.movedim.int, aten.movedim.intlist, aten.moveaxis.int, aten.moveaxis.intlist,
    aten.swapaxes.default, aten.swapdims.default, aten.mT.default, aten.t.default, aten.numpy_T.default,
    aten.adjoint.default,
)  # fmt: skip
def moved(walk: Propagation, node: Node) -> Axes:
    """The same, said in other ways: a tensor whose axes all have different sizes shows where each goes."""
    x = walk.of(node.args[0])
    tags = torch.empty([i + 2 for i in range(len(x))], device="meta")
    move: Any = node.target
    return [x[size - 2] for size in move(tags, *node.args[1:]).shape]


@rule(aten.unsqueeze.default)
def unsqueeze(walk: Propagation, node: Node) -> Axes:
    """A new axis of length one carries nothing."""
    x = list(walk.of(node.args[0]))
    place = int(argument(node, 1))
    x.insert(place if place >= 0 else place + len(x) + 1, None)
    return x


@rule(aten.squeeze.dim, aten.squeeze.dims, aten.squeeze.default)
def squeeze(walk: Propagation, node: Node) -> Axes:
    """Axes of length one disappear."""
    x, shape = walk.of(node.args[0]), walk.shape(node.args[0])
    chosen = argument(node, 1, "dim")
    dims = range(len(x)) if chosen is None else [chosen] if isinstance(chosen, int) else chosen
    gone = {d % len(x) for d in dims if shape[d] == 1}
    for axis in gone:
        if x[axis] is not None:
            walk.freeze([x[axis]], f"disappears in {called(node)}, which takes axes of length one away")
    return [ids for d, ids in enumerate(x) if d not in gone]


@rule(aten.expand.default)
def expand(walk: Propagation, node: Node) -> Axes:
    """An axis of length one that is repeated gets positions of its own, which may be fewer later."""
    x, before, after = walk.of(node.args[0]), walk.shape(node.args[0]), walk.shapes[node.name]
    sizes: list[object] = list(argument(node, 1))
    result: Axes = []
    for distance in range(len(after), 0, -1):
        old = before[-distance] if distance <= len(before) else 1
        if old == after[-distance]:
            result.append(x[-distance] if distance <= len(x) else None)
        else:
            result.append(walk.fresh(after[-distance]) if isinstance(sizes[-distance], int) else None)
    walk.rewrites[node.name] = lambda n, alive: _set_sizes(n, 1, result, alive)
    return result


@rule(aten.expand_as.default)
def expand_as(walk: Propagation, node: Node) -> Axes:
    """To the size of another value, whose positions those that are repeated take over."""
    x, other = walk.of(node.args[0]), walk.of(node.args[1])
    before, after = walk.shape(node.args[0]), walk.shapes[node.name]
    result: Axes = list(other)
    for distance in range(1, len(before) + 1):
        if before[-distance] == after[-distance]:
            reason = f"meets an axis that cannot be pruned in {called(node)}"
            result[-distance] = walk.tie(x[-distance], other[-distance], reason)
    return result


@rule(aten.repeat.default)
def repeat(walk: Propagation, node: Node) -> Axes:
    """Whole axes behind each other; an axis of length one as in `expand`."""
    x, before = walk.of(node.args[0]), walk.shape(node.args[0])
    times: list[Any] = list(argument(node, 1))
    new = len(times) - len(before)
    result: Axes = []
    grown: dict[int, Ids] = {}
    for axis, count in enumerate(times):
        ids, size = (None, 1) if axis < new else (x[axis - new], before[axis - new])
        if isinstance(count, int) and count > 1 and size == 1:
            grown[axis] = walk.fresh(count)
            ids = grown[axis]
        elif ids is not None and count != 1:
            ids = np.tile(ids, walk.shapes[node.name][axis] // size)
        result.append(ids)

    def fewer(n: Node, alive: Alive) -> None:
        counts = [int(alive(grown[axis]).sum()) if axis in grown else count for axis, count in enumerate(times)]
        n.update_arg(1, counts)

    if grown:
        walk.rewrites[node.name] = fewer
    return result


@rule(aten.repeat_interleave.self_int)
def repeat_interleave(walk: Propagation, node: Node) -> Axes:
    """Every position several times."""
    x, chosen = list(walk.of(node.args[0])), argument(node, 2, "dim")
    if chosen is None:
        walk.freeze(x, f"is flattened by {called(node)}")
        return [None]
    axis = int(chosen) % len(x)
    ids = x[axis]
    x[axis] = None if ids is None else np.repeat(ids, walk.shapes[node.name][axis] // len(ids))
    return x


@rule(aten.channel_shuffle.default, aten.native_channel_shuffle.default)
def channel_shuffle(walk: Propagation, node: Node) -> Axes:
    """Channels (groups, some) become (some, groups)."""
    x, groups = list(walk.of(node.args[0])), int(argument(node, 1))
    ids = x[1]
    if ids is None:
        return x
    rows, _ = walk.grid(ids, (groups, len(ids) // groups), f"is shuffled in {groups} groups by {called(node)}")
    if rows is not None:
        walk.rewrites[node.name] = lambda n, alive: set_argument_(n, 1, "groups", int(alive(rows).sum()))
    x[1] = ids.reshape(groups, -1).T.flatten()
    return x


@rule(aten.zeros.default, aten.ones.default, aten.full.default, aten.empty.memory_format, aten.randn.default,
      aten.rand.default)  # fmt: skip
def made(walk: Propagation, node: Node) -> Axes:
    """A new tensor has positions of its own, as many as what it meets needs."""
    sizes: list[object] = list(argument(node, 0))
    return _made(walk, node, sizes, 0)


@rule(aten.new_zeros.default, aten.new_ones.default, aten.new_full.default, aten.new_empty.default)
def made_alike(walk: Propagation, node: Node) -> Axes:
    """The same with the number format of another tensor."""
    sizes: list[object] = list(argument(node, 1))
    return _made(walk, node, sizes, 1)


def _made(walk: Propagation, node: Node, sizes: list[object], place: int) -> Axes:
    axes: Axes = [walk.fresh(size) if isinstance(size, int) and size > 1 else None for size in sizes]
    walk.rewrites[node.name] = lambda n, alive: _set_sizes(n, place, axes, alive)
    return axes
