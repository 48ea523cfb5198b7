"""Stored values that many weights are read from take the step that these weights take together.

A codebook c makes a weight W = c[n]. One step of gradient descent, and then the nearest weight that has a codebook:

    argmin over c of || c[n] - (W - r dL/dW) ||^2   =   c - r mean over j with n_j = k of dL/dW_j

The gradient of c is the sum of those of its weights, thousands of times as much: at a rate that suits other weights a
step along it overshoots, and alone it fills the length to which gradients are clipped.
"""

import torch
from torch import Tensor
from torch.fx import Node

from slimline.network.network import Network, get_tensor

aten = torch.ops.aten
NUMBERS = torch.uint8
"""The kind of the stored numbers of clusters."""
LOOK_UPS = {aten.embedding.default: 1, aten.index_select.default: 2}
"""Which argument holds the numbers."""
VIEWS = {aten.reshape.default, aten.slice.Tensor}
MOVES = {*VIEWS, aten.to.dtype, aten.add.Tensor}
"""What becomes of stored numbers before something is looked up by them."""


def weights_of_entries(network: Network) -> dict[str, Tensor]:
    """How many weights each entry of a codebook stands for, at least 1, in the codebook's shape; by its name.

    The number of the weights is the gradient of their sum: what leads to them only moves values.
    """
    stored = {n: get_tensor(network.module, str(n.target)) for n in network.module.graph.find_nodes(op="get_attr")}
    numbers = _numbers(network, stored)
    look_ups = {n for n in network.module.graph.nodes if n.target in LOOK_UPS and n.args[LOOK_UPS[n.target]] in numbers}
    tables = {_seen(n.args[0]) for n in look_ups}
    codebooks = {
        str(n.target): torch.zeros_like(x, dtype=torch.float64, requires_grad=True)
        for n, x in stored.items()
        if n in tables
    }
    if not codebooks:
        return {}
    values = {n: codebooks.get(str(n.target), x.detach()) for n, x in stored.items()}
    with torch.enable_grad():
        for node in network.module.graph.nodes:
            moves = node in numbers | look_ups or node.target in VIEWS
            if node not in values and moves and values.keys() >= set(node.all_input_nodes):
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)
        read = [
            value.sum()
            for node, value in values.items()
            if node.op != "get_attr" and value.requires_grad and not values.keys() >= node.users.keys()
        ]
        counts = torch.autograd.grad(torch.stack(read).sum(), list(codebooks.values()))
    return {name: count.clamp_min(1) for name, count in zip(codebooks, counts, strict=True)}


def _numbers(network: Network, stored: dict[Node, Tensor]) -> set[Node]:
    """The stored numbers of clusters, and what only moves them."""
    found = {node for node, tensor in stored.items() if tensor.dtype is NUMBERS}
    whole = {node for node, tensor in stored.items() if not tensor.is_floating_point()}
    for node in network.module.graph.nodes:
        before = set(node.all_input_nodes)
        if node.target in MOVES and before & found and before <= found | whole:
            found.add(node)
    return found


def _seen(table: Node) -> Node:
    """What a table is a view of."""
    while table.target in VIEWS and isinstance(table.args[0], Node):
        table = table.args[0]
    return table


def share_steps_(network: Network) -> None:
    """From now on the gradients of codebooks are means over the weights that they stand for; edits the network."""
    weights = network.weights()
    for name, count in weights_of_entries(network).items():
        if weights[name].requires_grad:
            weights[name].register_hook(lambda gradient, count=count: (gradient / count).to(gradient))  # type: ignore[no-untyped-call]
