"""Places are where a change of one channel's weights shows, and means are those of loops."""

import numpy as np
import pytest
import torch

from slimline.methods.prune.filters import writers
from slimline.methods.prune.places import means, places
from slimline.network.axes import axis_groups
from slimline.network.network import Network, get_tensor
from slimline.network.shapes import recorded
from slimline.task import Samples
from tests.network.networks import network_of, samples

NAMES = [
    "plain adds",
    "flatten",
    "slices and upsampling",
    "sequence",
    "attention",
    "grouped convolutions",
    "dense block",
]


def values(network: Network, x: torch.Tensor) -> dict[str, torch.Tensor]:
    return recorded(network, [x], lambda _, value: value)


@pytest.mark.parametrize("name", NAMES)
def test_what_one_channel_holds_shows_at_its_positions_and_nowhere_else(name: str) -> None:
    """At the first place of every group, where nothing has mixed the channels yet."""
    network, x = network_of(name), samples(name, 3)
    groups = axis_groups(network).groups
    whole = values(network, x)
    found = places(network, groups)
    for group in groups:
        first = next(p for p in found[group.name] if p.node in {n.name for n in writers(network, group)})
        for channel in (0, group.width - 1):
            changed = network.copy()
            for (weight, axis), positions in group.slices.items():
                if (tensor := get_tensor(changed.module, weight)).is_floating_point():
                    with torch.no_grad():
                        tensor.index_add_(
                            axis, torch.from_numpy(positions[channel]),
                            torch.ones_like(tensor.index_select(axis, torch.from_numpy(positions[channel]))),
                        )  # fmt: skip
            moved = (values(changed, x)[first.node] - whole[first.node]).abs().movedim(first.axis, 0).flatten(1).amax(1)
            assert set(np.flatnonzero(moved > 1e-6).tolist()) == set(first.positions[channel])


def test_a_flattened_channel_lies_at_all_its_places() -> None:
    network = network_of("flatten")
    found = {place.node: place for place in places(network, axis_groups(network).groups)["features.0"]}
    assert found["conv2d"].axis == 1 and found["conv2d"].positions == [[c] for c in range(6)]
    assert found["flatten"].positions == [list(range(16 * c, 16 * c + 16)) for c in range(6)]
    assert "linear" not in found and not any(name.endswith("weight") for name in found)


def test_part_of_a_group_may_lie_in_a_value() -> None:
    """Half of the stem's channels take another way."""
    network = network_of("slices and upsampling")
    groups = axis_groups(network).groups
    found = {place.node: place for place in places(network, groups)["stem"]}
    held = {name: sum(map(bool, place.positions)) for name, place in found.items()}
    assert len(set(held.values())) >= 1 and held["conv2d"] == axis_groups(network)["stem"].width


def test_means_are_those_of_all_numbers_of_a_channel() -> None:
    network, x = network_of("flatten"), samples("flatten", 70)
    found = {place.node: place for place in places(network, axis_groups(network).groups)["features.0"]}
    wanted = {key: (found[key], torch.square) for key in ("conv2d", "flatten")}
    got = means(network, wanted, Samples({"x": x.numpy()}))
    seen = {name: value.detach().double().numpy() for name, value in values(network, x).items()}
    for channel in range(6):
        assert got["conv2d"][channel] == pytest.approx((seen["conv2d"][:, channel] ** 2).mean(), rel=1e-5)
        numbers = seen["flatten"][:, 16 * channel : 16 * channel + 16]
        assert got["flatten"][channel] == pytest.approx((numbers**2).mean(), rel=1e-5)


def test_where_a_channel_does_not_lie_there_is_no_mean() -> None:
    network = network_of("plain adds")
    place = places(network, axis_groups(network).groups)["stem"][0]
    positions = [p if c else [] for c, p in enumerate(place.positions)]
    partial = type(place)(place.node, place.axis, positions)
    got = means(network, {0: (partial, torch.abs)}, Samples({"x": samples("plain adds", 4).numpy()}))[0]
    assert np.isnan(got[0]) and np.isfinite(got[1:]).all()
