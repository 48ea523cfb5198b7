"""Operators that join axes, cut them or choose from them."""

import itertools
import operator

import numpy as np
import torch
from torch.fx import Node

from slimline.network.calls import argument, called
from slimline.network.ids import Alive, Axes, Ids
from slimline.network.propagation import Propagation
from slimline.network.rules.elementwise import same_axis
from slimline.network.rules.rule import rule

aten = torch.ops.aten


@rule(aten.cat.default, aten.concat.default)
def concatenate(walk: Propagation, node: Node) -> Axes:
    """Ids stand side by side on the joined axis and are merged on the others."""
    values: list[Node] = list(argument(node, 0))
    values = [v for v in values if walk.shape(v) != (0,)]  # torch ignores empty vectors here
    parts = [walk.of(v) for v in values]
    joined = int(argument(node, 1, "dim", 0)) % len(parts[0])
    result: Axes = []
    for axis in range(len(parts[0])):
        if axis != joined:
            several = [part[axis] for part in parts]
            result.append(same_axis(walk, several, f"meets an axis that cannot be pruned in {called(node)}"))
            continue
        pieces = [part[axis] for part in parts]
        whole = [p for p in pieces if p is not None]
        if len(whole) < len(pieces):
            walk.freeze(whole, f"is joined with an axis that cannot be pruned in {called(node)}")
        result.append(np.concatenate(whole) if len(whole) == len(pieces) else None)
    return result


@rule(aten.stack.default)
def stack(walk: Propagation, node: Node) -> Axes:
    """A new axis with one position for each value, all of which stay."""
    parts = [walk.of(v) for v in argument(node, 0)]
    reason = f"meets an axis that cannot be pruned in {called(node)}"
    result: Axes = [same_axis(walk, [part[axis] for part in parts], reason) for axis in range(len(parts[0]))]
    place = int(argument(node, 1, "dim", 0)) % (len(result) + 1)
    result.insert(place, None)
    return result


@rule(aten.slice.Tensor)
def slice_axis(walk: Propagation, node: Node) -> Axes:
    """A run of consecutive channels keeps its ids; the bounds are rewritten."""
    x = list(walk.of(node.args[0]))
    axis = int(argument(node, 1, "dim", 0)) % len(x)
    ids = x[axis]
    if ids is None:
        return x
    start, end, step = (
        argument(node, i, name, d) for i, name, d in ((2, "start", 0), (3, "end", None), (4, "step", 1))
    )
    if step != 1 or not all(isinstance(bound, int) or bound is None for bound in (start, end)):
        walk.freeze([ids], f"is read with a step by {called(node)}")
        x[axis] = None
        return x
    first, last, _ = slice(start, end).indices(len(ids))
    x[axis] = ids[first:last]

    def shift(n: Node, alive: Alive) -> None:
        n.args = (*n.args[:1], axis, int(alive(ids[:first]).sum()), int(alive(ids[:last]).sum()), 1)
        n.kwargs = {}

    walk.rewrites[node.name] = shift
    return x


@rule(aten.narrow.default)
def narrow(walk: Propagation, node: Node) -> Axes:
    """The same, said by start and length."""
    x = list(walk.of(node.args[0]))
    axis, start, length = int(argument(node, 1)) % len(x), argument(node, 2), argument(node, 3)
    ids = x[axis]
    if ids is None:
        return x
    if not isinstance(start, int) or not isinstance(length, int):
        walk.freeze([ids], f"is cut at a computed place by {called(node)}")
        x[axis] = None
        return x
    first = start % len(ids)
    x[axis] = ids[first : first + length]

    def shift(n: Node, alive: Alive) -> None:
        n.args = (n.args[0], axis, int(alive(ids[:first]).sum()), int(alive(ids[first : first + length]).sum()))

    walk.rewrites[node.name] = shift
    return x


@rule(aten.select.int)
def select(walk: Propagation, node: Node) -> Axes:
    """One position of an axis: it stays, others may go."""
    x = list(walk.of(node.args[0]))
    axis, chosen = int(argument(node, 1)) % len(x), node.args[2]
    ids = x.pop(axis)
    if ids is None:
        return x
    if not isinstance(chosen, int):
        walk.freeze([ids], f"is chosen by number in {called(node)}")
        return x
    place = chosen % len(ids)
    walk.freeze([ids[place : place + 1]], f"is taken out by {called(node)}")
    walk.rewrites[node.name] = lambda n, alive: n.update_arg(2, int(alive(ids[:place]).sum()))
    return x


@rule(aten.split.Tensor, aten.split_with_sizes.default, aten.split.sizes, aten.chunk.default,
      aten.tensor_split.sections)  # fmt: skip
def split(walk: Propagation, node: Node) -> Axes:
    """Pieces of an axis keep their ids; whatever the pieces were told by, they are told by their sizes afterwards."""
    x = walk.of(node.args[0])
    axis = int(argument(node, 2, "dim", 0)) % len(x)
    ids, ends = x[axis], _ends(node, walk.shape(node.args[0])[axis])
    bounds = list(itertools.pairwise([0, *ends]))
    walk.parts[node.name] = [[*x[:axis], None if ids is None else ids[a:b], *x[axis + 1 :]] for a, b in bounds]

    def resize(n: Node, alive: Alive) -> None:
        if ids is not None and not alive(ids).all():
            n.target = aten.split_with_sizes.default
            n.args = (n.args[0], [int(alive(ids[a:b]).sum()) for a, b in bounds], axis)
            n.kwargs = {}

    walk.rewrites[node.name] = resize
    return []


def _ends(node: Node, size: int) -> list[int]:
    """Where the pieces of a split end."""
    told = argument(node, 1)
    if isinstance(told, (list, tuple)):
        return list(itertools.accumulate(int(s) for s in told))
    count = int(told)
    if node.target is aten.tensor_split.sections:
        return list(itertools.accumulate(len(p) for p in np.array_split(np.arange(size), count)))
    step = -(-size // count) if node.target is aten.chunk.default else count
    return [*range(step, size, step), size]


@rule(aten.unbind.int)
def unbind(walk: Propagation, node: Node) -> Axes:
    """Every position of an axis is a value of its own: all stay."""
    x = list(walk.of(node.args[0]))
    axis = int(argument(node, 1, "dim", 0)) % len(x)
    count = walk.shape(node.args[0])[axis]
    walk.freeze([x[axis]], f"is taken apart by {called(node)}")
    walk.parts[node.name] = [[*x[:axis], *x[axis + 1 :]] for _ in range(count)]
    return []


@rule(operator.getitem)
def item(walk: Propagation, node: Node) -> Axes:
    """One of several results."""
    source, place = argument(node, 0), argument(node, 1)
    assert isinstance(source, Node)
    if source.name not in walk.parts:  # of an operator without a rule, which froze what it read
        return [None] * len(walk.shapes.get(node.name, ()))
    return list(walk.parts[source.name][int(place)])


@rule(aten.pad.default, aten.constant_pad_nd.default)
def pad(walk: Propagation, node: Node) -> Axes:
    """Padding a channel axis adds constant channels with ids of their own (option-A shortcuts, He et al. 2015)."""
    x = list(walk.of(node.args[0]))
    amounts = list(argument(node, 1))
    constant = node.target is aten.constant_pad_nd.default or argument(node, 2, "mode", "constant") == "constant"
    added: dict[int, tuple[Ids, Ids]] = {}
    for distance in range(len(amounts) // 2):
        axis, (before, after) = len(x) - 1 - distance, amounts[2 * distance : 2 * distance + 2]
        ids = x[axis]
        if ids is None or before == after == 0:
            continue
        if not constant or before < 0 or after < 0:
            walk.freeze([ids], f"is padded by {called(node)}")
            x[axis] = None
            continue
        added[2 * distance] = walk.fresh(before), walk.fresh(after)
        x[axis] = np.concatenate([added[2 * distance][0], ids, added[2 * distance][1]])

    def shrink(n: Node, alive: Alive) -> None:
        sizes = list(argument(n, 1))
        for place, (left, right) in added.items():
            sizes[place : place + 2] = [int(alive(left).sum()), int(alive(right).sum())]
        n.update_arg(1, sizes)

    if added:
        walk.rewrites[node.name] = shrink
    return x


@rule(aten.index_select.default, aten.gather.default)
def choose(walk: Propagation, node: Node) -> Axes:
    """Positions chosen by number: the axis stays, and with `gather` so do the axes that the numbers have."""
    x = list(walk.of(node.args[0]))
    axis = int(argument(node, 1)) % len(x)
    chosen = x if node.target is aten.gather.default else [x[axis]]
    walk.freeze([*chosen, *walk.of(node.args[2])], f"is chosen by number in {called(node)}")
    if node.target is aten.gather.default:
        return [None] * len(x)
    x[axis] = None
    return x


@rule(aten.index.Tensor)
def index(walk: Propagation, node: Node) -> Axes:
    """Axes that are chosen from stay; where those stand together, the others keep their order."""
    x = list(walk.of(node.args[0]))
    numbers: list[Node | None] = list(argument(node, 1))
    numbers += [None] * (len(x) - len(numbers))
    chosen = [axis for axis, value in enumerate(numbers) if value is not None]
    masks = any(walk.holds_booleans(value) for value in numbers if value is not None)
    apart = chosen[-1] - chosen[0] >= len(chosen)
    if masks or apart:
        walk.freeze(x, f"is chosen by {called(node)}")
        return [None] * len(walk.shapes[node.name])
    told = [ids for value in numbers if value is not None for ids in walk.of(value)]
    walk.freeze([*(x[axis] for axis in chosen), *told], f"is chosen by number in {called(node)}")
    new = len(walk.shapes[node.name]) - (len(x) - len(chosen))
    return [*x[: chosen[0]], *[None] * new, *x[chosen[-1] + 1 :]]


@rule(aten.sym_size.int)
def size(walk: Propagation, node: Node) -> Axes:
    """Only the batch axis has a symbolic size; a number carries no ids."""
    return []
