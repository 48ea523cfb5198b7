"""L2 importance: the Euclidean length of a channel's filters.

He, Kang, Dong, Fu, Yang (2018). Soft Filter Pruning for Accelerating Deep Convolutional Neural Networks.
arXiv:1808.06866, with p = 2. Compared with L1 in Li et al. (2017), arXiv:1608.08710.

    importance(c) = sum over the producing layers of ( mean of W[c]^2 ) ^ 1/2

Ours differs: the mean in place of the sum, so that a layer with more inputs does not outvote the others of its group.
The criterion alone: filters are cut out once, not zeroed again and again while they train.
Helps: no data needed; a few large weights count more than by L1.  Does not: see the batch norm that may scale a large
filter down.
"""

import numpy as np
from numpy.typing import NDArray

from slimline.methods.prune.filters import filters
from slimline.network.axes import Group
from slimline.network.network import Network
from slimline.task import Task


def l2_importance(network: Network, groups: list[Group], task: Task | None) -> dict[str, NDArray[np.float64]]:
    """Importance of every channel of every group; needs no data."""
    found = {group.name: np.zeros(group.width) for group in groups}
    for group in groups:
        for held in filters(network, group):
            found[group.name] += held.square().mean(1).sqrt().numpy()
    return found
