"""Taylor importance by hand, against finite differences, and against what really happens to the loss."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from scipy.stats import spearmanr
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.errors import SlimlineError
from slimline.methods.prune.taylor import BATCH, taylor_importance
from slimline.network.axes import Group, axis_groups
from slimline.network.network import Network, get_tensor
from slimline.network.trace import trace
from slimline.task import Task
from tests.toys import patterns, toy


class Linear(nn.Module):
    """4 inputs, 3 hidden channels, 2 classes, nothing in between."""

    def __init__(self, first: list[list[float]], second: list[list[float]]) -> None:
        super().__init__()
        self.hidden, self.out = nn.Linear(4, 3, bias=False), nn.Linear(3, 2, bias=False)
        self.hidden.weight.data = torch.tensor(first, dtype=torch.float32)
        self.out.weight.data = torch.tensor(second, dtype=torch.float32)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.out(self.hidden(x))
        return result


def task_of(x: NDArray[np.float32], labels: NDArray[np.int64] | None) -> Task:
    data: Mapping[str, object] = {"x": x} if labels is None else {"x": x, "labels": labels}
    return Task(validate=data, train=data)


def test_three_channels_of_four_weights_by_hand() -> None:
    """x = (1, 1, 1, 3) gives h = (1, 2, 2) and logits (3, 3), so dL/dlogits = (-1/2, 1/2) for label 0.

    Then dL/dh = (-1/2, 1/2, -1/4), and h dL/dh = (-1/2, 1, -1/2).
    """
    module = Linear([[1, 0, 0, 0], [0, 2, 0, 0], [0, 0, -1, 1]], [[1, 1, 0], [0, 2, -0.5]])
    network = trace(module, [torch.randn(2, 4)])
    groups = axis_groups(network).groups
    task = task_of(np.array([[1, 1, 1, 3]], np.float32), np.array([0]))
    np.testing.assert_allclose(taylor_importance(network, groups, task)["hidden"], [0.25, 1, 0.25], rtol=1e-6)


def cross_entropy(network: Network, x: NDArray[np.float32], labels: NDArray[np.int64]) -> float:
    logits = network.run({network.input_names[0]: torch.from_numpy(x)})[0].double()
    return float(F.cross_entropy(logits, torch.from_numpy(labels)))


def divergence(network: Network, other: Network, x: NDArray[np.float32]) -> float:
    p, q = (n.run({"image": torch.from_numpy(x)})[0].double().softmax(1) for n in (network, other))
    return float((p * (p / q).log()).sum(1).mean())


def scaled(network: Network, group: Group, channel: int, factor: float) -> Network:
    """The network with everything that produces one channel multiplied by ``factor``."""
    changed = network.copy()
    for (weight, axis), positions in group.slices.items():
        tensor = get_tensor(changed.module, weight)
        if axis == 0 and isinstance(tensor, nn.Parameter):
            tensor.data[torch.from_numpy(positions[channel])] *= factor
    return changed


def test_it_is_the_slope_of_the_loss_of_a_linear_network() -> None:
    """Squared derivative of the loss along each channel, one batch at a time, by central differences in float64."""
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(3, 4)), rng.normal(size=(2, 3))
    network = trace(Linear(first.tolist(), second.tolist()), [torch.randn(2, 4)])
    x, labels = rng.normal(size=(2 * BATCH, 4)).astype(np.float32), rng.integers(0, 2, 2 * BATCH)
    group = axis_groups(network)["hidden"]

    def loss(part: slice, scale: NDArray[np.float64]) -> float:
        logits = torch.from_numpy(x[part] @ first.T * scale @ second.T)
        return float(F.cross_entropy(logits, torch.from_numpy(labels[part])))

    slopes = np.zeros((2, 3))
    for i, part in enumerate((slice(0, BATCH), slice(BATCH, None))):
        for c in range(3):
            step = 1e-5 * np.eye(3)[c]
            slopes[i, c] = (loss(part, 1 + step) - loss(part, 1 - step)) / 2e-5
    found = taylor_importance(network, [group], task_of(x, labels))["hidden"]
    np.testing.assert_allclose(found, (slopes**2).sum(0), rtol=1e-4)


class SecondAxis(nn.Module):
    """Layers whose channels lie along the second axis of their weights, each channel behind a gate."""

    def __init__(self, table: bool) -> None:
        super().__init__()
        self.first: nn.Module = nn.Embedding(7, 6) if table else nn.ConvTranspose1d(2, 6, 3)
        self.second, self.gate = nn.Linear(6, 3) if table else nn.Conv1d(6, 3, 3, bias=False), torch.ones(6)

    def forward(self, x: Tensor) -> Tensor:
        hidden = self.first(x)
        hidden = hidden * (self.gate if hidden.shape[-1] == 6 else self.gate[:, None])
        result: Tensor = self.second(hidden)
        return result.mean(1) if isinstance(self.second, nn.Linear) else result.mean(2)


@pytest.mark.parametrize("table", [True, False])
def test_tables_and_transposed_convolutions_put_out_along_their_second_axis(table: bool) -> None:
    """What the weights say is the derivative of the loss along a gate behind every channel."""
    torch.manual_seed(0)
    module, rng = SecondAxis(table), np.random.default_rng(0)
    x = rng.integers(0, 7, (BATCH, 5)) if table else rng.normal(size=(BATCH, 2, 9)).astype(np.float32)
    labels = rng.integers(0, 3, BATCH)
    network = trace(module, [torch.from_numpy(x[:2])])
    (group,) = [g for g in axis_groups(network).groups if g.width == 6]
    found = taylor_importance(network, [group], task_of(x, labels))[group.name]
    module.gate = torch.ones(6, requires_grad=True)
    F.cross_entropy(module(torch.from_numpy(x)), torch.from_numpy(labels)).backward()
    assert module.gate.grad is not None and (found > 0).all()
    np.testing.assert_allclose(found, module.gate.grad.double().numpy() ** 2, rtol=1e-4)


@pytest.mark.parametrize(("name", "labelled"), [("inner", True), ("inner", False), ("stem", False)])
def test_it_ranks_channels_as_zeroing_them_does(name: str, labelled: bool) -> None:
    """With labels: by the change of the loss. Without: by the divergence from the network's own answers.

    The images are noisy ones, since the loss on the others is zero whatever is removed.
    """
    network = toy()
    images, labels = patterns(512, seed=7, noise=2.2)
    group = axis_groups(network)[name]
    data = {"image": images, "labels": labels} if labelled else {"image": images}
    found = taylor_importance(network, [group], Task(validate=data, train=data))[name]
    zeroed = [scaled(network, group, c, 0.0) for c in range(group.width)]
    if labelled:
        whole = cross_entropy(network, images, labels)
        effect = [abs(cross_entropy(n, images, labels) - whole) for n in zeroed]
    else:
        effect = [divergence(network, n, images) for n in zeroed]
    by_chance = spearmanr(np.random.default_rng(0).permutation(found), effect).statistic
    assert spearmanr(found, effect).statistic > 0.6 > by_chance + 0.2


def test_without_labels_it_draws_them_from_the_network_and_is_the_same_every_time() -> None:
    network = toy()
    groups = axis_groups(network).groups
    images, _ = patterns(64, seed=7, noise=1.6)
    task = Task(validate={"image": images})
    one, other = (taylor_importance(network, groups, task) for _ in range(2))
    assert all((one[g.name] == other[g.name]).all() and (one[g.name] > 0).any() for g in groups)


def test_labels_that_are_no_class_numbers_are_not_used() -> None:
    network = toy()
    groups = axis_groups(network).groups
    images, labels = patterns(64, seed=7, noise=1.6)
    without = taylor_importance(network, groups, Task(validate={"image": images}))
    for strange in (labels + 1.5, labels + 100, np.stack([labels, labels], 1)):
        found = taylor_importance(network, groups, Task(validate={"image": images, "labels": strange}))
        assert all((found[g.name] == without[g.name]).all() for g in groups)


class Sequence(nn.Module):
    """An output that is no class scores: (N, 1, 8, 8)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 1, 3, padding=1)
        self.last.weight.data[:, 2] = 0  # nothing reads channel 2

    def forward(self, image: Tensor) -> Tensor:
        result: Tensor = self.last(torch.relu(self.first(image)))
        return result


def test_outputs_that_are_no_class_scores_are_ranked_too() -> None:
    network = trace(Sequence(), {"image": torch.randn(2, 1, 8, 8)})
    found = taylor_importance(network, axis_groups(network).groups, Task(validate={"image": patterns(64, seed=1)[0]}))
    assert found["first"][2] == 0 and np.delete(found["first"], 2).min() > 0


def test_it_needs_data() -> None:
    network = toy()
    with pytest.raises(SlimlineError, match="Taylor importance needs data"):
        taylor_importance(network, axis_groups(network).groups, None)
