"""Small edits of a network's graph and weights."""

from torch import Tensor, nn
from torch.fx import Node

from slimline.network.network import Network
from slimline.network.trace import put_tensor


def set_weight(network: Network, name: str, value: Tensor, trainable: bool = True) -> None:
    """Store a weight under a dotted name; floating point ones are trainable unless told otherwise."""
    put_tensor(network.module, name, nn.Parameter(value) if trainable and value.is_floating_point() else value)


def set_bias_(network: Network, layer: Node, value: Tensor) -> None:
    """Give a convolution or linear layer a bias of its own, whether it had one, shared one or had none.

    Args:
        layer: the call, whose weight is stored; the bias is named like it.
    """
    weight = str(layer.args[1].target)  # type: ignore[union-attr]
    name = unused_name(network, (weight.rpartition(".")[0] + "." if "." in weight else "") + "bias")
    set_weight(network, name, value)
    with network.module.graph.inserting_before(layer):
        bias = network.module.graph.create_node("get_attr", name)
    layer.args = (*layer.args[:2], bias, *layer.args[3:])


def unused_name(network: Network, name: str) -> str:
    """``name``, with a number behind it when the network already stores something there."""
    taken = {n for n, _ in network.module.named_parameters()} | {n for n, _ in network.module.named_buffers()}
    taken |= set(network.weights())
    candidate, number = name, 1
    while candidate in taken:
        number += 1
        candidate = f"{name}_{number}"
    return candidate
