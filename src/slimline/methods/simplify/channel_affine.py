"""A scale and a shift per channel, moved into the layer before or behind them.

Between the two may stand operators that only move numbers, such as a permutation or a flattening. Which channel a
number belongs to is found by moving channel numbers along the same way.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from slimline.methods.simplify.calls import value_readers
from slimline.methods.simplify.free_shapes import FreeShapes
from slimline.methods.simplify.layers import LAYERS, Layer, read_layer, scaled_inputs, scaled_outputs, write_layer_
from slimline.network.calls import arguments
from slimline.network.network import Network, get_tensor

aten = torch.ops.aten
MOVES = frozenset({
    aten.permute.default, aten.transpose.int, aten.t.default, aten.mT.default, aten.movedim.int, aten.movedim.intlist,
    aten.swapaxes.default, aten.swapdims.default, aten.view.default, aten.reshape.default, aten._unsafe_view.default,
    aten.flatten.using_ints, aten.unflatten.int, aten.squeeze.default, aten.squeeze.dim, aten.squeeze.dims,
    aten.unsqueeze.default, aten.contiguous.default, aten.clone.default, aten.alias.default, aten.slice.Tensor,
    aten.select.int, aten.pixel_shuffle.default, aten.pixel_unshuffle.default, aten.channel_shuffle.default,
})  # fmt: skip
"""Operators that copy numbers of their first argument to other places, and compute nothing."""
ARITHMETIC = frozenset({
    aten.add.Tensor, aten.add.Scalar, aten.sub.Tensor, aten.sub.Scalar, aten.rsub.Tensor, aten.rsub.Scalar,
    aten.mul.Tensor, aten.mul.Scalar, aten.div.Tensor, aten.div.Scalar,
})  # fmt: skip
ONE, ZERO = torch.tensor(1.0, dtype=torch.float64), torch.tensor(0.0, dtype=torch.float64)
CHANGES = "it changes the shape or the type of what it reads, or its shape follows from values"


@dataclass(frozen=True)
class Affine:
    """``scale * x + shift``; both of one shape, which broadcasts to that of x."""

    scale: Tensor
    shift: Tensor

    def entries(self) -> tuple[Tensor, Tensor]:
        """Its different pairs of a scale and a shift, (n, 2), and the number of the pair in every place."""
        pairs = torch.stack([self.scale.double().flatten(), self.shift.double().flatten()], 1)
        different, number = torch.unique(pairs, dim=0, return_inverse=True)
        return different, number.view(self.scale.shape)


@dataclass(frozen=True)
class Plan:
    """What a layer becomes."""

    layer: Layer
    blocks: Tensor
    bias: Tensor

    def carry_out_(self, network: Network, node: Node) -> str:
        """Write the layer's new weights and drop the node that they take in; the layer's name. Edits the network."""
        write_layer_(network, self.layer, self.blocks, self.bias)
        node.replace_all_uses_with(data_of(node))
        network.module.graph.erase_node(node)
        return self.layer.title


def data_of(node: Node) -> Node:
    """What an affine node reads that is no constant."""
    return next((n for n in node.all_input_nodes if n.op != "get_attr"), node.all_input_nodes[0])


def affine_of(network: Network, node: Node) -> Affine | None:
    """What a sum, difference, product or quotient with a constant computes; None for everything else."""
    given = arguments(node)
    if node.target is aten.neg.default:
        return Affine(-ONE, ZERO)
    if node.target not in ARITHMETIC or len(node.all_input_nodes) == 0:
        return None
    one, other = (_constant(network, given.get(name)) for name in ("self", "other"))
    if (one is None) == (other is None):
        return None
    alpha = float(given.get("alpha", 1))
    name = str(node.target).split(".")[1]
    if name == "rsub":
        one, other, name = other, one, "sub"
    constant = one if other is None else other
    assert constant is not None
    if name == "mul":
        return Affine(constant, torch.zeros_like(constant))
    if name == "div":
        return None if other is None else Affine(1 / constant, torch.zeros_like(constant))
    sign = -1.0 if name == "sub" else 1.0
    if other is None:  # constant + alpha x, constant - alpha x
        return Affine(torch.full_like(constant, sign * alpha), constant)
    return Affine(torch.ones_like(constant), sign * alpha * constant)


def _constant(network: Network, value: Any) -> Tensor | None:
    """A number or a stored tensor, in double precision; None for what is computed."""
    if isinstance(value, Node):
        stored = get_tensor(network.module, str(value.target)).detach() if value.op == "get_attr" else None
        return None if stored is None or stored.is_complex() else stored.double()
    return torch.tensor(float(value), dtype=torch.float64) if isinstance(value, (int, float)) else None


def plan_before(network: Network, node: Node, affine: Affine, shapes: FreeShapes) -> Plan | str:
    """How the layer before a node can take in the affine map that the node is, or why not."""
    if not shapes.same(node, data_of(node)):
        return CHANGES
    moves: list[Node] = []
    source = data_of(node)
    while source.target in MOVES and len(value_readers(source)) == 1:
        moves.insert(0, source)
        source = source.args[0]  # type: ignore[assignment]
    if source.target not in LAYERS:
        return "does not follow a convolution or linear layer"
    if len(value_readers(source)) > 1:
        return f"{source.name} is read by other operators too"
    layer = read_layer(network, source)
    if isinstance(layer, str):
        return layer
    outputs = len(layer.full_bias)
    pairs, number = affine.entries()
    places = torch.zeros(outputs, dtype=torch.int64)
    if len(pairs) > 1:  # else one scale fits every channel
        channel = moved(_along(outputs, layer.channel_axis, shapes.tensors[source].small), moves, shapes)
        found = table(channel, number.expand(shapes.tensors[node].small), outputs)
        if found is None:
            return f"its scales do not belong to the channels of {source.name}"
        places = found
    scale, shift = pairs[places].T
    return Plan(layer, *scaled_outputs(layer.blocks, layer.full_bias, scale, shift))


def plan_behind(network: Network, node: Node, affine: Affine, shapes: FreeShapes) -> Plan | str:
    """How the layer behind a node can take in the affine map that the node is, or why not."""
    if not shapes.same(node, data_of(node)):
        return CHANGES
    moves: list[Node] = []
    last = node
    while len(value_readers(last)) == 1 and value_readers(last)[0].target in MOVES:
        last = value_readers(last)[0]
        moves.append(last)
    readers = value_readers(last)
    if len(readers) != 1:
        return f"{last.name} is read by several operators"
    if readers[0].target not in LAYERS or readers[0].args[0] is not last:
        return "is not followed by a convolution or linear layer"
    layer = read_layer(network, readers[0])
    if isinstance(layer, str):
        return layer
    reasons = layer.why_no_shift_before() if bool(affine.shift.any()) else []
    if reasons:
        return f"{layer.node.name}: {'; '.join(reasons)}"
    groups, _, inputs, _ = layer.blocks.shape
    if not shapes.tensors.keys() >= set(moves):
        return CHANGES
    pairs, number = affine.entries()
    places = torch.zeros(groups * inputs, dtype=torch.int64)
    if len(pairs) > 1:
        entry = moved(number.expand(shapes.tensors[node].small), moves, shapes)
        found = table(_along(groups * inputs, layer.channel_axis, tuple(entry.shape)), entry, groups * inputs)
        if found is None:
            return f"its scales do not belong to the channels that {layer.node.name} reads"
        places = found
    scale, shift = pairs[places].T
    return Plan(layer, *scaled_inputs(layer.blocks, layer.full_bias, scale, shift))


def moved(values: Tensor, moves: list[Node], shapes: FreeShapes) -> Tensor:
    """Where the numbers of a tensor, for a batch of two, lie behind a chain of moves."""
    for node in moves:
        args, kwargs = shapes.small_number((node.args[1:], node.kwargs))
        target = aten.reshape.default if node.target is aten.view.default else node.target
        values = target(values, *args, **kwargs)  # type: ignore[operator]
    return values


def table(keys: Tensor, values: Tensor, size: int) -> Tensor | None:
    """The value of every key from 0 to ``size``, of pairs of two whole tensors; None if a key has several or none."""
    found = torch.full((size,), -1)
    found[keys.flatten()] = values.flatten()
    return found if bool((found[keys] == values).all()) and bool((found >= 0).all()) else None


def _along(size: int, axis: int, shape: tuple[int, ...]) -> Tensor:
    """0, 1, 2 ... along one axis of a shape."""
    along = [1] * len(shape)
    along[axis] = size
    return torch.arange(size).view(along).expand(shape)
