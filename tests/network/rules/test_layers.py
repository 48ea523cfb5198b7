"""Layers with weights: which axes are the same, by networks built smaller."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline.network.axes import axis_groups, prune
from slimline.network.trace import trace


class Chain(nn.Module):
    def __init__(self, *layers: nn.Module) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = torch.tanh(layer(x))
        return x


def positions(module: nn.Module, x: Tensor) -> dict[str, dict[tuple[str, int], list[list[int]]]]:
    found = axis_groups(trace(module.eval(), {"x": x}))
    return {g.name: {place: [p.tolist() for p in ps] for place, ps in g.slices.items()} for g in found.groups}


def test_groups_of_a_convolution_go_whole_or_channel_by_channel_in_all_of_them() -> None:
    """12 inputs in 3 groups of 4, 6 outputs in 3 groups of 2."""
    groups = positions(
        Chain(nn.Conv2d(2, 12, 1), nn.Conv2d(12, 6, 1, groups=3), nn.Conv2d(6, 2, 1)), torch.randn(2, 2, 4, 4)
    )
    by_place = {tuple(g): g for g in groups.values()}
    whole = next(g for g in by_place.values() if ("layers.0.weight", 0) in g and ("layers.2.weight", 1) in g)
    assert whole["layers.0.weight", 0] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
    assert whole["layers.1.weight", 0] == whole["layers.2.weight", 1] == [[0, 1], [2, 3], [4, 5]]
    inside = next(g for g in by_place.values() if ("layers.1.weight", 1) in g)
    assert inside["layers.1.weight", 1] == [[0], [1], [2], [3]]
    assert inside["layers.0.weight", 0] == [[0, 4, 8], [1, 5, 9], [2, 6, 10], [3, 7, 11]]
    outside = next(g for g in by_place.values() if ("layers.0.weight", 0) not in g)
    assert outside["layers.1.weight", 0] == outside["layers.2.weight", 1] == [[0, 2, 4], [1, 3, 5]]


@pytest.mark.parametrize("kind", [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d])
def test_the_weight_of_a_transposed_convolution_has_its_inputs_first(kind: type[nn.ConvTranspose2d]) -> None:
    dims = {nn.ConvTranspose1d: 1, nn.ConvTranspose2d: 2, nn.ConvTranspose3d: 3}[kind]  # type: ignore[index]
    x = torch.randn(2, 4, *[3] * dims)
    found = axis_groups(trace(Chain(kind(4, 6, 2), kind(6, 5, 2), kind(5, 2, 1)).eval(), {"x": x}))
    assert {g.name: g.width for g in found.groups} == {"layers.0": 6, "layers.1": 5} or len(found.groups) == 2
    first = next(g for g in found.groups if ("layers.0.weight", 1) in g.slices)
    assert set(first.slices) == {("layers.0.weight", 1), ("layers.0.bias", 0), ("layers.1.weight", 0)}


def test_rows_of_a_table_stay_and_its_columns_go() -> None:
    class Table(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.head = nn.Embedding(9, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(self.table(x))
            return result

    found = axis_groups(trace(Table(), {"x": torch.randint(0, 9, (2, 5))}))
    (group,) = found.groups
    assert set(group.slices) == {("table.weight", 1), ("head.weight", 1)}
    assert found.frozen["table.weight", 0] == "is chosen by number in embedding.default (embedding)"


def test_a_bag_of_rows_is_a_table_too() -> None:
    class Bag(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.bag, self.head = nn.EmbeddingBag(9, 6, mode="sum"), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.head(self.bag(x))
            return result

    (group,) = axis_groups(trace(Bag(), {"x": torch.randint(0, 9, (2, 5))})).groups
    assert set(group.slices) == {("bag.weight", 1), ("head.weight", 1)} and group.width == 6


def test_both_inputs_of_a_bilinear_layer_have_axes_of_their_own() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.mix = nn.Linear(3, 4), nn.Linear(3, 5), nn.Bilinear(4, 5, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.mix(self.one(x), self.two(x))
            return result

    found = axis_groups(trace(Two(), {"x": torch.randn(2, 3)}))
    found_at = [(g.name, g.width, [axis for name, axis in g.slices if name == "mix.weight"]) for g in found.groups]
    assert found_at == [("one", 4, [1]), ("two", 5, [2])]


def test_outputs_of_a_layer_with_normed_weights_go_and_its_inputs_change_the_norm() -> None:
    torch.manual_seed(0)
    middle = nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 6, 1))
    module = Chain(nn.Conv1d(2, 4, 1), middle, nn.Conv1d(6, 2, 1)).eval()
    found = axis_groups(trace(module, {"x": torch.randn(2, 2, 5)}))
    by_width = {g.width: g for g in found.groups}
    assert "shares its length" in by_width[4].inexact and not by_width[6].inexact
    x = torch.randn(3, 2, 5)
    pruned = prune(found.propagation.network, found, {by_width[6].name: np.array([0, 2, 5])}).run({"x": x})[0]
    hidden = torch.tanh(middle(torch.tanh(module.layers[0](x))))[:, [0, 2, 5]]
    last = module.layers[2]
    assert isinstance(last, nn.Conv1d)
    expected = torch.tanh(torch.nn.functional.conv1d(hidden, last.weight[:, [0, 2, 5]], last.bias))
    torch.testing.assert_close(pruned, expected.detach())


def test_places_that_a_layer_made_stay_places() -> None:
    """The outputs of a linear layer as a map: its channels go, with all their places; rows and columns do not."""

    class Spread(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.spread, self.conv = nn.Linear(4, 3 * 2 * 2), nn.Conv2d(3, 2, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.conv(self.spread(x).view(-1, 3, 2, 2))
            return result

    (group,) = axis_groups(trace(Spread(), {"x": torch.randn(2, 4)})).groups
    assert [p.tolist() for p in group.slices["spread.weight", 0]] == [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9, 10, 11]]
