"""What a network costs: multiply-accumulates (MACs) per sample, parameters and bytes of weights."""

import math
from dataclasses import dataclass

import torch
from torch.fx import Node

from slimline.network.network import Network, get_tensor
from slimline.network.shapes import node_shapes

aten = torch.ops.aten
CONVOLUTIONS = {
    aten.conv1d.default: "conv1d",
    aten.conv2d.default: "conv2d",
    aten.conv3d.default: "conv3d",
    aten.conv1d.padding: "conv1d",
    aten.conv2d.padding: "conv2d",
    aten.conv_transpose2d.input: "conv_transpose2d",
}
PRODUCTS = {aten.matmul.default: "matmul", aten.bmm.default: "bmm", aten.mm.default: "mm"}


@dataclass(frozen=True)
class Layer:
    """One operator with weights, or one product of two activations."""

    name: str
    """Name of the weight without its last part (``blocks.0.conv1``), or of the graph node."""
    node: str
    kind: str
    weight_shape: tuple[int, ...]
    output_shape: tuple[int, ...]
    """Without the batch axis."""
    macs: int
    """Multiply-accumulates for one sample."""
    parameters: int
    bytes: int


def weight_name(node: Node) -> str | None:
    """The stored tensor a conv or linear node reads as its weight, looked up through a dequantize node."""
    source = node.args[1] if len(node.args) > 1 else None
    while isinstance(source, Node) and source.op == "call_function":
        source = source.args[0]
    return str(source.target) if isinstance(source, Node) and source.op == "get_attr" else None


def layers(network: Network) -> list[Layer]:
    """Every conv, linear and matrix product in execution order.

    MACs are counted as the textbook does: output elements times the length of the sum that makes each.
    """
    shapes = node_shapes(network)
    batch = len(next(iter(network.examples.values())))
    found = []
    for node in network.module.graph.nodes:
        kind = CONVOLUTIONS.get(node.target) or PRODUCTS.get(node.target)
        kind = "linear" if node.target is aten.linear.default else kind
        if node.op != "call_function" or kind is None:
            continue
        output = shapes[node.name]
        name = weight_name(node)
        if kind in PRODUCTS.values() or name is None:
            length = shapes[node.args[0].name][-1]
            found.append(Layer(node.name, node.name, kind, (), output[1:], math.prod(output) // batch * length, 0, 0))
            continue
        weight = get_tensor(network.module, name)
        if kind == "conv_transpose2d":
            macs = math.prod(shapes[node.args[0].name]) // batch * math.prod(weight.shape[1:])
        else:
            macs = math.prod(output) // batch * math.prod(weight.shape[1:])
        title = name.rpartition(".")[0] or name
        size = weight.numel() * weight.element_size()
        found.append(Layer(title, node.name, kind, tuple(weight.shape), output[1:], macs, weight.numel(), size))
    return found


def macs(network: Network) -> int:
    """Multiply-accumulates for one sample."""
    return sum(layer.macs for layer in layers(network))


def weight_bytes(network: Network) -> int:
    """Bytes of every stored tensor."""
    return sum(t.numel() * t.element_size() for t in network.weights().values())


def weight_count(network: Network) -> int:
    """Stored weights and biases; scales and zero points of a quantised network are not counted."""
    derived = ("_scale", "_zero_point")
    return sum(t.numel() for name, t in network.weights().items() if not name.endswith(derived))
