"""Where a network's tensors lie while it trains: the device, and the order of the axes in memory."""

import torch
from torch import Tensor

from slimline.network.network import Network


def channels_last(x: Tensor) -> Tensor:
    """An image batch with its channels innermost in memory; other tensors as they are."""
    return x.contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def channels_last_(network: Network) -> Network:
    """Store 4-d weights channels last, which convolutions prefer; edits this network."""
    for parameter in network.module.parameters():
        parameter.data = channels_last(parameter.data)
    return network


def contiguous_(network: Network) -> Network:
    """Store every weight in the order of its axes, as files need it; edits this network."""
    for tensor in network.weights().values():
        tensor.data = tensor.data.contiguous()
    return network


def move_(network: Network, device: torch.device) -> Network:
    """Put the weights on a device, and what the graph itself makes, such as positions; edits this network."""
    network.module.to(device)
    for node in network.module.graph.nodes:
        if node.kwargs.get("device") is not None:
            node.update_kwarg("device", device)
    network.module.recompile()
    return network
