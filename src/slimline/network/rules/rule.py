"""How a rule belongs to operators, and what holds for operators without one."""

from collections.abc import Callable
from typing import Any

from torch.fx import Node

from slimline.network.calls import called
from slimline.network.ids import Axes
from slimline.network.propagation import Propagation

Rule = Callable[[Propagation, Node], Axes]
RULES: dict[Any, Rule] = {}


def rule(*targets: Any) -> Callable[[Rule], Rule]:
    """Make a function the rule of these operators."""

    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(targets, function))
        return function

    return add


def unknown(walk: Propagation, node: Node) -> Axes:
    """No rule: nothing that flows in can be pruned."""
    for value in node.all_input_nodes:
        for axes in [walk.of(value), *walk.parts.get(value.name, [])]:
            walk.freeze(axes, f"flows into {called(node)}, which has no axis rule")
    return [None] * len(walk.shapes.get(node.name, ()))
