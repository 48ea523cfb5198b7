"""Rows times [W, b] are what torch's own layers put out, and moments are sums over such rows."""

from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from slimline.methods import readers as module
from slimline.methods.readers import moments_in_turns, read_by, readers, rows_of, second_moments, spread
from slimline.network.axes import axis_groups
from slimline.network.network import get_tensor
from slimline.network.trace import trace
from slimline.task import Samples
from tests.runtimes.networks import Depthwise, traced
from tests.toys import patterns, toy

LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "linear": (lambda: nn.Linear(5, 7), (4, 5)),
    "linear on a sequence": (lambda: nn.Linear(5, 7, bias=False), (4, 3, 5)),
    "conv1d": (lambda: nn.Conv1d(5, 7, 3, stride=2, padding=2, dilation=2), (4, 5, 11)),
    "conv2d": (lambda: nn.Conv2d(5, 7, (3, 2), stride=(2, 1), padding=(1, 0)), (4, 5, 9, 8)),
    "conv2d dilated": (lambda: nn.Conv2d(5, 7, 3, dilation=2, bias=False), (4, 5, 9, 8)),
    "pointwise": (lambda: nn.Conv2d(5, 7, 1), (4, 5, 6, 6)),
    "pointwise strided": (lambda: nn.Conv2d(5, 7, 1, stride=2), (4, 5, 7, 6)),
    "pointwise padded": (lambda: nn.Conv2d(5, 7, 1, padding=1), (4, 5, 7, 6)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_rows_times_the_matrix_are_the_layers_output(name: str) -> None:
    make, shape = LAYERS[name]
    torch.manual_seed(0)
    layer, x = make(), torch.randn(shape)
    network = trace(nn.Sequential(layer), [x])
    (reader,) = readers(network).values()
    rows = rows_of(reader.calls[0], x, get_tensor(network.module, reader.weight))
    expected = layer(x).detach()
    if isinstance(layer, nn.Conv1d | nn.Conv2d):
        expected = expected.flatten(2).transpose(1, 2)
    np.testing.assert_allclose(rows.double() @ reader.matrix(network).T, expected.reshape(len(rows), 7), atol=1e-5)


def test_a_matrix_that_is_set_is_the_one_that_is_read() -> None:
    network = toy()
    reader = readers(network)["outer.weight"]
    wanted = torch.randn(reader.matrix(network).shape, dtype=torch.float64)
    reader.set_matrix_(network, wanted)
    np.testing.assert_allclose(reader.matrix(network), wanted, rtol=1e-6)


class Tied(nn.Module):
    """An embedding whose table is the weight of the last layer as well, and a layer that runs twice."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.twice, self.last = nn.Embedding(9, 6), nn.Linear(6, 6), nn.Linear(6, 9, bias=False)
        self.last.weight = self.table.weight

    def forward(self, tokens: Tensor) -> Tensor:
        result: Tensor = self.last(self.twice(torch.relu(self.twice(self.table(tokens)))))
        return result


def test_only_dense_layers_with_a_weight_of_their_own_are_readers() -> None:
    network = trace(Tied(), [torch.randint(0, 9, (2, 4))])
    assert {w: len(r.calls) for w, r in readers(network).items()} == {"twice.weight": 2}
    assert "depth.weight" not in readers(traced(Depthwise()))


def test_moments_are_sums_over_all_samples_and_calls() -> None:
    torch.manual_seed(0)
    network = trace(Tied(), [torch.randint(0, 9, (2, 4))])
    tokens = np.random.default_rng(0).integers(0, 9, (50, 4))
    found = second_moments(network, {"twice.weight"}, Samples({network.input_names[0]: tokens}))["twice.weight"]
    weights = {n: t.detach().double().numpy() for n, t in network.weights().items()}
    first = weights["table.weight"][tokens].reshape(-1, 6)
    second = np.maximum(first @ weights["twice.weight"].T + weights["twice.bias"], 0)
    rows = [np.hstack([x, np.ones((len(x), 1))]) for x in (first, second)]
    np.testing.assert_allclose(found, sum(x.T @ x for x in rows), rtol=1e-5)


def test_groups_take_turns_when_memory_is_short_and_find_the_same() -> None:
    network, samples = toy(), Samples({"image": patterns(40, seed=5)[0]})
    dense = readers(network)
    weights = {g.name: read_by(g, dense) for g in axis_groups(network).groups}
    ((together, expected),) = moments_in_turns(network, weights, samples)
    assert together == ["stem", "inner"] and set(expected) == {
        "inner.weight", "outer.weight", "head.weight",
    }  # fmt: skip
    with patch.object(module, "LARGEST_MEMORY", 1):
        turns = list(moments_in_turns(network, weights, samples))
    assert [turn for turn, _ in turns] == [["stem"], ["inner"]]
    for _, moments in turns:
        for weight, found in moments.items():
            np.testing.assert_allclose(found, expected[weight])


@pytest.mark.parametrize(("rows", "most"), [(0, 10), (10, 10), (11, 10), (1000, 7)])
def test_rows_are_spread_evenly(rows: int, most: int) -> None:
    chosen = np.arange(rows)[spread(rows, most)]
    assert len(chosen) <= most and len(set(np.diff(chosen).tolist())) <= 1
    assert rows == 0 or (chosen[0] == 0 and len(chosen) > rows / (rows // most + 1) - 1)
