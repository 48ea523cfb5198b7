"""Common subexpressions: what is computed twice from the same values is computed once.

Cocke (1970). Global Common Subexpression Elimination. doi:10.1145/390013.808480: equal operators on equal arguments

    f(a, b), f(a, b)  ->  c = f(a, b), c, c

Ours differs: a graph has no branches, so one pass in order finds them all; a + b and b + a are equal.
Helps: masks and index tables that every block makes anew, and blocks that read one tensor in the same way.
Does not: operators that draw random numbers or would in training, norms in training; equal weights that are stored
twice; quantise and dequantise pairs, which runtimes look for one per reader.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from torch.fx import Node

from slimline.methods.method import Method, Outcome, register
from slimline.methods.simplify.calls import draws, is_pure, is_quantised
from slimline.network.network import Network
from slimline.task import Task
from slimline.training.workspace import Workspace

aten = torch.ops.aten
COMMUTATIVE = frozenset({
    aten.mul.Tensor, aten.maximum.default, aten.minimum.default, aten.__and__.Tensor, aten.__or__.Tensor,
    aten.bitwise_and.Tensor, aten.bitwise_or.Tensor, aten.logical_and.default, aten.logical_or.default, aten.add.Tensor,
})  # fmt: skip


def signature(node: Node, number: dict[Node, int]) -> Hashable:
    """What a call computes: equal for two calls that give the same."""
    args = tuple(_key(value, number) for value in node.args)
    if node.target in COMMUTATIVE and not node.kwargs:  # not with alpha: a + 2 b is not b + 2 a
        args = tuple(sorted(args, key=repr))
    return node.target, args, tuple(sorted((name, _key(value, number)) for name, value in node.kwargs.items()))


def _key(value: Any, number: dict[Node, int]) -> Hashable:
    """A value with its type, as 1, 1.0 and True are equal to Python but not to an operator."""
    if isinstance(value, Node):
        return "node", number[value]
    if isinstance(value, (list, tuple)):
        return "list", *(_key(item, number) for item in value)
    if isinstance(value, slice):
        return "slice", *(_key(item, number) for item in (value.start, value.stop, value.step))
    return type(value).__name__, repr(value)


def eliminate_common_(network: Network) -> tuple[list[str], dict[str, str]]:
    """Let every call take its value from an equal one before it; what went. Edits the network."""
    changed: list[str] = []
    first: dict[Hashable, Node] = {}
    number: dict[Node, int] = {}
    for node in list(network.module.graph.nodes):
        number[node] = len(number)
        stored = node.op == "get_attr"
        if not stored and (not is_pure(node) or draws(node, in_training=True) or is_quantised(node)):
            continue
        before = first.setdefault(str(node.target) if stored else signature(node, number), node)
        if before is not node:
            node.replace_all_uses_with(before)
            network.module.graph.erase_node(node)
            if not stored:
                changed.append(node.name)
    network.tidy_()
    return changed, {}


@register
@dataclass(frozen=True)
class EliminateCommon(Method):
    """Compute once what is computed several times."""

    cites = ("cocke1970common",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        return Outcome(result, *eliminate_common_(result))
