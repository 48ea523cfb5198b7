"""What a network costs: multiply-accumulates (MACs) per sample, parameters and bytes of weights."""

import math
from dataclasses import dataclass

import torch
from torch.fx import Node

from slimline.network.calls import layer_of
from slimline.network.network import Network, get_tensor
from slimline.network.operators import CONVOLUTIONS, TRANSPOSED
from slimline.network.shapes import node_shapes

aten = torch.ops.aten
PRODUCTS = {aten.matmul.default: "matmul", aten.bmm.default: "bmm", aten.mm.default: "mm"}
ATTENTION, EINSUM = aten.scaled_dot_product_attention.default, aten.einsum.default
KINDS = {
    **{operator: f"conv{axes}d" for operator, axes in CONVOLUTIONS.items()},
    **{operator: f"conv_transpose{axes}d" for operator, axes in TRANSPOSED.items()},
    **PRODUCTS,
    aten.linear.default: "linear",
}
RECURRENT = {
    aten.lstm.input: "lstm", aten.gru.input: "gru", aten.rnn_tanh.input: "rnn", aten.rnn_relu.input: "rnn",
}  # fmt: skip


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
    weight: str = ""
    """The stored tensor that is its weight; nothing for a product of two activations."""


def weight_name(node: Node) -> str | None:
    """The stored tensor a conv or linear node reads as its weight, looked up through a dequantize node."""
    source = node.args[1] if len(node.args) > 1 else None
    while isinstance(source, Node) and source.op == "call_function":
        source = source.args[0]
    return str(source.target) if isinstance(source, Node) and source.op == "get_attr" else None


def stored_names(node: Node) -> list[str]:
    """Everything stored that the weight of a conv or linear node is made of, but for the scales of integers.

    One name for a plain weight; for a codebook its values and the numbers of the clusters.
    """
    found, waiting = dict[str, None](), [node.args[1]]
    while waiting:
        source = waiting.pop()
        if isinstance(source, Node) and source.op == "get_attr":
            found[str(source.target)] = None
        elif isinstance(source, Node):
            waiting += [source.args[0]] if "dequantize" in str(source.target) else source.all_input_nodes
    return list(found)


def layers(network: Network) -> list[Layer]:
    """Every conv, linear and matrix product in execution order.

    MACs are counted as the textbook does: output elements times the length of the sum that makes each.
    """
    shapes = node_shapes(network)
    batch = len(next(iter(network.examples.values())))
    found = []
    for node in network.module.graph.nodes:
        kind = KINDS.get(node.target)
        if node.target in (ATTENTION, EINSUM):
            kind = "attention" if node.target is ATTENTION else "einsum"
            multiplied = _attended(shapes, node) if node.target is ATTENTION else _summed(shapes, node)
            found.append(Layer(node.name, node.name, kind, (), shapes[node.name][1:], multiplied // batch, 0, 0))
            continue
        if node.target in RECURRENT:
            found += _recurrent(network, node, shapes[node.args[0].name])
            continue
        if node.op != "call_function" or kind is None:
            continue
        output = shapes[node.name]
        name = weight_name(node)
        if kind in PRODUCTS.values() or name is None:
            length = shapes[node.args[0].name][-1]
            found.append(Layer(node.name, node.name, kind, (), output[1:], math.prod(output) // batch * length, 0, 0))
            continue
        stored, shape = [get_tensor(network.module, n) for n in stored_names(node)], shapes[node.args[1].name]
        if kind.startswith("conv_transpose"):
            macs = math.prod(shapes[node.args[0].name]) // batch * math.prod(shape[1:])
        else:
            macs = math.prod(output) // batch * math.prod(shape[1:])
        title = layer_of(name)
        size = sum(t.numel() * t.element_size() for t in stored)
        count = sum(t.numel() for t in stored)
        found.append(Layer(title, node.name, kind, shape, output[1:], macs, count, size, name))
    return found


def _attended(shapes: dict[str, tuple[int, ...]], node: Node) -> int:
    """Queries times keys, and what comes out times values."""
    q, k, v = (shapes[node.all_input_nodes[i].name] for i in range(3))
    return math.prod(q[:-1]) * k[-2] * (q[-1] + v[-1])


def _summed(shapes: dict[str, tuple[int, ...]], node: Node) -> int:
    """One product for every combination of positions, whatever order a runtime takes; one factor alone needs none."""
    equation, factors = str(node.args[0]).replace(" ", ""), list[Node](node.args[1])  # type: ignore[arg-type]
    terms = equation.partition("->")[0].split(",")
    if len(factors) < 2 or "." in equation:
        return 0
    sizes: dict[str, int] = {}
    for term, factor in zip(terms, factors, strict=True):
        for letter, size in zip(term, shapes[factor.name], strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))
    return math.prod(sizes.values()) * (len(factors) - 1)


def _recurrent(network: Network, node: Node, inputs: tuple[int, ...]) -> list[Layer]:
    """One layer for every matrix of a recurrent layer, which is read once per step."""
    steps = inputs[1] if node.args[8] else inputs[0]
    found = []
    stored: list[Node] = list(node.args[2])  # type: ignore[arg-type]
    for source in stored:
        name = str(source.target)
        weight = get_tensor(network.module, name)
        if weight.ndim == 2:
            title, size = name.removesuffix(".weight"), weight.numel() * weight.element_size()
            shape, kind = tuple(weight.shape), RECURRENT[node.target]  # type: ignore[index]
            output = (steps, weight.shape[0])
            macs = steps * weight.numel()
            found.append(Layer(title, node.name, kind, shape, output, macs, weight.numel(), size, name))
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
