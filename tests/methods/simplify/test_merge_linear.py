"""Merged layers give what the two gave, also at the borders of a padded image, and never cost more."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from slimline.methods.simplify.merge_linear import MergeLinear, merged, with_groups
from slimline.network.cost import macs
from tests.methods.simplify.equality import Constant, Does, applied, count, network_of


def test_the_equation_against_loops() -> None:
    rng = np.random.default_rng(0)
    first, second = rng.normal(size=(2, 3, 4, 1)), rng.normal(size=(2, 5, 3, 6))
    b1, b2 = rng.normal(size=6), rng.normal(size=10)
    weight, bias = merged(*(torch.from_numpy(a) for a in (first, b1, second, b2)))
    for g in range(2):
        for o in range(5):
            reached = sum(second[g, o, m, k] * b1[g * 3 + m] for m in range(3) for k in range(6))
            np.testing.assert_allclose(bias[g * 5 + o], b2[g * 5 + o] + reached)
            for c in range(4):
                for k in range(6):
                    expected = sum(second[g, o, m, k] * first[g, m, c, 0] for m in range(3))
                    np.testing.assert_allclose(weight[g, o, c, k], expected)


@pytest.mark.parametrize("groups", [1, 2, 4])
def test_fewer_groups_compute_the_same(groups: int) -> None:
    blocks = torch.randn(4, 3, 2, 9)
    x = torch.randn(1, 8, 5, 5)
    few = with_groups(blocks, groups).reshape(12, -1, 3, 3)
    torch.testing.assert_close(
        F.conv2d(x, few, groups=groups), F.conv2d(x, blocks.reshape(12, 2, 3, 3), groups=4), rtol=1e-4, atol=1e-5
    )


def pair(x: Tensor, one: nn.Module, other: nn.Module) -> Tensor:
    result: Tensor = other(one(x))
    return result


MERGES: list[tuple[tuple[int, ...], nn.Module, nn.Module]] = [
    ((6,), nn.Linear(6, 8), nn.Linear(8, 3)),
    ((5, 6), nn.Linear(6, 8, bias=False), nn.Linear(8, 3)),
    ((6,), nn.Linear(6, 8), nn.Linear(8, 3, bias=False)),
    ((6,), nn.Linear(6, 8, bias=False), nn.Linear(8, 3, bias=False)),
    ((4, 8, 8), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 3, 1)),
    ((4, 8, 8), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 3, 3)),
    ((4, 8, 8), nn.Conv2d(4, 8, 1, bias=False), nn.Conv2d(8, 3, 3, padding=1)),
    ((4, 8, 8), nn.Conv2d(4, 8, 1, bias=False), nn.Conv2d(8, 3, (3, 5), padding="same")),
    ((4, 8, 8), nn.Conv2d(4, 8, 1, bias=False), nn.Conv2d(8, 3, 3, padding=2, dilation=2, stride=2)),
    ((4, 9, 9), nn.Conv2d(4, 16, 1, stride=2, bias=False), nn.Conv2d(16, 3, 3, padding=1, dilation=(1, 2))),
    ((4, 8, 9), nn.Conv2d(4, 16, 1, stride=(2, 3)), nn.Conv2d(16, 3, 2, stride=2)),
    ((4, 8, 8), nn.Conv2d(4, 8, 3, padding=1), nn.Conv2d(8, 3, 1)),
    ((4, 8, 8), nn.Conv2d(4, 8, 3, padding=(2, 0), dilation=2, stride=2), nn.Conv2d(8, 3, 1, bias=False)),
    ((4, 9, 9), nn.Conv2d(4, 8, 3, padding="same", bias=False), nn.Conv2d(8, 3, 1, stride=2)),
    ((4, 8, 8), nn.Conv2d(4, 8, 1, padding=1), nn.Conv2d(8, 3, 1)),
    ((4, 8, 8), nn.Conv2d(4, 8, 3, groups=2), nn.Conv2d(8, 4, 1, groups=2)),
    ((4, 8, 8), nn.Conv2d(4, 16, 1, groups=4), nn.Conv2d(16, 4, 1, groups=2)),
    ((4, 9), nn.Conv1d(4, 8, 1), nn.Conv1d(8, 3, 3)),
    ((4, 4, 4, 4), nn.Conv3d(4, 8, 1), nn.Conv3d(8, 3, 2)),
]


@pytest.mark.parametrize(("shape", "one", "other"), MERGES)
def test_two_layers_become_one_that_costs_no_more(shape: tuple[int, ...], one: nn.Module, other: nn.Module) -> None:
    network = network_of(Does(pair, one, other), *shape)
    outcome = applied(MergeLinear(), network)
    assert outcome.changed == ["parts.0 and parts.1"] and count(outcome.network) == 1
    assert macs(outcome.network) <= macs(network)
    assert len(outcome.network.weights()) == 1 + any(layer.bias is not None for layer in (one, other))


STAYS: list[tuple[tuple[int, ...], nn.Module, nn.Module, str]] = [
    ((4, 8, 8), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 3, 3, padding=1), "the zeros that conv2d_1 pads with"),
    ((4, 8, 8), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 3, 3, padding="same"), "the zeros that conv2d_1 pads with"),
    ((4, 8, 8), nn.Conv2d(4, 8, 1), nn.Conv2d(8, 3, 1, padding=1), "the zeros that conv2d_1 pads with"),
    ((4, 8, 8), nn.Conv2d(4, 8, 3), nn.Conv2d(8, 3, 1, padding=1), "neither kernel has size 1 without padding"),
    ((4, 8, 8), nn.Conv2d(4, 8, 1, padding=1), nn.Conv2d(8, 3, 3), "neither kernel has size 1 without padding"),
    ((4, 8, 8), nn.Conv2d(4, 8, 3), nn.Conv2d(8, 3, 3), "neither kernel has size 1 without padding"),
    ((6,), nn.Linear(6, 2), nn.Linear(2, 6), "would need 36 multiply-adds per sample, and the two need 24"),
    ((4, 8, 8), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3, groups=4), "would need"),
    ((4, 8, 8), nn.Conv2d(4, 2, 3, padding=1, bias=False), nn.Conv2d(2, 9, 1), "would need"),
    ((4, 3, 4), nn.Conv2d(4, 4, 1), nn.Linear(4, 3), "are layers of two kinds"),
]


@pytest.mark.parametrize(("shape", "one", "other", "why"), STAYS)
def test_what_stays_two_layers_and_why(shape: tuple[int, ...], one: nn.Module, other: nn.Module, why: str) -> None:
    network = network_of(Does(pair, one, other), *shape)
    outcome = applied(MergeLinear(), network)
    (reason,) = outcome.skipped.values()
    assert not outcome.changed and why in reason and count(outcome.network) == 2


def test_a_bias_of_zeros_is_none() -> None:
    one = nn.Conv2d(4, 8, 1)
    nn.init.zeros_(one.bias)
    assert applied(MergeLinear(), network_of(Does(pair, one, nn.Conv2d(8, 3, 3, padding=1)), 4, 8, 8)).changed


READ: list[tuple[Callable[..., Tensor | tuple[Tensor, ...]], str]] = [
    (lambda x, a, b: b(y := a(x)) + y, "read by other operators too"),
    (lambda x, a, b: (b(y := a(x)), y), "read by other operators too"),
    (lambda x, a, b: b(a(x)) + a(x.relu()), "shared or computed"),
    (lambda x, a, b: b(b(x)), "shared or computed"),
]


@pytest.mark.parametrize(("does", "why"), READ)
def test_a_value_or_a_weight_with_other_readers_stays(does: Callable[..., Tensor], why: str) -> None:
    outcome = applied(MergeLinear(), network_of(Does(does, nn.Linear(4, 4), nn.Linear(4, 4)), 4))
    assert not outcome.changed and why in next(iter(outcome.skipped.values()))


def test_a_chain_becomes_one_layer() -> None:
    layers = [nn.Linear(4, 9), nn.Linear(9, 9), nn.Linear(9, 9), nn.Linear(9, 4)]
    network = network_of(Does(lambda x, *layers: nn.Sequential(*layers)(x), *layers), 4)
    outcome = applied(MergeLinear(), network)
    assert count(outcome.network) == 1 and len(outcome.changed) == 3


SCALARS: list[tuple[Callable[..., Tensor], int]] = [
    (lambda x, c: x * 2 * 3, 1),
    (lambda x, c: x / 3 * 3 / 2, 1),
    (lambda x, c: x.neg().neg(), 1),
    (lambda x, c: x + 1 + 2, 1),
    (lambda x, c: torch.add(x, 1, alpha=2) + 3, 1),
    (lambda x, c: x - 1 - 2, 1),
    (lambda x, c: x * c() * 2, 1),
    (lambda x, c: x * 2 + 3, 2),
    (lambda x, c: (x + 3) * 2, 2),
    (lambda x, c: (x + 2.0**52) - 2.0**52, 2),
    (lambda x, c: x * 1e-200 * 1e-200 * 1e200, 2),
    (lambda x, c: (y := x * 2) * 3 + y, 3),
    (lambda x, c: c() / (x.abs() + 2) / 2, 4),
]


@pytest.mark.parametrize(("does", "left"), SCALARS)
def test_numbers_in_turn_become_one_unless_that_is_another_number(does: Callable[..., Tensor], left: int) -> None:
    network = network_of(Does(does, Constant(torch.tensor([0.7]))), 4)
    outcome = applied(MergeLinear(), network)
    assert count(outcome.network) == left and bool(outcome.changed) == (left < count(network))


def test_adding_and_subtracting_a_large_number_still_rounds() -> None:
    network = network_of(Does(lambda x: (x + 1.5 * 2.0**52) - 1.5 * 2.0**52), 2)
    x = torch.tensor([[0.4, 2.6]], dtype=torch.float64)
    assert MergeLinear().apply(network).network.run({"x": x})[0].tolist() == [[0.0, 3.0]]
