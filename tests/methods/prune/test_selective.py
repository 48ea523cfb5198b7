"""The penalty against loops and its slope in closed form; what it is for: channels that go cost less."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from slimline.errors import SlimlineError
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.prune.selective import ChannelPenalty, Owned, TrainSelectively
from slimline.methods.recipe import Recipe
from slimline.methods.simplify.fold_batch_norm import FoldBatchNorm
from slimline.network.axes import Group, axis_groups
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Task
from slimline.training.workspace import Workspace
from tests.network.networks import network_of
from tests.toys import patterns, toy, toy_task


def lengths(network: Network, *parts: tuple[str, int], width: int) -> list[float]:
    """The length of what every channel owns on these axes, number by number."""
    weights = {name: w.detach().double().numpy() for name, w in network.weights().items()}
    return [
        float(np.sqrt(sum((np.moveaxis(weights[name], axis, 0)[c] ** 2).sum() for name, axis in parts)))
        for c in range(width)
    ]


@pytest.mark.parametrize(
    ("name", "group", "parts"),
    [
        ("plain adds", "stem", ["stem_norm.weight", "blocks.0.4.weight", "blocks.1.4.weight"]),
        ("plain adds", "blocks.0.0", ["blocks.0.1.weight"]),
        ("dense block", "layers.0", []),
        ("slices and upsampling", "mix", ["mix.weight", "mix.bias"]),
        ("squeeze and excite", "squeeze", ["squeeze.weight", "squeeze.bias"]),
    ],
)
def test_a_channel_owns_gammas_and_the_filters_of_layers_without(name: str, group: str, parts: list[str]) -> None:
    network = network_of(name)
    found = axis_groups(network)[group]
    owned = Owned.by(network, found)
    if not parts:  # batch norms of what was joined: each has the channels of this group somewhere on its axis
        assert [w for w, _, _ in owned.parts] == ["norms.1.weight", "norms.2.weight", "last.weight"]
        return
    assert [w for w, _, _ in owned.parts] == parts
    expected = lengths(network, *((p, 0) for p in parts), width=found.width)
    np.testing.assert_allclose(owned.lengths(network.weights()).detach(), expected, rtol=1e-5, atol=2e-6)


def test_a_mixed_trunk_owns_both() -> None:
    network = toy()
    owned = Owned.by(network, axis_groups(network)["stem"])
    assert [w for w, _, _ in owned.parts] == ["stem_norm.weight", "outer.weight", "outer.bias"]


def test_with_one_batch_norm_it_is_the_l1_norm_of_its_gammas() -> None:
    network = toy()
    penalty = ChannelPenalty([Owned.by(network, axis_groups(network)["inner"])], 0.3).penalty(network, 0)
    gamma = network.weights()["inner_norm.weight"]
    total = float(gamma.detach().abs().sum())
    assert penalty is not None and float(penalty.detach()) == pytest.approx(0.3 * total, rel=1e-5)
    penalty.backward()
    torch.testing.assert_close(gamma.grad, 0.3 * gamma.sign())


def test_the_slope_of_a_filter_is_its_direction() -> None:
    """Also at zero, where it is none."""
    network = trace(nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2)), [torch.randn(2, 3)])
    weight, bias = network.weights()["0.weight"], network.weights()["0.bias"]
    weight.detach()[1], bias.detach()[1] = 0.0, 0.0
    group = axis_groups(network)["0"]
    penalty = ChannelPenalty([Owned.by(network, group)], 2.0).penalty(network, 0)
    assert penalty is not None
    penalty.backward()
    whole = torch.cat([weight.detach(), bias.detach()[:, None]], 1)
    expected = 2 * whole / whole.norm(dim=1, keepdim=True).clamp_min(1e-9)
    assert weight.grad is not None and bias.grad is not None
    torch.testing.assert_close(torch.cat([weight.grad, bias.grad[:, None]], 1), expected, rtol=1e-4, atol=1e-5)


def test_channels_may_have_several_positions_and_unlike_numbers_of_them() -> None:
    network = trace(nn.Linear(3, 5), [torch.randn(2, 3)])
    group = Group("made up", 2, {("weight", 0): [np.array([0, 3]), np.array([4])]})
    rows = network.weights()["weight"].detach()
    expected = [float(torch.cat([rows[0], rows[3]]).norm()), float(rows[4].norm())]
    np.testing.assert_allclose(Owned.by(network, group).lengths(network.weights()).detach(), expected, rtol=1e-5)


def lost(network: Network, original: Network) -> float:
    """Of the original's answers on images that nobody trained on, as a share of their variance."""
    images = {"image": torch.from_numpy(patterns(300, seed=9, noise=1.0)[0])}
    wanted = original.run(images)[0]
    return float((network.run(images)[0] - wanted).square().mean() / wanted.var())


@pytest.mark.parametrize(("folded", "importance"), [(False, "batch_norm_scale"), (True, "l2")])
def test_pruning_costs_less_behind_it_than_behind_as_much_training_without(folded: bool, importance: str) -> None:
    """Half of the channels; with batch norms and without."""
    original = FoldBatchNorm().apply(toy()).network if folded else toy()
    task = toy_task(train=512, labels=False).with_original(original)
    prune = PruneChannels(keep=0.5, multiple=1, importance=importance)
    found = []
    for strength in (0.0, 0.1):
        method = TrainSelectively(strength=strength, epochs=8.0, training={"batch": 32})
        outcome = method.apply(original, task)
        assert outcome.changed == ["stem", "inner"] and lost(outcome.network, original) < 0.15
        assert outcome.skipped["head.weight axis 0"] == "is an output of the network"
        found.append(lost(prune.apply(outcome.network, task).network, original))
    assert found[1] < 0.6 * found[0]


def test_a_strong_push_empties_channels() -> None:
    task = toy_task(train=512, labels=False).with_original(toy())
    training = {"batch": 32, "judgements": 0}
    ends = [TrainSelectively(strength=s, epochs=8.0, training=training).apply(toy(), task).network for s in (0.0, 0.1)]
    smallest = [float(n.weights()["inner_norm.weight"].detach().abs().min()) for n in ends]
    assert smallest[0] > 0.5 and smallest[1] < 0.02


class Killed(Exception):
    """The run ends here."""


def test_a_killed_run_goes_on_to_the_same_weights(tmp_path: Path) -> None:
    def told(done: int, total: int) -> None:
        if done == 20:
            raise Killed

    task = toy_task(train=64).with_original(toy())
    method = TrainSelectively(strength=0.05, epochs=16.0, training={"batch": 32})
    whole = method.apply(toy(), task).network
    with pytest.raises(Killed):
        method.apply(toy(), task, Workspace(tmp_path, 0.0, step=told))
    outcome = method.apply(toy(), task, Workspace(tmp_path, 0.0))
    assert any(why.startswith("Continued after step 19") for why in outcome.skipped.values())
    assert all(torch.equal(w, whole.weights()[name]) for name, w in outcome.network.weights().items())


def test_it_stands_in_a_recipe() -> None:
    text = (
        "- TrainSelectively: {strength: 0.1, training: {batch: 32}}\n- PruneChannels: {importance: batch_norm_scale}\n"
    )
    recipe = Recipe.from_yaml(text)
    outcome = recipe.apply(toy(), toy_task(train=64))
    assert Recipe.from_yaml(recipe.to_yaml()) == recipe
    assert [line for line, _ in outcome.curves] == ["TrainSelectively(strength=0.1, training={'batch': 32})"]


def test_a_network_without_groups_is_one_sentence() -> None:
    network = trace(nn.Linear(3, 2), [torch.randn(2, 3)])
    task = Task(validate={network.input_names[0]: np.ones((8, 3), np.float32)}, score="relative").with_original(network)
    with pytest.raises(
        SlimlineError, match=r"found no channels that could be cut out later \(weight axis 0: is an out"
    ):
        TrainSelectively().apply(network, task)
