"""L2 importance against loops over the weights of a residual and a linear network."""

import math

import numpy as np
import torch

from slimline.methods.prune.l2 import l2_importance
from slimline.network.axes import axis_groups
from slimline.network.trace import trace
from tests.methods.prune.test_l1 import Sum, Two
from tests.network.networks import network_of


def test_three_channels_of_four_weights_by_hand() -> None:
    network = trace(Two([[1, -2, 2, -4], [0, 0, 0, 1], [-5, 0, 0, 0]]), [torch.randn(2, 4)])
    groups = axis_groups(network).groups
    np.testing.assert_allclose(l2_importance(network, groups, None)["hidden"], [2.5, 0.5, 2.5])


def test_producers_of_one_group_count_with_their_means() -> None:
    """1 + 4, 2 + 1, 3 + 0: eighteen weights of one layer do not outvote the two of the other."""
    network = trace(Sum(), [torch.randn(2, 2, 4, 4)])
    np.testing.assert_allclose(l2_importance(network, axis_groups(network).groups, None)["wide"], [5, 3, 3])


def test_a_residual_network_against_loops() -> None:
    network = network_of("plain adds")
    found = l2_importance(network, axis_groups(network).groups, None)
    weights = {name: w.detach().double().tolist() for name, w in network.weights().items()}
    layers = {"stem": ["stem", "blocks.0.3", "blocks.1.3"], "blocks.0.0": ["blocks.0.0"], "blocks.1.0": ["blocks.1.0"]}
    for group, names in layers.items():
        for channel, importance in enumerate(found[group]):
            expected = 0.0
            for name in names:
                numbers = [v for plane in weights[f"{name}.weight"][channel] for row in plane for v in row]
                expected += math.sqrt(sum(v * v for v in numbers) / len(numbers))
            assert math.isclose(importance, expected, rel_tol=1e-9)
