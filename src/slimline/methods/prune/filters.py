"""The filters of a channel: what the layers that put it out hold for it."""

from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from slimline.network.axes import Group
from slimline.network.network import Network, get_tensor
from slimline.network.operators import CONVOLUTIONS, TRANSPOSED

aten = torch.ops.aten
PUT_OUT: dict[Any, int] = {
    aten.linear.default: 0, **dict.fromkeys(CONVOLUTIONS, 0), **dict.fromkeys(TRANSPOSED, 1),
    aten.embedding.default: 1, aten.matmul.default: -1, aten.mm.default: -1,
}  # fmt: skip
"""The axis of the weight along which an operator puts out channels; the others are summed over."""
FIRST = {aten.embedding.default}
"""Operators whose weight comes first."""


def filters(network: Network, group: Group, of: dict[str, Tensor] | None = None) -> list[Tensor]:
    """What each weight of two or more axes that puts out a group holds for every channel, float64 (width, numbers).

    A weight that is read otherwise than as that of a layer, such as a table of positions that is added, counts along
    every axis.

    Args:
        of: tensors of the weights' shapes to take in their place, such as scores; those that are not in it are left
            out.
    """
    written, found = putting_out(network), []
    for (weight, axis), positions in group.slices.items():
        tensor = get_tensor(network.module, weight).detach() if of is None else of.get(weight)
        if tensor is None or tensor.ndim < 2 or (weight, axis) not in written:
            continue
        longest = max(len(p) for p in positions)
        rows = tensor.double().movedim(axis, 0).flatten(1)
        held = rows.new_zeros(group.width, longest, rows.shape[1])  # what a channel with fewer positions lacks is zero
        for channel, places in enumerate(positions):
            held[channel, : len(places)] = rows[torch.from_numpy(np.asarray(places))]
        found.append(held.flatten(1))
    return found


def writers(network: Network, group: Group) -> list[Node]:
    """The calls that put out a group with weights of two or more axes."""
    written = {w for w, axis in putting_out(network) & group.slices.keys() if get_tensor(network.module, w).ndim > 1}
    stored = {node for node in network.module.graph.nodes if node.op == "get_attr" and str(node.target) in written}
    return [node for node in network.module.graph.nodes if stored.intersection(node.all_input_nodes)]


def channel_axes(network: Network) -> dict[str, int]:
    """The axis along which each weight puts out channels: the first, where several do, such as the rows of a gate."""
    return dict(sorted(putting_out(network), reverse=True))


def putting_out(network: Network) -> set[tuple[str, int]]:
    """(weight name, axis) of all weights and biases along which channels are put out."""
    found = set()
    for node in network.module.graph.nodes:
        for stored in (n for n in node.all_input_nodes if n.op == "get_attr"):
            name = str(stored.target)
            axes = get_tensor(network.module, name).ndim
            if node.target in PUT_OUT and stored is node.args[0 if node.target in FIRST else 1]:
                found.add((name, PUT_OUT[node.target] % axes))
            elif node.target not in PUT_OUT or axes == 1:
                found |= {(name, axis) for axis in range(axes)}
    return found
