"""L1 importance: the sum of the magnitudes of a channel's weights.

Li, Kadav, Durdanovic, Samet, Graf (2017). Pruning Filters for Efficient ConvNets. arXiv:1608.08710, section 3.1.

    importance(c) = sum over the producing layers of mean |W[c]|

Ours differs: a channel of a group has several producers (residual additions); each counts with its mean, so that
a layer with more inputs does not outvote the others.
Helps: no data needed.  Does not: see the batch norm that may scale a large filter down.
"""

import numpy as np
from numpy.typing import NDArray

from slimline.methods.prune.filters import filters
from slimline.network.axes import Group
from slimline.network.network import Network
from slimline.task import Task


def l1_importance(network: Network, groups: list[Group], task: Task | None) -> dict[str, NDArray[np.float64]]:
    """Importance of every channel of every group; needs no data."""
    found = {group.name: np.zeros(group.width) for group in groups}
    for group in groups:
        for held in filters(network, group):
            found[group.name] += held.abs().mean(1).numpy()
    return found
