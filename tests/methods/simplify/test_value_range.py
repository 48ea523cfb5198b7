"""Ranges of values, against the values of random inputs."""

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from slimline.methods.simplify.value_range import ANY, clamp_limits, value_range
from tests.methods.simplify.equality import Does, network_of

INF = math.inf
CASES: list[tuple[Callable[[Tensor], Tensor], tuple[float, float]]] = [
    (lambda x: x, ANY),
    (F.relu, (0, INF)),
    (F.relu6, (0, 6)),
    (lambda x: F.hardtanh(x, -2, 3), (-2, 3)),
    (lambda x: x.clamp(max=1), (-INF, 1)),
    (lambda x: x.clamp(min=-1).clamp(max=2), (-1, 2)),
    (lambda x: x.clamp(2, 3).clamp(0, 1), (1, 1)),
    (lambda x: x.clamp(-3, -2).relu(), (0, 0)),
    (lambda x: x.sigmoid().flatten(1).unsqueeze(1), (0, 1)),
    (lambda x: F.max_pool2d(x.tanh(), 3, 1, 1), (-1, 1)),
    (lambda x: torch.cat([x.sigmoid(), x.tanh().transpose(2, 3), x.relu()], 1), (-1, INF)),
    (lambda x: x.sigmoid() + 1, ANY),
    (lambda x: F.avg_pool2d(x.sigmoid(), 2), ANY),
    (lambda x: F.pad(x.clamp(1, 2), (1, 1)), ANY),
]


@pytest.mark.parametrize(("does", "expected"), CASES)
def test_no_value_lies_outside_its_range(does: Callable[[Tensor], Tensor], expected: tuple[float, float]) -> None:
    network = network_of(Does(lambda x: does(x) * 1), 2, 4, 4)
    node = next(n for n in network.module.graph.nodes if n.op == "output").args[0][0].args[0]
    low, high = value_range(node)
    assert (low, high) == expected
    values = does(100 * torch.randn(50, 2, 4, 4))
    assert low <= float(values.min()) and float(values.max()) <= high


def test_it_looks_back_only_so_far() -> None:
    network = network_of(Does(lambda x: x.relu().flatten(1).unsqueeze(1).flatten(1) + 1), 2)
    (node,) = network.module.graph.find_nodes(op="call_function", target=torch.ops.aten.add.Tensor)
    assert value_range(node.args[0]) == (0, INF) and value_range(node.args[0], farthest=3) == ANY


def test_limits_that_are_computed_are_not_known() -> None:
    network = network_of(Does(lambda x: x.clamp(0, x.shape[0])), 2)
    (node,) = network.module.graph.find_nodes(op="call_function", target=torch.ops.aten.clamp.default)
    assert clamp_limits(node) is None and clamp_limits(node.args[0]) is None
