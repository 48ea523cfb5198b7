"""Random importance: the baseline that every other one has to beat.

Mittal, Bhardwaj, Khapra, Ravindran (2018). Recovering from Random Pruning: On the Plasticity of Deep Convolutional
Neural Networks. arXiv:1801.10447.

    importance(c) ~ U(0, 1)

The numbers follow from the name of the group alone, so that the same network is pruned in the same way every time.
Helps: shows what an importance is worth once a network has recovered.  Does not: keep the score before that.
"""

import hashlib

import numpy as np
from numpy.typing import NDArray

from slimline.network.axes import Group
from slimline.network.network import Network
from slimline.task import Task


def random_importance(network: Network, groups: list[Group], task: Task | None) -> dict[str, NDArray[np.float64]]:
    """Importance of every channel of every group; needs no data."""
    return {group.name: _drawn(group) for group in groups}


def _drawn(group: Group) -> NDArray[np.float64]:
    seed = hashlib.sha256(group.name.encode()).digest()
    return np.random.default_rng(list(seed)).random(group.width)
