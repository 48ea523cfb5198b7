"""The walk itself: what weights, inputs, outputs and empty axes mean."""

import numpy as np
import torch
from torch import Tensor, nn

from slimline.network.axes import axis_groups
from slimline.network.propagation import Propagation
from slimline.network.trace import trace


class Twice(nn.Module):
    """One weight read twice, and a flag that chooses."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(self.layer(x))
        return torch.where(x > 0, result, x)


class Once(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.layer(x)
        return result


def walk_of(module: nn.Module, x: Tensor) -> Propagation:
    walk = Propagation(trace(module.eval(), {"x": x}))
    walk.run()
    return walk


def test_a_weight_that_is_read_twice_has_one_set_of_ids() -> None:
    walk = walk_of(Twice(), torch.randn(2, 4))
    assert set(walk.weight_axes) == {"layer.weight", "layer.bias"}
    rows, columns = walk.weight_axes["layer.weight"]
    assert rows is not None and columns is not None
    assert [walk.root(i) for i in rows.tolist()] == [walk.root(i) for i in columns.tolist()]


def test_inputs_carry_nothing_and_outputs_stay() -> None:
    walk = walk_of(Once(), torch.randn(2, 4))
    assert walk.axes["x"] == [None, None]
    assert set(walk.frozen().values()) == {"is an output of the network", "reads the network's input"}


def test_truth_is_told_from_numbers() -> None:
    walk = walk_of(Twice(), torch.randn(2, 4))
    nodes = {n.name: n for n in walk.network.module.graph.nodes}
    assert walk.holds_booleans(nodes["gt"]) and not walk.holds_booleans(nodes["linear"])


class Halves(nn.Module):
    """A projection into two rows of three, of which each is read on its own."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.one, self.two = nn.Linear(4, 6), nn.Linear(3, 2), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        rows = self.first(x).view(x.shape[0], 2, 3)
        result: Tensor = self.one(rows[:, 0]) + self.two(rows[:, 1])
        return result


def test_no_axis_can_become_empty() -> None:
    """A row is all there is of what reads it: only places of both rows can go."""
    found = axis_groups(trace(Halves(), {"x": torch.randn(2, 4)}))
    (group,) = found.groups
    assert [p.tolist() for p in group.slices["first.weight", 0]] == [[0, 3], [1, 4], [2, 5]]


def test_what_stands_beside_nothing_stays() -> None:
    walk = Propagation(trace(nn.Linear(2, 2), {"input": torch.randn(2, 2)}))
    ids = walk.fresh(3)
    assert walk.tie(ids, None, "beside nothing") is None and walk.tie(None, None, "") is None
    assert [walk.frozen()[i] for i in ids.tolist()] == ["beside nothing"] * 3
    assert np.array_equal(walk.fresh(2), ids[-1] + np.array([1, 2]))
