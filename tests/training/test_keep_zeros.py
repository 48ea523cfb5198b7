"""Zeros stay, and the others learn as if there were no more weights than those."""

import pytest
import torch
from torch import nn

from slimline.network.network import Network
from slimline.training.keep_zeros import KeepZeros, zeros_to_keep
from slimline.training.plan import Plan
from slimline.training.recover import recover
from tests.training.small import Layers, Made, curves, differences, layers, module, squared


def with_zeros(share: float = 0.5) -> Network:
    """`Layers` of whose first weight a share is zero."""
    network = layers()
    weight = network.weights()["first.weight"].detach()
    weight.flatten()[torch.randperm(48, generator=torch.Generator().manual_seed(0))[: round(share * 48)]] = 0.0
    return network


def test_zeros_from_a_tenth_on_are_kept() -> None:
    """4 of 48 are less than a tenth, 5 are more; 9 of 90 are one, and 8 are none."""
    assert zeros_to_keep(with_zeros(4 / 48)) == {}
    (mask,) = zeros_to_keep(with_zeros(5 / 48)).values()
    assert int(mask.sum()) == 5
    for zeros in (8, 9):
        network = layers()
        network.weights()["second.weight"].data = torch.ones(9, 10)
        network.weights()["second.weight"].detach().flatten()[:zeros] = 0.0
        assert list(zeros_to_keep(network)) == (["second.weight"] if zeros == 9 else [])


def test_biases_buffers_and_weights_of_nothing_but_zeros_are_free() -> None:
    network = with_zeros(0.0)
    weights = network.weights()
    weights["first.bias"].detach().zero_()
    weights["second.weight"].detach().zero_()
    assert zeros_to_keep(network) == {}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_the_others_learn_as_if_there_were_no_more(optimizer: str) -> None:
    """Against a loop by hand whose gradients are zero where the weights are: those weights never move there."""
    model, plan = module(Layers), Plan(
        12, 0.05, schedule="constant", weight_decay=0, gradient_norm=1e9, optimizer=optimizer
    )  # fmt: skip
    assert isinstance(model, Layers)
    model.first.weight.data.copy_(with_zeros().weights()["first.weight"])
    hook = KeepZeros(zeros_to_keep(with_zeros()))
    trained, _ = recover(with_zeros(), Made(curves), squared, plan, hooks=[hook])
    by_hand: torch.optim.Optimizer = torch.optim.AdamW(model.parameters(), 0.05, weight_decay=0)
    if optimizer == "sgd":
        by_hand = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, nesterov=True)
    mask = model.first.weight.detach() == 0
    for step in range(12):
        batch = curves(step)
        by_hand.zero_grad()
        nn.MSELoss()(model(batch.inputs["x"]), batch.targets[0]).backward()
        assert model.first.weight.grad is not None
        model.first.weight.grad.masked_fill_(mask, 0.0)
        by_hand.step()
    for name, expected in model.state_dict().items():
        torch.testing.assert_close(trained.weights()[name].detach(), expected, rtol=1e-4, atol=1e-5)
    assert int((trained.weights()["first.weight"] == 0).sum()) == 24


@pytest.mark.parametrize("ema", [0.0, 0.9])
def test_without_it_they_are_gone_and_with_it_they_stay(ema: float) -> None:
    plan = Plan(10, 0.05, ema=ema)
    hook = KeepZeros(zeros_to_keep(with_zeros()))
    (mask,) = hook.masks.values()
    kept, curve = recover(with_zeros(), Made(curves), squared, plan, hooks=[hook])
    free, _ = recover(with_zeros(), Made(curves), squared, plan)
    assert torch.equal(kept.weights()["first.weight"] == 0, mask) and curve.sparsity == [24 / 80]
    assert not (free.weights()["first.weight"] == 0).any()
    assert "first.weight" in differences(kept, with_zeros()) and "second.weight" in differences(kept, with_zeros())


def test_it_tells_how_many() -> None:
    assert KeepZeros(zeros_to_keep(with_zeros())).told() == "24 weights that are zero stay zero, of first.weight"


def test_it_is_known_by_what_it_keeps() -> None:
    """A checkpoint of a run without it is not continued; the numbers of zeros belong to the network."""
    one, other = KeepZeros(zeros_to_keep(with_zeros())), KeepZeros({})
    assert one.identity != other.identity
    assert one.identity == KeepZeros(zeros_to_keep(with_zeros(0.3))).identity
