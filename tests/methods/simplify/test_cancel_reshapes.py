"""Chains that only move numbers become one call or none, and move every number where it was."""

import itertools
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from slimline.methods.simplify.cancel_reshapes import CancelReshapes, composed, only_moves_ones
from tests.methods.simplify.equality import Does, applied, count, network_of


def test_two_permutations_in_turn_are_one() -> None:
    """Against torch, for every pair of orders of four axes."""
    x = torch.arange(2 * 3 * 5 * 7).view(2, 3, 5, 7)
    for first, second in itertools.product(itertools.permutations(range(4)), repeat=2):
        assert torch.equal(x.permute(first).permute(second), x.permute(composed(list(first), list(second))))


def test_a_permutation_of_ones_keeps_the_order_of_numbers() -> None:
    """Against the numbers themselves, for every order of the axes of (1, 3, 1, 2)."""
    x = torch.arange(6).view(1, 3, 1, 2)
    for order in itertools.permutations(range(4)):
        kept = torch.equal(x.permute(order).reshape(-1), torch.arange(6))
        assert only_moves_ones(list(order), list(x.shape)) is kept


CHAINS: list[tuple[Callable[[Tensor], Tensor], tuple[int, ...], tuple[str, ...]]] = [
    (lambda x: x.permute(0, 2, 3, 1).permute(0, 3, 1, 2), (2, 3, 4), ()),
    (lambda x: x.transpose(1, 2).transpose(2, 1), (2, 3, 4), ()),
    (lambda x: x.transpose(1, 2).mT, (2, 3), ()),
    (lambda x: x.transpose(0, 1).transpose(0, 1), (2, 3), ()),
    (lambda x: x.permute(0, 2, 3, 1).permute(0, 2, 3, 1).permute(0, 2, 3, 1), (2, 3, 4), ()),
    (lambda x: x.permute(0, 2, 3, 1).permute(0, 2, 3, 1), (2, 3, 4), ("permute",)),
    (lambda x: x.transpose(1, 2).transpose(2, 3), (2, 3, 4), ("permute",)),
    (lambda x: x.transpose(0, 1).permute(1, 3, 0, 2), (2, 3, 4), ("permute",)),
    (lambda x: x.unsqueeze(1).squeeze(1), (2, 3), ()),
    (lambda x: x.flatten(1).view(-1, 2, 3), (2, 3), ()),
    (lambda x: x.flatten(1).unflatten(1, (2, 3)), (2, 3), ()),
    (lambda x: x.flatten(0, 1).view(-1, 2, 3), (2, 3), ()),
    (lambda x: x.view(x.shape[0], 3, 2).flatten(1), (2, 3), ("reshape",)),
    (lambda x: x.flatten(0, 1).unsqueeze(1).view(-1, 1, 2, 3), (2, 3), ("reshape",)),
    (lambda x: x.reshape(-1).view(x.shape[0], -1), (2, 3), ("reshape",)),
    (lambda x: x.unsqueeze(1).unsqueeze(2).squeeze(1), (2, 3), ("reshape",)),
    (lambda x: x.mean((2, 3), keepdim=True).permute(0, 2, 3, 1).flatten(1), (4, 3, 3), ("mean", "reshape")),
    (lambda x: x.unsqueeze(1).transpose(1, 2).squeeze(2), (2, 3), ()),
    # two operators of two kinds, and numbers that end up elsewhere
    (lambda x: x.transpose(1, 2).flatten(1), (2, 3), ("transpose", "flatten")),
    (lambda x: x.flatten(2).transpose(1, 2), (2, 3, 4), ("flatten", "transpose")),
    (lambda x: x.transpose(1, 2).reshape(-1, 2, 3), (2, 3), ("transpose", "reshape")),
    (lambda x: x.transpose(1, 2).relu().transpose(1, 2), (2, 3), ("transpose", "relu", "transpose")),
    (lambda x: x.permute(0, 2, 3, 1).reshape(-1, 2, 3, 3), (2, 3, 3), ("permute", "reshape")),
]


@pytest.mark.parametrize(("does", "shape", "left"), CHAINS)
def test_a_chain_becomes(does: Callable[[Tensor], Tensor], shape: tuple[int, ...], left: tuple[str, ...]) -> None:
    network = network_of(Does(lambda x: does(x * 2) + 1), *shape)
    outcome = applied(CancelReshapes(), network)
    calls = count(outcome.network) - count(outcome.network, "sym_size", "mul", "add")
    assert calls == len(left) and count(outcome.network, *set(left), "mul", "add") == len(left) + 2
    assert bool(outcome.changed) == (count(network) > count(outcome.network))


def test_what_is_read_in_between_stays_unless_nothing_is_left_of_the_chain() -> None:
    network = network_of(Does(lambda x: (y := (x * 2).permute(0, 2, 3, 1)).permute(0, 2, 3, 1) + y.sum()), 2, 2, 2)
    outcome = applied(CancelReshapes(), network)
    assert not outcome.changed and outcome.skipped == {"permute_1": "permute is read by other operators too"}
    network = network_of(Does(lambda x: (y := (x * 2).flatten(1)).unsqueeze(2) + y.sum()), 2, 3)
    outcome = applied(CancelReshapes(), network)
    assert not outcome.changed and outcome.skipped == {"unsqueeze": "flatten is read by other operators too"}
    network = network_of(Does(lambda x: (y := (x * 2).flatten(1)).view(-1, 2, 3) + y.sum()), 2, 3)
    outcome = applied(CancelReshapes(), network)
    assert count(outcome.network, "view") == 0 and count(outcome.network, "flatten") == 1
    network = network_of(Does(lambda x: (y := (x * 2).transpose(1, 2)).transpose(1, 2) + y.sum()), 2, 3)
    assert count(applied(CancelReshapes(), network).network, "transpose") == 1


def test_a_shape_with_the_batch_on_two_axes_is_not_written() -> None:
    def square(x: Tensor) -> Tensor:
        return (x.unsqueeze(0) - x.unsqueeze(1)).flatten(0, 1).view(x.shape[0], x.shape[0], 1, -1) + 1

    outcome = applied(CancelReshapes(), network_of(Does(square), 3))
    assert outcome.skipped == {"view": "its shape for any batch cannot be written with one -1"}


def test_squeezing_all_axes_of_one_is_left_alone() -> None:
    """For one sample it drops the batch too."""
    network = network_of(Does(lambda x: x.unsqueeze(1).squeeze(1) + 1), 4)
    (squeeze,) = network.module.graph.find_nodes(op="call_function", target=torch.ops.aten.squeeze.dim)
    squeeze.target, squeeze.args = torch.ops.aten.squeeze.default, squeeze.args[:1]
    network.module.recompile()
    assert not CancelReshapes().apply(network).changed


def test_memory_in_another_order_is_no_obstacle() -> None:
    network = network_of(Does(lambda x: (x.transpose(1, 2) * 2).reshape(-1, 12).view(-1, 4, 3).view(-1, 12)), 3, 4)
    assert count(applied(CancelReshapes(), network).network, "reshape") == 1


def test_an_output_that_is_the_input_is_still_computed() -> None:
    for does in (lambda x: x.transpose(1, 2).transpose(1, 2), lambda x: x.unsqueeze(1).squeeze(1)):
        outcome = applied(CancelReshapes(), network_of(Does(does), 2, 3))
        assert list(outcome.skipped.values()) == ["an output cannot be an input itself"] and not outcome.changed
