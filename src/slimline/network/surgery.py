"""Small edits of a network's graph and weights."""

from torch import Tensor, nn

from slimline.network.network import Network
from slimline.network.trace import put_tensor


def set_weight(network: Network, name: str, value: Tensor, trainable: bool = True) -> None:
    """Store a weight under a dotted name; floating point ones are trainable unless told otherwise."""
    put_tensor(network.module, name, nn.Parameter(value) if trainable and value.is_floating_point() else value)


def unused_name(network: Network, name: str) -> str:
    """``name``, with a number behind it when the network already stores something there."""
    taken = {n for n, _ in network.module.named_parameters()} | {n for n, _ in network.module.named_buffers()}
    taken |= set(network.weights())
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
