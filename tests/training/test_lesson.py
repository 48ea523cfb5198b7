"""A lesson is the network and its loss in one module."""

import math

import pytest
import torch
from torch import Tensor, nn

from slimline.network.trace import trace
from slimline.training.batch import Batch
from slimline.training.lesson import Lesson, autocast
from slimline.training.plan import Plan
from slimline.training.recover import recover
from tests.training.small import Layers, Made, curves, distance, layers, module, squared

CPU = torch.device("cpu")


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_the_loss_is_that_of_the_outputs_in_float32(precision: str) -> None:
    seen: list[torch.dtype] = []

    def loss(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        seen.append(outputs[0].dtype)
        return squared(outputs, batch)

    lesson, batch = Lesson(layers(), loss, precision, CPU, False), curves(0)
    value = lesson(batch)
    expected = float((module(Layers)(batch.inputs["x"]) - batch.targets[0]).detach().square().mean())
    assert value.dtype is torch.float32 and seen == [torch.float32]
    assert value.item() == pytest.approx(expected, rel=1e-6 if precision == "fp32" else 0.02)
    assert (value.item() == pytest.approx(expected, rel=1e-6)) == (precision == "fp32")


def test_products_run_in_the_precision_and_no_longer_than_that() -> None:
    x = torch.ones(4, 4)
    for precision, dtype in (("fp32", torch.float32), ("bf16", torch.bfloat16), ("fp16", torch.float16)):
        with autocast(precision):
            assert (x @ x).dtype is dtype
        assert (x @ x).dtype is torch.float32


def test_outputs_of_whole_numbers_are_left_out_and_the_order_of_the_inputs_is_the_networks() -> None:
    class Several(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, a: Tensor, b: Tensor) -> tuple[Tensor, ...]:
            return (a - b).argmax(1), self.scale * (a - b), a.sum(1)

    seen: list[tuple[Tensor, ...]] = []

    def loss(outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
        seen.append(outputs)
        return outputs[0].mean()

    a, b = torch.randn(2, 3, 2), torch.randn(2, 3, 2)
    network = trace(Several(), {"a": torch.randn(3, 2), "b": torch.randn(3, 2)})
    Lesson(network, loss, "fp32", CPU, False)(Batch({"b": b[0], "a": a[0]}, ()))
    (outputs,) = seen
    assert len(outputs) == 2 and torch.equal(outputs[0], 2 * (a[0] - b[0])) and torch.equal(outputs[1], a[0].sum(1))


def test_every_weight_is_there_once_those_of_the_loss_too() -> None:
    class Scaled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(math.pi))

        def forward(self, outputs: tuple[Tensor, ...], batch: Batch) -> Tensor:
            return self.scale * squared(outputs, batch)

    network, loss = layers(), Scaled()
    lesson = Lesson(network, loss, "fp32", CPU, False)
    expected = [*network.module.parameters(), loss.scale]
    assert {id(p) for p in lesson.parameters()} == {id(p) for p in expected}
    assert len(list(lesson.parameters())) == len(expected)
    lesson(curves(0)).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in expected)
    without = Lesson(network, squared, "fp32", CPU, False)
    assert len(list(without.parameters())) == len(expected) - 1


def test_images_reach_the_network_channels_last() -> None:
    network, strides = trace(nn.Conv2d(3, 4, 3), {"input": torch.randn(2, 3, 8, 8)}), list[tuple[int, ...]]()
    network.module.register_forward_pre_hook(lambda _, given: strides.append(given[0].stride()))
    batch = Batch({"input": torch.randn(5, 3, 8, 8)}, (torch.zeros(5, 4, 6, 6),))
    Lesson(network, squared, "fp32", CPU, False)(batch)
    assert strides == [(192, 1, 24, 3)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.torch.jit.script:DeprecationWarning")  # torch.compile uses it itself
def test_a_compiled_network_learns_the_same() -> None:
    plan = Plan(10, 0.05)
    eager, _ = recover(layers(), Made(curves), squared, plan)
    compiled, _ = recover(layers(), Made(curves), squared, Plan(10, 0.05, compiled=True))
    assert distance(eager, compiled) < 1e-5 < 0.01 < distance(eager, layers())
