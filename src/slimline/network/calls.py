"""Calls in a graph: what they are given, what they are called in a sentence, and who reads a stored tensor."""

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
