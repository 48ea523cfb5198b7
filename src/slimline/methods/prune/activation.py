"""Activation importance: how often a channel is not zero behind its activation.

Hu, Peng, Tai, Tang (2016). Network Trimming: A Data-Driven Neuron Pruning Approach towards Efficient Deep
Architectures. arXiv:1607.03250, equation 1.

    APoZ(c) = share of zeros among the numbers of channel c behind its ReLU, over samples and positions
    importance(c) = 1 - APoZ(c)

Ours differs: a channel that passes several ReLUs, as on a residual trunk, counts with the mean over them. Where none of
the activations of a group makes exact zeros (GELU, SiLU), its channels are ranked by the mean magnitude behind them,
and where a group has no activation, by that of what its layers put out; within a group it is the one or the other.
Helps: finds channels that hardly ever say anything.  Does not: see whether anybody listens when they do.
"""

from collections.abc import Callable

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

from slimline.methods.method import needs_data
from slimline.methods.prune.filters import writers
from slimline.methods.prune.places import Place, means, places
from slimline.network.axes import Group
from slimline.network.calls import argument
from slimline.network.network import Network
from slimline.network.taps import ACTIVATIONS
from slimline.task import Task

aten = torch.ops.aten
SAMPLES = 256
RELUS = {aten.relu.default, aten.relu6.default}
CLAMPS = {aten.hardtanh.default, aten.clamp.default, aten.clamp_min.default}


def activation_importance(network: Network, groups: list[Group], task: Task | None) -> dict[str, NDArray[np.float64]]:
    """Importance of every channel of every group, from up to 256 training samples."""
    samples = needs_data("Activation importance", task, network).take(slice(0, SAMPLES))
    found = places(network, groups)
    looked: dict[tuple[str, str], tuple[Place, Callable[[Tensor], Tensor]]] = {}
    for group in groups:
        at, function = _behind(network, group, found[group.name])
        looked |= {(group.name, place.node): (place, function) for place in at}
    seen = means(network, looked, samples)
    return {
        group.name: np.nanmean([value for (name, _), value in seen.items() if name == group.name], 0)
        for group in groups
    }


def _behind(network: Network, group: Group, at: list[Place]) -> tuple[list[Place], Callable[[Tensor], Tensor]]:
    """Where a group is looked at, and what counts there."""
    nodes = {node.name: node for node in network.module.graph.nodes}
    silent = [place for place in at if makes_zeros(nodes[place.node])]
    if silent:
        return silent, lambda x: (x != 0).double()
    active = [place for place in at if nodes[place.node].target in ACTIVATIONS]
    written = {node.name for node in writers(network, group)}
    return active or [place for place in at if place.node in written] or at[:1], torch.abs


def makes_zeros(node: Node) -> bool:
    """Whether a node is an activation that puts zero in the place of what is negative."""
    return node.target in RELUS or (node.target in CLAMPS and argument(node, 1, "min") == 0)
