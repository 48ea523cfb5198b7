"""L1 importance: the sum of the magnitudes of a channel's weights.

Li, Kadav, Durdanovic, Samet, Graf (2017). Pruning Filters for Efficient ConvNets. arXiv:1608.08710, section 3.1.

    importance(c) = sum over the producing layers of mean |W[c]|

Ours differs: a channel of a group has several producers (residual additions); each counts with its mean, so that
a layer with more inputs does not outvote the others.
Helps: no data needed.  Does not: see the batch norm that may scale a large filter down.
"""

import numpy as np
from numpy.typing import NDArray

from slimline.network.axes import Group
from slimline.network.network import Network, get_tensor
from slimline.task import Task


def l1_importance(network: Network, groups: list[Group], task: Task | None) -> dict[str, NDArray[np.float64]]:
    """Importance of every channel of every group; needs no data."""
    return {group.name: _group_importance(network, group) for group in groups}


def _group_importance(network: Network, group: Group) -> NDArray[np.float64]:
    total = np.zeros(group.width)
    for (weight, axis), positions in group.slices.items():
        tensor = get_tensor(network.module, weight).detach()
        if axis == 0 and tensor.ndim > 1:  # the axis along which a conv or linear layer produces channels
            magnitude = tensor.flatten(1).abs().mean(1).numpy()
            total += np.array([magnitude[p].sum() for p in positions])
    return total
