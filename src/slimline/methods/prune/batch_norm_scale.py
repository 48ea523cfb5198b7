"""Batch-norm scale: a channel counts as much as the batch norm behind it scales it.

Liu, Li, Shen, Huang, Yan, Zhang (2017). Learning Efficient Convolutional Networks through Network Slimming.
arXiv:1708.06519, section 3.

    importance(c) = sum over the layers that put out channel c of  |gamma_c| of the batch norm behind the layer

A layer without batch norm counts with the gamma that it would have if one that changes nothing stood there: what it
puts out, y, is gamma (y - mean(y)) / std(y) + mean(y) for gamma = std(y). So a gamma is found again after
`FoldBatchNorm`. Such layers need data; without, they are an error.

Ours differs: the sum over several layers, and the last paragraph. Where batch norms stand before the layers that read a
channel, as in pre-activation networks, these count alone: with all of them at zero the channel is not read.
Helps: after `TrainSelectively`, which pushes the gammas of channels that are not needed to zero.
Does not: tell much of a network that was trained without such a push; its gammas are all of one size.
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.fx import Node

from slimline.methods.method import needs_data
from slimline.methods.prune.filters import writers
from slimline.methods.prune.places import Place, means, places
from slimline.network.axes import Group
from slimline.network.network import Network, get_tensor
from slimline.task import Samples, Task

SAMPLES = 256
BATCH_NORM = torch.ops.aten.batch_norm.default
GAMMA = 1
"""Place of the scale among the arguments of a batch norm."""


def scale_importance(network: Network, groups: list[Group], task: Task | None) -> dict[str, NDArray[np.float64]]:
    """Importance of every channel of every group; layers without batch norm need up to 256 training samples."""
    found, bare = {group.name: np.zeros(group.width) for group in groups}, dict[str, list[str]]()
    for group in groups:
        gammas, without = scaled_by(network, group)
        for gamma in gammas:
            sizes = get_tensor(network.module, gamma).detach().double().abs().numpy()
            found[group.name] += [sizes[positions].sum() for positions in group.slices[gamma, 0]]
        bare[group.name] = [node.name for node in without]
    lacking = [group for group in groups if bare[group.name]]
    if lacking:
        who = f"Batch-norm scale importance of layers without batch norm ({bare[lacking[0].name][0]} in the graph)"
        samples = needs_data(who, task, network).take(slice(0, SAMPLES))
        for name, at in places(network, lacking).items():
            chosen = [place for place in at if place.node in bare[name]] or at[:1]
            found[name] += _deviations(network, chosen, samples)
    return found


def scaled_by(network: Network, group: Group) -> tuple[list[str], list[Node]]:
    """The names of the gammas that scale a group, and the calls that put it out with no batch norm behind them."""
    norms = [n for n in network.module.graph.nodes if n.target is BATCH_NORM and isinstance(n.args[GAMMA], Node)]
    of_group = [n for n in norms if (str(n.args[GAMMA].target), 0) in group.slices]
    gammas, layers = list(dict.fromkeys(str(n.args[GAMMA].target) for n in of_group)), writers(network, group)
    bare = [layer for layer in layers if not any(set(layer.users) == {norm} for norm in of_group)]
    return gammas, [] if gammas and len(bare) == len(layers) else bare


def _deviations(network: Network, at: Sequence[Place], samples: Samples) -> NDArray[np.float64]:
    """The sum over some values of the standard deviation of each channel."""
    moments: dict[int, Callable[[Tensor], Tensor]] = {1: lambda x: x, 2: torch.square}
    found = means(network, {(p.node, n): (p, moment) for p in at for n, moment in moments.items()}, samples)
    each = [np.sqrt(np.maximum(found[p.node, 2] - found[p.node, 1] ** 2, 0)) for p in at]
    total: NDArray[np.float64] = np.nansum(each, 0)  # a value that does not hold a channel adds nothing to it
    return total
