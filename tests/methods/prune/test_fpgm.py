"""Distances between filters against loops; copies go first, however large they are."""

import math

import numpy as np
import torch
from torch import nn

from slimline.methods.prune.fpgm import fpgm_importance
from slimline.methods.prune.l1 import l1_importance
from slimline.network.axes import axis_groups
from slimline.network.trace import trace
from tests.methods.prune.test_l1 import Two
from tests.network.networks import network_of


def test_a_linear_layer_by_hand() -> None:
    """Filters at 0, 3 and 7 on a line of one number each: 10, 7 and 11 away from the others, in units of 2."""
    network = trace(Two([[0, 0, 0, 0], [3, 0, 0, 0], [7, 0, 0, 0]]), [torch.randn(2, 4)])
    found = fpgm_importance(network, axis_groups(network).groups, None)["hidden"]
    np.testing.assert_allclose(found, [5, 3.5, 5.5])


def test_a_residual_network_against_loops() -> None:
    """Every pair of filters of every layer."""
    network = network_of("plain adds")
    found = fpgm_importance(network, axis_groups(network).groups, None)
    layers = {"stem": ["stem", "blocks.0.3", "blocks.1.3"], "blocks.0.0": ["blocks.0.0"], "blocks.1.0": ["blocks.1.0"]}
    for group, names in layers.items():
        expected = np.zeros(len(found[group]))
        for name in names:
            rows = network.weights()[f"{name}.weight"].detach().double().flatten(1).tolist()
            for c, one in enumerate(rows):
                for other in rows:
                    squares = sum((a - b) ** 2 for a, b in zip(one, other, strict=True))
                    expected[c] += math.sqrt(squares / len(one))
        np.testing.assert_allclose(found[group], expected, rtol=1e-9)


def test_what_is_in_the_middle_goes_first_though_it_is_largest() -> None:
    """Filters around (9, 9, 9, 9), each with the same sum, and one right there that is a little larger."""
    rows = 9 + np.random.default_rng(0).normal(size=(7, 4))
    rows += 9 - rows.mean(1, keepdims=True)
    rows[3] = 9.01
    module = nn.Sequential(nn.Linear(4, 7, bias=False), nn.ReLU(), nn.Linear(7, 2))
    module[0].weight.data = torch.from_numpy(rows).float()
    network = trace(module, [torch.randn(2, 4)])
    groups = axis_groups(network).groups
    assert int(fpgm_importance(network, groups, None)["0"].argmin()) == 3
    assert int(l1_importance(network, groups, None)["0"].argmax()) == 3


def test_copies_are_no_distance_apart() -> None:
    module = nn.Sequential(nn.Linear(50, 2, bias=False), nn.ReLU(), nn.Linear(2, 2))
    module[0].weight.data = torch.full((2, 50), 1e4)
    network = trace(module, [torch.randn(2, 50)])
    assert fpgm_importance(network, axis_groups(network).groups, None)["0"].tolist() == [0.0, 0.0]
