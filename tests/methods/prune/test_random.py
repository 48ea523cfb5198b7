"""Numbers that follow from the name of a group, and are evenly spread."""

import numpy as np
from scipy import stats

from slimline.methods.prune.random import random_importance
from slimline.network.axes import Group, axis_groups
from tests.network.networks import network_of


def test_they_depend_on_the_name_alone() -> None:
    network = network_of("plain adds")
    groups = axis_groups(network).groups
    every, alone = random_importance(network, groups, None), random_importance(network, groups[1:2], None)
    assert (every["blocks.0.0"] == alone["blocks.0.0"]).all()
    assert (every["blocks.0.0"] != every["blocks.1.0"]).any()


def test_they_are_uniform() -> None:
    network = network_of("plain adds")
    groups = [Group(f"group {i}", 50, {}) for i in range(40)]
    drawn = np.concatenate(list(random_importance(network, groups, None).values()))
    assert stats.kstest(drawn, "uniform").pvalue > 1e-3 and len(np.unique(drawn)) == 2000
