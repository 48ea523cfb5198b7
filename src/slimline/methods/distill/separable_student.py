"""A separable student: every dense convolution becomes a depthwise one followed by a pointwise one.

Howard et al. (2017). MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications.
arXiv:1704.04861, section 3.1. Where the weights come from: Guo et al. (2018). Network Decoupling: From Regular to
Depthwise Separable Convolutions. arXiv:1808.05517, section 3.

For every input channel i, with W_i its slice of the weight as a matrix (outputs, positions of the kernel):

    W_i ~ sum_r p_ir d_ir^T        d_ir: depthwise filter r of channel i,  p_ir: column (i, r) of the pointwise weight
    W_i = U S V^T,   d_ir = sqrt(s_r) v_r,   p_ir = sqrt(s_r) u_r          (Eckart & Young: no other sum is closer)

Ours differs: no norm and no activation stands between the two, where MobileNets have both, so that the student starts
as the least-squares best copy of the original instead of from nothing; Guo et al. also try pointwise before depthwise.
The approximation is of the weights and does not look at the data: training is what makes the student good. A network
without a convolution to rewrite is an error, since a student as large as its teacher is not what was asked for.
Helps: far fewer MACs in networks of k x k convolutions.  Does not: help where a runtime has fast dense convolutions and
slow depthwise ones, and pointwise convolutions and linear layers stay as they are.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import Node

from slimline.errors import SlimlineError
from slimline.methods.method import Method, Outcome, param, register
from slimline.network.calls import argument, layer_of, readers_of, stored_name
from slimline.network.network import Network, get_tensor
from slimline.network.operators import CONVOLUTIONS, TRANSPOSED
from slimline.network.surgery import set_weight, unused_name
from slimline.numerics.decomposition import channel_matrices, depthwise_and_pointwise
from slimline.task import Task
from slimline.training.workspace import Workspace

aten = torch.ops.aten
POINTWISE = {1: aten.conv1d.default, 2: aten.conv2d.default, 3: aten.conv3d.default}
"""Axes of the kernel -> the operator of the pointwise convolution, which pads nothing."""
REASONS_TOLD = 3


@register
@dataclass(frozen=True)
class SeparableStudent(Method):
    """Rewrite dense convolutions as depthwise and pointwise ones; put a `Distill` behind it."""

    rank: int = param(1, low=1, high=64, doc="depthwise filters per input channel; more are closer and cost more")
    fewest: int = param(8, low=1, high=65536, doc="convolutions that read fewer channels are left as they are")

    needs = frozenset({"float weights"})
    cites = ("howard2017mobilenets", "guo2018network")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        result = network.copy()
        changed, skipped = [], {}
        for node in list(result.module.graph.nodes):
            if node.target not in CONVOLUTIONS and node.target not in TRANSPOSED:
                continue
            reason = self.unsupported(result, node)
            if reason:
                skipped[_title(node)] = reason
            else:
                changed.append(self.rewrite_(result, node))
        if not changed:
            reasons = "; ".join(f"{name} {why}" for name, why in [*skipped.items()][:REASONS_TOLD])
            raise SlimlineError(
                f"SeparableStudent found no convolution to rewrite ({reasons or 'the network has none'}): "
                "use WidthStudent or DepthStudent."
            )
        return Outcome(result.tidy_().verify(), changed, skipped)

    def unsupported(self, network: Network, node: Node) -> str:
        """Why a convolution is left as it is; nothing when it can be rewritten."""
        if node.target in TRANSPOSED:
            return "is a transposed convolution"
        stored = node.args[1]
        if not isinstance(stored, Node) or stored.op != "get_attr" or len(readers_of(network, str(stored.target))) > 1:
            return "has a weight that is shared or computed"
        outputs, inputs, *kernel = get_tensor(network.module, str(stored.target)).shape
        positions = int(torch.Size(kernel).numel())
        if positions == 1:
            return "is pointwise already"
        if argument(node, 6, "groups", 1) != 1:
            return f"belongs to a convolution of {argument(node, 6, 'groups', 1)} groups"
        if inputs < self.fewest:
            return f"reads {inputs} channels, fewer than {self.fewest}"
        rank = min(self.rank, positions, outputs)
        if rank * (positions + outputs) >= outputs * positions:
            return f"would not get cheaper with {outputs} outputs, {positions} positions and rank {rank}"
        return ""

    def rewrite_(self, network: Network, node: Node) -> str:
        """Put the two in the place of a convolution, and return its name; edits the network."""
        name = str(node.args[1].target)  # type: ignore[union-attr]
        weight = get_tensor(network.module, name)
        rank = min(self.rank, *channel_matrices(weight).shape[1:])
        depthwise, pointwise = (w.to(weight.dtype).contiguous() for w in depthwise_and_pointwise(weight, rank))
        graph, target, bias = network.module.graph, node.target, argument(node, 2, "bias", None)
        stem = layer_of(name)
        with graph.inserting_before(node):
            reads = _stored(network, f"{stem}.depthwise.weight", depthwise)
            ones = [1] * (weight.ndim - 2)
            space = [argument(node, i, key, d) for i, key, d in _space(target, ones)]
            groups = int(weight.shape[1])
            first = graph.call_function(target, (node.args[0], reads, None, *space, groups))  # type: ignore[arg-type]
            mixes = _stored(network, f"{stem}.pointwise.weight", pointwise)
            second = graph.call_function(POINTWISE[CONVOLUTIONS[target]], (first, mixes, bias))  # type: ignore[index]
        node.replace_all_uses_with(second)
        graph.erase_node(node)
        return stem


def _space(target: Any, ones: list[int]) -> list[tuple[int, str, Any]]:
    """Stride, padding and dilation of a convolution: place, name and default."""
    padding = "valid" if target.__name__.endswith(".padding") else [0] * len(ones)
    return [(3, "stride", ones), (4, "padding", padding), (5, "dilation", ones)]


def _stored(network: Network, name: str, value: Tensor) -> Node:
    free = unused_name(network, name)
    set_weight(network, free, value)
    return network.module.graph.create_node("get_attr", free)


def _title(node: Node) -> str:
    """The name of a layer as its weight has it, or as the graph does."""
    weight = stored_name(node.args[1])
    return layer_of(weight) if weight else node.name
