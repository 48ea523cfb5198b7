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
LOOK_UPS = {aten.embedding.default, aten.index_select.default}
MOVES = {aten.reshape.default, aten.slice.Tensor, aten.to.dtype, aten.add.Tensor}
"""What else stands between stored numbers and the weight that a layer reads; the sums are of whole numbers."""
NUMBERS = torch.uint8
"""The kind of the stored numbers of clusters."""


def weights_of_entries(network: Network) -> dict[str, Tensor]:
    """How many weights each entry of a codebook stands for, at least 1, in the codebook's shape; by its name."""
    values: dict[Node, Tensor] = {}
    numbers, looked_up = set[Node](), set[Node]()
    codebooks: dict[str, Tensor] = {}
    with torch.enable_grad():
        for node in network.module.graph.nodes:
            before = set(node.all_input_nodes)
            if node.op == "get_attr":
                stored = get_tensor(network.module, str(node.target)).detach()
                if stored.is_floating_point():
                    stored = codebooks.setdefault(str(node.target), torch.zeros_like(stored, requires_grad=True))
                values[node] = stored
                numbers |= {node} if stored.dtype is NUMBERS else set()
            elif node.target in LOOK_UPS | MOVES and before <= values.keys():
                args, kwargs = torch.fx.map_arg((node.args, node.kwargs), values.__getitem__)
                values[node] = node.target(*args, **kwargs)
                if before & looked_up or (before & numbers and node.target in LOOK_UPS):
                    looked_up.add(node)
                elif before & numbers:
                    numbers.add(node)
        read = [values[n].sum() for n in looked_up if values[n].requires_grad and not values.keys() >= n.users.keys()]
        if not read:
            return {}
        counts = torch.autograd.grad(torch.stack(read).sum(), list(codebooks.values()), allow_unused=True)
    return {name: n.clamp_min(1) for name, n in zip(codebooks, counts, strict=True) if n is not None}


def share_steps_(network: Network) -> None:
    """From now on the gradients of codebooks are means over the weights that they stand for; edits the network."""
    weights = network.weights()
    for name, count in weights_of_entries(network).items():
        if weights[name].requires_grad:
            weights[name].register_hook(lambda gradient, count=count: gradient / count)  # type: ignore[no-untyped-call]
