"""Layers are visited in their order, each with what the changed layers before it make of the samples."""

from collections.abc import Iterator
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from slimline.methods import visits as module
from slimline.methods.readers import Reader, second_moments
from slimline.methods.visits import affordable, visit_
from slimline.network.network import get_tensor
from slimline.network.trace import trace
from slimline.task import Samples
from tests.toys import patterns, toy


class Branches(nn.Module):
    """A layer whose answers two others read, and one that reads both."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.left, self.right, self.last = (nn.Linear(5, 5) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.first(x))
        result: Tensor = self.last(self.left(x) * torch.sigmoid(self.right(x)))
        return result


def test_every_layer_reads_what_the_changed_layers_before_it_put_out() -> None:
    model = Branches()
    x = np.random.default_rng(0).normal(size=(70, 5)).astype(np.float32)
    network = trace(model, {"x": torch.from_numpy(x[:2])})
    order, read = [], {}

    def halve(reader: Reader, rows: Iterator[Tensor]) -> None:
        order.append(reader.weight)
        read[reader.weight] = torch.cat(list(rows))
        get_tensor(network.module, reader.weight).mul_(0.5)

    assert (
        visit_(network, ["last.weight", "right.weight", "first.weight", "left.weight"], Samples({"x": x}), halve) == {}
    )
    assert order == ["first.weight", "left.weight", "right.weight", "last.weight"]
    halved = {n: w.detach().double().numpy() * (0.5 if w.ndim > 1 else 1) for n, w in model.state_dict().items()}
    hidden = x.astype(np.float64) @ halved["first.weight"].T + halved["first.bias"]
    hidden = F.gelu(torch.from_numpy(hidden)).numpy()
    gate = 1 / (1 + np.exp(-(hidden @ halved["right.weight"].T + halved["right.bias"])))
    both = (hidden @ halved["left.weight"].T + halved["left.bias"]) * gate
    for name, expected in (("first", x), ("left", hidden), ("right", hidden), ("last", both)):
        np.testing.assert_allclose(read[f"{name}.weight"], np.hstack([expected, np.ones((70, 1))]), atol=1e-5)


def test_without_a_change_moments_are_those_of_the_network() -> None:
    network, samples = toy(), Samples({"image": patterns(70, seed=5)[0]})
    expected = second_moments(network, {"stem.weight", "inner.weight", "head.weight"}, samples)
    found = {}

    def add(reader: Reader, rows: Iterator[Tensor]) -> None:
        found[reader.weight] = sum((part.T @ part).double() for part in rows)

    visit_(network, list(expected), samples, add)
    assert found.keys() == expected.keys()
    for name, moments in expected.items():
        np.testing.assert_allclose(found[name], moments, rtol=1e-5)


@pytest.mark.parametrize("training", [False, True])
def test_the_mode_stays_and_no_statistics_are_learnt(training: bool) -> None:
    network = toy().set_training_(training)
    before = {name: w.detach().clone() for name, w in network.weights().items()}
    visit_(network, ["head.weight"], Samples({"image": patterns(40, seed=5)[0]}), lambda _, rows: None)
    assert network.is_training() == training
    assert all(torch.equal(w, before[name]) for name, w in network.weights().items())


@pytest.mark.parametrize("memory", [1, 2**32])
def test_large_values_mean_fewer_samples(memory: int) -> None:
    with patch.object(module, "LARGEST_MEMORY", memory):
        assert affordable(toy(), 200) == (module.FEWEST if memory == 1 else 200)
        told = visit_(toy(), [], Samples({"image": patterns(200, seed=5)[0]}), lambda _, rows: None)
    assert told == ({"samples": "16 of 200 fit into memory"} if memory == 1 else {})


def test_rows_are_limited_evenly() -> None:
    counts = []
    with patch.object(module, "MOST_ROWS", 100):
        visit_(
            toy(),
            ["inner.weight"],
            Samples({"image": patterns(64, seed=5)[0]}),
            lambda _, rows: counts.extend(len(part) for part in rows),
        )
    assert len(counts) == 2 and counts[0] == counts[1] and 40 < counts[0] <= 50
