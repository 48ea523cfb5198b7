"""Products of two values: matrix products, attention and Einstein sums."""

import math

import torch
from torch.fx import Node

from slimline.network.calls import argument, called
from slimline.network.ids import Axes, Ids
from slimline.network.propagation import Propagation
from slimline.network.rules.elementwise import same_axis
from slimline.network.rules.rule import rule

aten = torch.ops.aten


@rule(aten.matmul.default, aten.bmm.default, aten.mm.default, aten.mv.default, aten.dot.default)
def matrix_product(walk: Propagation, node: Node) -> Axes:
    """(..., n, k) times (..., k, m): k is the same in both, and so are the axes before."""
    return _product(walk, node, node.args[0], node.args[1])


@rule(aten.addmm.default, aten.baddbmm.default)
def added_product(walk: Propagation, node: Node) -> Axes:
    """The same, added to a value of the same shape."""
    result = _product(walk, node, node.args[1], node.args[2])
    added, shape = node.args[0], walk.shapes[node.name]
    for distance in range(1, len(walk.shape(added)) + 1):
        if walk.shape(added)[-distance] == shape[-distance]:
            ids = walk.of(added)[-distance]
            result[-distance] = walk.tie(result[-distance], ids, _met(node))
    return result


def _met(node: Node) -> str:
    return f"meets an axis that cannot be pruned in {called(node)}"


def _product(walk: Propagation, node: Node, one: object, other: object) -> Axes:
    a, b = walk.of(one), walk.of(other)
    before_a, before_b = walk.shape(one), walk.shape(other)
    walk.tie(a[-1], b[-2] if len(b) > 1 else b[-1], _met(node))
    rows = a[-2:-1] if len(a) > 1 else []
    columns = b[-1:] if len(b) > 1 else []
    count = max(len(a), len(b)) - 2
    axes: Axes = []
    for distance in range(count + 2, 2, -1):
        sides = [
            (x[-distance], shape[-distance]) for x, shape in ((a, before_a), (b, before_b)) if distance <= len(shape)
        ]
        longest = max(size for _, size in sides)
        axes.append(same_axis(walk, [ids for ids, size in sides if size == longest], _met(node)))
    return [*axes, *rows, *columns]


@rule(aten.scaled_dot_product_attention.default)
def attention(walk: Propagation, node: Node) -> Axes:
    """softmax(s q k^T + mask) v: heads are shared, q and k have one width, v another; s is that of the original."""
    q, k, v = (walk.of(node.args[i]) for i in range(3))
    mask = argument(node, 3, "attn_mask")
    width = walk.tie(q[-1], k[-1], _met(node))
    for ids in (q[-2], k[-2], v[-2]):
        walk.freeze([ids], f"is attended over by {called(node)}")
    result: Axes = []
    for axis in range(len(q) - 2):
        result.append(_heads(walk, node, axis, (q[axis], k[axis], v[axis])))
    if isinstance(mask, Node):
        shape, whole = walk.shape(mask), (*walk.shape(node.args[0])[:-1], walk.shape(node.args[1])[-2])
        for distance in range(1, len(shape) + 1):
            own = walk.of(mask)[-distance]
            if shape[-distance] != whole[-distance] or shape[-distance] == 1:
                continue
            if distance <= 2:
                walk.freeze([own], f"is attended over by {called(node)}")
            else:
                place = len(result) + 2 - distance
                result[place] = walk.tie(result[place], own, _met(node))
    if width is not None and argument(node, 6, "scale") is None:
        original = len(width)

        def keep_scale(n: Node, alive: object) -> None:
            n.update_kwarg("scale", 1 / math.sqrt(original))

        walk.rewrites[node.name] = keep_scale
    return [*result, None, v[-1]]


def _heads(walk: Propagation, node: Node, axis: int, several: tuple[Ids | None, ...]) -> Ids | None:
    """One axis before the places and widths; grouped queries have several heads for each of the keys."""
    q, k, v = several
    sizes = [walk.shape(node.args[i])[axis] for i in range(3)]
    if sizes[0] == sizes[1]:
        return same_axis(
            walk, [ids for ids, size in zip(several, sizes, strict=True) if size == max(sizes)], _met(node)
        )
    both = walk.tie(k, v, _met(node))
    if q is None or both is None:
        walk.freeze([q, both], _met(node))
        return None
    rows, _ = walk.grid(q, (sizes[1], sizes[0] // sizes[1]), f"shares its keys in {called(node)}")
    walk.tie(rows, both, _met(node))
    return q


@rule(aten.einsum.default)
def einsum(walk: Propagation, node: Node) -> Axes:
    """Axes with the same letter are one."""
    equation, values = str(node.args[0]).replace(" ", ""), list(argument(node, 1))
    left, arrow, right = equation.partition("->")
    terms = left.split(",")
    if "." in equation or not arrow or any(len(set(t)) < len(t) for t in [*terms, right]):
        walk.freeze(
            [ids for v in values for ids in walk.of(v)], f"flows into {called(node)}, whose equation has no rule"
        )
        return [None] * len(walk.shapes[node.name])
    by_letter: dict[str, list[tuple[Ids | None, int]]] = {}
    for term, value in zip(terms, values, strict=True):
        for letter, ids, size in zip(term, walk.of(value), walk.shape(value), strict=True):
            by_letter.setdefault(letter, []).append((ids, size))
    axes: dict[str, Ids | None] = {}
    for letter, several in by_letter.items():
        longest = max(size for _, size in several)
        axes[letter] = same_axis(walk, [ids for ids, size in several if size == longest], _met(node))
    return [axes[letter] for letter in right]
