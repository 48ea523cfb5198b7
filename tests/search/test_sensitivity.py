"""Damage is a divergence from the original's answers; predicted costs are those of networks that were built."""

import numpy as np
import pytest
import torch
from scipy.stats import entropy
from torch import Tensor, nn

from slimline.errors import SlimlineError
from slimline.methods.prune.channels import PruneChannels
from slimline.methods.quantize.static import QuantizeStatic
from slimline.network.axes import axis_groups, prune
from slimline.network.trace import trace
from slimline.scores import FirstOutput
from slimline.search.sensitivity import (
    DAMAGE_SAMPLES,
    KEPT_SHARES,
    LAYER_SAMPLES,
    Damage,
    Sensitivity,
    layer_damage,
    options,
)
from slimline.task import Samples
from tests.toys import patterns, toy, toy_task


def samples(count: int = 100) -> Samples:
    return Samples({"image": patterns(count, seed=5, noise=1.5)[0]})


def test_damage_is_the_mean_divergence_of_scipy() -> None:
    network = toy()
    pruned = PruneChannels(keep=0.5, importance="l1").apply(network).network
    before, after = (n.run(samples().tensors())[0].double().softmax(1).numpy() for n in (network, pruned))
    assert Damage(network, samples())(pruned) == pytest.approx(np.mean(entropy(before.T, after.T)), rel=1e-4)
    assert Damage(network, samples())(network) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("probabilities", [False, True])
def test_damage_of_a_sequence_of_class_scores_is_the_mean_divergence_of_its_positions(probabilities: bool) -> None:
    class Sequence(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            torch.manual_seed(seed)
            self.layer = nn.Linear(4, 6)

        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = self.layer(x)
            return scores.softmax(2) if probabilities else scores

    one, other = (trace(Sequence(seed), [torch.randn(2, 3, 4)]) for seed in (0, 1))
    data = Samples({one.input_names[0]: np.random.default_rng(0).standard_normal((40, 3, 4)).astype(np.float32)})
    output = FirstOutput("y", 1, (3, 6), "agreement", "", axis=2, probabilities=probabilities)
    few = data.take(slice(0, DAMAGE_SAMPLES // 4)).tensors()
    before, after = (n.run(few)[0].double().numpy().reshape(-1, 6) for n in (one, other))
    if not probabilities:
        before, after = (np.exp(x) / np.exp(x).sum(1, keepdims=True) for x in (before, after))
    assert Damage(one, data, output)(other) == pytest.approx(np.mean(entropy(before.T, after.T)), rel=1e-4)


class Picture(nn.Module):
    """An output that is no class scores, multiplied by a factor."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.layer, self.factor = nn.Conv2d(1, 1, 1), factor

    def forward(self, image: Tensor) -> Tensor:
        return self.layer(image) * self.factor  # type: ignore[no-any-return]


def test_damage_of_other_outputs_is_relative_to_their_variance() -> None:
    torch.manual_seed(0)
    one = trace(Picture(1.0), [torch.randn(2, 1, 8, 8)])
    torch.manual_seed(0)
    other = trace(Picture(1.5), [torch.randn(2, 1, 8, 8)])
    before = one.run(samples().tensors())[0]
    expected = float(0.25 * before.square().mean() / before.var())
    assert Damage(one, samples())(other) == pytest.approx(expected, rel=1e-4)


def test_whole_numbers_cannot_be_compared() -> None:
    class Answer(nn.Module):
        def forward(self, image: Tensor) -> Tensor:
            return image.mean((2, 3)).argmax(1)

    with pytest.raises(SlimlineError, match=r"No output of the network \(output\) holds floating-point numbers"):
        Damage(trace(Answer(), [torch.randn(2, 1, 8, 8)]), samples())


def test_the_widths_tried_and_their_damage() -> None:
    network = toy()
    found = axis_groups(network)
    group, strength = found["inner"], np.arange(24.0)
    table = options(network, found, group, strength, Damage(network, samples(300)), multiple=4)
    widths = [o.width for o in table]
    assert widths[0] == 24 and table[0].damage == 0 and widths == sorted(set(widths), reverse=True)
    assert all(w % 4 == 0 and min(abs(w - 24 * share) for share in KEPT_SHARES) <= 2 for w in widths[1:])
    assert all(min(abs(w - 24 * share) for w in widths) <= 2 for share in KEPT_SHARES)
    for option in table[1:]:
        pruned = prune(network, found, {"inner": np.arange(24 - option.width, 24)})
        assert option.damage == pytest.approx(
            Damage(network, samples(300).take(slice(0, DAMAGE_SAMPLES)))(pruned), abs=1e-6
        )
    assert table[-1].damage > table[1].damage > 0


def test_a_group_narrower_than_the_multiple_is_tried_too() -> None:
    network = toy()
    found = axis_groups(network)
    assert [
        o.width for o in options(network, found, found["stem"], np.ones(16), Damage(network, samples()), multiple=64)
    ] == [16, 1]


def test_a_row_becomes_the_certificates_row() -> None:
    network = toy()
    found = axis_groups(network)
    table = options(network, found, found["stem"], np.ones(16), Damage(network, samples()), multiple=8)
    row = Sensitivity("stem", 16, ["stem"], table, ms_per_channel=0.5).as_json()
    assert row == {
        "group": "stem", "width": 16, "layers": ["stem"], "ms_per_channel": 0.5,
        "options": [{"width": o.width, "damage": o.damage} for o in table],
    }  # fmt: skip


def test_the_damage_of_a_layer_is_that_of_quantising_it_alone() -> None:
    network, task = toy(), toy_task()
    method, damage = QuantizeStatic(observer="minmax", ops=("aten.conv2d", "aten.linear")), Damage(network, samples())
    found = layer_damage(network, method, task, damage)
    assert {"stem", "inner", "outer", "head"} <= set(found)
    others = tuple(name for name in found if name != "stem")
    alone = QuantizeStatic(observer="minmax", ops=method.ops, skip=others, samples=LAYER_SAMPLES)
    assert found["stem"] == pytest.approx(damage(alone.apply(network, task).network))
    assert min(found.values()) >= 0
