"""Chains of permutations become one permutation, chains of reshapes one reshape, and what undoes itself nothing.

Jia, Padon, Thomas, Warszawski, Zaharia, Aiken (2019). TASO: Optimizing Deep Learning Computation with Automatic
Generation of Graph Substitutions. doi:10.1145/3341301.3359630: substitutions of this kind, found there by search.

    permute(permute(x, p), q) = permute(x, p[q])          reshape(reshape(x, s), t) = reshape(x, t)

Ours differs: the substitutions are written down; squeeze, unsqueeze, flatten and a permutation that moves only axes of
size 1 count as reshapes. The new shape has -1 where the batch is, so that it fits any batch.
Helps: networks that went through another framework, whose layouts are swapped there and back; attention.
Does not: move a permutation past what computes.
"""

from dataclasses import dataclass

import torch
from torch.fx import Node

from slimline.methods.method import Method, Outcome, register
from slimline.methods.simplify.calls import axes_order, let_views_copy_, why_not_replace
from slimline.methods.simplify.free_shapes import FreeShapes, free_shapes
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.workspace import Workspace

aten = torch.ops.aten
RESHAPES = frozenset({
    aten.view.default, aten.reshape.default, aten._unsafe_view.default, aten.view_as.default, aten.reshape_as.default,
    aten.flatten.using_ints, aten.unflatten.int, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.unsqueeze.default,
})  # fmt: skip


def composed(first: list[int], second: list[int]) -> list[int]:
    """The one order of axes that two permutations in turn give: axis i of the result is axis ``first[second[i]]``."""
    return [first[axis] for axis in second]


def only_moves_ones(order: list[int], sizes: list[int]) -> bool:
    """Whether a permutation leaves the order of the axes that are longer than 1, and with it that of the numbers."""
    long = [axis for axis in order if sizes[axis] != 1]
    return long == sorted(long)


def cancel_reshapes_(network: Network, shapes: FreeShapes) -> tuple[list[str], dict[str, str]]:
    """Merge every pair of permutations or reshapes; what went, and why others stay. Edits the network."""
    changed, skipped = [], {}
    for node in list(network.module.graph.nodes):
        inner = node.args[0] if node.op == "call_function" and node.args else None
        if not isinstance(inner, Node) or not inner.args or not isinstance(inner.args[0], Node):
            continue
        outcome = _merge_permutations_(node, inner, shapes) or _merge_reshapes_(node, inner, shapes)
        if outcome == MERGED:
            changed.append(inner.name)
        elif outcome == CANCELLED:
            changed += [inner.name, node.name]
            network.module.graph.erase_node(node)
        elif outcome:
            skipped[node.name] = outcome
        if not inner.users:
            network.module.graph.erase_node(inner)
    if changed:
        let_views_copy_(network)
    network.tidy_()
    return changed, skipped


MERGED, CANCELLED = "merged", "cancelled"


def _merge_permutations_(node: Node, inner: Node, shapes: FreeShapes) -> str:
    """What became of a pair of permutations; a reason, or nothing where it is no such pair."""
    orders = [_order(call, shapes) for call in (inner, node)]
    if None in orders:
        return ""
    order = composed(*orders)  # type: ignore[arg-type]
    if order == sorted(order):
        return _cancel_(node, inner.args[0])  # type: ignore[arg-type]
    if len(inner.users) > 1:
        return f"{inner.name} is read by other operators too"
    node.target, node.args, node.kwargs = aten.permute.default, (inner.args[0], order), {}
    return MERGED


def _merge_reshapes_(node: Node, inner: Node, shapes: FreeShapes) -> str:
    """What became of a pair of reshapes; a reason, or nothing where it is no such pair."""
    if not all(_is_reshape(call, shapes) for call in (inner, node)):
        return ""
    source = inner.args[0]
    assert isinstance(source, Node)
    if shapes.same(node, source):
        return _cancel_(node, source)
    if len(inner.users) > 1:
        return f"{inner.name} is read by other operators too"
    shape = shapes.tensors[node]
    free = shape.free_axes()
    if len(free) > 1 or 0 in shape.small:
        return "its shape for any batch cannot be written with one -1"
    sizes = [-1 if axis in free else size for axis, size in enumerate(shape.small)]
    node.target, node.args, node.kwargs = aten.reshape.default, (source, sizes), {}
    return MERGED


def _cancel_(node: Node, source: Node) -> str:
    reason = why_not_replace(node, source)
    if not reason:
        node.replace_all_uses_with(source)
    return reason or CANCELLED


def _order(node: Node, shapes: FreeShapes) -> list[int] | None:
    shape = shapes.tensors.get(node)
    return None if shape is None or shape.rank is None else axes_order(node, shape.rank)


def _is_reshape(node: Node, shapes: FreeShapes) -> bool:
    """Whether the numbers of a call's first argument stay in their order."""
    shape, before = shapes.tensors.get(node), shapes.tensors.get(node.args[0])  # type: ignore[arg-type]
    if shape is None or before is None or shape.rank is None or before.rank is None:
        return False
    if node.target in RESHAPES:
        return True
    order = axes_order(node, shape.rank)
    return order is not None and only_moves_ones(order, [max(s[axis] for s in before.at) for axis in range(shape.rank)])


@register
@dataclass(frozen=True)
class CancelReshapes(Method):
    """Merge permutations with permutations and reshapes with reshapes, and drop those that undo each other."""

    cites = ("jia2019taso",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        return Outcome(result, *cancel_reshapes_(result, free_shapes(result)))
