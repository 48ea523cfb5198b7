"""What is equal is computed once; what only looks equal is computed twice."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from onnxruntime import InferenceSession
from torch import Tensor, nn

from slimline.methods.simplify.eliminate_common import EliminateCommon
from slimline.network.container import load, save
from slimline.runtimes.onnx_file import write_onnx
from tests.methods.simplify.equality import Constant, Does, applied, count, network_of

aten = torch.ops.aten
EQUAL: list[tuple[Callable[..., Tensor], int]] = [
    (lambda x, c: x.sigmoid() + x.sigmoid(), 2),
    (lambda x, c: (x + x.tanh()) * (x.tanh() + x), 3),
    (lambda x, c: x.sum(1, keepdim=True).exp() / x.sum(1, keepdim=True).exp(), 3),
    (lambda x, c: F.layer_norm(x, [4], c()) - F.layer_norm(x, [4], c()) * 2, 3),
    (lambda x, c: torch.cat([x, x.relu()], 1) * torch.cat([x, x.relu()], 1), 3),
    (lambda x, c: x.max(1)[0] + x.max(1)[0], 3),
    (lambda x, c: F.scaled_dot_product_attention(x, x, x) - 2 * F.scaled_dot_product_attention(x, x, x), 3),
]
DIFFERENT: list[tuple[Callable[..., Tensor], str]] = [
    (lambda x, c: torch.add(x, x.exp(), alpha=2) * torch.add(x.exp(), x, alpha=2), "add"),
    (lambda x, c: (x - c()) / (c() - x), "sub"),
    (lambda x, c: torch.div(x, c()) + torch.div(c(), x), "div"),
    (lambda x, c: ((i := x.argmax(1)) * 2 // 3) + i * 2.0, "mul"),
    (lambda x, c: F.leaky_relu(x, 0.1) + F.leaky_relu(x, 0.2), "leaky_relu"),
    (lambda x, c: x.clamp(min=0.5) * x.clamp(max=0.5), "clamp"),
    (lambda x, c: x.max(1)[0] + x.max(1)[1], "getitem"),
    (lambda x, c: x.sum(1, keepdim=True) + x.sum(1).unsqueeze(1), "sum"),
    (lambda x, c: torch.cat([x, c()[None].expand_as(x)], 1) + torch.cat([c()[None].expand_as(x), x], 1), "cat"),
]


@pytest.mark.parametrize(("does", "left"), EQUAL)
def test_equal_calls_become_one(does: Callable[..., Tensor], left: int) -> None:
    network = network_of(Does(does, Constant(torch.randn(4))), 4)
    outcome = applied(EliminateCommon(), network)
    assert count(outcome.network) == left == count(network) - len(outcome.changed) < count(network)
    assert not applied(EliminateCommon(), outcome.network).changed


@pytest.mark.parametrize(("does", "operator"), DIFFERENT)
def test_different_calls_stay(does: Callable[..., Tensor], operator: str) -> None:
    network = network_of(Does(does, Constant(torch.randn(4))), 4)
    outcome = applied(EliminateCommon(), network)
    assert count(outcome.network, operator) == count(network, operator) == 2


def test_one_weight_is_read_once_and_equal_weights_stay_two() -> None:
    one, other = nn.Linear(4, 4), nn.Linear(4, 4)
    other.load_state_dict(one.state_dict())
    network = network_of(Does(lambda x, a, b: (a(x), b(x)), one, other), 4)
    assert not applied(EliminateCommon(), network).changed
    again = network_of(Does(lambda x, a: (a(x), a(x) + 1), one), 4)
    graph = again.module.graph
    first, second = graph.find_nodes(op="call_function", target=aten.linear.default)
    with graph.inserting_before(second):
        second.args = (second.args[0], *(graph.get_attr(str(node.target)) for node in second.args[1:]))
    outcome = applied(EliminateCommon(), again)
    assert outcome.changed == [second.name] and count(outcome.network, "linear") == 1
    assert len(outcome.network.module.graph.find_nodes(op="get_attr", target="parts.0.weight")) == 1


RANDOM: list[Callable[..., Tensor]] = [
    lambda x, c: torch.rand_like(x) - torch.rand_like(x),
    lambda x, c: torch.bernoulli(x.sigmoid()) - torch.bernoulli(x.sigmoid()) * 2,
    lambda x, c: F.dropout(x, 0.5) - F.dropout(x, 0.5) * 2,
]


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("does", RANDOM)
def test_random_numbers_are_drawn_as_often_as_before(does: Callable[..., Tensor], training: bool) -> None:
    """Dropout also where it is switched off: with one mask for both the network would train in another way."""
    network = network_of(Does(does, Constant(torch.randn(4))), 4).set_training_(training)
    outcome = EliminateCommon().apply(network)
    drawn = ("rand_like", "bernoulli", "dropout")
    assert count(outcome.network, *drawn) == count(network, *drawn) == 2


def test_norms_in_training_stay_and_at_inference_become_one() -> None:
    network = network_of(Does(lambda x, n: n(x) * n(x).exp(), nn.BatchNorm1d(4)), 4)
    assert count(applied(EliminateCommon(), network).network, "batch_norm") == 1
    network.set_training_(True)
    assert count(EliminateCommon().apply(network).network, "batch_norm") == 2


def test_two_outputs_may_become_one_value(tmp_path: Path) -> None:
    network = network_of(Does(lambda x: (x.relu().float(), x.relu().float())), 4)
    outcome = applied(EliminateCommon(), network)
    assert count(outcome.network) == 2
    again = load(save(outcome.network, tmp_path / "n.slim"))
    write_onnx(again, tmp_path / "n.onnx")
    session = InferenceSession(tmp_path / "n.onnx")
    x = np.random.default_rng(0).normal(size=(3, 4))
    assert all((output == np.maximum(x, 0).astype(np.float32)).all() for output in session.run(None, {"x": x}))
