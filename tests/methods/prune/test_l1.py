"""L1 importance against numbers worked out by hand."""

import numpy as np
import torch
from torch import Tensor, nn

from slimline.methods.prune.l1 import l1_importance
from slimline.network.axes import axis_groups
from slimline.network.trace import trace


class Two(nn.Module):
    """4 inputs, 3 hidden channels, 2 outputs."""

    def __init__(self, weight: list[list[float]]) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(4, 3), nn.Linear(3, 2)
        self.hidden.weight.data = torch.tensor(weight, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(torch.relu(self.hidden(x)))
        return result


class Sum(nn.Module):
    """Two convolutions of unlike fan-in whose results are added: their channels are one group."""

    def __init__(self) -> None:
        super().__init__()
        self.wide, self.narrow, self.out = nn.Conv2d(2, 3, 3, padding=1), nn.Conv2d(2, 3, 1), nn.Conv2d(3, 1, 1)
        self.wide.weight.data = torch.ones(3, 2, 3, 3) * torch.tensor([1.0, -2.0, 3.0]).view(3, 1, 1, 1)
        self.narrow.weight.data = torch.tensor([[4.0, 4.0], [1.0, -1.0], [0.0, 0.0]]).view(3, 2, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(torch.relu(self.wide(x) + self.narrow(x)))
        return result


def test_three_channels_of_four_weights_by_hand() -> None:
    network = trace(Two([[1, -2, 3, -4], [0, 0, 0, 1], [-5, 0, 0, 0]]), [torch.randn(2, 4)])
    groups = axis_groups(network).groups
    assert [g.name for g in groups] == ["hidden"]
    np.testing.assert_allclose(l1_importance(network, groups, None)["hidden"], [10 / 4, 1 / 4, 5 / 4])


def test_producers_of_one_group_count_with_their_means() -> None:
    """1 + 4, 2 + 1, 3 + 0: eighteen weights of one producer do not outvote the two of the other."""
    network = trace(Sum(), [torch.randn(2, 2, 4, 4)])
    groups = axis_groups(network).groups
    assert [g.name for g in groups] == ["wide"]
    np.testing.assert_allclose(l1_importance(network, groups, None)["wide"], [5, 3, 3])
