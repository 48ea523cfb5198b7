"""Refitted layers against numpy's least squares, and networks whose channels can stand in for each other."""

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.methods.prune import reconstruct as module
from slimline.methods.prune.channels import PruneChannels, strongest
from slimline.methods.prune.reconstruct import PENALTY, outputs_left, reconstruct, refit_alone, solved
from slimline.methods.readers import second_moments
from slimline.network.axes import axis_groups, prune
from slimline.network.network import Network
from slimline.network.trace import trace
from slimline.task import Samples, Task
from tests.toys import patterns, toy, toy_task

Array = NDArray[np.float32]


def test_the_minimum_is_that_of_numpy() -> None:
    """The penalty is written as further rows of an ordinary least-squares problem."""
    rng = np.random.default_rng(0)
    x = np.hstack([rng.normal(size=(300, 5)), np.ones((300, 1))])
    wanted, before = rng.normal(size=(300, 4)), rng.normal(size=(4, 6))
    moments = x.T @ x
    weight = np.sqrt(PENALTY * moments.diagonal().mean())
    rows, targets = np.vstack([x, weight * np.eye(6)]), np.vstack([wanted, weight * before.T])
    expected = np.linalg.lstsq(rows, targets, rcond=None)[0].T
    found = solved(*(torch.from_numpy(a) for a in (moments, x.T @ wanted, before)), has_bias=True)
    np.testing.assert_allclose(found, expected, atol=1e-9)


def test_a_missing_bias_stays_missing() -> None:
    x = torch.randn(50, 4, dtype=torch.float64)
    rows = torch.cat([x, torch.ones(50, 1, dtype=torch.float64)], 1)
    before = torch.cat([torch.randn(3, 4, dtype=torch.float64), torch.zeros(3, 1, dtype=torch.float64)], 1)
    found = solved(rows.T @ rows, rows.T @ (rows @ before.T), before, has_bias=False)
    np.testing.assert_allclose(found, before, atol=1e-9)


class Chain(nn.Module):
    """Every second channel of each hidden layer is a multiple of the one before it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.depth = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.second, self.last = nn.Conv2d(8, 12, 3, padding=1), nn.Conv2d(12, 5, 1)
        for layer in (self.first, self.depth, self.second):
            layer.weight.data[1::2] = 3 * layer.weight.data[::2] if layer is not self.depth else layer.weight.data[::2]
            assert layer.bias is not None
            layer.bias.data[1::2] = (3 if layer is not self.depth else 0) * layer.bias.data[::2]
            layer.bias.data[::2] *= 1 if layer is not self.depth else 0

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.depth(torch.relu(self.first(x))))
        result: Tensor = self.last(torch.relu(self.second(x)))
        return result


def pictures(count: int = 64) -> Array:
    return np.random.default_rng(0).normal(size=(count, 3, 6, 6)).astype(np.float32)


def traced_chain() -> tuple[Network, Task]:
    return trace(Chain(), {"x": torch.from_numpy(pictures(2))}), Task(validate={"x": pictures()}, score="relative")


def relative_error(one: Network, other: Network, inputs: dict[str, Tensor]) -> float:
    (a,), (b,) = one.run(inputs), other.run(inputs)
    return float((a - b).norm() / b.norm())


def test_half_of_the_channels_can_go_when_the_other_half_stands_in_for_them() -> None:
    network, task = traced_chain()
    fresh = {"x": torch.randn(16, 3, 6, 6, generator=torch.Generator().manual_seed(1))}
    plain = PruneChannels(keep=0.5, multiple=1, importance="obs").apply(network, task).network
    refitted = PruneChannels(keep=0.5, multiple=1, importance="obs", reconstruct=64).apply(network, task).network
    assert {n: t.shape for n, t in refitted.weights().items()} == {n: t.shape for n, t in plain.weights().items()}
    assert relative_error(plain, network, fresh) > 0.2
    assert relative_error(refitted, network, fresh) < 0.02


def test_later_layers_make_up_for_what_earlier_ones_lost() -> None:
    """With one more layer behind, which pruned nothing, the error is less than when that layer stays as it was."""
    network = toy()
    samples = Samples({"image": patterns(256, seed=3)[0]})
    found = axis_groups(network)
    group = found["inner"]
    kept = np.arange(4)
    pruned = prune(network, found, {"inner": kept})
    moments = second_moments(network, {"outer.weight"}, samples)
    alone = refit_alone(network, pruned, group, kept, moments)
    everything = reconstruct(network, pruned, [(group, kept)], samples)
    fresh = {"image": torch.from_numpy(patterns(200, seed=9)[0])}
    errors = [relative_error(n, network, fresh) for n in (everything, alone, pruned)]
    assert errors == sorted(errors) and errors[0] < 0.9 * errors[1]


@pytest.mark.parametrize("kept", [[0, 3, 4, 7, 8, 11], [0, 3, 4, 7, 9]], ids=["exact", "not exact"])
def test_one_group_alone_is_numpys_least_squares(kept: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PENALTY", 1e-6)
    network, task = traced_chain()
    found = axis_groups(network)
    group = found["second"]
    samples = task.read(network.input_names).validate
    moments = second_moments(network, {"last.weight"}, samples)
    refitted = refit_alone(network, prune(network, found, {"second": np.array(kept)}), group, np.array(kept), moments)
    model = Chain()
    with torch.no_grad():
        x = torch.relu(model.second(torch.relu(model.depth(torch.relu(model.first(torch.from_numpy(pictures())))))))
        wanted = model.last(x).permute(0, 2, 3, 1).reshape(-1, 5).double().numpy()
    rows = x.permute(0, 2, 3, 1).reshape(-1, 12).double().numpy()[:, kept]
    rows = np.hstack([rows, np.ones((len(rows), 1))])
    best = rows @ np.linalg.lstsq(rows, wanted, rcond=None)[0]
    inputs = {"x": torch.from_numpy(pictures())}
    ours = refitted.run(inputs)[0].permute(0, 2, 3, 1).reshape(-1, 5).double().numpy()
    np.testing.assert_allclose(ours, best, atol=1e-3 * np.abs(wanted).max())


class Block(nn.Module):
    """A residual sum: the same channels are written and read by one layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.inner, self.head = nn.Linear(5, 8), nn.Linear(8, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.stem(x))
        result: Tensor = self.head(x + F.hardswish(self.inner(x)))
        return result


def test_a_layer_that_writes_the_group_it_reads_keeps_its_rows() -> None:
    x = np.random.default_rng(0).normal(size=(400, 5)).astype(np.float32)
    network = trace(Block(), {"x": torch.from_numpy(x[:2])})
    found = axis_groups(network)
    (group,) = found.groups
    kept = np.array([0, 2, 3, 5, 6, 7])
    assert outputs_left(network, [(group, kept)])["inner.weight"].tolist() == kept.tolist()
    pruned = prune(network, found, {group.name: kept})
    samples = Samples({"x": x})
    moments = second_moments(network, {"inner.weight", "head.weight"}, samples)
    inputs = {"x": torch.from_numpy(x)}
    plain = relative_error(pruned, network, inputs)
    assert relative_error(refit_alone(network, pruned, group, kept, moments), network, inputs) < plain
    assert relative_error(reconstruct(network, pruned, [(group, kept)], samples), network, inputs) < 0.8 * plain


def test_a_layer_that_runs_twice_is_only_cut() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.first, self.again, self.last = nn.Linear(4, 6), nn.Linear(6, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            result: Tensor = self.last(torch.relu(self.again(torch.relu(self.again(torch.relu(self.first(x)))))))
            return result

    x = np.random.default_rng(0).normal(size=(100, 4)).astype(np.float32)
    network = trace(Twice(), {"x": torch.from_numpy(x[:2])})
    found = axis_groups(network)
    (group,) = found.groups
    kept = strongest(np.arange(6.0), 4)
    pruned = prune(network, found, {group.name: kept})
    result = reconstruct(network, pruned, [(group, kept)], Samples({"x": x}))
    weights, before = result.weights(), pruned.weights()
    assert torch.equal(weights["again.weight"], before["again.weight"])
    assert not torch.equal(weights["last.weight"], before["last.weight"])


def test_nothing_given_is_changed_and_the_mode_stays() -> None:
    network = toy().set_training_(True)
    found = axis_groups(network)
    kept = np.arange(8)
    pruned = prune(network, found, {"stem": kept})
    before = [{n: t.clone() for n, t in x.weights().items()} for x in (network, pruned)]
    samples = toy_task().read(network.input_names).train
    assert samples is not None
    result = reconstruct(network, pruned, [(found["stem"], kept)], samples)
    assert result.is_training() and network.is_training()
    for one, weights in zip((network, pruned), before, strict=True):
        assert all(torch.equal(t, weights[n]) for n, t in one.weights().items())
