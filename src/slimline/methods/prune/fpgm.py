"""FPGM importance: how far a channel's filter is from all others of its layer.

He, Liu, Wang, Hu, Yang (2019). Filter Pruning via Geometric Median for Deep Convolutional Neural Networks Acceleration.
arXiv:1811.00250.

    importance(c) = sum over the channels k of | F_c - F_k |        F_c: the filter of channel c

The point with the least such sum is the geometric median of the filters: those nearest to it say what others say.

Ours differs: a channel that several layers put out counts with the sum over them, each in units of the square root of
its number of weights, so that a layer with more inputs does not outvote the others.
Helps: no data needed; keeps small filters that nothing else can stand in for.
Does not: see copies of a filter in another size, nor what the layers behind make of a channel.
"""

import math

import numpy as np
import torch
from numpy.typing import NDArray

from slimline.methods.prune.filters import filters
from slimline.network.axes import Group
from slimline.network.network import Network
from slimline.task import Task

EXACT = "donot_use_mm_for_euclid_dist"
"""Through products of matrices, equal filters would be a little apart."""


def fpgm_importance(network: Network, groups: list[Group], task: Task | None) -> dict[str, NDArray[np.float64]]:
    """Importance of every channel of every group; needs no data."""
    found = {group.name: np.zeros(group.width) for group in groups}
    for group in groups:
        for held in filters(network, group):
            distances = torch.cdist(held, held, compute_mode=EXACT)
            found[group.name] += distances.sum(1).numpy() / math.sqrt(held.shape[1])
    return found
