"""The order in which channels go is that of a slow twin, which refits every layer anew for every channel."""

from itertools import pairwise
from unittest.mock import patch

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.methods.prune import obs
from slimline.methods.prune.l1 import l1_importance
from slimline.methods.prune.obs import RANKS, obs_importance
from slimline.network.axes import axis_groups
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task
from tests.toys import toy, toy_task

Array = NDArray[np.float64]


class Hidden(nn.Module):
    """Seven hidden channels that two layers read, one of them a 3 x 3 convolution."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.first = nn.Conv2d(3, 7, 1)
        self.wide, self.narrow = nn.Conv2d(7, 4, 3, padding=1), nn.Conv2d(7, 2, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = F.hardswish(self.first(x))
        return torch.cat([self.wide(x), 3 * self.narrow(x)], 1)


def pictures(count: int, channels: int) -> Array:
    return np.random.default_rng(0).normal(size=(count, channels, 5, 5)).astype(np.float32)


def slow_order(network: Network, images: Array) -> list[int]:
    """Channels in the order in which they go, each round by a least-squares fit without each channel that is left."""
    model = Hidden()
    with torch.no_grad():
        x = F.hardswish(model.first(torch.from_numpy(images)))
        patches = F.unfold(x, 3, padding=1).transpose(1, 2).reshape(-1, 7, 9).double().numpy()
        points = x.permute(0, 2, 3, 1).reshape(-1, 7, 1).double().numpy()
        wide = patches.reshape(-1, 63) @ model.wide.weight.double().numpy().reshape(4, 63).T
        wide = wide + model.wide.bias.double().numpy()
        narrow = points[..., 0] @ model.narrow.weight.double().numpy().reshape(2, 7).T

    def loss(columns: Array, wanted: Array, left: list[int]) -> float:
        rows = np.hstack([columns[:, left].reshape(len(columns), -1), np.ones((len(columns), 1))])
        fitted = rows @ np.linalg.lstsq(rows, wanted, rcond=None)[0]
        return float(((fitted - wanted) ** 2).sum() / (wanted**2).sum())

    left, gone = list(range(7)), []
    while left:
        without = [[c for c in left if c != channel] for channel in left]
        losses = [loss(patches, wide, w) + loss(points, narrow, w) for w in without]
        gone.append(left.pop(int(np.argmin(losses))))
    return gone


def test_channels_go_in_the_order_of_the_slow_twin() -> None:
    images = pictures(60, 3)
    network = trace(Hidden(), {"x": torch.from_numpy(images[:2])})
    found = axis_groups(network)
    assert [g.name for g in found.groups] == ["first"]
    rounds = obs_importance(network, found.groups, Task(validate={"x": images}, score="relative"))["first"]
    assert np.argsort(rounds).tolist() == slow_order(network, images)


class Copies(nn.Module):
    """Hidden channel 3 is twice channel 0, and weighs most in the next layer: either can stand in for the other."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Linear(6, 5), nn.Linear(5, 4)
        self.first.weight.data[3] = 2 * self.first.weight.data[0]
        self.first.bias.data[3] = 2 * self.first.bias.data[0]
        self.last.weight.data[:, [0, 3]] *= 10

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.last(torch.relu(self.first(x)))
        return result


def test_a_channel_that_another_can_stand_in_for_goes_first_however_much_it_weighs() -> None:
    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    network = trace(Copies(), {"x": torch.from_numpy(x[:2])})
    groups = axis_groups(network).groups
    rounds = obs_importance(network, groups, Task(validate={"x": x}, score="relative"))["first"]
    assert int(rounds.argmin()) in (0, 3)
    assert int(l1_importance(network, groups, None)["first"].argmin()) not in (0, 3)


def test_a_channel_that_is_always_zero_goes_first() -> None:
    model = Copies()
    model.first.weight.data[2], model.first.bias.data[2] = 0, -1
    x = np.random.default_rng(0).normal(size=(200, 6)).astype(np.float32)
    network = trace(model, {"x": torch.from_numpy(x[:2])})
    rounds = obs_importance(network, axis_groups(network).groups, Task(validate={"x": x}, score="relative"))
    assert rounds["first"].argmin() == 2 and rounds["first"][2] < 1e-5 and len(set(rounds["first"])) == 5


def test_a_group_that_no_dense_layer_reads_is_ranked_by_l1() -> None:
    class Grouped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.last = nn.Conv2d(3, 6, 1), nn.ConvTranspose2d(6, 2, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(torch.relu(self.first(x)))
            return result

    images = pictures(8, 3)
    network = trace(Grouped(), {"x": torch.from_numpy(images[:2])})
    groups = axis_groups(network).groups
    task = Task(validate={"x": images}, score="relative")
    assert groups and all(
        (obs_importance(network, [g], task)[g.name] == l1_importance(network, [g], None)[g.name]).all() for g in groups
    )


@pytest.mark.parametrize("seed", range(3))
def test_what_is_left_out_on_the_way_changes_nothing(seed: int) -> None:
    """Columns of channels that are gone are thrown away from time to time; 40 channels pass through several times."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.first, self.last = nn.Linear(10, 40), nn.Linear(40, 6)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(torch.relu(self.first(x)))
            return result

    x = np.random.default_rng(seed).normal(size=(500, 10)).astype(np.float32)
    model = Wide()
    network = trace(model, {"x": torch.from_numpy(x[:2])})
    task = Task(validate={"x": x}, score="relative")
    rounds = obs_importance(network, axis_groups(network).groups, task)["first"]
    order = np.argsort(rounds)
    with torch.no_grad():
        hidden = torch.relu(model.first(torch.from_numpy(x[:256]))).double().numpy()
        wanted = hidden @ model.last.weight.double().numpy().T + model.last.bias.double().numpy()

    def error(left: NDArray[np.int64]) -> float:
        rows = np.hstack([hidden[:, left], np.ones((len(hidden), 1))])
        return float(((rows @ np.linalg.lstsq(rows, wanted, rcond=None)[0] - wanted) ** 2).sum())

    for number in (5, 20, 30, 37):
        left = order[number:]
        best = min(error(np.delete(left, i)) for i in range(len(left)))
        assert error(left[1:]) <= 1.02 * best  # the damping may swap two that are alike
    errors = [error(order[n:]) for n in range(40)]
    assert all(a <= b * (1 + 1e-9) for a, b in pairwise(errors))


def test_ranks_are_remembered_for_one_network_and_its_samples() -> None:
    network, task = toy(), toy_task()
    groups = axis_groups(network).groups
    RANKS.key = ("", "")
    first = obs_importance(network, groups[:1], task)
    every = obs_importance(network, groups, task)
    assert set(first) == {"stem"} and set(every) == {"stem", "inner"}
    with patch.object(obs, "_rounds", side_effect=AssertionError("ranked before")):
        again = obs_importance(toy(), groups, task)
        with pytest.raises(AssertionError, match="ranked before"):
            obs_importance(toy(), groups, toy_task(train=100))
    RANKS.key = ("", "")
    afresh = obs_importance(network, groups, task)
    assert all((again[g] == afresh[g]).all() and (every[g] == afresh[g]).all() for g in afresh)
