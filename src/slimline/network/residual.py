"""Residual blocks x + f(x) in a graph: found, taken out so that x passes alone, and the channels that x carries."""

import itertools
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch.fx import Graph, Node

from slimline.network.axes import AxisGroups
from slimline.network.calls import layer_of
from slimline.network.cost import KINDS, PRODUCTS, weight_name
from slimline.network.network import Network
from slimline.network.shapes import node_shapes

aten = torch.ops.aten
ATTENTION = aten.scaled_dot_product_attention.default
LAYERS = {*KINDS, ATTENTION}
SOURCES = {*LAYERS, torch.ops.aten.embedding.default}
"""What starts a stream: a table does too, though it computes nothing."""
Shapes = dict[str, tuple[int, ...]]


@dataclass(frozen=True)
class Block:
    """A sum of which one operand is computed from the other."""

    sum: Node
    shortcut: int
    """Which operand of the sum passes unchanged: 0 or 1."""
    between: frozenset[Node]
    """What is computed on the way from the shortcut to the other operand."""

    @property
    def kept(self) -> Node:
        """The operand that passes unchanged."""
        operand = self.sum.args[self.shortcut]
        assert isinstance(operand, Node)
        return operand

    @property
    def layers(self) -> list[Node]:
        return [node for node in self.sum.graph.nodes if node in self.between and node.target in LAYERS]

    @property
    def attends(self) -> bool:
        """Whether positions are mixed by products of two activations."""
        return any(n.target is ATTENTION or (n.target in PRODUCTS and _weight(n) is None) for n in self.layers)

    @property
    def name(self) -> str:
        """What the names of its layers begin with, else the first of them."""
        names = [layer_of(w) for w in map(_weight, self.layers) if w]
        return _common(names) or (names[0] if names else self.sum.name)


def stream_groups(network: Network, found: AxisGroups) -> set[str]:
    """Names of the groups of which sums of branches consist: what blocks read from and write to.

    A sum of x and a function of x without a layer, as in an activation written out, is none; nor is a bias.
    """
    walk, carried = found.propagation, set[int]()
    for node in network.module.graph.nodes:
        if node.target is aten.add.Tensor and _joins(node):
            ids = {int(i) for axis in walk.of(node) if axis is not None for i in axis}
            carried |= {plain for i in ids for plain in walk.plain(i)}
    return {group.name for group in found.groups if carried & set(group.ids.tolist())}


def _joins(node: Node) -> bool:
    """Whether the operands of a sum were computed by different layers."""
    sources = [_nearest_layers(operand) for operand in node.args[:2] if isinstance(operand, Node)]
    return len(sources) == 2 and all(sources) and sources[0] != sources[1]


def _nearest_layers(node: Node) -> set[Node]:
    """The layers and tables from which a value is computed without another between."""
    found, seen, waiting = set[Node](), set[Node](), [node]
    while waiting:
        node = waiting.pop()
        if node not in seen:
            seen.add(node)
            if node.target in SOURCES:
                found.add(node)
            else:
                waiting += node.all_input_nodes
    return found


def take_out_(network: Network, blocks: list[Block]) -> None:
    """Let what read the sums read their shortcuts, and drop what is dead then; edits the network."""
    graph = network.module.graph
    before = _needed(graph)
    for block in blocks:  # in the order of the graph: an operand may be the sum of a block that is gone
        block.sum.replace_all_uses_with(block.kept)
    dead = before - _needed(graph)
    for node in reversed([n for n in graph.nodes if n in dead and n.op != "placeholder"]):
        graph.erase_node(node)  # eliminate_dead_code would leave dropout and attention, which may draw random numbers
    network.tidy_()


def residual_blocks(network: Network) -> tuple[list[Block], dict[str, str]]:
    """The innermost blocks x + f(x) that can be taken out, in their order, and why other sums are none."""
    shapes = node_shapes(network)
    found, refused = [], {}
    for node in network.module.graph.nodes:
        operands = node.args[:2]
        if node.target is not aten.add.Tensor or not all(isinstance(o, Node) and o.name in shapes for o in operands):
            continue
        if any(operand.op == "get_attr" for operand in operands):  # a bias, or a table of positions
            continue
        block = _block(node, shapes)
        reason = "has no operand that is computed from the other" if block is None else _refused(block, shapes)
        if block is None or reason:
            refused[node.name] = reason
        else:
            found.append(block)
    sums = {block.sum for block in found}
    for block in found:
        if block.between & sums:
            refused[block.sum.name] = "spans other blocks"
    return [block for block in found if not block.between & sums], refused


def _block(node: Node, shapes: Shapes) -> Block | None:
    """A sum as a block, if one of its operands is computed from the other."""
    for place in (0, 1):
        shortcut, branch = node.args[place], node.args[1 - place]
        assert isinstance(shortcut, Node) and isinstance(branch, Node)
        before = _reached([branch], shapes, backwards=True)
        behind = _reached([shortcut], shapes, backwards=False)
        if branch is not shortcut and shortcut in before:
            return Block(node, place, frozenset((before & behind) - {shortcut}))
    return None


def _reached(start: Iterable[Node], shapes: Shapes, backwards: bool) -> set[Node]:
    """Everything that is connected to the start through tensors: sizes depend on no values."""
    found: set[Node] = set()
    waiting = list(start)
    while waiting:
        node = waiting.pop()
        if node not in found and node.name in shapes:
            found.add(node)
            waiting += node.all_input_nodes if backwards else node.users
    return found


def _refused(block: Block, shapes: Shapes) -> str:
    """Why a block cannot be taken out; nothing when it can."""
    shortcut = block.kept
    if shortcut.op == "placeholder":
        return "has the network's input as its shortcut"
    if shapes[shortcut.name] != shapes[block.sum.name]:
        return f"repeats its shortcut of shape {shapes[shortcut.name][1:]} along an axis"
    if block.shortcut == 1 and block.sum.kwargs.get("alpha", 1) != 1:
        return "multiplies its shortcut by a number"
    if not block.layers:
        return "computes without a layer, as an activation function does"
    needed = _needed(block.sum.graph, block)
    read = next((n.name for n in block.between if n in needed), None)
    if read is not None:
        return f"has {read} inside, which is read elsewhere too"
    weights = {str(n.target) for n in needed if n.op == "get_attr"}
    shared = next((name for name in map(_weight, block.layers) if name in weights), None)
    return "" if shared is None else f"shares {shared} with other parts of the network"


def _needed(graph: Graph, without: Block | None = None) -> set[Node]:
    """What the outputs are computed from; of a block left out only its shortcut is read."""
    waiting = [n for n in graph.nodes if n.op == "output"]
    needed: set[Node] = set()
    while waiting:
        node = waiting.pop()
        if node not in needed:
            needed.add(node)
            waiting += [without.kept] if without is not None and node is without.sum else node.all_input_nodes
    return needed


def _weight(layer: Node) -> str | None:
    """The weight that a layer stores; a product of activations has none."""
    if layer.target is ATTENTION or layer.target in PRODUCTS:
        stored = [a for a in layer.all_input_nodes if a.op == "get_attr"]
        return str(stored[0].target) if stored else None
    return weight_name(layer)


def _common(names: list[str]) -> str:
    """The whole parts that dotted names begin with, if they share any."""
    columns = zip(*[name.split(".") for name in names], strict=False)
    return ".".join(column[0] for column in itertools.takewhile(lambda column: len(set(column)) == 1, columns))
