"""Hooks are called when they are to be, and what they do is what they would do in a loop by hand."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.fx import Node

from slimline.network.network import Network, get_tensor
from slimline.training.batch import Batch
from slimline.training.hook import Hook
from slimline.training.plan import Plan
from slimline.training.recover import recover
from tests.training.small import Layers, Made, curves, differences, distance, layers, line, module, squared, sums


class Calls(Hook):
    """Writes down every call."""

    def __init__(self, name: str, calls: list[str]) -> None:
        self.name, self.calls = name, calls

    def begin(self, network: Network, steps: int) -> Network:
        assert network.weights().keys() == layers().weights().keys()
        self.calls.append(f"{self.name} begin {steps}")
        return network

    def before_step(self, network: Network, step: int) -> None:
        self.calls.append(f"{self.name} before {step}")

    def penalty(self, network: Network, step: int) -> Tensor | None:
        self.calls.append(f"{self.name} penalty {step}")
        return None

    def after_step(self, network: Network, step: int) -> None:
        assert all(weight.grad is None for weight in network.module.parameters())
        self.calls.append(f"{self.name} after {step}")

    def end(self, network: Network) -> Network:
        self.calls.append(f"{self.name} end")
        return network


def test_they_are_called_in_their_order_at_every_moment() -> None:
    calls: list[str] = []

    def loss(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        calls.append("loss")
        return squared(outputs, batch)

    hooks = [Calls("a", calls), Calls("b", calls)]
    trained, _ = recover(layers(), Made(curves), loss, Plan(2, 0.05, accumulate=2), hooks=hooks)
    assert calls[:2] == ["a begin 2", "b begin 2"] and calls[-2:] == ["a end", "b end"]
    one = ["a before 0", "b before 0", "loss", "loss", "a penalty 0", "b penalty 0", "a after 0", "b after 0"]
    assert calls[2:-2] == one + [call.replace("0", "1") for call in one]
    assert differences(trained, recover(layers(), Made(curves), squared, Plan(2, 0.05, accumulate=2))[0]) == []


def test_a_hook_that_does_nothing_does_nothing() -> None:
    trained, _ = recover(layers(), Made(curves), squared, Plan(5, 0.05), hooks=[Hook()])
    assert differences(trained, recover(layers(), Made(curves), squared, Plan(5, 0.05))[0]) == []


def wanted_zeros(step: int, steps: int) -> int:
    """Of 48 weights: six more every two steps until half of them are gone."""
    return min(24, 6 * (step // 2 + 1))


class Gradual(Hook):
    """The smallest weights of the first layer become zero, more of them from step to step; those stay zero."""

    def begin(self, network: Network, steps: int) -> Network:
        self.steps, self.mask = steps, torch.ones(16, 3)
        return network

    def before_step(self, network: Network, step: int) -> None:
        weight = network.weights()["first.weight"].detach().abs() * self.mask
        self.mask = (weight > weight.flatten().sort().values[wanted_zeros(step, self.steps) - 1]).float()
        self._put(network)

    def after_step(self, network: Network, step: int) -> None:
        self._put(network)

    def end(self, network: Network) -> Network:
        self._put(network)
        return network

    @torch.no_grad()
    def _put(self, network: Network) -> None:
        network.weights()["first.weight"].mul_(self.mask)


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_masks_that_grow(ema: float) -> None:
    """Against a loop by hand with numpy masks. An average of masked weights is masked at the end."""
    model, plan = module(Layers), Plan(10, 0.05, schedule="constant", weight_decay=0, gradient_norm=1e9, ema=ema)
    assert isinstance(model, Layers)
    trained, curve = recover(layers(), Made(curves), squared, plan, hooks=[Gradual()])
    assert curve.sparsity == [24 / (48 + 32)]
    assert int((trained.weights()["first.weight"] == 0).sum()) == 24
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True)
    mask = np.ones((16, 3), np.float32)
    for step in range(10):
        size = abs(model.first.weight.detach().numpy()) * mask
        mask = (size > np.sort(size.flatten())[wanted_zeros(step, 10) - 1]).astype(np.float32)
        model.first.weight.data *= torch.from_numpy(mask)
        batch = curves(step)
        optimizer.zero_grad()
        nn.MSELoss()(model(batch.inputs["x"]), batch.targets[0]).backward()
        optimizer.step()
        model.first.weight.data *= torch.from_numpy(mask)
    assert int((mask == 0).sum()) == 24
    if not ema:
        for name, expected in model.state_dict().items():
            torch.testing.assert_close(trained.weights()[name].detach(), expected, rtol=1e-5, atol=1e-6)
    else:
        np.testing.assert_array_equal(trained.weights()["first.weight"].detach() == 0, mask == 0)


@dataclass
class Lasso(Hook):
    """An L1 penalty on the weights of more than one axis."""

    strength: float

    def penalty(self, network: Network, step: int) -> Tensor | None:
        return self.strength * network.weights()["layer.weight"].abs().sum()


@pytest.mark.parametrize("accumulate", [1, 3])
@pytest.mark.parametrize("hooks", [1, 2])
def test_a_penalty_adds_its_gradient_once_to_the_step(accumulate: int, hooks: int) -> None:
    """w - 0.1 * 1.9 (dL/dw + 0.3 sign w): the first step of Nesterov's SGD is 1.9 rates long."""
    start = {name: w.detach().clone() for name, w in line().weights().items()}
    x, y = sums(0).inputs["x"], sums(0).targets[0]
    error = x @ start["layer.weight"].T + start["layer.bias"] - y
    slope = 2 * (error * x).mean(0, keepdim=True) + hooks * 0.3 * start["layer.weight"].sign()
    plan = Plan(1, 0.1, weight_decay=0, gradient_norm=1e9, accumulate=accumulate)
    trained, curve = recover(line(), Made(sums), squared, plan, hooks=[Lasso(0.3)] * hooks)
    torch.testing.assert_close(trained.weights()["layer.weight"].detach(), start["layer.weight"] - 0.19 * slope)
    bias = start["layer.bias"] - 0.19 * 2 * error.mean(0)
    torch.testing.assert_close(trained.weights()["layer.bias"].detach(), bias)
    total = error.square().mean() + hooks * 0.3 * start["layer.weight"].abs().sum()
    assert curve.start == pytest.approx(float(total), rel=1e-5)


class Doubled(Hook):
    """The network that is trained sees twice its input, and learns a weight of its own; both go at the end."""

    def begin(self, network: Network, steps: int) -> Network:
        graph = network.module.graph
        network.module.shift = nn.Parameter(torch.zeros(1))
        (given,) = (node for node in graph.nodes if node.op == "placeholder")
        readers = list(given.users)
        with graph.inserting_after(given):
            self.node: Node = graph.call_function(torch.ops.aten.mul.Tensor, (given, 2.0))
        (output,) = (node for node in graph.nodes if node.op == "output")
        with graph.inserting_before(output):
            shift = graph.get_attr("shift")
            (answer,) = output.args[0]
            output.args = ((graph.call_function(torch.ops.aten.add.Tensor, (answer, shift)),),)
        for reader in readers:
            reader.replace_input_with(given, self.node)
        network.module.recompile()
        return network

    def end(self, network: Network) -> Network:
        self.learnt = get_tensor(network.module, "shift").detach().clone()
        graph = network.module.graph
        (doubled,) = (n for n in graph.nodes if n.target is torch.ops.aten.mul.Tensor)
        doubled.replace_all_uses_with(doubled.args[0])
        (output,) = (node for node in graph.nodes if node.op == "output")
        (shifted,) = output.args[0]
        output.args = ((shifted.args[0],),)
        return network.tidy_()


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_one_that_edits_the_graph_trains_the_edited_network(ema: float) -> None:
    def doubled(step: int) -> Batch:
        batch = curves(step)
        return Batch({"x": 2 * batch.inputs["x"]}, batch.targets)

    class Shifted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.shift = nn.Parameter(torch.zeros(1))

        def forward(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
            return squared((outputs[0] + self.shift,), batch)

    plan, hook, loss = Plan(30, 0.02, ema=ema), Doubled(), Shifted()
    trained, _ = recover(layers(), Made(curves), squared, plan, hooks=[hook])
    expected, _ = recover(layers(), Made(doubled), loss, plan)
    assert distance(trained, expected) < 1e-6 < 0.01 < distance(trained, layers())
    assert trained.weights().keys() == layers().weights().keys() and not hasattr(trained.module, "shift")
    trained.verify()
    if not ema:
        torch.testing.assert_close(hook.learnt, loss.shift.detach())
    x = curves(77).inputs
    torch.testing.assert_close(trained.run(x)[0], expected.run(x)[0])
