"""Which channels stay, and that what is left computes what the original computes without the others."""

from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import nn

from slimline.errors import SlimlineError
from slimline.methods import visits
from slimline.methods.prune.channels import IMPORTANCES, PruneChannels, strongest
from slimline.network.axes import axis_groups
from slimline.network.cost import layers, macs
from slimline.network.network import Network, get_tensor
from tests.methods.distill.students import demo
from tests.runtimes.networks import Depthwise, Residual, traced
from tests.toys import patterns, toy, toy_task


def test_the_strongest_keep_their_order_and_ties_go_to_the_lower_index() -> None:
    assert strongest(np.array([0.5, 3.0, 1.0, 2.0]), 2).tolist() == [1, 3]
    assert strongest(np.array([1.0, 2.0, 1.0, 1.0]), 3).tolist() == [0, 1, 2]


@pytest.mark.parametrize("importance", list(IMPORTANCES))
def test_every_group_gets_its_width(importance: str) -> None:
    network = toy()
    method = PruneChannels(keep=0.5, widths={"stem": 5}, importance=importance, multiple=4)
    outcome = method.apply(network, toy_task())
    shapes = {layer.name: layer.weight_shape for layer in layers(outcome.network)}
    assert shapes == {"stem": (5, 1, 3, 3), "inner": (12, 5, 3, 3), "outer": (5, 12, 1, 1), "head": (4, 5)}
    assert outcome.changed == ["stem", "inner"]
    assert outcome.skipped["head.weight axis 0"] == "is an output of the network"
    assert outcome.skipped["stem.weight axis 1"] == "reads the network's input"


def test_what_is_refitted_with_fewer_samples_is_told() -> None:
    method = PruneChannels(keep=0.5, importance="l1", reconstruct=100)
    assert "samples" not in method.apply(toy(), toy_task()).skipped
    with patch.object(visits, "LARGEST_MEMORY", 1):
        assert method.apply(toy(), toy_task()).skipped["samples"] == "16 of 100 fit into memory"


@pytest.mark.parametrize("importance", list(IMPORTANCES))
def test_it_says_whether_samples_decide(importance: str) -> None:
    """What learns from no data gives the same network whether there are any."""
    method = PruneChannels(keep=0.5, importance=importance)
    assert replace(method, reconstruct=16).learns_from_data()
    if method.learns_from_data():
        assert importance in ("batch_norm_scale", "activation", "taylor", "obs")
        return
    alone, beside = (method.apply(toy(), task).network.weights() for task in (None, toy_task()))
    assert all(torch.equal(w, beside[name]) for name, w in alone.items())


def silenced(network: Network, kept: dict[str, list[int]]) -> Network:
    """The network as large as it was, but nothing reads the channels that are not kept."""
    changed = network.copy()
    for group in axis_groups(network).groups:
        gone = np.setdiff1d(np.arange(group.width), kept.get(group.name, range(group.width)))
        for (weight, axis), positions in group.slices.items():
            tensor = get_tensor(changed.module, weight)
            if axis == 1 and isinstance(tensor, nn.Parameter):
                for channel in gone:
                    tensor.data[:, torch.from_numpy(positions[channel])] = 0
    return changed


@pytest.mark.parametrize("network", [toy(), traced(Residual())], ids=["toy", "residual"])
def test_what_is_left_computes_what_the_original_computes_without_the_others(network: Network) -> None:
    """The channels with the largest sum of magnitudes stay, found here with a sort of Python's."""
    outcome = PruneChannels(keep=0.5, multiple=1, importance="l1").apply(network)
    kept = {}
    for group in axis_groups(network).groups:
        producers = [(w, p) for (w, axis), p in group.slices.items() if axis == 0 and w.endswith("weight")]
        tensors = [(get_tensor(network.module, w), p) for w, p in producers]
        size = [sum(float(t.detach()[p[c]].abs().mean()) for t, p in tensors if t.ndim > 1) for c in range(group.width)]
        kept[group.name] = sorted(range(group.width), key=lambda c: -size[c])[: group.width // 2]
    (name,), example = network.input_names, next(iter(network.examples.values()))
    inputs = {name: torch.randn(16, *example.shape[1:])}
    expected = silenced(network, kept).run(inputs)[0]
    assert (outcome.network.run(inputs)[0] - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert outcome.network.parameter_count() < 0.6 * network.parameter_count()


def test_a_depthwise_convolution_shrinks_with_what_it_reads() -> None:
    network = PruneChannels(keep=0.5, importance="l1").apply(traced(Depthwise())).network
    assert {layer.name: layer.weight_shape for layer in layers(network)} == {
        "expand": (8, 3, 1, 1), "depth": (8, 1, 3, 3), "gate": (8, 8, 1, 1), "project": (8, 8, 1, 1),
    }  # fmt: skip


def test_a_group_that_is_not_named_stays_whole_when_everything_else_is_kept() -> None:
    """24 channels are three multiples of 8 but no multiple of 16."""
    shapes = PruneChannels(keep=1.0, widths={"stem": 8}, importance="l1", multiple=16).apply(toy()).network.weights()
    assert shapes["inner.weight"].shape == (24, 8, 3, 3)


def test_keeping_everything_changes_nothing() -> None:
    network = toy()
    outcome = PruneChannels(keep=1.0, importance="l1").apply(network)
    assert outcome.changed == []
    image = {"image": torch.from_numpy(patterns(9, seed=4)[0])}
    assert torch.equal(outcome.network.run(image)[0], network.run(image)[0])


def test_nothing_pruned_is_told() -> None:
    """16 and 24 channels have no smaller multiple of 64."""
    outcome = PruneChannels(importance="l1", multiple=64).apply(toy())
    assert outcome.changed == []
    assert outcome.skipped["channels"].startswith("every group keeps all its channels with keep=0.5")


@pytest.mark.parametrize(
    ("widths", "sentence"),
    [
        ({0: 4}, r"No group is called 0; near names: stem, inner \(a name is a text: write it in quotes\)"),
        ({"stam": 4}, r"No group is called 'stam'; near names: stem"),
        ({"nothing like it": 4}, "No group is called 'nothing like it'; near names: stem, inner"),
        ({"stem": 0}, "Group stem has 16 channels, 0 cannot be kept: choose 1 to 16"),
        ({"inner": 25}, "Group inner has 24 channels, 25 cannot be kept: choose 1 to 24"),
        ({"inner": 2.5}, "Group inner has 24 channels, 2.5 cannot be kept: choose 1 to 24"),
    ],
)
def test_a_wrong_width_is_one_sentence(widths: dict[str, int], sentence: str) -> None:
    with pytest.raises(SlimlineError, match=sentence):
        PruneChannels(widths=widths, importance="l1").apply(toy())


def test_streams_that_are_kept_stay_whole_and_the_rest_pays_for_them() -> None:
    network = demo()
    method = PruneChannels(keep=0.5, of="macs", importance="l1", streams="keep", multiple=8)
    smaller = method.apply(network).network
    before, after = ({g.name: g.width for g in axis_groups(n).groups} for n in (network, smaller))
    ends = ("stem", "blocks.1.conv2", "blocks.2.conv2")
    assert all(after[name] == before[name] for name in ends)
    assert all(after[name] < before[name] for name in before.keys() - set(ends))
    assert 0.4 < macs(smaller) / macs(network) <= 0.5
    fewer = replace(method, widths={"stem": 32}).apply(network).network
    assert {g.name: g.width for g in axis_groups(fewer).groups}["stem"] == 32


def test_a_share_of_channels_is_that_share_however_small() -> None:
    pruned = PruneChannels(keep=0.05, importance="l1", multiple=1).apply(toy()).network
    assert pruned.weights()["inner.weight"].shape[:2] == (round(0.05 * 24), round(0.05 * 16))
