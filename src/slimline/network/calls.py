"""Calls in a graph: what they are given, what they and their layers are called, and who reads a stored tensor."""

from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch.fx import Node

from slimline.network.network import Network


def argument(node: Node, position: int, name: str = "", default: Any = None) -> Any:
    """An argument of a call, given by place or by name."""
    return node.args[position] if len(node.args) > position else node.kwargs.get(name, default)


def set_argument_(node: Node, position: int, name: str, value: Any) -> None:
    """Change an argument where it stands; one that is left out is given by name."""
    if len(node.args) > position:
        node.update_arg(position, value)
    else:
        node.update_kwarg(name, value)


def arguments(node: Node) -> dict[str, Any]:
    """Every argument of a call by its name in the operator's schema, those left out with their defaults."""
    schema = node.target._schema.arguments if isinstance(node.target, torch._ops.OpOverload) else []
    given = {a.name: a.default_value for a in schema if a.has_default_value()}
    return given | dict(zip((a.name for a in schema), node.args, strict=False)) | node.kwargs


def called(node: Node) -> str:
    """A call in a sentence: its operator and its name in the graph."""
    return f"{getattr(node.target, '__name__', node.target)} ({node.name})"


def readers_of(network: Network, name: str) -> list[Node]:
    """Every call that reads a stored tensor, through whichever node."""
    nodes = network.module.graph.find_nodes(op="get_attr", target=name)
    return [user for node in nodes for user in node.users]


def stored_name(value: object) -> str | None:
    """The name under which an argument is stored; None for what is computed or no node."""
    return str(value.target) if isinstance(value, Node) and value.op == "get_attr" else None


def layer_of(weight: str) -> str:
    """``blocks.0.conv`` for ``blocks.0.conv.weight``, and the name itself where it has one part."""
    return weight.rpartition(".")[0] or weight


def by_layer(stored: Mapping[Node, str | None]) -> dict[str, Node]:
    """Calls by the name of their layer: that of the weight without its last part, unless another weight has it too.

    Args:
        stored: call -> its stored weight; None where it has none, then it goes by its own name.
    """
    owners = Counter(weight.rpartition(".")[0] for weight in {w for w in stored.values() if w})
    named = {}
    for node, weight in stored.items():
        owner = (weight or "").rpartition(".")[0]
        named[owner if owner and owners[owner] == 1 else weight or node.name] = node
    return named


def part_name(layer: str, weight: str, part: str) -> str:
    """``conv.first`` for a part that takes the place of ``conv.weight``.

    Where the weight itself has the layer's name, ``conv_first``, since a tensor cannot hold others.
    """
    return f"{layer}{'_' if layer == weight else '.'}{part}"
