"""A compact student: the same network with narrower layers and fresh weights.

Hinton, Vinyals, Dean (2015). Distilling the Knowledge in a Neural Network. arXiv:1503.02531: a small network learns
what a large one answers. How it is made small is the width multiplier of Howard et al. (2017), MobileNets,
arXiv:1704.04861, section 3.3; how it starts is He et al. (2015), Delving Deep into Rectifiers, arXiv:1502.01852,
equation 10, with n the number of values that one output is a sum of:

    width' = round(keep width)          w ~ N(0, 2 / n),   b = 0;   of a norm: scale 1, shift 0, mean 0, variance 1

Ours differs: widths shrink by axis groups (`slimline.network.axes`), so that additions, concatenations and depthwise
convolutions still fit. Embeddings are drawn with the spread that theirs have. Weights whose part is not known, such as
tables of positions, keep the original's values, and are named.
Helps: where training is long and pruned weights would only be in the way.  Does not: short of data or time; a pruned
network (`PruneChannels`) starts far ahead of it.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.fx import Node

from slimline.methods.method import Method, Outcome, param, register
from slimline.network.axes import AxisGroups, axis_groups, prune
from slimline.network.calls import argument, layer_of
from slimline.network.network import Network, get_tensor
from slimline.network.operators import CONVOLUTIONS, TRANSPOSED
from slimline.task import Task
from slimline.training.workspace import Workspace

aten = torch.ops.aten
DENSE = {aten.linear.default} | CONVOLUTIONS.keys()
"""(x, weight, bias, ...), where an output is a sum over all but the first axis of the weight."""
PRODUCTS = {aten.matmul.default, aten.mm.default, aten.bmm.default}
NORMS = {
    aten.batch_norm.default: (1, 2, 3, 4),
    aten.instance_norm.default: (1, 2, 3, 4),
    aten.layer_norm.default: (2, 3),
    aten.group_norm.default: (2, 3),
    aten.rms_norm.default: (2,),
}
"""Norm -> where its scale, shift, mean and variance stand."""
NORM_STARTS = (1.0, 0.0, 0.0, 1.0)


def he_normal(shape: tuple[int, ...], terms: int, generator: torch.Generator) -> Tensor:
    """Weights of variance 2 / terms, which keeps the size of what relus pass on."""
    return torch.randn(shape, generator=generator) * math.sqrt(2 / max(1, terms))


@register
@dataclass(frozen=True)
class WidthStudent(Method):
    """A narrower copy without what was learned; put a `Distill` behind it."""

    keep: float = param(0.5, low=0.001, high=1.0, doc="share of channels that every group of the student has")
    multiple: int = param(8, low=1, high=64, doc="widths are multiples of this, as runtimes like them")
    seed: int = param(0, low=0, doc="the weights it starts from")

    needs = frozenset({"float weights"})
    cites = ("hinton2015distilling", "howard2017mobilenets", "he2015delving")

    def apply(self, network: Network, task: Task | None = None, workspace: Workspace | None = None) -> Outcome:
        found = axis_groups(network)
        kept, skipped = self.widths(found)
        student = prune(network, found, {name: np.arange(width) for name, width in kept.items()})
        drawn, inherited = fresh_weights_(student, self.seed)
        layers = dict.fromkeys(layer_of(name) for name in drawn)
        return Outcome(student.verify(), list(layers), skipped | inherited)

    def widths(self, found: AxisGroups) -> tuple[dict[str, int], dict[str, str]]:
        """The groups that become narrower, with their widths, and what stays as wide as it was and why."""
        widths = {g.name: g.narrowed(self.keep, self.multiple) for g in found.groups}
        skipped = {f"{weight} axis {axis}": reason for (weight, axis), reason in found.frozen.items()}
        for group in found.groups:
            if widths[group.name] == group.width and self.keep < 1:
                skipped[group.name] = f"keeps its {group.width} channels: widths are multiples of {self.multiple}"
        return {g.name: widths[g.name] for g in found.groups if widths[g.name] < g.width}, skipped


def fresh_weights_(network: Network, seed: int) -> tuple[list[str], dict[str, str]]:
    """Draw every weight whose part in the graph is known; edits the network.

    Returns:
        The names of the weights that are new, and why others keep their values. Constants, such as the filters of a
        spectrogram, were never learned and stay.
    """
    generator = torch.Generator().manual_seed(seed)
    starts: dict[str, Tensor] = {}
    for node in network.module.graph.nodes:
        if node.op == "call_function":
            for stored, value in _starts(network, node, generator):
                starts.setdefault(stored, value)  # a weight that is read twice is what it is read as first
    with torch.no_grad():
        for name, value in starts.items():
            get_tensor(network.module, name).copy_(value)
    unknown = {
        name: "keeps the original's values, as it belongs to no layer or norm with a known start"
        for name, _ in network.module.named_parameters()
        if name not in starts
    }
    return [name for name in network.weights() if name in starts], unknown


def _starts(network: Network, node: Node, generator: torch.Generator) -> Iterator[tuple[str, Tensor]]:
    """The weights that a node reads, by name, and the values that they start from."""
    target: Any = node.target
    if target in DENSE or target in TRANSPOSED:
        weight, bias = _stored(network, node, 1), _stored(network, node, 2)
        if weight is not None:
            shape = tuple(weight[1].shape)
            yield weight[0], he_normal(shape, _terms(node, shape), generator)
        if bias is not None:
            yield bias[0], torch.zeros_like(bias[1])
    elif target in PRODUCTS:
        for place in (0, 1):
            factor = _stored(network, node, place)
            if factor is not None and factor[1].ndim > 1:
                shape = tuple(factor[1].shape)
                yield factor[0], he_normal(shape, shape[-1] if place == 0 else shape[-2], generator)
    elif target is aten.embedding.default:
        table = _stored(network, node, 0)
        if table is not None:
            yield table[0], torch.randn(table[1].shape, generator=generator) * table[1].detach().std()
    else:
        for place, start in zip(NORMS.get(target, ()), NORM_STARTS, strict=False):
            statistic = _stored(network, node, place, constants=True)
            if statistic is not None:
                yield statistic[0], torch.full_like(statistic[1], start)


def _terms(node: Node, shape: tuple[int, ...]) -> int:
    """How many products one output of a layer is the sum of."""
    if node.target not in TRANSPOSED:
        return math.prod(shape[1:])
    # The kernel of a transposed convolution (in, out / groups, ...) meets an output at every stride-th position.
    stride = [int(step) for step in argument(node, 3, "stride", [1])]
    steps = math.prod(stride if len(stride) == len(shape) - 2 else stride * (len(shape) - 2))
    return shape[0] * math.prod(shape[2:]) // (steps * int(argument(node, 6, "groups", 1)))


def _stored(network: Network, node: Node, place: int, constants: bool = False) -> tuple[str, Tensor] | None:
    """Name and value of what a call reads at one place, if it is learned; ``constants`` may be anything stored."""
    value = node.args[place] if len(node.args) > place else None
    if not isinstance(value, Node) or value.op != "get_attr":
        return None
    tensor = get_tensor(network.module, str(value.target))
    return (str(value.target), tensor) if constants or isinstance(tensor, torch.nn.Parameter) else None
