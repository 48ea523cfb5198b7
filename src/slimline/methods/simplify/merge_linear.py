"""Consecutive linear layers, convolutions and scalars become one.

Ding, Zhang, Han, Ding (2021). Diverse Branch Block: Building a Convolution as an Inception-like Unit.
arXiv:2103.13425, transform III, for a convolution of 1 x 1 before, and likewise behind, one of any kernel:

    W'[o, c, k] = sum_m W2[o, m, k] W1[m, c]          b'[o] = b2[o] + sum_m,k W2[o, m, k] b1[m]

Ours differs: fully connected layers, groups and strides too; only where the merged layer needs no more multiply-adds
than the two; where the second one pads, zeros stand in the place of the first one's bias, so it may have none.
Numbers that are multiplied or added in turn become one number.
Helps: overparametrised training (ExpandNets), projections without an activation between, exported scaling.
Does not: factorised layers, which are two because that is less work; what is read in between.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import Node

from slimline.methods.method import Method, Outcome, register
from slimline.methods.simplify.calls import let_views_copy_
from slimline.methods.simplify.channel_affine import affine_of, data_of
from slimline.methods.simplify.free_shapes import BATCHES, SMALL, FreeShapes, free_shapes
from slimline.methods.simplify.layers import Layer, grouped, read_layer, ungrouped, write_bias_
from slimline.network.network import Network
from slimline.network.operators import CONVOLUTIONS
from slimline.network.surgery import set_weight
from slimline.task import Task
from slimline.training.workspace import Workspace

aten = torch.ops.aten
MERGEABLE = {aten.linear.default} | CONVOLUTIONS.keys()
PLAIN = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}
"""How many axes a kernel has -> the operator whose padding is given in numbers."""


def merged(first: Tensor, first_bias: Tensor, second: Tensor, second_bias: Tensor) -> tuple[Tensor, Tensor]:
    """W' and b' of the equation above, by group.

    Args:
        first: (groups, m, c, taps), second: (groups, o, m, taps); one of them has one tap.
    """
    weight = torch.einsum("gomk,gmcl->gockl", second, first).flatten(3)
    reached = torch.einsum("gomk,gm->go", second, first_bias.view(first.shape[:2])).flatten()
    return weight, second_bias + reached


def with_groups(blocks: Tensor, groups: int) -> Tensor:
    """The same layer with fewer groups, (groups, outputs, inputs, taps): what the old groups do not connect is 0."""
    old, outputs, inputs, taps = blocks.shape
    each = old // groups
    wide = blocks.new_zeros(groups, each, outputs, each, inputs, taps)
    for part in range(each):
        wide[:, part, :, part] = blocks.view(groups, each, outputs, inputs, taps)[:, part]
    return wide.reshape(groups, each * outputs, each * inputs, taps)


def merge_linear_(network: Network, shapes: FreeShapes) -> tuple[list[str], dict[str, str]]:
    """Merge every pair of layers or scalars; what was merged, and why other pairs stay. Edits the network."""
    changed, skipped = [], {}
    for node in list(network.module.graph.nodes):
        before = node.args[0] if node.op == "call_function" and node.args else None
        if node.target in MERGEABLE and isinstance(before, Node) and before.target in MERGEABLE:
            pair = _pair(network, before, node, shapes)
            if isinstance(pair, str):
                skipped[node.name] = pair
            else:
                changed.append(_merge_(network, *pair))
        elif _merge_scalars_(network, node, shapes):
            changed.append(node.name)
    if changed:
        let_views_copy_(network)
    network.tidy_()
    return changed, skipped


def _pair(network: Network, before: Node, node: Node, shapes: FreeShapes) -> tuple[Layer, Layer] | str:
    """The two layers, or why they stay two."""
    if len(before.users) > 1:
        return f"{before.name} is read by other operators too"
    first, second = read_layer(network, before), read_layer(network, node)
    for layer in (first, second):
        if isinstance(layer, str):
            return layer
    assert isinstance(first, Layer) and isinstance(second, Layer)
    if len(first.kernel) != len(second.kernel):
        return f"{before.name} and {node.name} are layers of two kinds"
    if first.padding is None or second.padding is None:
        return "the zero padding differs on the two sides of an axis"
    if not first.pointwise and not second.pointwise:
        return "neither kernel has size 1 without padding"
    if any(second.padding) and bool(first.full_bias.any()):
        return f"the zeros that {node.name} pads with are not what the bias of {before.name} would put there"
    if not {before, node} <= shapes.tensors.keys():
        return "how much work they are follows from values"
    groups = math.gcd(first.groups, second.groups)
    taps = math.prod(first.kernel) * math.prod(second.kernel)
    new = _places(shapes, node) * len(second.full_bias) * first.blocks.shape[2] * (first.groups // groups) * taps
    old = sum(_places(shapes, layer.node) * layer.weight.numel() for layer in (first, second))
    if new > old:
        return f"one layer would need {new} multiply-adds per sample, and the two need {old}"
    return first, second


def _places(shapes: FreeShapes, node: Node) -> int:
    """How many places a layer's result has per sample."""
    shape = shapes.tensors[node].small
    return math.prod(shape) // shape[-1 if node.target is aten.linear.default else 1] // BATCHES[SMALL]


def _merge_(network: Network, first: Layer, second: Layer) -> str:
    """Give the second layer the weights of both, and drop the first; their names."""
    groups = math.gcd(first.groups, second.groups)
    one, other = (with_groups(grouped(layer.weight.double(), layer.groups), groups) for layer in (first, second))
    weight, bias = merged(one, first.full_bias, other, second.full_bias)
    if second.pointwise:
        kernel, padding, dilation = first.kernel, first.padding, first.dilation
    else:  # the first one's stride is how far apart the second one's places lie
        kernel = second.kernel
        padding, dilation = (_times(sizes, first.stride) for sizes in (second.padding or (), second.dilation))
    node = second.node
    set_weight(network, second.name, ungrouped(weight, kernel).to(second.weight.dtype))
    write_bias_(network, second, bias)
    _, stored, *rest = node.args
    node.args = (first.node.args[0], stored, rest[0] if rest else None)
    node.kwargs = {}
    if kernel:
        node.target = PLAIN[len(kernel)]
        stride = _times(first.stride, second.stride)
        node.args = (*node.args, list(stride), list(padding or ()), list(dilation), groups)
    network.module.graph.erase_node(first.node)
    return f"{first.title} and {second.title}"


def _times(one: tuple[int, ...], other: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(a * b for a, b in zip(one, other, strict=True))


def _merge_scalars_(network: Network, node: Node, shapes: FreeShapes) -> bool:
    """Make one product or one sum of two with a number each; whether there were two. Edits the network."""
    outer = affine_of(network, node)
    inner_node = data_of(node) if outer is not None else node
    inner = affine_of(network, inner_node) if inner_node is not node and len(inner_node.users) == 1 else None
    if outer is None or inner is None or outer.scale.numel() > 1 or inner.scale.numel() > 1:
        return False
    source = data_of(inner_node)
    if not (shapes.floating(node) and shapes.same(node, inner_node) and shapes.same(inner_node, source)):
        return False
    limits = torch.finfo(shapes.tensors[node].dtype)
    scales, shifts = ([float(getattr(a, part)) for a in (inner, outer)] for part in ("scale", "shift"))
    if not any(shifts) and all(limits.tiny <= abs(n) <= limits.max for n in [*scales, math.prod(scales)]):
        node.target, number = aten.mul.Tensor, math.prod(scales)
    elif scales == [1, 1] and abs(sum(shifts)) >= max(map(abs, shifts)):  # x + 2^23 - 2^23 rounds x: it is not x
        node.target, number = aten.add.Tensor, sum(shifts)
    else:
        return False
    node.args, node.kwargs = (source, number), {}
    network.module.graph.erase_node(inner_node)
    return True


@register
@dataclass(frozen=True)
class MergeLinear(Method):
    """Merge layers and scalars that follow each other with nothing in between."""

    needs = frozenset({"float weights"})
    cites = ("ding2021diverse",)

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        return Outcome(result, *merge_linear_(result, free_shapes(result)))
