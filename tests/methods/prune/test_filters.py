"""What channels hold, against loops over weights, for layers that put out along either axis."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline.methods.prune.filters import filters, putting_out, writers
from slimline.network.axes import Group, axis_groups
from slimline.network.trace import trace
from tests.network.networks import network_of


def held(network_name: str, group: str) -> list[np.ndarray[tuple[int, int], np.dtype[np.float64]]]:
    network = network_of(network_name)
    return [found.numpy() for found in filters(network, axis_groups(network)[group])]


def weight(network_name: str, name: str) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    return network_of(network_name).weights()[name].detach().double().numpy()


def test_every_layer_on_a_residual_trunk_has_its_filters() -> None:
    found = held("plain adds", "stem")
    for each, name in zip(found, ("stem.weight", "blocks.0.3.weight", "blocks.1.3.weight"), strict=True):
        expected = weight("plain adds", name)
        np.testing.assert_array_equal(each, [expected[c].flatten() for c in range(12)])


def test_a_transposed_convolution_puts_out_along_its_second_axis() -> None:
    (found,) = held("slices and upsampling", "up")
    expected = weight("slices and upsampling", "up.weight")
    np.testing.assert_array_equal(found, [expected[:, c].flatten() for c in range(6)])


def test_what_reads_a_channel_is_no_filter_of_it() -> None:
    """The layers of a flattened map: 16 columns of the linear layer belong to each channel, and none is counted."""
    (found,) = held("flatten", "features.0")
    np.testing.assert_array_equal(found, weight("flatten", "features.0.weight").reshape(6, -1))


def test_a_depthwise_layer_puts_out_what_it_reads() -> None:
    sizes = [each.shape for each in held("depthwise", "expand")]
    assert (16, 3) in sizes and (16, 9) in sizes


class Table(nn.Module):
    """An embedding, a table of positions, a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.places, self.last = nn.Embedding(7, 6), nn.Parameter(torch.randn(1, 4, 6)), nn.Linear(6, 3)

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.last(torch.relu(self.table(tokens) + self.places))
        return result


def test_tables_hold_a_column_for_every_channel() -> None:
    torch.manual_seed(0)
    module = Table()
    network = trace(module, [torch.randint(0, 7, (2, 4))])
    (group,) = axis_groups(network).groups
    places, table = filters(network, group)
    np.testing.assert_array_equal(table, module.table.weight.detach().double().T)
    np.testing.assert_array_equal(places, module.places.detach().double()[0].T)
    assert [str(node.target) for node in writers(network, group)] == ["aten.embedding.default", "aten.add.Tensor"]


def test_a_channel_of_several_positions_holds_them_side_by_side_and_what_it_lacks_is_zero() -> None:
    network = trace(nn.Linear(3, 5), [torch.randn(2, 3)])
    rows = network.weights()["weight"].detach().double()
    group = Group("made up", 2, {("weight", 0): [np.array([0, 3]), np.array([4])]})
    (found,) = filters(network, group)
    assert torch.equal(found, torch.stack([torch.cat([rows[0], rows[3]]), torch.cat([rows[4], torch.zeros(3)])]))


def test_other_numbers_may_take_the_place_of_the_weights() -> None:
    network = network_of("plain adds")
    scores = {"stem.weight": torch.arange(12.0).view(12, 1, 1, 1).expand(12, 3, 3, 3)}
    (found,) = filters(network, axis_groups(network)["stem"], scores)
    assert found.shape == (12, 27) and found[:, 0].tolist() == list(range(12))


@pytest.mark.parametrize(
    ("network", "expected"),
    [
        ("slices and upsampling", {("stem.weight", 0), ("up.weight", 1), ("head.bias", 0)}),
        ("depthwise", {("depth.weight", 0), ("gate.weight", 0), ("expand_norm.weight", 0)}),
        ("lstm", {("cells.weight_hh_l0", 0), ("cells.weight_hh_l0", 1)}),
    ],
)
def test_the_axes_along_which_channels_are_put_out(network: str, expected: set[tuple[str, int]]) -> None:
    found = putting_out(network_of(network))
    assert expected <= found and not {("up.weight", 0), ("head.weight", 1), ("project.weight", 1)} & found
