"""Predicted costs are those of networks that are built."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.network.axes import axis_groups, prune
from slimline.network.cost import layers, macs
from slimline.network.cost_model import CostModel
from slimline.network.network import Network
from slimline.network.trace import trace
from tests.network.networks import NETWORKS, network_of, random_halves
from tests.runtimes.networks import Depthwise, Residual, traced
from tests.toys import toy


@pytest.mark.parametrize("name", NETWORKS)
def test_it_predicts_macs_and_parameters(name: str) -> None:
    network = network_of(name)
    found = axis_groups(network)
    model = CostModel(network, found)
    assert model.macs({}) == macs(network)
    assert model.parameters({}) == network.parameter_count()
    for seed in range(3):
        kept = random_halves(found, seed)
        smaller = prune(network, found, kept)
        left = {name: len(indices) for name, indices in kept.items()}
        assert model.macs(left) == pytest.approx(macs(smaller), rel=1e-9)
        assert model.parameters(left) == pytest.approx(smaller.parameter_count(), rel=1e-9)


class Concatenated(nn.Module):
    """Two groups on one weight axis, and a flattened image before a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(3, 10, 1)
        self.after, self.head = nn.Conv2d(16, 8, 3, stride=4), nn.Linear(8 * 9, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.after(torch.cat([self.left(x), self.right(x)], 1)))
        result: Tensor = self.head(x.flatten(1))
        return result


class Twice(nn.Module):
    """One layer called twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.again, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1), nn.Conv2d(8, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.head(F.relu(self.again(F.relu(self.again(F.relu(self.first(x)))))).mean((2, 3), True))
        return result


class Turned(nn.Module):
    """A weight that is stored the other way round, and one that is stored with more axes than are read."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(12, 20))
        self.wide, self.inner, self.head = nn.Conv2d(3, 12, 1), nn.Conv2d(20, 9, 1), nn.Linear(9, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.wide(x)).mean((2, 3))
        x = F.relu(F.linear(x, self.weight.t()))
        result: Tensor = self.head(F.relu(F.linear(x, self.inner.weight.flatten(1), self.inner.bias)))
        return result


@pytest.mark.parametrize("module", [Residual, Depthwise, Concatenated, Twice, Turned])
def test_predicted_costs_are_those_of_the_network_that_is_built(module: type[nn.Module]) -> None:
    network = traced(module())
    found = axis_groups(network)
    model, rng = CostModel(network, found), np.random.default_rng(0)
    for _ in range(8):
        widths = {g.name: int(rng.integers(1, g.width + 1)) for g in found.groups}
        built = prune(network, found, {g: np.arange(w) for g, w in widths.items()})
        by_layer = model.macs_by_layer(widths)
        for name in {layer.name for layer in layers(built)}:
            expected = sum(layer.macs for layer in layers(built) if layer.name == name)
            assert by_layer[name] == pytest.approx(expected), (name, widths)
        assert model.macs(widths) == pytest.approx(macs(built))
        weights = {layer.name: layer.parameters for layer in layers(built)}
        assert model.bytes(widths) == pytest.approx(sum(weights.values()))


def test_widths_that_are_not_named_stay_whole() -> None:
    network: Network = toy()
    model = CostModel(network, axis_groups(network))
    assert model.macs({}) == pytest.approx(macs(network)) == model.macs({"stem": 16, "inner": 24})
    assert model.macs({"stem": 8}) < model.macs({})


def test_the_layers_of_a_group_are_those_that_shrink_with_it() -> None:
    network = toy()
    found = axis_groups(network)
    model = CostModel(network, found)
    for group in found.groups:
        smaller = model.macs_by_layer({group.name: 1})
        shrunk = [name for name, value in model.macs_by_layer({}).items() if smaller[name] < value]
        assert model.layers_of(group.name) == shrunk
    assert model.layers_of("inner") == ["inner", "outer"]


def test_weights_that_are_normed_before_they_are_used_are_counted_too() -> None:
    layers_ = [nn.Conv2d(3, 8, 1), nn.utils.parametrizations.weight_norm(nn.Conv2d(8, 12, 3)), nn.Conv2d(12, 2, 1)]
    network = trace(nn.Sequential(*layers_).eval(), [torch.randn(2, 3, 6, 6)])
    found = axis_groups(network)
    model = CostModel(network, found)
    assert model.macs({}) == macs(network)
    for group, width in zip(found.groups, (5, 7), strict=True):
        built = prune(network, found, {group.name: np.arange(width)})
        assert model.macs({group.name: width}) == pytest.approx(macs(built))
        assert model.parameters({group.name: width}) == pytest.approx(built.parameter_count())
