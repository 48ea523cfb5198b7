"""Walks a graph once and finds, for every axis of every tensor, the id of each position.

`slimline.network.rules` says, per operator, how the ids of its inputs become the ids of its output and which ids are
the same thing; `slimline.network.ids` is the arithmetic of ids.
"""

from collections.abc import Callable

import numpy as np
import torch
from torch.fx import Node

from slimline.network.calls import called
from slimline.network.ids import Alive, Axes, ChannelIds, Ids
from slimline.network.network import Network, get_tensor
from slimline.network.shapes import node_dtypes, node_shapes

Rewrite = Callable[[Node, Alive], None]


class Propagation(ChannelIds):
    """The ids of a network; what the rules read and write."""

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.network = network
        self.shapes = node_shapes(network)
        self.axes: dict[str, Axes] = {}
        """By node name."""
        self.parts: dict[str, list[Axes]] = {}
        """Of nodes that compute several tensors, by node name."""
        self.weight_axes: dict[str, Axes] = {}
        """By weight name, so that a weight read twice has one set of ids."""
        self.rewrites: dict[str, Rewrite] = {}
        """How to change the constants of a node once some ids are gone, by node name."""
        self._dtypes: dict[str, torch.dtype] = {}

    def of(self, value: object) -> Axes:
        """Axes of a node's value; a number or an absent input has none."""
        return self.axes.get(value.name, []) if isinstance(value, Node) else []

    def shape(self, value: object) -> tuple[int, ...]:
        """Of a node's value, for the example batch."""
        assert isinstance(value, Node)
        return self.shapes[value.name]

    def holds_booleans(self, value: Node) -> bool:
        """Whether a node's value chooses by true and false instead of by number."""
        self._dtypes = self._dtypes or node_dtypes(self.network)
        return self._dtypes.get(value.name) in (torch.bool, torch.uint8)

    def keep_places(self, node: Node, axes: Axes) -> None:
        """Height, width or time of what an operator reads: neighbours matter, so no position can go."""
        self.freeze(axes, f"is a place in {called(node)}")

    def tie(self, a: Ids | None, b: Ids | None, reason: str) -> Ids | None:
        """Two axes that stand beside each other: one where both can be pruned, else none of them."""
        if a is not None and b is not None:
            self.merge(a, b)
            return a
        self.freeze([a, b], reason)
        return None

    def run(self) -> None:
        for node in self.network.module.graph.nodes:
            self.visit(node)

    def visit(self, node: Node) -> None:
        """Find the axes of one node; those before it have theirs."""
        from slimline.network.rules import rule_for

        if node.op == "get_attr":
            name = str(node.target)
            if name not in self.weight_axes:
                shape = get_tensor(self.network.module, name).shape
                self.weight_axes[name] = [self.fresh(n) for n in shape]
            self.axes[node.name] = self.weight_axes[name]
        elif node.op == "placeholder":
            self.axes[node.name] = [None] * len(self.shapes[node.name])
        elif node.op == "output":
            for value in node.args[0]:  # type: ignore[union-attr]
                self.freeze(self.of(value), "is an output of the network")
        elif node.op == "call_function":
            self.axes[node.name] = rule_for(node.target)(self, node)

    def keep_every_axis(self) -> None:
        """No axis may become empty: what all its positions depend on stays."""
        seen: set[int] = set()
        for name, tensors in [*((n, [a]) for n, a in self.axes.items()), *self.parts.items()]:
            for ids in (ids for axes in tensors for ids in axes if ids is not None and id(ids) not in seen):
                seen.add(id(ids))
                common = (
                    frozenset[int]()
                    if not len(ids)
                    else self.plain(int(ids[0])).intersection(*(self.plain(int(i)) for i in ids[1:]))
                )
                if common:
                    self.freeze([np.array(sorted(common))], f"is all there is of an axis of {name}")
