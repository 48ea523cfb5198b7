"""The layers that can be factorised, what their factors cost, and how a chain of factors takes a layer's place."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from slimline.methods.factorize.ranks import RankRule, Ranks, check_rank, too_large
from slimline.methods.method import Method, Outcome, check_names
from slimline.network.calls import argument, by_layer, part_name, readers_of, stored_name
from slimline.network.network import Network, get_tensor
from slimline.network.operators import CONVOLUTIONS, TRANSPOSED
from slimline.network.shapes import node_shapes
from slimline.network.surgery import set_bias_, set_weight, unused_name

aten = torch.ops.aten
PLAIN = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}
SAME = {1: aten.conv1d.padding, 2: aten.conv2d.padding, 3: aten.conv3d.padding}
AXES = {aten.linear.default: 0} | CONVOLUTIONS
"""Operator -> axes of its kernel."""
Decomposed = tuple[Sequence[Tensor], Tensor | None]
"""The weights of the factors, and what is added to the layer's bias, if anything is."""


@dataclass(frozen=True)
class Layer:
    """One call of a linear layer or a convolution whose weight is stored and its own."""

    name: str
    node: Node
    weight: Tensor
    """(outputs, inputs / groups, *kernel)."""
    before: tuple[int, ...]
    """Positions that it reads: the size of every axis of the kernel, or of all inner axes for a linear layer."""
    after: tuple[int, ...]
    """Positions that it writes."""

    @property
    def axes(self) -> int:
        """Axes of the kernel; a linear layer has none."""
        return AXES[self.node.target]  # type: ignore[index]

    @property
    def kernel(self) -> tuple[int, ...]:
        return tuple(self.weight.shape[2:])

    @property
    def bias(self) -> object:
        """The node that holds the bias, or None."""
        return argument(self.node, 2, "bias", None)

    @property
    def groups(self) -> int:
        return int(argument(self.node, 6, "groups", 1)) if self.axes else 1

    @property
    def macs(self) -> int:
        """Multiply-adds for one sample."""
        return self.weight.numel() * math.prod(self.after)

    def spatial(self, place: int, name: str, default: int) -> tuple[int, ...]:
        """Stride, padding or dilation, one for every axis of the kernel."""
        value = argument(self.node, place, name, default)
        values = (value,) if isinstance(value, int) else tuple(int(v) for v in value)
        return values if len(values) == self.axes else values * self.axes

    @property
    def pads_same(self) -> bool:
        """Whether it pads so that the size stays, which may be by one more at the end."""
        return bool(argument(self.node, 4, "padding", 0) == "same")


@dataclass(frozen=True)
class Part:
    """One factor: a layer of the same kind with a smaller weight."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] = ()
    """Axes of the kernel that it works on: there it has the layer's stride, padding and dilation."""
    groups: int = 1


@dataclass(frozen=True)
class Scheme:
    """What a method says about a layer; `factorize` does the rest."""

    unsupported: Callable[[Layer], list[str]]
    """Why a layer cannot be factorised; [] means it can."""
    sizes: Callable[[Layer], tuple[int, ...]]
    """The largest ranks there can be."""
    matrices: Callable[[Layer], Sequence[Tensor]]
    """The matrices whose singular values tell which ranks are needed, one for each of the sizes."""
    parts: Callable[[Layer, Ranks], list[Part]]
    decompose: Callable[[Layer, Ranks], Decomposed]


def factorize(network: Network, method: Method, scheme: Scheme, names: Sequence[str]) -> Outcome:
    """A new network in which every layer that gets cheaper is a chain of factors.

    Args:
        method: its hyperparameters say the ranks.
        names: of the layers to take; none for all.

    Raises:
        SlimlineError: a name is no layer's, or the rank is larger than a layer that is named, or any layer, allows.
    """
    result, rule = network.copy(), RankRule.of(method)
    found, skipped = layers(result, names, type(method).__name__)
    changed, sizes = [], {}
    for layer in found:
        reasons = scheme.unsupported(layer)
        if not reasons:
            sizes[layer.name] = max(scheme.sizes(layer))
            reasons = too_large(method, rule.rank, layer.name, sizes[layer.name], bool(names))
        if not reasons:
            ranks = rule.ranks(
                scheme.sizes(layer),
                lambda layer=layer: scheme.matrices(layer),  # type: ignore[misc]
                lambda ranks, layer=layer: macs(layer, scheme.parts(layer, ranks)),  # type: ignore[misc]
                layer.macs,
            )
            reasons = _too_dear(rule, layer, ranks, scheme)
        if reasons:
            skipped[layer.name] = "; ".join(reasons)
            continue
        replace_(result, layer, scheme.parts(layer, ranks), *scheme.decompose(layer, ranks))
        changed.append(layer.name)
    check_rank(method, rule.rank, sizes)
    return Outcome(result.tidy_(), changed, skipped)


def _too_dear(rule: RankRule, layer: Layer, ranks: Ranks, scheme: Scheme) -> list[str]:
    if not ranks:
        ones = tuple(1 for _ in scheme.sizes(layer))
        cost = macs(layer, scheme.parts(layer, ones))
        return [f"rank 1 takes {cost} of {layer.macs} multiply-adds, more than the budget of {rule.budget:g}"]
    cost = macs(layer, scheme.parts(layer, ranks))
    if cost < layer.macs:
        return []
    told = " x ".join(map(str, dict.fromkeys(ranks)))
    return [f"would not get cheaper: rank {told} takes {cost} multiply-adds, the layer itself {layer.macs}"]


def layers(network: Network, names: Sequence[str], who: str) -> tuple[list[Layer], dict[str, str]]:
    """The layers that may be factorised, in the order of the graph, and by name why others may not.

    Args:
        names: only these; none for all.
        who: the method that is told in the sentence.

    Raises:
        SlimlineError: a name is no layer's.
    """
    nodes = [n for n in network.module.graph.nodes if n.target in AXES or n.target in TRANSPOSED]
    calls = by_layer({node: stored_name(node.args[1]) for node in nodes})
    check_names(f"{who}(layers=...)", names, calls, "layer")
    found, skipped, shapes = [], {}, node_shapes(network)
    for name, node in calls.items():
        if names and name not in names:
            continue
        reasons = _not_own(network, node)
        if reasons:
            skipped[name] = "; ".join(reasons)
            continue
        weight = get_tensor(network.module, str(node.args[1].target)).detach()  # type: ignore[union-attr]
        read = node.args[0]
        assert isinstance(read, Node)
        inner = slice(2, None) if AXES[node.target] else slice(1, -1)  # type: ignore[index]
        found.append(Layer(name, node, weight, shapes[read.name][inner], shapes[node.name][inner]))
    return found, skipped


def _not_own(network: Network, node: Node) -> list[str]:
    """Why the weight of a call cannot be replaced."""
    if node.target in TRANSPOSED:
        return ["is a transposed convolution"]
    weight = node.args[1]
    if not isinstance(weight, Node) or weight.op != "get_attr":
        quantised = isinstance(weight, Node) and "dequantize" in str(weight.target)
        return ["has a quantised weight" if quantised else "has a weight that is computed"]
    if len(readers_of(network, str(weight.target))) > 1:
        return ["has a weight that is shared"]
    stored = get_tensor(network.module, str(weight.target))
    if not stored.is_floating_point():
        return [f"has a weight of {str(stored.dtype).removeprefix('torch.')}"]
    return [] if bool(stored.isfinite().all()) else ["has a weight with values that are not finite"]


def dense(layer: Layer) -> list[str]:
    """Why a layer cannot be written as one matrix; [] means it can."""
    return [f"belongs to a convolution of {layer.groups} groups"] if layer.groups != 1 else []


def extended(layer: Layer, least_axes: int = 1) -> list[str]:
    """Why a layer has no kernel to split; [] means it has one."""
    if not layer.axes:
        return ["is a linear layer"]
    if sum(k > 1 for k in layer.kernel) < least_axes:
        return [f"has a kernel of {' x '.join(map(str, layer.kernel))}"]
    return dense(layer)


def macs(layer: Layer, parts: Sequence[Part]) -> int:
    """Multiply-adds of a chain in the place of a layer, for one sample: a stride works from its factor on."""
    sizes, total = list(layer.before if layer.axes else layer.after), 0
    for part in parts:
        for axis in part.axes:
            sizes[axis] = layer.after[axis]
        total += math.prod(part.shape) * math.prod(sizes)
    return total


def replace_(
    network: Network, layer: Layer, parts: Sequence[Part], weights: Sequence[Tensor], shift: Tensor | None = None
) -> None:
    """Put a chain of factors in the place of a layer, whose bias goes to the last one; edits the network.

    Args:
        weights: in the shapes of the parts.
        shift: is added to the bias.
    """
    graph, value = network.module.graph, layer.node.args[0]
    assert isinstance(value, Node)
    stored = layer.bias
    with graph.inserting_before(layer.node):
        for part, weight in zip(parts, weights, strict=True):
            assert tuple(weight.shape) == part.shape, f"{part.name} is {tuple(weight.shape)}, not {part.shape}"
            name = unused_name(network, f"{_stem(network, layer, part.name)}.weight")
            set_weight(network, name, weight.to(layer.weight.dtype).contiguous())
            value = _call(network, layer, part, value, graph.create_node("get_attr", name))
    if isinstance(stored, Node) and stored.op == "get_attr":
        bias = get_tensor(network.module, str(stored.target)).detach()
        set_bias_(network, value, bias if shift is None else (bias + shift).to(bias.dtype))
    elif shift is not None:
        set_bias_(network, value, shift.to(layer.weight.dtype))
    elif stored is not None:
        value.args = (*value.args[:2], stored, *value.args[3:])  # type: ignore[arg-type]
    layer.node.replace_all_uses_with(value)
    graph.erase_node(layer.node)


def _stem(network: Network, layer: Layer, part: str) -> str:
    stem = part_name(layer.name, str(stored_name(layer.node.args[1])), part)
    return stem if unused_name(network, stem) == stem else unused_name(network, f"{stem}_factor")


def _call(network: Network, layer: Layer, part: Part, x: Node, weight: Node) -> Node:
    graph = network.module.graph
    if not layer.axes:
        return graph.call_function(aten.linear.default, (x, weight, None))

    def on_axes(values: Sequence[int], elsewhere: int) -> list[int]:
        return [v if axis in part.axes else elsewhere for axis, v in enumerate(values)]

    stride = on_axes(layer.spatial(3, "stride", 1), 1)
    dilation = on_axes(layer.spatial(5, "dilation", 1), 1)
    if layer.pads_same and part.axes:
        return graph.call_function(SAME[layer.axes], (x, weight, None, stride, "same", dilation, part.groups))
    padding = argument(layer.node, 4, "padding", 0)
    amounts = [0] * layer.axes if isinstance(padding, str) else on_axes(layer.spatial(4, "padding", 0), 0)
    return graph.call_function(PLAIN[layer.axes], (x, weight, None, stride, amounts, dilation, part.groups))
